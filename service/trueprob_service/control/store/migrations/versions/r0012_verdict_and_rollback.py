"""Sums of the verdict, held fits, reverted calibrators, and the classes of stored sets."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0012"
down_revision = "0010"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("alarm_state", sa.Column("interval", sa.JSON(none_as_null=True), nullable=True))
    op.add_column(
        "calibration_set", sa.Column("class_names", sa.JSON(none_as_null=True), nullable=True)
    )
    op.add_column(
        "calibrator",
        sa.Column("reverted", sa.Boolean(), nullable=False, server_default=sa.false()),
    )
    op.add_column("fit", sa.Column("held", sa.Boolean(), nullable=False, server_default=sa.false()))
    op.add_column(
        "shadow",
        sa.Column("role", sa.String(length=12), nullable=False, server_default="candidate"),
    )
