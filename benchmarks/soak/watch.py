"""Memory, descriptors and threads of processes over time, and whether they grow.

The first third of the time is warm-up: caches fill, the allocator takes its arenas, every kind of
request is met once. The rest is cut into ten blocks; a line through their means gives the growth in
that time with its 95 % interval. A process grows if even the lower end of the interval is above the
bound: noise widens the interval, so it does not raise an alarm by itself.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

import numpy as np
from scipy import stats

__all__ = ["BOUNDS", "Growth", "ProcessWatch", "Reading", "growth_of"]

MEBIBYTE: Final = float(1 << 20)
WARM_UP: Final = 1 / 3  # of the time
BLOCKS: Final = 10
CONFIDENCE: Final = 0.95
# What may be added in the time after the warm-up; docs/reliability.md has the measured noise.
BOUNDS: Final[Mapping[str, float]] = {"memory, MiB": 8.0, "descriptors": 8.0, "threads": 4.0}


@dataclass(frozen=True)
class Reading:
    """What a process has at a moment."""

    at: float
    values: Mapping[str, float]


@dataclass(frozen=True)
class Growth:
    """Growth of one quantity of one process after the warm-up."""

    process: str
    quantity: str
    blocks: tuple[float, ...]  # means
    growth: float
    low: float  # ends of the 95 % interval
    high: float
    bound: float

    @property
    def grows(self) -> bool:
        """Whether the growth is above the bound, beyond noise."""
        return self.low > self.bound

    def __str__(self) -> str:
        return (
            f"{self.process} grows: {self.quantity} by {self.growth:.1f} "
            f"({self.low:.1f} to {self.high:.1f}) after the warm-up, from {self.blocks[0]:.1f}; at "
            f"most {self.bound:g} are noise"
        )


def growth_of(
    process: str, quantity: str, readings: Sequence[Reading], bound: float
) -> Growth | None:
    """The growth after the warm-up; None with too few readings."""
    if len(readings) < 2 * BLOCKS:
        return None
    start, end = readings[0].at, readings[-1].at
    warm = [each for each in readings if each.at >= start + WARM_UP * (end - start)]
    if len(warm) < BLOCKS:
        return None
    times, values = (
        np.array([block.mean() for block in np.array_split(numbers, BLOCKS)])
        for numbers in (
            np.array([each.at for each in warm]),
            np.array([each.values[quantity] for each in warm]),
        )
    )
    line = stats.linregress(times, values)
    seconds = warm[-1].at - warm[0].at
    growth = float(line.slope) * seconds
    error = 0.0 if np.ptp(values) == 0 else float(line.stderr)
    margin = error * seconds * float(stats.t.ppf((1 + CONFIDENCE) / 2, BLOCKS - 2))
    return Growth(
        process, quantity, tuple(round(float(each), 2) for each in values),
        growth, growth - margin, growth + margin, bound,
    )  # fmt: skip


@dataclass
class ProcessWatch:
    """Reads processes in a thread of its own; use it in a ``with`` block.

    Attributes
    ----------
    processes : mapping
        Name → process id. Children, which fit and end, are not watched.
    interval_seconds : float
    more : mapping
        Name → function of other quantities that are read as often.
    readings : dict
        Name → readings.
    ended : list of str
        Processes that ended meanwhile.
    """

    processes: Mapping[str, int]
    interval_seconds: float = 1.0
    more: Mapping[str, Callable[[], Mapping[str, float]]] = field(default_factory=dict)
    readings: dict[str, list[Reading]] = field(default_factory=dict)
    ended: list[str] = field(default_factory=list)

    def __enter__(self) -> ProcessWatch:
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._read)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()

    def growths(self, bounds: Mapping[str, float] = BOUNDS) -> list[Growth]:
        """Growth of each process in each quantity."""
        found = [
            growth_of(process, quantity, self.readings.get(process, ()), bound)
            for process in self.processes
            for quantity, bound in bounds.items()
        ]
        return [each for each in found if each is not None]

    def _read(self) -> None:
        while not self._stop.wait(self.interval_seconds):
            now = time.monotonic()
            for name, process_id in self.processes.items():
                try:
                    values = quantities(process_id)
                except OSError:
                    if name not in self.ended:
                        self.ended.append(name)
                    continue
                self.readings.setdefault(name, []).append(Reading(now, values))
            for name, read in self.more.items():
                self.readings.setdefault(name, []).append(Reading(now, read()))


def quantities(process_id: int) -> Mapping[str, float]:
    """Resident memory, open descriptors and threads of a process."""
    folder = Path(f"/proc/{process_id}")
    status = dict(
        line.split(":", 1) for line in (folder / "status").read_text().splitlines() if ":" in line
    )
    if "VmRSS" not in status:
        raise OSError(f"process {process_id} has ended")
    return {
        "memory, MiB": 1024 * int(status["VmRSS"].split()[0]) / MEBIBYTE,
        "descriptors": float(sum(1 for _ in (folder / "fd").iterdir())),
        "threads": float(status["Threads"]),
    }
