"""A real Prometheus with our rules and alerts, scraping what it is told to, for one test.

Only the addresses and the intervals differ from production: the rule files are the shipped ones,
evaluated every 200 ms instead of every 15 s.
"""

from __future__ import annotations

import contextlib
import socket
import subprocess
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

import httpx
import yaml

from tests.integration_requirements import require_program
from tests.monitoring.monitoring_files import MONITORING, load_yaml

JOB = "trueprob"
INTERVAL_SECONDS = 0.2
_PATIENCE_SECONDS = 20.0


@dataclass(frozen=True)
class Sample:
    """One sample of an instant query."""

    labels: dict[str, str]
    value: float


class Prometheus:
    """A running server."""

    def __init__(self, url: str, *, targets: int) -> None:
        self.url = url
        self._targets = targets
        self._client = httpx.Client(base_url=url, timeout=10, trust_env=False)

    def close(self) -> None:
        self._client.close()

    def query(self, expression: str) -> list[Sample]:
        """Samples of an instant query now; an error of Prometheus fails the test with its text."""
        answer = self._client.post("/api/v1/query", data={"query": expression})
        document = answer.json()
        assert answer.status_code == 200, f"{expression}\n{document.get('error')}"
        assert document["data"]["resultType"] == "vector", expression
        return [
            Sample(
                {name: value for name, value in each["metric"].items() if name != "__name__"},
                float(each["value"][1]),
            )
            for each in document["data"]["result"]
        ]

    def value(self, expression: str) -> float:
        """Value of a query that has exactly one sample."""
        samples = self.query(expression)
        assert len(samples) == 1, f"{expression} has {len(samples)} samples"
        return samples[0].value

    def rules(self) -> list[dict[str, Any]]:
        """Every rule as Prometheus sees it: health, lastError, lastEvaluation."""
        groups = self._client.get("/api/v1/rules").json()["data"]["groups"]
        return [rule for group in groups for rule in group["rules"]]

    def firing(self) -> list[dict[str, Any]]:
        """Every alert that fires: labels, annotations."""
        alerts = self._client.get("/api/v1/alerts").json()["data"]["alerts"]
        return [alert for alert in alerts if alert["state"] == "firing"]

    def settle(self) -> None:
        """Wait until every target was scraped, and then every rule evaluated, after this call."""
        up = f'up{{job="{JOB}"}}'
        scraped = f"count(timestamp({up}) > {time.time():.3f} and {up} == 1) == {self._targets}"
        self._wait(lambda: bool(self.query(scraped)), "a scrape of every target")
        # An evaluation sees the samples up to its slot's beginning, an interval ago at most.
        visible = time.time() + INTERVAL_SECONDS
        self._wait(lambda: self._oldest_evaluation() > visible, "an evaluation of every rule")

    def _oldest_evaluation(self) -> float:
        moments = [datetime.fromisoformat(rule["lastEvaluation"]) for rule in self.rules()]
        return min((moment.timestamp() for moment in moments), default=0.0)

    def wait_ready(self, process: subprocess.Popen[bytes], log: Path) -> None:
        """Wait until it answers; its log is the message if it ends instead."""

        def ready() -> bool:
            assert process.poll() is None, log.read_text("utf-8")
            with contextlib.suppress(httpx.TransportError):
                return self._client.get("/-/ready").status_code == 200
            return False

        self._wait(ready, "Prometheus")

    @staticmethod
    def _wait(condition: Callable[[], bool], what: str) -> None:
        deadline = time.monotonic() + _PATIENCE_SECONDS
        while not condition():
            assert time.monotonic() < deadline, f"waited {_PATIENCE_SECONDS:.0f} s for {what}"
            time.sleep(0.05)


@contextlib.contextmanager
def start_prometheus(tmp_path: Path, targets: Sequence[str]) -> Iterator[Prometheus]:
    """Run Prometheus until the block ends.

    Parameters
    ----------
    tmp_path : Path
        Where its configuration, data and log go.
    targets : sequence of str
        ``host:port`` of what is scraped, every 200 ms.

    Yields
    ------
    Prometheus
        Ready, with the first scrape of every target behind it.
    """
    program = require_program("prometheus")
    folder = tmp_path / "prometheus"
    folder.mkdir()
    (folder / "prometheus.yml").write_text(yaml.safe_dump(_configuration(targets, folder)))
    port = _free_port()
    log = folder / "log"
    with log.open("wb") as output:
        process = subprocess.Popen(
            [
                program,
                f"--config.file={folder / 'prometheus.yml'}",
                f"--storage.tsdb.path={folder / 'data'}",
                f"--web.listen-address=127.0.0.1:{port}",
            ],
            stdout=output,
            stderr=subprocess.STDOUT,
        )
        prometheus = Prometheus(f"http://127.0.0.1:{port}", targets=len(targets))
        try:
            prometheus.wait_ready(process, log)
            prometheus.settle()
            yield prometheus
        finally:
            prometheus.close()
            process.kill()
            process.wait()


def _configuration(targets: Sequence[str], folder: Path) -> dict[str, Any]:
    """The shipped configuration with shorter intervals and other addresses."""
    configuration = load_yaml(MONITORING / "prometheus.yml")
    interval = f"{INTERVAL_SECONDS * 1000:.0f}ms"
    configuration["global"] = {"scrape_interval": interval, "evaluation_interval": interval}
    scrapes = configuration["scrape_configs"]
    assert [scrape["job_name"] for scrape in scrapes] == [JOB]
    scrapes[0]["static_configs"] = [{"targets": list(targets)}]
    for name in configuration["rule_files"]:
        rules = load_yaml(MONITORING / name)
        for group in rules["groups"]:
            group.pop("interval", None)
        (folder / name).write_text(yaml.safe_dump(rules))
    return configuration


def _free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])
