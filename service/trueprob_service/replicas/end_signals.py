"""SIGINT and SIGTERM as something that a loop can wait for beside its children."""

from __future__ import annotations

import contextlib
import signal
import socket
import time
from typing import Final

__all__ = ["EndSignals"]

_SIGNALS: Final = (signal.SIGINT, signal.SIGTERM)
# Whoever stops a service may send SIGTERM to the process and to its group: that is one request.
_SAME_REQUEST_SECONDS: Final = 1.0


class EndSignals:
    """Notes the signals that arrive while its block runs; the main thread's."""

    def __init__(self) -> None:
        self.received = False
        self.impatient = False
        self._first = 0.0

    def __enter__(self) -> EndSignals:
        self._woken, self._wakes = socket.socketpair()
        for end in (self._woken, self._wakes):
            end.setblocking(False)
        self._handlers = {number: signal.signal(number, self._note) for number in _SIGNALS}
        self._descriptor = signal.set_wakeup_fd(self._wakes.fileno(), warn_on_full_buffer=False)
        return self

    def __exit__(self, *_: object) -> None:
        signal.set_wakeup_fd(self._descriptor)
        for number, handler in self._handlers.items():
            signal.signal(number, handler)
        self._woken.close()
        self._wakes.close()

    def fileno(self) -> int:
        """What becomes readable with a signal."""
        return self._woken.fileno()

    def drain(self) -> None:
        """Be readable again only with the next signal."""
        with contextlib.suppress(BlockingIOError):
            while self._woken.recv(64):
                pass

    def _note(self, number: int, _frame: object) -> None:
        now = time.monotonic()
        if not self.received:
            self.received, self._first = True, now
        elif number == signal.SIGINT or now - self._first >= _SAME_REQUEST_SECONDS:
            self.impatient = True
