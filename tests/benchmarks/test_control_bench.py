"""The control benchmark's parts fit together; no time is asserted."""

from contextlib import closing
from pathlib import Path

import numpy as np
import pytest

from benchmarks.calibration.report import write_section
from benchmarks.control.__main__ import DOCUMENT, PARTS, parse
from benchmarks.control.admission import EQUAL, WORSE, Share, admitted
from benchmarks.control.bare_inserts import BareSQLite
from benchmarks.control.labels import KEEP_SECONDS, NONCE, row_of
from benchmarks.control.scrape import measure
from benchmarks.control.synthetic_truth import Condition, inverse_temperature
from trueprob_service.receipts.receipt import Receipts, digest64
from trueprob_service.receipts.secrets import ReceiptKey


def test_every_part_has_its_place_in_the_document(tmp_path: Path) -> None:
    copy = tmp_path / "benchmarks.md"
    copy.write_text(DOCUMENT.read_text("utf-8"), "utf-8")
    for name in PARTS:
        write_section(copy, name, f"{name} was here", benchmark="control")
    assert all(f"{name} was here" in copy.read_text("utf-8") for name in PARTS)
    assert parse(["--only", "labels", "--small"]).small


@pytest.mark.slow
@pytest.mark.parametrize("loss", [0.02, -0.02, 0.1])
def test_a_calibrator_is_wrong_by_the_nats_that_are_said(loss: float) -> None:
    condition = Condition("", "identity", loss, 0.0)
    incumbent, rows = condition.draw(200_000, seed=3)
    at = np.arange(rows.n), rows.labels
    candidate = rows.logits - np.log(np.exp(rows.logits).sum(axis=1, keepdims=True))
    difference = np.log(incumbent.predict_proba(rows.logits)[at]) - candidate[at]
    error = difference.std() / np.sqrt(rows.n)
    assert abs(difference.mean() - abs(loss)) < 4 * error
    assert (inverse_temperature(loss) > 1) is (loss > 0)


def test_a_much_better_candidate_is_admitted_and_a_much_worse_one_is_not() -> None:
    better = Condition("", "identity", 0.0, 0.3)
    worse = Condition("", "identity", 0.3, 0.0)
    assert admitted(better, 400, range(4)) == 4
    assert admitted(worse, 400, range(4)) == 0
    assert {c.gain for c in WORSE} == {-0.02}
    assert {c.gain for c in EQUAL} == {0.0}


def test_a_share_is_shown_with_its_error() -> None:
    found = Share(30, 300)
    assert found.value == 0.1
    assert found.text == "10.0 ± 1.7"
    assert Share(0, 100).text == "0.0 ± 1.0"


def test_the_bare_rows_are_those_of_the_receipts(tmp_path: Path) -> None:
    receipts = Receipts([ReceiptKey(1, bytes(32))], clock=lambda: 1.0)
    ids = receipts.issue(
        model=digest64("m"),
        version=1,
        revision=1,
        class_list=digest64("c"),
        prediction=np.arange(700),
        confidence=np.full(700, 0.5),
    )
    rows = [row_of(text) for text in ids]
    assert [nonce for nonce, _ in rows] == [receipts.verify(text).nonce for text in ids]
    assert NONCE.stop - NONCE.start == 24
    assert min(until for _, until in rows) > KEEP_SECONDS
    with closing(BareSQLite(tmp_path / "bare.sqlite3")) as bare:
        assert bare.by_rows(rows[:10]) > 0
        assert bare.by_statements(rows[10:]) > 0


def test_a_scrape_of_models_with_a_past_is_measured() -> None:
    full, summary = (measure(2, 3, detail, 1) for detail in ("full", "summary"))
    assert full.series > summary.series > 2
    assert len(full.busy) == len(full.quiet) == 1
