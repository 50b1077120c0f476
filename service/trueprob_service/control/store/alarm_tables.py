"""Tables of the sequential alarms; on the same metadata as `trueprob_service.control.store.tables`."""

from __future__ import annotations

from sqlalchemy import (
    JSON,
    BigInteger,
    Column,
    Double,
    ForeignKeyConstraint,
    Index,
    Integer,
    String,
    Table,
)

from trueprob_service.control.store.tables import metadata

__all__ = ["alarm", "alarm_state"]

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
