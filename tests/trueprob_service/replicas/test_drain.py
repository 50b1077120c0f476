"""SIGTERM ends no request, and a replica that hangs is replaced; real processes on a real port."""

from __future__ import annotations

import contextlib
import os
import signal
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from tests.running_service import ROOT, RunningService, running_service
from tests.waiting import is_running, wait_until

pytestmark = pytest.mark.integration
LOGITS = {"logits": [[0.1, 4.2, 0.3, 1.0, 0.0, 2.0, 1.1, 0.7, 0.2, 0.1]]}
PATH = "/v1/models/digits/probabilities"


class Clients:
    """Clients that keep their connections and send one request after another."""

    def __init__(self, url: str, n: int) -> None:
        self.answered = 0
        self.failed: list[str] = []
        self._stop = threading.Event()
        self._counting = threading.Lock()
        self._threads = [threading.Thread(target=self._send, args=(url,)) for _ in range(n)]

    def _send(self, url: str) -> None:
        # No attempt is repeated: what fails is counted.
        with httpx.Client(base_url=url, transport=httpx.HTTPTransport(retries=0)) as client:
            while not self._stop.is_set():
                try:
                    client.post(PATH, json=LOGITS, timeout=60).raise_for_status()
                except httpx.HTTPError as error:
                    self.failed.append(repr(error))
                with self._counting:
                    self.answered += 1
                time.sleep(0.002)

    def __enter__(self) -> Clients:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join()


def test_a_service_that_drains_says_so_and_answers_until_it_ends(tmp_path: Path) -> None:
    flags = ("--drain-seconds", "1.5")
    with running_service(tmp_path / "state", ROOT / "models", *flags) as service:
        client = service.client
        ready = client.get("/v2/health/ready")
        assert (ready.status_code, ready.json()["status"]) == (200, "ok")
        assert "connection" not in ready.headers
        service.process.send_signal(signal.SIGTERM)
        service.process.send_signal(signal.SIGTERM)  # as a stop command to a group sends it
        wait_until(lambda: client.get("/v2/health/ready").status_code == 503, "the drain")
        ready = client.get("/v2/health/ready")
        assert ready.json()["status"] == "draining"
        assert ready.json()["ready"] is False
        assert ready.headers["connection"] == "close"
        answer = client.post(PATH, json=LOGITS)  # on a new connection
        assert (answer.status_code, answer.headers["connection"]) == (200, "close")
        assert service.process.wait(30) == 0
    assert "Traceback" not in service.log.read_text()


def test_a_second_sigterm_ends_a_drain(tmp_path: Path) -> None:
    flags = ("--drain-seconds", "3600")
    with running_service(tmp_path / "state", ROOT / "models", *flags) as service:
        service.process.send_signal(signal.SIGTERM)
        time.sleep(1.2)  # not the same request
        service.process.send_signal(signal.SIGTERM)
        assert service.process.wait(30) == 0


def restarted(service: RunningService, index: int) -> None:
    """End a replica by SIGTERM and wait for the next one."""
    before = len(service.replica_ids()[index])
    os.kill(service.replica_ids()[index][-1], signal.SIGTERM)
    wait_until(lambda: len(service.replica_ids()[index]) > before, "the next replica")
    log = service.log.read_text
    wait_until(lambda: log().count(f"replica {index} is ready again") == before, "readiness")


def test_no_request_is_reset_when_one_of_two_replicas_is_restarted(tmp_path: Path) -> None:
    flags = ("--replicas", "2", "--drain-seconds", "0.5")
    with (
        running_service(tmp_path / "state", ROOT / "models", *flags) as service,
        Clients(service.url, 2) as clients,
    ):
        for turn in range(2):
            restarted(service, turn % 2)
    assert clients.failed == []
    assert clients.answered > 100


@contextlib.contextmanager
def stopped(process_id: int) -> Iterator[None]:
    os.kill(process_id, signal.SIGSTOP)
    try:
        yield
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.kill(process_id, signal.SIGCONT)


def test_a_replica_that_hangs_is_replaced(tmp_path: Path) -> None:
    flags = ("--replicas", "2", "--replica-hang-seconds", "2")
    with running_service(tmp_path / "state", ROOT / "models", *flags) as service:
        (first,) = service.replica_ids()[0]
        with stopped(first):
            wait_until(lambda: len(service.replica_ids()[0]) == 2, "a replacement")
            wait_until(lambda: not is_running(first), "the end of the one that hung")
        wait_until(lambda: "replica 0 is ready again" in service.log.read_text(), "readiness")
        for _ in range(10):
            assert httpx.post(f"{service.url}{PATH}", json=LOGITS).status_code == 200
        assert len(service.replica_ids()[1]) == 1
    log = service.log.read_text()
    assert "replica 0 has been stuck for 2 s and is killed" in log
