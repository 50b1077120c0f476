"""Two services on one PostgreSQL while promotions come every tenth of a second."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from tests.running_service import running_service
from tests.trueprob_service.control.harness import SECRET
from trueprob import CalibrationSet, TemperatureCalibrator
from trueprob.client import Client, Prediction
from trueprob_service.control.store import open_store
from trueprob_service.receipts.receipt import Receipts
from trueprob_service.receipts.secrets import ReceiptKey

SECONDS = 1.5
LOGITS = np.random.default_rng(0).normal(0.0, 2.0, (20, 3)).astype(np.float32)


def calibrators(client: Client) -> list[str]:
    """Three temperatures, all fitted, the last of them live."""
    rng = np.random.default_rng(1)
    found = []
    for sharpness in (0.5, 2.0, 4.0):
        logits = rng.normal(0.0, 2.0, (200, 3))
        labels = np.argmax(logits + rng.gumbel(size=logits.shape), axis=1)
        rows = CalibrationSet((sharpness * logits).astype(np.float32), labels)
        fit = client.upload("m", rows, method="temperature", promote="always", wait_seconds=60)
        assert fit.calibrator is not None
        found.append(fit.calibrator)
    return found


@pytest.mark.integration
def test_answers_are_of_one_calibrator_and_labels_count_once_wherever_they_go(
    new_postgres_url: Callable[[], str], tmp_path: Path
) -> None:
    url = new_postgres_url()
    # One input, sent over and over: its cap is not what is tried here.
    uncapped = ("--labels-per-input", "0")
    shared = ("--database-url", url, "--receipt-secrets", SECRET)
    flags = (*shared, "--poll-seconds", "0.1", *uncapped)
    answers: dict[str, list[Prediction]] = {}
    failures: list[BaseException] = []
    stop = threading.Event()

    def predict(at: str) -> None:
        try:
            with Client(at) as client:
                while not stop.is_set():
                    answers[at].append(client.predict("m", logits=LOGITS))
        except BaseException as error:  # noqa: BLE001 - reported by the test
            failures.append(error)

    with (
        running_service(tmp_path / "one", tmp_path / "models", *flags) as one,
        running_service(tmp_path / "two", tmp_path / "models", *flags) as two,
        Client(one.url) as first,
        Client(two.url) as second,
    ):
        first.declare("m", n_classes=3)
        ids = calibrators(first)
        answers |= {one.url: [], two.url: []}
        threads = [threading.Thread(target=predict, args=(at,)) for at in answers for _ in range(2)]
        for thread in threads:
            thread.start()
        deadline, step = time.monotonic() + SECONDS, 0
        while time.monotonic() < deadline:
            # By turns here and there; each is based on what is live, whoever made it so.
            client = (first, second)[step % 2]
            revision = first.promotions("m")[0].revision
            client.promote("m", ids[step % 3], revision=revision, force=True)
            step += 1
            time.sleep(0.1)
        stop.set()
        for thread in threads:
            thread.join()
        assert failures == []

        history = {row.revision: row.calibrator for row in second.promotions("m")}
        known = {each: first.calibrator("m", each) for each in ids}
        assert all(isinstance(each, TemperatureCalibrator) for each in known.values())
        expected = {each: known[each].predict_proba(LOGITS) for each in ids}
        for at in answers:
            for answer in answers[at]:
                assert np.array_equal(answer.probabilities, expected[answer.calibrator])
                assert history[answer.revision or 0] == answer.calibrator
            assert len({answer.revision for answer in answers[at]}) > 3

        swapped = {one.url: second, two.url: first}
        sent = {at: [i for a in answers[at] for i in a.prediction_ids or ()] for at in answers}
        for at, other in swapped.items():
            assert other.label("m", sent[at], [0] * len(sent[at])).accepted == len(sent[at])
        for at, home in ((one.url, first), (two.url, second)):
            assert home.label("m", sent[at], [0] * len(sent[at])).duplicate == len(sent[at])

    store = open_store(url)
    receipts = Receipts([ReceiptKey.from_secret(SECRET)], clock=time.time).verify_all(
        [*sent[one.url], *sent[two.url]]
    )
    with store.read() as transaction:
        counted = sum(float(t.labels.n) for t in transaction.bins.running().values())
    store.close()
    assert receipts.genuine.all()
    assert len(set(receipts.nonce_bytes)) == len(receipts)
    assert counted == len(receipts)
