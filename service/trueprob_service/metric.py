"""Declaration of one metric; the table of all is `trueprob_service.metrics.catalogue`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

__all__ = ["Metric"]


@dataclass(frozen=True)
class Metric:
    """Declaration of one metric."""

    kind: Literal["counter", "gauge", "histogram"]
    labels: tuple[str, ...]
    # what a process did is summed over replicas; what the database says is the same in all of
    # them, so its maximum is taken
    owner: Literal["process", "database"]
    help: str
    buckets: tuple[float, ...] = ()  # upper bounds of a histogram, without +Inf
