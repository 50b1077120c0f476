"""What the demo prints: sentences, rows of readings, and a bar on a terminal."""

from __future__ import annotations

import textwrap
from typing import Final, TextIO

from service.demo.readings import Reading

__all__ = ["COLUMNS", "Screen", "cells", "percent"]

COLUMNS: Final = (
    "predictions", "labels", "expected", "observed", "ECE", "floor", "shift", "evidence", "change",
)  # fmt: skip
_WIDTH: Final = 96
_BAR: Final = 40


class Screen:
    """Writes to a stream; the bar is drawn on a terminal only, below everything else.

    Parameters
    ----------
    stream : file-like
    """

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream
        self._bar = ""

    def say(self, text: str) -> None:
        """A paragraph."""
        self._write("\n".join(textwrap.wrap(text, _WIDTH, subsequent_indent="   ")))

    def header(self, reading: Reading) -> None:
        """The names of the columns, and from where on evidence and change raise an alarm."""
        thresholds = (reading.evidence_threshold_log10, reading.change_threshold_log10)
        blank = ("",) * (len(COLUMNS) - 3)
        self._write(_line(COLUMNS))
        self._write(_line((*blank, "alarm:", *(_number(value, ".2f") for value in thresholds))))

    def row(self, reading: Reading) -> None:
        """One reading."""
        self._write(_line(cells(reading)) + ("  ALARM" if reading.alarm else ""))

    def progress(self, done: int, total: int) -> None:
        """How far the story has come."""
        filled = _BAR * done // total
        self._bar = f"[{'=' * filled}{' ' * (_BAR - filled)}] {100 * done // total} %"
        self._draw(self._bar)

    def end(self) -> None:
        """Take the bar away."""
        self._bar = ""
        self._draw("")

    def _write(self, text: str) -> None:
        if self._stream.isatty():
            self._stream.write(f"\r\033[K{text}\n")
            self._draw(self._bar)
        else:
            self._stream.write(f"{text}\n")
            self._stream.flush()

    def _draw(self, bar: str) -> None:
        if self._stream.isatty():
            self._stream.write(f"\r\033[K{bar}")
            self._stream.flush()


def cells(reading: Reading) -> tuple[str, ...]:
    """A reading under `COLUMNS`; a dash for what the service does not say yet."""
    return (
        _number(reading.predictions, "d"),
        _number(reading.labels, "d"),
        percent(reading.expected_accuracy),
        percent(reading.observed_accuracy),
        percent(reading.ece),
        percent(reading.ece_floor),
        _number(reading.gap_shift, ".1f"),
        _number(reading.evidence_log10, ".2f"),
        _number(reading.change_log10, ".2f"),
    )


def _line(values: tuple[str, ...]) -> str:
    return "  ".join(
        value.rjust(max(len(title), 7)) for value, title in zip(values, COLUMNS, strict=True)
    )


def percent(value: float | None) -> str:
    """A fraction as the demo shows it."""
    return "–" if value is None else f"{value:.1%}".replace("%", " %")


def _number(value: float | None, form: str) -> str:
    return "–" if value is None else format(value, form)
