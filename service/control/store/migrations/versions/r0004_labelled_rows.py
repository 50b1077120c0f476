"""Rows with labels for refits, and names of deleted models.

Revision: 0004, after 0003.
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "labelled_row",
        sa.Column("model", sa.String(length=100), nullable=False),
        sa.Column("version", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("sequence", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("row_key", sa.LargeBinary(length=24), nullable=False),
        sa.Column("logits", sa.LargeBinary(), nullable=False),
        sa.Column("label", sa.Integer(), nullable=False),
        sa.Column("row_group", sa.BigInteger(), nullable=True),
        sa.Column("labelled_at", sa.Double(), nullable=False),
        sa.ForeignKeyConstraint(
            ["model", "version"],
            ["model_version.model", "model_version.version"],
            name=op.f("fk_labelled_row_model_version"),
        ),
        sa.PrimaryKeyConstraint("model", "version", "sequence", name=op.f("pk_labelled_row")),
        sa.UniqueConstraint(
            "model", "version", "row_key", name=op.f("uq_labelled_row_model_version_row_key")
        ),
    )
    op.create_table(
        "deleted_model",
        sa.Column("name", sa.String(length=100), nullable=False),
        sa.Column("revision", sa.Integer(), nullable=False),
        sa.Column("deleted_at", sa.Double(), nullable=False),
        sa.PrimaryKeyConstraint("name", name=op.f("pk_deleted_model")),
    )
