"""Real processes on one port: balanced, replaced when they die, ended together."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest

from tests.running_service import ROOT, RunningService, running_service
from tests.trueprob_service.replicas.replica_metrics import predictions, targets
from tests.waiting import is_running, wait_until

pytestmark = pytest.mark.integration
LOGITS = {"logits": [[0.1, 4.2, 0.3, 1.0, 0.0, 2.0, 1.1, 0.7, 0.2, 0.1]]}
PATH = "/v1/models/digits/probabilities"


def answer_on_new_connections(service: RunningService, n: int) -> None:
    for _ in range(n):
        answer = httpx.post(f"{service.url}{PATH}", json=LOGITS)
        assert answer.status_code == 200, answer.text


@contextmanager
def half_a_request(service: RunningService) -> Iterator[tuple[socket.socket, bytes]]:
    """A connection on which a replica waits for the rest of a body, and that rest."""
    body = json.dumps(LOGITS).encode()
    lines = (f"POST {PATH} HTTP/1.1", "host: localhost", "content-type: application/json")
    head = "\r\n".join((*lines, f"content-length: {len(body)}", "expect: 100-continue", "", ""))
    with socket.create_connection(("127.0.0.1", service.port), timeout=60) as connection:
        connection.sendall(head.encode())
        # Said when somebody reads the body.
        assert connection.recv(100).startswith(b"HTTP/1.1 100 ")
        connection.sendall(body[:10])
        yield connection, body[10:]


def refuses(service: RunningService) -> bool:
    try:
        socket.create_connection(("127.0.0.1", service.port), timeout=60).close()
    except OSError:
        return True
    return False


def test_a_replica_that_dies_is_replaced_and_nobody_waits_for_it(tmp_path: Path) -> None:
    state = tmp_path / "state"
    with running_service(state, ROOT / "models", "--replicas", "2") as service:
        addresses = targets(state)
        assert set(addresses) == {"0", "1"}
        answer_on_new_connections(service, 20)
        assert sum(predictions(address) for address in addresses.values()) == 20
        assert service.client.get("/metrics").status_code == 404
        assert httpx.get(f"{addresses['0']}{PATH}").status_code == 404
        assert httpx.get(f"{addresses['0']}/v2/health/ready").json()["ready"] is True
        parent = Path(f"/proc/{service.process.pid}/maps").read_text()
        assert "numpy" not in parent
        assert "onnxruntime" not in parent

        (first,) = service.replica_ids()[0]
        os.kill(first, signal.SIGKILL)
        answer_on_new_connections(service, 20)
        wait_until(lambda: len(service.replica_ids()[0]) == 2, "a replacement")
        # At the address that Prometheus knows, and counting from zero.
        wait_until(lambda: httpx.get(f"{addresses['0']}/metrics", timeout=60).is_success, "metrics")
        assert targets(state) == addresses
        answer_on_new_connections(service, 20)

        with half_a_request(service) as (connection, rest):
            service.process.send_signal(signal.SIGTERM)
            wait_until(lambda: refuses(service), "the end of listening")
            connection.sendall(rest)
            assert connection.recv(100).startswith(b"HTTP/1.1 200 ")
        assert service.process.wait(30) == 0
        ended = [each for ids in service.replica_ids().values() for each in ids]
        assert len(ended) == 3
        assert not any(is_running(each) for each in ended)
    assert not (state / "metrics-targets.json").exists()
    log = service.log.read_text()
    assert "replica 0 was ended by signal 9; restarted in 0.5 s" in log
    assert "Traceback" not in log


def blocks(number: int, process_id: int) -> bool:
    status = Path(f"/proc/{process_id}/status").read_text()
    mask = next(line.split()[1] for line in status.splitlines() if line.startswith("SigBlk"))
    return bool(int(mask, 16) >> (number - 1) & 1)


def test_ctrl_c_ends_them_all(tmp_path: Path) -> None:
    state = tmp_path / "state"
    with running_service(state, ROOT / "models", "--replicas", "2") as service:
        replicas = [ids[-1] for ids in service.replica_ids().values()]
        # The terminal sends it to them too; the parent decides.
        assert all(blocks(signal.SIGINT, each) for each in replicas)
        assert service.interrupt() == 0
        assert not any(is_running(each) for each in replicas)
    assert "Traceback" not in service.log.read_text()


def test_replicas_do_not_outlive_their_parent(tmp_path: Path) -> None:
    state = tmp_path / "state"
    with running_service(state, ROOT / "models", "--replicas", "2") as service:
        os.kill(service.process.pid, signal.SIGKILL)
        ids = [each[-1] for each in service.replica_ids().values()]
        wait_until(lambda: not any(is_running(each) for each in ids), "the end of the replicas")


def test_one_process_may_have_a_port_for_its_metrics_too(tmp_path: Path) -> None:
    state = tmp_path / "state"
    with running_service(state, ROOT / "models", "--metrics-port", "0") as service:
        (address,) = targets(state).values()
        answer_on_new_connections(service, 1)
        assert predictions(address) == 1


def refusal(*flags: str, cwd: Path) -> tuple[int, str]:
    """Exit code and last line of a service that does not start."""
    command = [sys.executable, "-m", "trueprob_service", "serve", "--replicas", "2", *flags]
    folders = ["--state-dir", str(cwd / "state"), "--model-repository", str(ROOT / "models")]
    done = subprocess.run(
        [*command, *folders], cwd=ROOT, capture_output=True, text=True, timeout=60, check=False
    )
    return done.returncode, done.stderr.splitlines()[-1]


def test_a_port_that_is_taken_is_one_line(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        code, line = refusal("--port", port, cwd=tmp_path)
        assert code == 2
        assert f"error: port: cannot listen on 127.0.0.1 port {port}: Address already" in line
        code, line = refusal("--port", "0", "--metrics-port", port, cwd=tmp_path)
        assert code == 2
        assert f"error: metrics_port: cannot listen on 127.0.0.1 port {port}: " in line


def test_a_file_for_prometheus_that_cannot_be_written_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    path = str(tmp_path / "file" / "targets.json")
    code, line = refusal("--port", "0", "--metrics-targets-file", path, cwd=tmp_path)
    assert code == 2
    assert "error: metrics_targets_file cannot be written: " in line


def test_replicas_that_cannot_start_end_the_service(tmp_path: Path) -> None:
    providers = ("--execution-providers", "tensorrt")
    code, line = refusal("--port", "0", *providers, cwd=tmp_path)
    assert code == 2
    assert line.startswith("trueprob-service: error: replica ")
    assert line.endswith("before the service was ready; see the log above")
    assert not (tmp_path / "state" / "metrics-targets.json").exists()
