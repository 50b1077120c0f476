"""Candidates in shadow, caps of labels, the webhook's outbox, and what triggered a fit.

Revision: 0006, after 0005.
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0006"
down_revision = "0005"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("fit", sa.Column("trigger", sa.String(length=100), nullable=True))
    op.create_index(op.f("ix_fit_model_trigger"), "fit", ["model", "trigger"], unique=True)
    op.create_table(
        "shadow",
        sa.Column("id", sa.Integer(), autoincrement=True, nullable=False),
        sa.Column("model", sa.String(length=100), nullable=False),
        sa.Column("revision", sa.Integer(), nullable=False),
        sa.Column("version", sa.Integer(), nullable=False),
        sa.Column("calibrator", sa.String(length=100), nullable=False),
        sa.Column("policy", sa.String(length=10), nullable=False),
        sa.Column("alpha", sa.Double(), nullable=False),
        sa.Column("changes_prediction", sa.Boolean(), nullable=False),
        sa.Column("state", sa.String(length=10), nullable=False),
        sa.Column("labels", sa.Integer(), nullable=False),
        sa.Column("comparison", sa.JSON(none_as_null=True), nullable=True),
        sa.Column("better_log10", sa.Double(), nullable=False),
        sa.Column("worse_log10", sa.Double(), nullable=False),
        sa.Column("promoted", sa.Integer(), nullable=True),
        sa.Column("started_at", sa.Double(), nullable=False),
        sa.Column("started_by", sa.String(length=100), nullable=True),
        sa.Column("ended_at", sa.Double(), nullable=True),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_shadow")),
        sa.ForeignKeyConstraint(
            ["model", "revision"],
            ["promotion.model", "promotion.revision"],
            name=op.f("fk_shadow_model_revision"),
        ),
        sqlite_autoincrement=True,
    )
    op.create_index(op.f("ix_shadow_model_state"), "shadow", ["model", "state"])
    op.create_table(
        "label_count",
        sa.Column("model", sa.String(length=100), nullable=False),
        sa.Column("day", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("what", sa.String(length=5), nullable=False),
        sa.Column("name", sa.String(length=100), nullable=False),
        sa.Column("labels", sa.Integer(), nullable=False),
        sa.PrimaryKeyConstraint("model", "day", "what", "name", name=op.f("pk_label_count")),
    )
    op.create_index(op.f("ix_label_count_day"), "label_count", ["day"])
    op.create_table(
        "webhook_event",
        sa.Column("id", sa.Integer(), autoincrement=True, nullable=False),
        sa.Column("message", sa.String(length=40), nullable=False),
        sa.Column("kind", sa.String(length=40), nullable=False),
        sa.Column("model", sa.String(length=100), nullable=False),
        sa.Column("body", sa.Text(), nullable=False),
        sa.Column("created_at", sa.Double(), nullable=False),
        sa.Column("state", sa.String(length=10), nullable=False),
        sa.Column("attempts", sa.Integer(), nullable=False),
        sa.Column("due_at", sa.Double(), nullable=False),
        sa.Column("owner", sa.String(length=100), nullable=True),
        sa.Column("ended_at", sa.Double(), nullable=True),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_webhook_event")),
        sa.UniqueConstraint("message", name=op.f("uq_webhook_event_message")),
        sqlite_autoincrement=True,
    )
    op.create_index(op.f("ix_webhook_event_state_due_at"), "webhook_event", ["state", "due_at"])
