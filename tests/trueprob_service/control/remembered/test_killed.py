"""Predictions with ids and a real service that is killed: what may be lost, and what never is."""

from __future__ import annotations

import re
import secrets
from pathlib import Path

import numpy as np
import pytest

from benchmarks.crash.service_process import ServiceProcess
from tests.waiting import wait_until
from trueprob.client import Client

pytestmark = pytest.mark.integration


def remembered(client: Client) -> int:
    (found,) = re.findall(r"^trueprob_remembered_total\S* (\S+)$", client.metrics(), re.MULTILINE)
    return int(float(found))


def test_after_kill_9_written_predictions_are_found_and_acknowledged_labels_count_once(
    database_url: str, tmp_path: Path
) -> None:
    flags = ("--database-url", database_url, "--receipt-secrets", secrets.token_hex(16))
    logits = np.random.default_rng(0).normal(size=(90, 3)).astype(np.float32)
    labels = logits.argmax(axis=1).tolist()
    ids = [f"order-{number}" for number in range(90)]
    service = ServiceProcess(tmp_path / "state", *flags, "--remember-flush-seconds", "0.05")
    try:
        with Client(service.url, timeout_seconds=60) as client:
            client.declare("m", n_classes=3)
            for first in range(0, 60, 3):
                part = slice(first, first + 3)
                client.predict("m", logits=logits[part], ids=ids[part], receipts=False)
            # Nobody asks for it: they are written behind the answers.
            wait_until(lambda: remembered(client) == 60, "what is written by itself")
            counted = client.label_by_id("m", ids[:30], labels[:30])
            assert counted.accepted == 30
            client.predict("m", logits=logits[60:], ids=ids[60:], receipts=False)
    finally:
        service.kill()
    service = ServiceProcess(tmp_path / "state", *flags)
    try:
        with Client(service.url, timeout_seconds=60) as client:
            again = client.label_by_id("m", ids, labels, wait_seconds=0)
            lost = [each.index for each in again.outcomes if each.outcome == "unknown_id"]
            assert again.duplicate == 30
            # Only those of the last answer, which no flush may have seen; one group, all or none.
            assert lost in ([], list(range(60, 90)))
            assert again.accepted == 60 - len(lost)
            assert client.calibration("m").labels == 90 - len(lost)
    finally:
        service.kill()
