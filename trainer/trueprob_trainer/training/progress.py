"""Progress of a run: lines on a stream, ``metrics.csv``, event files for TensorBoard.

The files are made from the history alone, so a resumed run leaves the same files as one that was
not stopped, except for the time of day in event files.
"""

import csv
import io
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, TextIO

from trueprob_trainer.errors import BadInput
from trueprob_trainer.training.run_folder import EVENT_FILES, RunFolder

Row = dict[str, float | int]


class CsvLog:
    """Rewrites ``metrics.csv`` after every epoch."""

    def __init__(self, run: RunFolder) -> None:
        self.run = run

    def __call__(self, history: Sequence[Row]) -> None:
        """Write all rows of the history."""
        buffer = io.StringIO()
        writer = csv.DictWriter(buffer, fieldnames=list(history[0]) if history else ["epoch"])
        writer.writeheader()
        writer.writerows(history)
        self.run.write("metrics.csv", buffer.getvalue().encode())


class TensorBoardLog:
    """Appends rows to an event file; a resumed run begins a new file with all rows so far."""

    # tensorboardX's SummaryWriter keeps two minutes in a queue; here each row is on disk at once.

    def __init__(self, run: RunFolder) -> None:
        try:
            from tensorboardX.event_file_writer import EventsWriter
        except ImportError as problem:
            raise BadInput(
                "TensorBoard logs need tensorboardX: install the extra logs"
            ) from problem
        for old in run.path.glob(EVENT_FILES + "*"):
            old.unlink()
        self.writer: Any = EventsWriter(str(run.path / "events"))
        self.written = 0

    def __call__(self, history: Sequence[Row]) -> None:
        """Write the new rows of the history."""
        from tensorboardX.proto.event_pb2 import Event
        from tensorboardX.summary import scalar

        for row in history[self.written :]:
            for name, value in row.items():
                if name != "epoch":
                    summary = scalar(f"train/{name}", value)
                    event = Event(wall_time=time.time(), step=row["epoch"], summary=summary)
                    self.writer.write_event(event)
        self.written = len(history)
        self.writer.flush()

    def close(self) -> None:
        """Close the event file."""
        self.writer.close()


@dataclass(frozen=True)
class Progress:
    """Writes progress to a stream: one moving line on a terminal, else about ten lines."""

    stream: TextIO

    def __call__(self, done: int, total: int, text: str) -> None:
        """Report that ``done`` of ``total`` parts are finished."""
        line = f"{done:>{len(str(total))}}/{total}  {text}"
        if self.stream.isatty():
            filled = 24 * done // total
            self.stream.write(f"\r[{'=' * filled}{' ' * (24 - filled)}] {line}\033[K")
            if done == total:
                self.stream.write("\n")
            self.stream.flush()
        elif done == total or done % max(1, total // 10) == 0:
            self.stream.write(line + "\n")
            self.stream.flush()  # a pipe would keep it until the end


def silent(done: int, total: int, text: str) -> None:
    """Report nothing; a stand-in for :class:`Progress`."""
