"""The short version of ``benchmarks.crash``, and that its ledger notices what is wrong."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from benchmarks.crash.database import judged_revision
from benchmarks.crash.ledger import Batch, Ledger, differences, exported, falls
from benchmarks.crash.rounds import CrashTest
from benchmarks.crash.service_process import ServiceProcess
from benchmarks.crash.traffic import MODEL, Outcome, Traffic, is_current
from trueprob.client import Client, FitSummary, ModelDescription, Prediction


@pytest.mark.integration
def test_what_was_acknowledged_survives_kill_9_and_counts_once(
    database_url: str, tmp_path: Path
) -> None:
    sqlite = database_url.startswith("sqlite")
    test = CrashTest(tmp_path, database_url, seed=1)
    # The sweep takes two starts more and is the same statements on either database.
    outcome = test.run(2 if sqlite else 1, wait_for_fits=False, with_sweep=sqlite)
    assert outcome.faults == []
    assert outcome.rounds == (2 if sqlite else 1)
    assert outcome.labels > 0
    assert outcome.rotations > 0
    assert outcome.rows > 0
    assert outcome.uploads > 0


@pytest.mark.integration
def test_an_upload_sent_again_is_its_first_fit_until_another_pair_is_live(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path}/state/trueprob.sqlite3"
    outcome, rng = Outcome(), np.random.default_rng(0)
    traffic = Traffic(outcome, lambda fit: judged_revision(url, fit))
    service = ServiceProcess(tmp_path / "state", "--database-url", url)
    try:
        with Client(service.url, timeout_seconds=30) as client:
            client.declare(MODEL, n_classes=3)
            logits = rng.normal(0.0, 2.0, (2, 300, 3)).astype(np.float32)
            one, two = ({"logits": rows, "labels": np.argmax(rows, axis=1)} for rows in logits)
            asked = {"method": "temperature", "promote": "always", "wait_seconds": 20.0}
            # As if the answers had been lost.
            first = client.upload(MODEL, one, **asked)
            traffic.add_pending(one, "always")
            traffic.send_pending(client)
            assert traffic.acknowledged_fits == {first.fit}
            assert outcome.second_fits == 0
            traffic.acknowledged_fits.clear()
            client.upload(MODEL, two, **asked)
            traffic.add_pending(one, "always")
            traffic.send_pending(client)
            assert traffic.replaced_fits == {first.fit}
            assert first.fit not in traffic.acknowledged_fits
            assert outcome.second_fits == 1
    finally:
        service.kill()
    assert outcome.faults == []


@pytest.mark.parametrize(
    ("state", "calibrator", "judged", "current"),
    [
        ("queued", None, None, True),
        ("running", None, None, True),
        ("failed", None, None, False),
        ("done", "live", 2, True),
        ("done", "other", 3, True),
        ("done", "other", 2, False),
    ],
)
def test_a_fit_is_current_while_its_request_would_be_answered_with_it(
    state: str, calibrator: str | None, judged: int | None, current: bool
) -> None:
    live = ModelDescription("m", 1, "live", 3, 3, ("a", "b", "c"), True, (), ())
    fit = FitSummary("7", state, "sha256:0", 1, "temperature", 300, calibrator=calibrator)
    assert is_current(fit, live, judged) is current


def batch(confidence: list[float], prediction: list[int], labels: list[int]) -> Batch:
    ids = tuple(str(index) for index in range(len(labels)))
    answer = Prediction(
        "m", 1, "c", 1, np.zeros((len(labels), 3), np.float32), np.array(prediction), ids,
        np.array(confidence), None, None, ids,
    )  # fmt: skip
    return Batch(answer, tuple(labels))


def test_the_ledger_notices_a_label_that_is_lost_counted_twice_or_changed() -> None:
    one, two = batch([0.5, 0.9], [0, 1], [0, 2]), batch([0.9], [1], [1])
    wanted = Ledger([one, two]).totals()
    assert wanted == {("c", 7): (1.0, 0.5, 1.0), ("c", 13): (2.0, 1.8, 1.0)}
    assert list(differences(wanted, wanted)) == []
    for wrong in ([one], [one, two, two], [one, batch([0.9], [1], [2])]):
        assert list(differences(wanted, Ledger(wrong).totals()))
    evidence = Ledger([one, two]).evidence_log10(1, tolerance=0.02)
    assert Ledger([two, one]).evidence_log10(1, tolerance=0.02) == pytest.approx(evidence)
    for wrong in ([one], [one, two, two], [one, batch([0.9], [1], [2])]):
        assert abs(Ledger(wrong).evidence_log10(1, tolerance=0.02) - evidence) > 1e-3
    assert Ledger([one]).evidence_log10(2, tolerance=0.02) == pytest.approx(0.0)
    assert list(falls(wanted, wanted)) == []
    assert list(falls(wanted, Ledger([one]).totals()))


def test_exported_totals_are_read_as_prometheus_reads_them() -> None:
    text = (
        'trueprob_bin_labels_total{bin="13",calibrator="c",model="m",version="1"} 2.0\n'
        'trueprob_bin_confidence_total{bin="13",calibrator="c",model="m",version="1"} 1.8\n'
        'trueprob_bin_correct_total{bin="13",calibrator="c",model="m",version="1"} 1.0\n'
        'trueprob_bin_labels_total{bin="0",calibrator="c",model="m",version="1"} 0.0\n'
        'trueprob_bin_confidence_total{bin="0",calibrator="c",model="m",version="1"} 0.0\n'
        'trueprob_bin_correct_total{bin="0",calibrator="c",model="m",version="1"} 0.0\n'
    )
    assert exported(text, "m") == {("c", 13): (2.0, 1.8, 1.0)}
    assert exported(text, "another") == {}
