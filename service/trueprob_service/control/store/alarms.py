"""The history of alarms: what was raised, when somebody saw it, when a policy dealt with it.

What the sequential alarms remember: one row a promotion, written under its lock.

Tables of the sequential alarms; on the same metadata as `trueprob_service.control.store.tables`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

from sqlalchemy import (
    JSON,
    BigInteger,
    Column,
    Connection,
    Double,
    ForeignKeyConstraint,
    Index,
    Integer,
    String,
    Table,
    bindparam,
    func,
    insert,
    select,
    update,
)

from trueprob_service.control.store.tables import metadata, promotion, upsert

__all__ = ["AlarmRow", "AlarmStateRow", "AlarmStateTable", "AlarmTable", "alarm", "alarm_state"]


alarm_state = Table(  # one row a promotion, from its first label on; locked on update
    "alarm_state",
    metadata,
    Column("model", String(100), primary_key=True),
    Column("revision", Integer, primary_key=True, autoincrement=False),
    Column("evidence", JSON, nullable=False),  # trueprob.drift.BetState
    Column("change", JSON, nullable=False),
    Column("counted", BigInteger, nullable=False),  # labels that went in
    Column("repeated", BigInteger, nullable=False),  # labels of groups counted before: left out
    Column("updated_at", Double, nullable=False),
    ForeignKeyConstraint(["model", "revision"], ["promotion.model", "promotion.revision"]),
)

alarm = Table(  # history: never removed
    "alarm",
    metadata,
    Column("id", Integer, primary_key=True, autoincrement=True),
    Column("model", String(100), nullable=False),
    Column("revision", Integer, nullable=False),
    Column("version", Integer, nullable=False),
    Column("calibrator", String(100), nullable=False),
    Column("statistic", String(10), nullable=False),  # evidence, change
    Column("log10", Double, nullable=False),
    Column("threshold_log10", Double, nullable=False),
    Column("tolerance", Double, nullable=False),
    Column("counted", BigInteger, nullable=False),  # labels in the state when it was raised
    Column("raised_at", Double, nullable=False),
    Column("acknowledged_at", Double),
    Column("acknowledged_by", String(100)),
    Column("answered_at", Double),  # when the refit policy dealt with it
    ForeignKeyConstraint(["model", "revision"], ["promotion.model", "promotion.revision"]),
    Index(None, "model", "revision"),
    Index(None, "answered_at"),
    sqlite_autoincrement=True,
)


_LOCKED: Final = (
    select(alarm_state)
    .where(
        alarm_state.c.model == bindparam("model"), alarm_state.c.revision == bindparam("revision")
    )
    .with_for_update()
)


@dataclass(frozen=True)
class AlarmStateRow:
    """State of both statistics of a promotion."""

    model: str
    revision: int
    evidence: dict[str, Any]  # `trueprob.drift.BetState.to_dict`; every float comes back as it was
    change: dict[str, Any]  # `trueprob.drift.BetState.to_dict`; every float comes back as it was
    counted: int  # labels that went in, those of one group each by itself
    repeated: int  # labels that were left out: their group was counted before
    updated_at: float


class AlarmStateTable:
    """The table ``alarm_state``."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    def lock(self, model: str, revision: int) -> AlarmStateRow | None:
        """The state, kept from others until the end; None before the first label.

        Second in the order of locks (model, alarm_state, bins); the caller holds the model's, so
        two that find no row cannot both make it.
        """
        key = {"model": model, "revision": revision}
        row = self._connection.execute(_LOCKED, key).first()
        return None if row is None else AlarmStateRow(**row._mapping)

    def put(self, row: AlarmStateRow) -> None:
        """Write a state that was locked."""
        self._connection.execute(upsert(self._connection, alarm_state), vars(row))

    def get(self, model: str, revision: int) -> AlarmStateRow | None:
        """The state, to be read only."""
        row = self._connection.execute(
            select(alarm_state).where(
                alarm_state.c.model == model, alarm_state.c.revision == revision
            )
        ).first()
        return None if row is None else AlarmStateRow(**row._mapping)

    def live(self) -> dict[str, AlarmStateRow]:
        """Of each model the state of its live promotion, where that has labels."""
        newest = (
            select(promotion.c.model, func.max(promotion.c.revision).label("revision"))
            .group_by(promotion.c.model)
            .subquery()
        )
        statement = select(alarm_state).join(
            newest,
            (newest.c.model == alarm_state.c.model) & (newest.c.revision == alarm_state.c.revision),
        )
        return {
            row.model: AlarmStateRow(**row._mapping) for row in self._connection.execute(statement)
        }


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


class AlarmTable:
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
