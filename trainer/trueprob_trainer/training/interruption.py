"""SIGTERM and Ctrl-C ask a run to save and stop; a second one is what it always was."""

import signal
import threading
from types import FrameType, TracebackType
from typing import Any

SIGNALS = (signal.SIGTERM, signal.SIGINT)


class Interruption:
    """Notices a signal; the loop asks after every step.

    Outside the main thread, where Python sets no handlers, nothing is ever noticed.
    """

    def __init__(self, *, wanted: bool = True) -> None:
        self._wanted = wanted
        self.signal: signal.Signals | None = None
        self._before: dict[signal.Signals, Any] = {}

    def __enter__(self) -> "Interruption":
        if self._wanted and threading.current_thread() is threading.main_thread():
            for each in SIGNALS:
                self._before[each] = signal.signal(each, self._notice)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        problem: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._put_back()

    def _notice(self, number: int, frame: FrameType | None) -> None:  # noqa: ARG002 - signal's form
        self.signal = signal.Signals(number)
        self._put_back()

    def _put_back(self) -> None:
        while self._before:
            each, handler = self._before.popitem()
            signal.signal(each, handler)
