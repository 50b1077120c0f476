"""Looks every few seconds whether the database and the state folder can be written.

A thread of its own looks, and another one waits for it, no longer than a deadline. So a database
that hangs is a finding like any other. `Store.fault` gets the finding: from then on what would fail
or wait is refused at once. Whatever the fault was, the canary sees when it is over.
"""

from __future__ import annotations

import logging
import threading
import time
from pathlib import Path
from typing import Final

from trueprob_service.control.store import FAULTS, Store, folder_fault

__all__ = ["Canary", "reason"]

_LOG: Final = logging.getLogger(__name__)
# A fault is seen after the sum of these at the latest.
_INTERVAL_SECONDS: Final = 2.0
_DEADLINE_SECONDS: Final = 2.5
_OF_FILES: Final = {
    "disk_full": "the state folder cannot be written because its disk is full: free some space",
    "read_only": "the state folder cannot be written because it is read-only: make it writable",
    "replaced": "the state folder is no longer there: put it back",
    "io_error": "the disk of the state folder gives errors",
}
_LOCK_SECONDS: Final = 2.0  # how long a look waits for SQLite's lock


class Canary:
    """Sets the fault of a store, and knows that of a folder."""

    def __init__(
        self,
        store: Store,
        folder: Path,  # of the uploads
        *,
        interval_seconds: float = _INTERVAL_SECONDS,
        deadline_seconds: float = _DEADLINE_SECONDS,
        lock_seconds: float = _LOCK_SECONDS,
    ) -> None:
        self._store = store
        self._folder = folder
        self._interval_seconds = interval_seconds
        self._deadline_seconds = deadline_seconds
        self._lock_seconds = lock_seconds
        self._faults: dict[str, str | None] = {"database": None, "files": None}
        self._since: dict[str, float] = {}
        self._wake = threading.Event()
        self._closing = threading.Event()
        self._looking: threading.Thread | None = None
        self._thread = threading.Thread(target=self._work, name="trueprob-canary", daemon=True)

    @property
    def faults(self) -> dict[str, str]:
        """The present fault of the components that have one: ``database``, ``files``."""
        return {component: fault for component, fault in self._faults.items() if fault is not None}

    def start(self) -> None:
        """Look now, and from now on every few seconds."""
        self._store.on_fault = lambda _fault: self._wake.set()
        self._thread.start()

    def close(self) -> None:
        """Stop; a look that hangs is not waited for."""
        self._closing.set()
        self._wake.set()
        if self._thread.is_alive():
            self._thread.join()
        if self._looking is not None:
            self._looking.join(self._deadline_seconds)

    def _work(self) -> None:
        while not self._closing.is_set():
            self._look()
            self._wake.wait(self._interval_seconds)
            # Failed transactions bring the next look forward; many of them, not many looks.
            self._closing.wait(min(0.2, self._interval_seconds))
            self._wake.clear()

    def _look(self) -> None:
        ended = threading.Event()
        found: dict[str, str | None] = {}

        def look() -> None:
            try:
                found["database"] = self._store.probe(seconds=self._lock_seconds)
                found["files"] = folder_fault(self._folder)
            except Exception:  # noqa: BLE001 - what cannot be looked at does not work
                _LOG.exception("the database cannot be looked at")
                found.setdefault("database", "unreachable")
            finally:
                ended.set()

        self._looking = threading.Thread(target=look, name="trueprob-probe", daemon=True)
        self._looking.start()
        wait, overdue = self._deadline_seconds, False
        while not ended.wait(wait) and not self._closing.is_set():
            # A damaged file that takes long to check remains damaged.
            if self._faults["database"] != "damaged":
                self._note("database", found.get("database", "hung"))
            overdue = True
            self._store.sever()
            self._store.interrupt_overdue()
            wait = 0.5
        if ended.is_set():
            fault = found.get("database")
            # A look that was severed says nothing new.
            self._note("database", "hung" if overdue and fault == "unreachable" else fault)
            self._note("files", found.get("files"))
        self._store.interrupt_overdue()

    def _note(self, component: str, fault: str | None) -> None:
        before, self._faults[component] = self._faults[component], fault
        if component == "database":
            self._store.fault = fault
        if fault == before:
            return
        if fault is None:
            seconds = time.monotonic() - self._since.pop(component)
            _LOG.warning("the %s works again, after %.1f s", component, seconds)
            return
        self._since.setdefault(component, time.monotonic())
        _LOG.error("degraded (%s, %s): %s", component, fault, reason(component, fault))


def reason(component: str, fault: str) -> str:
    """A sentence about a fault of ``database`` or ``files``."""
    return (FAULTS if component == "database" else _OF_FILES)[fault]
