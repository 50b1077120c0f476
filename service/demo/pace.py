"""Requests at even times."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Final

__all__ = ["Pace"]

REQUEST_SECONDS: Final = 0.6  # at --speed 1: the story takes about a minute


class Pace:
    """Called before each request; waits until it is due.

    Parameters
    ----------
    speed : float
        1 is one request every `REQUEST_SECONDS`.
    sleep, clock : callable
        Let seconds pass, and say how many have.
    """

    def __init__(
        self,
        speed: float,
        *,
        sleep: Callable[[float], None] = time.sleep,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._seconds = REQUEST_SECONDS / speed
        self._sleep, self._clock = sleep, clock
        self._next = clock()

    def __call__(self) -> None:
        """Wait; a request that comes late delays those after it."""
        now = self._clock()
        if now < self._next:
            self._sleep(self._next - now)
        self._next = max(self._next, now) + self._seconds
