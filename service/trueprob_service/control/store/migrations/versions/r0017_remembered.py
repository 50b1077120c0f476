"""Remembered predictions, and the labels of ids that counted."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0017"
down_revision = "0016"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("label_key", sa.Column("label", sa.Integer(), nullable=True))
    op.create_table(
        "remembered_block",
        sa.Column(
            "id",
            sa.BigInteger().with_variant(sa.Integer(), "sqlite"),
            autoincrement=True,
            nullable=False,
        ),
        sa.Column("model", sa.String(length=100), nullable=False),
        sa.Column("first_key", sa.BigInteger(), nullable=False),
        sa.Column("last_key", sa.BigInteger(), nullable=False),
        sa.Column("hour", sa.Integer(), nullable=False),
        sa.Column("n_rows", sa.Integer(), nullable=False),
        sa.Column("size_bytes", sa.Integer(), nullable=False),
        sa.Column("sealed", sa.Boolean(), nullable=False),
        sa.Column("hashes", sa.LargeBinary(), nullable=False),
        sa.Column("content", sa.LargeBinary(), nullable=False),
        sa.Column("contexts", sa.LargeBinary(), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_remembered_block")),
        sqlite_autoincrement=True,
    )
    for columns in (
        ["model", "first_key", "last_key", "hour", "id"],
        ["hour", "model", "sealed", "n_rows", "size_bytes"],
    ):
        name = op.f(f"ix_remembered_block_{'_'.join(columns)}")
        op.create_index(name, "remembered_block", columns)
    if op.get_bind().dialect.name == "postgresql":
        # Hashes cannot be compressed, so nobody shall try.
        for column in ("hashes", "content"):
            op.execute(f"ALTER TABLE remembered_block ALTER COLUMN {column} SET STORAGE EXTERNAL")
