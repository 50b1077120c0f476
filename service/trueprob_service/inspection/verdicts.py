"""Remembers what inspections found, by the content of the network and what was asked of it.

A verdict is a small file, so a restart looks at nothing that it knows, and of several replicas one
looks while the others wait for its verdict. What passed is kept for ever; what was refused for an
hour, because the machine may have had a bad moment. If the folder cannot be used, each process
looks for itself.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

if sys.platform != "win32":
    import fcntl

__all__ = ["PASSED", "NetworkVerdict", "Verdicts"]

_LOG: Final = logging.getLogger(__name__)
PASSED: Final = "passed"
_REFUSED_SECONDS: Final = 3600.0
_LOOK_SECONDS: Final = 0.05  # between two attempts to get the lock


@dataclass(frozen=True)
class NetworkVerdict:
    """What an inspection found."""

    outcome: str  # `passed`, or why the network is refused
    detail: str = ""  # one sentence for the latter


class Verdicts:
    """Verdicts in a folder, which is made when the first one is kept."""

    def __init__(self, folder: Path, *, clock: Callable[[], float] = time.time) -> None:
        self._folder = folder
        self._clock = clock
        self._one = threading.Lock()  # among the threads of this process

    @staticmethod
    def key(of: Mapping[str, Any]) -> str:
        """The key of a description of what was inspected."""
        return hashlib.sha256(json.dumps(of, sort_keys=True).encode()).hexdigest()

    def get(self, key: str) -> NetworkVerdict | None:
        """The verdict with a key; None if there is none, or a refusal that has had its time."""
        try:
            document = json.loads((self._folder / f"{key}.json").read_bytes())
            verdict = NetworkVerdict(str(document["outcome"]), str(document["detail"]))
            age = self._clock() - float(document["at"])
        except (OSError, ValueError, KeyError, TypeError):
            return None
        if verdict.outcome != PASSED and not 0 <= age < _REFUSED_SECONDS:
            return None
        return verdict

    def keep(self, key: str, verdict: NetworkVerdict) -> None:
        """Keep a verdict; without effect if the folder cannot be written."""
        document = {"outcome": verdict.outcome, "detail": verdict.detail, "at": self._clock()}
        new = self._folder / f"{key}.{os.getpid()}.new"
        try:
            self._folder.mkdir(parents=True, exist_ok=True)
            new.write_text(json.dumps(document))
            new.replace(self._folder / f"{key}.json")
        except OSError as error:
            _LOG.warning("the verdict on a network cannot be kept: %s", error.strerror)

    @contextmanager
    def one_at_a_time(
        self, patience_seconds: float, *, hurry: Callable[[], bool] = lambda: False
    ) -> Iterator[None]:
        """Context that one process is in, so that the others find its verdict afterwards.

        It is entered anyway after so long, because whoever is in it was stopped, and once `hurry`
        says so.
        """
        with self._one:
            descriptor = self._locked(patience_seconds, hurry)
            try:
                yield
            finally:
                if descriptor is not None:
                    os.close(descriptor)  # which gives the lock back

    def _locked(self, patience_seconds: float, hurry: Callable[[], bool]) -> int | None:
        if sys.platform == "win32":
            return None
        try:
            self._folder.mkdir(parents=True, exist_ok=True)
            descriptor = os.open(self._folder / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC)
        except OSError:
            return None
        until = time.monotonic() + patience_seconds
        while True:
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                if time.monotonic() < until and not hurry():
                    time.sleep(_LOOK_SECONDS)
                    continue
            except OSError:  # a file system without locks
                pass
            return descriptor
