"""Groups are numbers in one narrow table that counts their labels of the day, keys in another.

Labels per input are counted by group from here on; what was counted of inputs on the day of the
migration is forgotten, what was counted of keys is kept.

Revision: 0007, after 0006.
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0007"
down_revision = "0006"
branch_labels = None
depends_on = None

_ROWS = 10_000
_DAY_SECONDS = 86_400


def upgrade() -> None:
    group_count = op.create_table(
        "group_count",
        sa.Column("model_id", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("revision", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("digest", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("day", sa.Integer(), nullable=False),
        sa.Column("labels", sa.Integer(), nullable=False),
        sa.PrimaryKeyConstraint("model_id", "revision", "digest", name=op.f("pk_group_count")),
        sqlite_with_rowid=False,
    )
    op.create_table(
        "key_count",
        sa.Column("model", sa.String(length=100), nullable=False),
        sa.Column("day", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("key", sa.String(length=100), nullable=False),
        sa.Column("labels", sa.Integer(), nullable=False),
        sa.PrimaryKeyConstraint("model", "day", "key", name=op.f("pk_key_count")),
    )
    op.create_index(op.f("ix_key_count_day"), "key_count", ["day"])
    _copy_groups(op.get_bind(), group_count)
    op.execute(
        "INSERT INTO key_count (model, day, key, labels) "
        "SELECT model, day, name, labels FROM label_count WHERE what = 'key'"
    )
    op.drop_table("counted_group")
    op.drop_table("label_count")


def _copy_groups(connection: sa.Connection, group_count: sa.Table) -> None:
    model = sa.table("model", sa.column("id"), sa.column("name"))
    counted = sa.table("counted_group", *map(sa.column, ("model", "revision", "digest", "seen_at")))
    key = (counted.c.model, counted.c.revision, counted.c.digest)
    names = connection.execute(sa.select(model.c.name, model.c.id))
    places = {row.name: row.id for row in names}
    page = sa.select(counted).order_by(*key).limit(_ROWS)
    rows = connection.execute(page).all()
    while rows:
        connection.execute(
            sa.insert(group_count),
            [
                {
                    "model_id": places[row.model],
                    "revision": row.revision,
                    "digest": int.from_bytes(row.digest, "big", signed=True),
                    "day": int(row.seen_at // _DAY_SECONDS),
                    "labels": 1,
                }
                for row in rows
            ],
        )
        last = sa.tuple_(rows[-1].model, rows[-1].revision, rows[-1].digest)
        rows = connection.execute(page.where(sa.tuple_(*key) > last)).all()
