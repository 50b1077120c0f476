"""State of the sequential alarms, groups that were counted, and the history of alarms.

Revision: 0005, after 0003.
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0005"
down_revision = "0003"
branch_labels = None
depends_on = None


def _of_promotion(table: str) -> sa.ForeignKeyConstraint:
    return sa.ForeignKeyConstraint(
        ["model", "revision"],
        ["promotion.model", "promotion.revision"],
        name=op.f(f"fk_{table}_model_revision"),
    )


def upgrade() -> None:
    op.create_table(
        "alarm_state",
        sa.Column("model", sa.String(length=100), nullable=False),
        sa.Column("revision", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("evidence", sa.JSON(), nullable=False),
        sa.Column("change", sa.JSON(), nullable=False),
        sa.Column("counted", sa.BigInteger(), nullable=False),
        sa.Column("repeated", sa.BigInteger(), nullable=False),
        sa.Column("updated_at", sa.Double(), nullable=False),
        sa.PrimaryKeyConstraint("model", "revision", name=op.f("pk_alarm_state")),
        _of_promotion("alarm_state"),
    )
    op.create_table(
        "counted_group",
        sa.Column("model", sa.String(length=100), nullable=False),
        sa.Column("revision", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("digest", sa.LargeBinary(length=8), nullable=False),
        sa.Column("seen_at", sa.Double(), nullable=False),
        sa.PrimaryKeyConstraint("model", "revision", "digest", name=op.f("pk_counted_group")),
        _of_promotion("counted_group"),
        sqlite_with_rowid=False,
    )
    op.create_index(op.f("ix_counted_group_seen_at"), "counted_group", ["seen_at"])
    op.create_table(
        "alarm",
        sa.Column("id", sa.Integer(), autoincrement=True, nullable=False),
        sa.Column("model", sa.String(length=100), nullable=False),
        sa.Column("revision", sa.Integer(), nullable=False),
        sa.Column("version", sa.Integer(), nullable=False),
        sa.Column("calibrator", sa.String(length=100), nullable=False),
        sa.Column("statistic", sa.String(length=10), nullable=False),
        sa.Column("log10", sa.Double(), nullable=False),
        sa.Column("threshold_log10", sa.Double(), nullable=False),
        sa.Column("tolerance", sa.Double(), nullable=False),
        sa.Column("counted", sa.BigInteger(), nullable=False),
        sa.Column("raised_at", sa.Double(), nullable=False),
        sa.Column("acknowledged_at", sa.Double(), nullable=True),
        sa.Column("acknowledged_by", sa.String(length=100), nullable=True),
        sa.Column("answered_at", sa.Double(), nullable=True),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_alarm")),
        _of_promotion("alarm"),
        sqlite_autoincrement=True,
    )
    op.create_index(op.f("ix_alarm_model_revision"), "alarm", ["model", "revision"])
    op.create_index(op.f("ix_alarm_answered_at"), "alarm", ["answered_at"])
