"""The benchmark of the check of calibration sets counts what it says."""

import numpy as np
import pytest

from benchmarks.calibration.report import write_section
from benchmarks.set_check.__main__ import (
    DOCUMENT,
    PARTS,
    SIZES,
    broken_row,
    honest_row,
    named,
    outcome,
    shipped_sets,
)
from benchmarks.set_check.broken import BROKEN, OTHER_INPUTS, Drawn
from benchmarks.set_check.honest import HONEST, kappa, weak
from trueprob import CalibrationSet, check_set


def test_every_part_has_its_place_in_the_document(tmp_path):
    copy = tmp_path / "benchmarks.md"
    copy.write_text(DOCUMENT.read_text("utf-8"), "utf-8")
    for name in PARTS:
        write_section(copy, name, f"{name} was here", benchmark="set-check")
        assert f"{name} was here" in copy.read_text("utf-8")


def test_shipped_sets_fill_the_table():
    sets = shipped_sets()[:1]
    row = {kind: broken_row(kind, breaker, sets, 1) for kind, breaker in BROKEN.items()}
    assert row["off by one"] == ["off by one", "100.0", "100.0", "100.0", "100.0", "–", "–"]
    assert row["30 % random labels"][1::2] == ["0.0", "0.0", "–"]
    assert row["one class only"][1::2] == ["100.0", "100.0", "–"]
    for kind, maker in HONEST.items():
        cells = honest_row(kind, maker, sets, 2)
        assert cells is not None
        assert len(cells) == 1 + len(SIZES)
        assert all(cell.startswith(("0.00", "–")) for cell in cells[1:])


@pytest.mark.parametrize("kind", [kind for kind in {**BROKEN, **OTHER_INPUTS} if " as " in kind])
def test_numbers_under_a_wrong_name_are_held_with_the_right_one(kind):
    sets = shipped_sets()[:1]
    drawn = {**BROKEN, **OTHER_INPUTS}[kind](sets[0], 200, np.random.default_rng(0), sets)
    if drawn is None:  # sorted as text: too few classes
        assert "sorted" in kind
        return
    assert outcome(drawn) == (True, True)


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
