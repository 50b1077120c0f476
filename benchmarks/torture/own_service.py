"""A service of two replicas that the torture and the soak start themselves."""

from __future__ import annotations

import secrets
import socket
import subprocess
import time
from pathlib import Path
from types import MappingProxyType
from typing import Final

import httpx
import numpy as np

from benchmarks.control.postgres_server import PostgresServer
from benchmarks.crash.ledger import Totals, differences, exported
from benchmarks.crash.service_process import ServiceProcess
from benchmarks.torture.faults import small_disk
from trueprob.client import Client

__all__ = ["MODEL", "N_CLASSES", "OwnService"]

MODEL: Final = "m"
N_CLASSES: Final = 3
REPLICAS: Final = 2
HANG_SECONDS: Final = 3.0
DRAIN_SECONDS: Final = 1.0
STOP_SECONDS: Final = 60.0
PATIENCE_SECONDS: Final = 12.0  # metrics are up to 3 s old, and longer after a hang


class OwnService:
    """Two replicas on SQLite or on a PostgreSQL server, with a declared model.

    Parameters
    ----------
    folder : Path
        For state and log.
    postgres : PostgresServer, optional
        Default: SQLite in the state folder.
    seed : int
        Chooses the replica that a fault hits.
    on_small_disk : bool
        Whether the state lies on a small disk of its own, where one may be mounted.
    models : Path, optional
        The model repository; default: none.

    Attributes
    ----------
    state_dir, sqlite_file : Path
    on_small_disk : bool
    postgres : PostgresServer or None
    urls : tuple of str
    model : str
    n_classes : int
    before : mapping
        Totals before the first label: none.
    """

    before: Totals = MappingProxyType({})
    model = MODEL
    n_classes = N_CLASSES

    def __init__(
        self,
        folder: Path,
        postgres: PostgresServer | None = None,
        *,
        seed: int = 0,
        on_small_disk: bool = True,
        models: Path | None = None,
    ) -> None:
        self.state_dir = folder.resolve() / "state"
        self.sqlite_file = self.state_dir / "trueprob.sqlite3"
        self.on_small_disk = on_small_disk and small_disk(self.state_dir)
        self.postgres = postgres
        self._models = models
        self._random = np.random.default_rng(seed)
        self._secret = secrets.token_hex(32)
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self._port = int(free.getsockname()[1])
        self.urls: tuple[str, ...] = (f"http://127.0.0.1:{self._port}",)
        self._process: ServiceProcess | None = None
        self._http = httpx.Client(timeout=1)
        try:
            self.start()
            with Client(self.urls[0]) as client:
                client.declare(MODEL, n_classes=N_CLASSES)
        except BaseException:
            self.close()
            raise

    def start(self) -> None:
        """Start it on its port."""
        database = () if self.postgres is None else ("--database-url", self.postgres.url)
        self._process = ServiceProcess(
            self.state_dir,
            *("--replicas", str(REPLICAS), "--receipt-secrets", self._secret, *database),
            *("--replica-hang-seconds", str(HANG_SECONDS)),
            *("--drain-seconds", str(DRAIN_SECONDS), "--poll-seconds", "0.5"),
            port=self._port,
            models=self._models,
        )

    @property
    def _running(self) -> ServiceProcess:
        assert self._process is not None, "the service does not run"
        return self._process

    def kill(self) -> None:
        """SIGKILL to all its processes."""
        self._running.kill()

    def terminate(self) -> None:
        """SIGTERM, and wait for the end; RuntimeError if that is not a clean one."""
        code = self._running.terminate(STOP_SECONDS)
        if code:
            raise RuntimeError(f"the service ended with exit code {code} after SIGTERM")

    def replica_ids(self) -> list[int]:
        """Process ids of the replicas."""
        return self._running.replica_ids()

    @property
    def process_id(self) -> int:
        """Of the parent."""
        return self._running.process_id

    def signal_replica(self, number: int) -> None:
        """Send a signal to one of the replicas."""
        ids = self.replica_ids()
        process_id = ids[int(self._random.integers(len(ids)))]
        subprocess.run(["kill", f"-{number}", str(process_id)], check=True)

    def metrics_urls(self) -> list[str]:
        """Where each replica has its metrics and its own readiness."""
        return self._running.metrics_urls()

    def readiness(self) -> list[str]:
        """What each replica says of itself: ok, degraded and why, or no answer."""
        said = []
        for url in self.metrics_urls():
            try:
                document = self._http.get(f"{url}/v2/health/ready").json()
            except httpx.TransportError:
                said.append("no answer")
                continue
            faults = {reason["fault"] for reason in document.get("reasons", ())}
            said.append(" ".join([document["status"], *sorted(faults)]))
        return said

    def connect(self, index: int, transport: httpx.BaseTransport | None = None) -> Client:
        """A client; the index chooses among several addresses."""
        return Client(self.urls[index % len(self.urls)], timeout_seconds=10, transport=transport)

    def totals(self, wanted: Totals, model: str = MODEL) -> Totals:
        """The exported totals of a model, once they are as wanted or surely fresh."""
        deadline = time.monotonic() + PATIENCE_SECONDS
        while True:
            answer = self._http.get(f"{self.metrics_urls()[0]}/metrics", timeout=30)
            totals = exported(answer.raise_for_status().text, model)
            if not any(differences(wanted, totals)) or time.monotonic() > deadline:
                return totals
            time.sleep(0.5)

    def close(self) -> None:
        """End it, and unmount its disk."""
        self._http.close()
        if self._process is not None:
            self._process.kill()
        if self.on_small_disk:
            subprocess.run(["umount", "--lazy", str(self.state_dir)], check=True)
