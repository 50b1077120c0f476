"""The history of alarms: what was raised, when somebody saw it, when a policy dealt with it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection, func, insert, select, update

from trueprob_service.control.store.alarm_tables import alarm

__all__ = ["AlarmRow", "Alarms"]


@dataclass(frozen=True)
class AlarmRow:
    """A statistic that passed its threshold."""

    id: int  # rises with time
    model: str
    revision: int  # of the promotion whose labels raised it
    version: int  # of the promotion whose labels raised it
    calibrator: str  # of the promotion whose labels raised it
    statistic: str  # `evidence` or `change`
    log10: float  # when it was raised
    threshold_log10: float  # when it was raised
    tolerance: float  # when it was raised
    counted: int  # labels that the state had counted then
    raised_at: float
    acknowledged_at: float | None = None  # when a person or a program said that it knows
    acknowledged_by: str | None = None  # id of the API key
    answered_at: float | None = None  # when the refit policy dealt with it; None: it has not yet

    @property
    def stands(self) -> bool:
        """Whether it holds still: one of change until somebody knows, one of evidence for good."""
        return self.acknowledged_at is None or self.statistic == "evidence"


class Alarms:
    """The table ``alarm``."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    def add(self, **fields: Any) -> AlarmRow:
        """Record an alarm: every field of `AlarmRow` but the id."""
        statement = insert(alarm).values(**fields).returning(alarm)
        return AlarmRow(**self._connection.execute(statement).one()._mapping)

    def get(self, model: str, alarm_id: int) -> AlarmRow | None:
        """One alarm of a model."""
        row = self._connection.execute(
            select(alarm).where(alarm.c.model == model, alarm.c.id == alarm_id)
        ).first()
        return None if row is None else AlarmRow(**row._mapping)

    def of(self, model: str, revision: int) -> list[AlarmRow]:
        """Those of a promotion, newest first."""
        statement = (
            select(alarm)
            .where(alarm.c.model == model, alarm.c.revision == revision)
            .order_by(alarm.c.id.desc())
        )
        return [AlarmRow(**row._mapping) for row in self._connection.execute(statement)]

    def page(self, model: str, *, before: int | None, limit: int) -> list[AlarmRow]:
        """Newest first, from below an id."""
        statement = (
            select(alarm).where(alarm.c.model == model).order_by(alarm.c.id.desc()).limit(limit)
        )
        if before is not None:
            statement = statement.where(alarm.c.id < before)
        return [AlarmRow(**row._mapping) for row in self._connection.execute(statement)]

    def unanswered(self, *, limit: int = 100) -> list[AlarmRow]:
        """What no policy has dealt with yet, oldest first.

        An alarm is here from the commit of the labels that raised it, whatever ends after that.
        """
        statement = (
            select(alarm).where(alarm.c.answered_at.is_(None)).order_by(alarm.c.id).limit(limit)
        )
        return [AlarmRow(**row._mapping) for row in self._connection.execute(statement)]

    def answer(self, alarm_id: int, *, now: float) -> bool:
        """A policy has dealt with an alarm; False when one did before. The first one counts."""
        statement = (
            update(alarm)
            .where(alarm.c.id == alarm_id, alarm.c.answered_at.is_(None))
            .values(answered_at=now)
        )
        return self._connection.execute(statement).rowcount == 1

    def acknowledge(self, alarm_id: int, *, by: str | None, now: float) -> None:
        """Somebody knows of an alarm. The caller holds the model's lock and has read the alarm."""
        self._connection.execute(
            update(alarm)
            .where(alarm.c.id == alarm_id)
            .values(acknowledged_at=now, acknowledged_by=by)
        )

    def counts(self) -> dict[tuple[str, str], int]:
        """Alarms ever raised, by (model, statistic)."""
        statement = select(alarm.c.model, alarm.c.statistic, func.count()).group_by(
            alarm.c.model, alarm.c.statistic
        )
        return {(model, name): n for model, name, n in self._connection.execute(statement)}
