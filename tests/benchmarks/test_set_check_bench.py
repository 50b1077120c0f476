"""The benchmark of the check of calibration sets counts what it says."""

import numpy as np

from benchmarks.set_check.__main__ import SIZES, broken_row, honest_row, named, shipped_sets
from benchmarks.set_check.kinds import BROKEN, HONEST, Drawn, kappa, weak
from trueprob import CalibrationSet, check_set


def test_shipped_sets_fill_the_table():
    sets = shipped_sets()[:1]
    assert len(BROKEN) == 12
    row = dict(zip(BROKEN, (broken_row(kind, sets, 1) for kind in BROKEN), strict=True))
    assert row["off by one"] == ["off by one", "100.0", "100.0", "100.0", "100.0", "–", "–"]
    assert row["30 % random labels"][1::2] == ["0.0", "0.0", "–"]
    assert row["logits as probabilities"][1] == "100.0"
    for kind in HONEST:
        cells = honest_row(kind, sets, 2, range(2, 100))[1:]
        assert len(cells) == len(SIZES)
        assert all(cell.startswith(("0.00", "–")) for cell in cells)


def test_only_the_right_repair_counts():
    data = shipped_sets()[0]
    logits, labels = data.val_logits, data.val_labels
    given = (labels + 1) % 10
    findings = check_set(CalibrationSet(logits, given))
    assert named(Drawn({"logits": logits, "labels": given}, labels), findings)
    assert not named(Drawn({"logits": logits, "labels": given}, given), findings)


def test_weak_networks_agree_by_a_third():
    rows = weak(shipped_sets()[0], 400, np.random.default_rng(0))
    assert rows is not None
    assert 0.25 < kappa(rows.logits, rows.labels) < 0.4
