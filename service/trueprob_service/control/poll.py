"""A background thread that calls a function at regular intervals and survives its errors."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from typing import Final

from trueprob_service.errors import DatabaseUnavailable

__all__ = ["Poll"]

_LOG: Final = logging.getLogger(__name__)


class Poll:
    """Calls one function at regular intervals.

    An error is logged once while it stays the same, and the next call follows as usual.
    """

    def __init__(
        self,
        function: Callable[[], object],
        *,
        what: str,  # subject of the log messages
        seconds: float,  # from the end of a call to the start of the next
        name: str,  # of the thread
    ) -> None:
        self._function = function
        self._what = what
        self._seconds = seconds
        self._last_error = ""
        self._closing = threading.Event()
        self._thread = threading.Thread(target=self._work, name=name, daemon=True)

    @property
    def closing(self) -> bool:
        """Whether a long call should return now."""
        return self._closing.is_set()

    def pause(self, seconds: float) -> bool:
        """Wait during a call; returns whether the call should return now."""
        return self._closing.wait(seconds)

    def start(self) -> None:
        """Start the thread; it calls after one interval."""
        self._thread.start()

    def close(self) -> None:
        """Wait for the current call and stop."""
        self._closing.set()
        if self._thread.is_alive():
            self._thread.join()

    def once(self) -> None:
        """Call the function now, in the caller's thread; an error is logged."""
        try:
            self._function()
        except DatabaseUnavailable:
            if self._is_new("the database does not answer"):
                _LOG.warning("%s waits for the database", self._what)
        except Exception as error:  # noqa: BLE001 - the thread must survive
            if self._is_new(repr(error)):
                _LOG.exception("%s failed", self._what)
        else:
            self._last_error = ""

    def _work(self) -> None:
        while not self._closing.wait(self._seconds):
            self.once()

    def _is_new(self, error: str) -> bool:
        before, self._last_error = self._last_error, error
        return error != before
