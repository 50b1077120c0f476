"""A thread that looks now and then whether there is something to do, and outlives what fails."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from typing import Final

from trueprob_service.errors import DatabaseUnavailable

__all__ = ["Poll"]

_LOG: Final = logging.getLogger(__name__)


class Poll:
    """Calls one function again and again."""

    def __init__(self, look: Callable[[], object], *, what: str, seconds: float, name: str) -> None:
        self._look = look
        self._what = what
        self._seconds = seconds
        self._trouble = ""
        self._closing = threading.Event()
        self._thread = threading.Thread(target=self._work, name=name, daemon=True)

    @property
    def closing(self) -> bool:
        """Whether a look that goes on for long should end."""
        return self._closing.is_set()

    def pause(self, seconds: float) -> bool:
        """Wait in the middle of a look; whether it should end."""
        return self._closing.wait(seconds)

    def start(self) -> None:
        """Look from here on."""
        self._thread.start()

    def close(self) -> None:
        """Stop after the look that is under way."""
        self._closing.set()
        if self._thread.is_alive():
            self._thread.join()

    def once(self) -> None:
        """Look now, in the thread that calls; what fails is logged."""
        try:
            self._look()
        except DatabaseUnavailable:
            if self._is_new("the database is away"):
                _LOG.warning("%s waits for the database", self._what)
        except Exception as error:  # noqa: BLE001 - a thread that ended would never look again
            if self._is_new(repr(error)):
                _LOG.exception("%s failed", self._what)
        else:
            self._trouble = ""

    def _work(self) -> None:
        while not self._closing.wait(self._seconds):
            self.once()

    def _is_new(self, trouble: str) -> bool:
        before, self._trouble = self._trouble, trouble
        return trouble != before
