"""Declaration of one metric; the table of all is `trueprob_service.metrics.catalogue`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

__all__ = ["Metric"]


@dataclass(frozen=True)
class Metric:
    """Declaration of one metric.

    Attributes
    ----------
    kind : {"counter", "gauge", "histogram"}
    labels : tuple of str
    owner : {"process", "database"}
        What a process did is summed over replicas; what the database says is the same in all of
        them, so its maximum is taken.
    help : str
    buckets : tuple of float
        Upper bounds of a histogram, without +Inf.
    """

    kind: Literal["counter", "gauge", "histogram"]
    labels: tuple[str, ...]
    owner: Literal["process", "database"]
    help: str
    buckets: tuple[float, ...] = ()
