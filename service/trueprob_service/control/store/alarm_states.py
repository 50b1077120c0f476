"""What the sequential alarms remember: one row a promotion, written under its lock."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

from sqlalchemy import Connection, bindparam, func, select

from trueprob_service.control.store.alarm_tables import alarm_state
from trueprob_service.control.store.insertion import upsert
from trueprob_service.control.store.tables import promotion

__all__ = ["AlarmStateRow", "AlarmStates"]

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


class AlarmStates:
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
