"""Alarms, and the state of the two statistics that raise them.

`alarm_state` holds evidence and change of each promotion, `alarm` the history: when each was
raised, acknowledged, and handled by the refit policy.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from typing import Any, Final, NamedTuple

import orjson
from sqlalchemy import (
    JSON,
    BigInteger,
    Column,
    ColumnElement,
    Connection,
    Double,
    ForeignKeyConstraint,
    Index,
    Integer,
    Select,
    String,
    Subquery,
    Table,
    Text,
    bindparam,
    cast,
    func,
    insert,
    select,
    update,
)

from trueprob_service.control.store.tables import metadata, promotion, upsert

__all__ = [
    "AlarmFiguresRow",
    "AlarmRow",
    "AlarmStateRow",
    "AlarmStateTable",
    "AlarmTable",
    "alarm",
    "alarm_state",
]


alarm_state = Table(  # one row a promotion, from its first label on
    "alarm_state",
    metadata,
    Column("model", String(100), primary_key=True),
    Column("revision", Integer, primary_key=True, autoincrement=False),
    Column("evidence", JSON, nullable=False),  # trueprob.drift.BetState
    Column("change", JSON, nullable=False),
    Column("counted", BigInteger, nullable=False),  # labels in the statistics
    Column("repeated", BigInteger, nullable=False),  # labels left out: their group was counted
    Column("updated_at", Double, nullable=False),
    Column("interval", JSON(none_as_null=True)),  # sums of the verdict's interval
    Column("rules", String(200)),  # that the next two were computed by
    Column("evidence_log10", Double),
    Column("change_log10", Double),
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
    Column("answered_at", Double),  # when the refit policy handled it
    Column("worst_class", JSON(none_as_null=True)),  # if bets on one class raised it
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


_STAMP: Final = ("model", "revision", "updated_at", "counted", "repeated")
_FIGURES: Final = ("model", "rules", "evidence_log10", "change_log10")


def _newest_revisions() -> Subquery:
    return (
        select(promotion.c.model, func.max(promotion.c.revision).label("revision"))
        .group_by(promotion.c.model)
        .subquery()
    )


def _of_live(*columns: Table | ColumnElement[Any]) -> Select[Any]:
    newest = _newest_revisions()
    return select(*columns).join(
        newest,
        (newest.c.model == alarm_state.c.model) & (newest.c.revision == alarm_state.c.revision),
    )


@dataclass(frozen=True)
class AlarmStateRow:
    """The state of both statistics of a promotion."""

    model: str
    revision: int
    # Both as of `trueprob.drift.BetState.to_dict`; floats come back exactly.
    evidence: dict[str, Any]
    change: dict[str, Any]
    counted: int  # labels in the statistics; each label of a group counts by itself
    repeated: int  # labels left out because their group was counted before
    updated_at: float
    interval: dict[str, Any] | None = None  # sums of the verdict's interval; None before a label
    # log10 of both statistics, and the `AlarmRules.name` that they were computed by.
    rules: str | None = None
    evidence_log10: float | None = None
    change_log10: float | None = None


class AlarmFiguresRow(NamedTuple):
    """What a verdict and the metrics need of a state; fields of `AlarmStateRow`."""

    rules: str | None
    evidence_log10: float | None
    change_log10: float | None
    interval: dict[str, Any] | None


class AlarmStateTable:
    """The table ``alarm_state``."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    def lock(self, model: str, revision: int) -> AlarmStateRow | None:
        """The state, locked until the transaction ends; None before the first label.

        Second in the order of locks (model, alarm_state, bins). The caller holds the model's lock,
        so two transactions that find no row cannot both insert one.
        """
        key = {"model": model, "revision": revision}
        row = self._connection.execute(_LOCKED, key).first()
        return None if row is None else AlarmStateRow(**row._mapping)

    def put(self, row: AlarmStateRow) -> None:
        """Write a state that the caller has locked."""
        self._connection.execute(upsert(self._connection, alarm_state), vars(row))

    def get(self, model: str, revision: int) -> AlarmStateRow | None:
        """The state, without a lock."""
        row = self._connection.execute(
            select(alarm_state).where(
                alarm_state.c.model == model, alarm_state.c.revision == revision
            )
        ).first()
        return None if row is None else AlarmStateRow(**row._mapping)

    def live(self, models: Collection[str] | None = None) -> dict[str, AlarmStateRow]:
        """States of the live promotions, by model; models without labels are left out."""
        statement = _of_live(alarm_state)
        if models is not None:
            statement = statement.where(alarm_state.c.model.in_(models))
        return {
            row.model: AlarmStateRow(**row._mapping) for row in self._connection.execute(statement)
        }

    def figures(self, models: Collection[str] | None = None) -> dict[str, AlarmFiguresRow]:
        """As `live`, without the states of the bets, which take longer to read than the rest."""
        columns = [alarm_state.c[name] for name in _FIGURES]
        # As text: the column's own decoder takes five times as long.
        statement = _of_live(*columns, cast(alarm_state.c.interval, Text))
        if models is not None:
            statement = statement.where(alarm_state.c.model.in_(models))
        return {
            model: AlarmFiguresRow(rules, evidence, change, text and orjson.loads(text))
            for model, rules, evidence, change, text in self._connection.execute(statement)
        }

    def stamps(self) -> dict[str, tuple[int, float, int, int]]:
        """Numbers that change with the states of the live promotions, by model."""
        statement = _of_live(*(alarm_state.c[name] for name in _STAMP))
        return {name: tuple(rest) for name, *rest in self._connection.execute(statement)}


@dataclass(frozen=True)
class AlarmRow:
    """A statistic that passed its threshold."""

    id: int  # rises with time
    model: str
    # Of the promotion whose labels raised it:
    revision: int
    version: int
    calibrator: str
    statistic: str  # `evidence` or `change`
    # When it was raised:
    log10: float
    threshold_log10: float
    tolerance: float
    counted: int  # labels in the statistic
    raised_at: float
    acknowledged_at: float | None = None
    acknowledged_by: str | None = None  # id of the API key
    answered_at: float | None = None  # when the refit policy handled it
    # Class, share, confidence, frequency and labels since the promotion; None if it is no class's.
    worst_class: dict[str, Any] | None = None

    @property
    def is_active(self) -> bool:
        """Whether the alarm still counts: change until it is acknowledged, evidence always."""
        return self.acknowledged_at is None or self.statistic == "evidence"


class AlarmTable:
    """The table ``alarm``."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    def add(self, **fields: Any) -> AlarmRow:
        """Record an alarm; takes every field of `AlarmRow` but the id."""
        statement = insert(alarm).values(**fields).returning(alarm)
        return AlarmRow(**self._connection.execute(statement).one()._mapping)

    def get(self, model: str, alarm_id: int) -> AlarmRow | None:
        """One alarm of a model."""
        row = self._connection.execute(
            select(alarm).where(alarm.c.model == model, alarm.c.id == alarm_id)
        ).first()
        return None if row is None else AlarmRow(**row._mapping)

    def of_promotion(self, model: str, revision: int) -> list[AlarmRow]:
        """The alarms of a promotion, newest first."""
        statement = (
            select(alarm)
            .where(alarm.c.model == model, alarm.c.revision == revision)
            .order_by(alarm.c.id.desc())
        )
        return [AlarmRow(**row._mapping) for row in self._connection.execute(statement)]

    def live(self) -> dict[str, list[AlarmRow]]:
        """The alarms of all live promotions by model, newest first."""
        newest = _newest_revisions()
        statement = (
            select(alarm)
            .join(
                newest,
                (newest.c.model == alarm.c.model) & (newest.c.revision == alarm.c.revision),
            )
            .order_by(alarm.c.id.desc())
        )
        found: dict[str, list[AlarmRow]] = {}
        for row in self._connection.execute(statement):
            found.setdefault(row.model, []).append(AlarmRow(**row._mapping))
        return found

    def page(self, model: str, *, before: int | None, limit: int) -> list[AlarmRow]:
        """A page of a model's alarms below an id, newest first."""
        statement = (
            select(alarm).where(alarm.c.model == model).order_by(alarm.c.id.desc()).limit(limit)
        )
        if before is not None:
            statement = statement.where(alarm.c.id < before)
        return [AlarmRow(**row._mapping) for row in self._connection.execute(statement)]

    def unanswered(self, *, limit: int = 100) -> list[AlarmRow]:
        """Alarms that the refit policy has not handled yet, oldest first."""
        statement = (
            select(alarm).where(alarm.c.answered_at.is_(None)).order_by(alarm.c.id).limit(limit)
        )
        return [AlarmRow(**row._mapping) for row in self._connection.execute(statement)]

    def answer(self, alarm_id: int, *, now: float) -> bool:
        """Mark an alarm as handled by the refit policy; False when it was marked before."""
        statement = (
            update(alarm)
            .where(alarm.c.id == alarm_id, alarm.c.answered_at.is_(None))
            .values(answered_at=now)
        )
        return self._connection.execute(statement).rowcount == 1

    def acknowledge(self, alarm_id: int, *, by: str | None, now: float) -> None:
        """Acknowledge an alarm that the caller has read under the model's lock."""
        self._connection.execute(
            update(alarm)
            .where(alarm.c.id == alarm_id)
            .values(acknowledged_at=now, acknowledged_by=by)
        )

    def counts(self) -> dict[tuple[str, str], int]:
        """How many alarms were ever raised, by (model, statistic)."""
        statement = select(alarm.c.model, alarm.c.statistic, func.count()).group_by(
            alarm.c.model, alarm.c.statistic
        )
        return {(model, name): n for model, name, n in self._connection.execute(statement)}
