"""Totals by predicted class, and the statistics of alarms as they were when labels were counted."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0014"
down_revision = "0013"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "class_running",
        sa.Column("model", sa.String(length=100), nullable=False),
        sa.Column("version", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("calibrator", sa.String(length=100), nullable=False),
        sa.Column("predicted", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("labels", sa.Double(), nullable=False),
        sa.Column("confidence", sa.Double(), nullable=False),
        sa.Column("correct", sa.Double(), nullable=False),
        sa.Column("squared", sa.Double(), nullable=False),
        sa.PrimaryKeyConstraint(
            "model", "version", "calibrator", "predicted", name=op.f("pk_class_running")
        ),
    )
    op.add_column("alarm_state", sa.Column("rules", sa.String(length=200), nullable=True))
    op.add_column("alarm_state", sa.Column("evidence_log10", sa.Double(), nullable=True))
    op.add_column("alarm_state", sa.Column("change_log10", sa.Double(), nullable=True))
