"""Requests are told by what they ask for: no keys of theirs, and what a fit was judged against.

Revision: 0008, after 0007.
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0008"
down_revision = "0007"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("fit", sa.Column("warnings", sa.JSON(none_as_null=True), nullable=True))
    op.add_column("fit", sa.Column("judged_revision", sa.Integer(), nullable=True))
    op.drop_table("idempotent_request")
