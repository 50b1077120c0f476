"""A finding: a reason to doubt a calibration set or a fit on it."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import Any

__all__ = ["Finding", "Repair", "Severity", "SuspiciousSet"]


class SuspiciousSet(UserWarning):
    """`trueprob.fit` got a calibration set with a finding of severity `hold`."""


class Severity(StrEnum):
    """How serious a finding is."""

    HOLD = "hold"  # the set is very likely wrong: do not use a calibrator that is fitted on it
    WARN = "warn"  # the set may be right, but something cannot be learnt from it


@dataclass(frozen=True)
class Repair:
    """What would make a set right; only the fields that the repair needs are set.

    Attributes
    ----------
    sentence : str
    labels : tuple of k int, or None
        The class of each label: the repaired labels are ``np.array(labels)[given]``.
    rows : int or None
        The repaired labels are ``np.roll(given, rows)``.
    field : str or None
        Name of the array that the numbers belong into.
    accuracy : float or None
        After the repair, on the rows that were checked.
    """

    sentence: str
    labels: tuple[int, ...] | None = None
    rows: int | None = None
    field: str | None = None
    accuracy: float | None = None

    def to_dict(self) -> dict[str, Any]:
        """The repair as JSON values, without the fields that are not set."""
        document = {
            "sentence": self.sentence,
            "labels": None if self.labels is None else list(self.labels),
            "rows": self.rows,
            "field": self.field,
            "accuracy": self.accuracy,
        }
        return {name: value for name, value in document.items() if value is not None}


@dataclass(frozen=True)
class Finding:
    """A reason to doubt a calibration set or a fit on it.

    Attributes
    ----------
    code : str
        A stable name of the kind of finding.
    severity : Severity
    sentence : str
        With the numbers.
    repair : Repair or None
    """

    code: str
    severity: Severity
    sentence: str
    repair: Repair | None = None

    def __str__(self) -> str:
        return self.sentence if self.repair is None else f"{self.sentence}; {self.repair.sentence}"

    def to_dict(self) -> dict[str, Any]:
        """The finding as JSON values."""
        return {
            "code": self.code,
            "severity": str(self.severity),
            "sentence": self.sentence,
            "repair": None if self.repair is None else self.repair.to_dict(),
        }
