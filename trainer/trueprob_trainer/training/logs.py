"""The history of a run for other programs: ``metrics.csv``, TensorBoard event files.

Both are made from the history alone, so a resumed run leaves the same files as one that was never
stopped (event files carry the time of day besides).
"""

import csv
import io
import time
from collections.abc import Sequence
from typing import Any

from trueprob_trainer.errors import BadInput
from trueprob_trainer.training.run_folder import EVENT_FILES, RunFolder

Row = dict[str, float | int]


class CsvLog:
    """Rewrites ``metrics.csv`` whole after every epoch."""

    def __init__(self, run: RunFolder) -> None:
        self.run = run

    def __call__(self, history: Sequence[Row]) -> None:
        """Write all rows."""
        buffer = io.StringIO()
        writer = csv.DictWriter(buffer, fieldnames=list(history[0]) if history else ["epoch"])
        writer.writeheader()
        writer.writerows(history)
        self.run.write("metrics.csv", buffer.getvalue().encode())


class TensorBoardLog:
    """Appends to an event file; begins a new one, with all rows so far, when a run is taken up.

    Every row is on disk when the call returns (tensorboardX's own ``SummaryWriter`` keeps the last
    two minutes in a queue).

    Raises `BadInput`: tensorboardX is not installed.
    """

    def __init__(self, run: RunFolder) -> None:
        try:
            from tensorboardX.event_file_writer import EventsWriter
        except ImportError as problem:
            raise BadInput("TensorBoard logs need tensorboardX: extra logs") from problem
        for old in run.path.glob(EVENT_FILES + "*"):
            old.unlink()
        self.writer: Any = EventsWriter(str(run.path / "events"))
        self.written = 0

    def __call__(self, history: Sequence[Row]) -> None:
        """Write the rows that are new."""
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
        """Close the file; the object is of no use afterwards."""
        self.writer.close()
