"""What happened, as it was read from the service."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import Any

from service.demo.readings import Reading
from trueprob.client import FitSummary

__all__ = ["Chapter", "Story"]


@dataclass(frozen=True)
class Chapter:
    """A part of the story and what was read in it."""

    name: str
    readings: tuple[Reading, ...]


@dataclass
class Story:
    """What happened.

    Attributes
    ----------
    chapters : list of Chapter
    before_labels : Reading or None
        The last one before any label of the new conditions.
    alarm : Reading or None
        The first with an alarm.
    fit : FitSummary or None
    complaints : list of str
        What should have happened and did not.
    """

    chapters: list[Chapter] = field(default_factory=list)
    before_labels: Reading | None = None
    alarm: Reading | None = None
    fit: FitSummary | None = None
    complaints: list[str] = field(default_factory=list)

    @property
    def happened(self) -> bool:
        """Whether all of it did."""
        return not self.complaints

    def document(self) -> dict[str, Any]:
        """As JSON."""
        return {
            "happened": self.happened,
            "complaints": self.complaints,
            "chapters": [asdict(chapter) for chapter in self.chapters],
            "before_labels": None if self.before_labels is None else asdict(self.before_labels),
            "alarm": None if self.alarm is None else asdict(self.alarm),
            "fit": None if self.fit is None else asdict(self.fit),
        }
