"""Models that were deleted: which revisions their names have used up, and deleting itself.

A prediction id names its model by name and its promotion by revision. A model that is declared anew
under a deleted one's name begins with the revision after that one's last, so what the deleted model
predicted never counts for it.
"""

from __future__ import annotations

from typing import Final

from sqlalchemy import Column, Connection, Double, Integer, String, Table, delete, select

from trueprob_service.control.store.group_counts import group_count
from trueprob_service.control.store.insertion import insert_into
from trueprob_service.control.store.tables import bin_running, metadata, model, window_block

__all__ = ["DeletedModels", "deleted_model"]

deleted_model: Final = Table(
    "deleted_model",
    metadata,
    Column("name", String(100), primary_key=True),
    Column("revision", Integer, nullable=False),  # its last
    Column("deleted_at", Double, nullable=False),
)


class DeletedModels:
    """The table ``deleted_model``, and what a model has in all others."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    def delete(self, name: str, *, revision: int, now: float) -> None:
        """Remove a model with all that is its own. The caller holds its lock."""
        for table in owned_tables():
            self._connection.execute(delete(table).where(table.c.model == name))
        place = select(model.c.id).where(model.c.name == name).scalar_subquery()
        self._connection.execute(delete(group_count).where(group_count.c.model_id == place))
        self._connection.execute(delete(model).where(model.c.name == name))
        values = {"revision": revision, "deleted_at": now}
        self._connection.execute(
            insert_into(self._connection, deleted_model)
            .values(name=name, **values)
            .on_conflict_do_update(index_elements=[deleted_model.c.name], set_=values)
        )

    def last_revision(self, name: str) -> int:
        """The revision after which a model of this name begins; 0 for a new name."""
        query = select(deleted_model.c.revision).where(deleted_model.c.name == name)
        return self._connection.execute(query).scalar() or 0

    def forget(self, *, before: float) -> int:
        """Drop those that were deleted before a time; how many."""
        old = delete(deleted_model).where(deleted_model.c.deleted_at < before)
        return self._connection.execute(old).rowcount


def owned_tables() -> list[Table]:
    """Tables whose rows are a model's own, those first that refer to others.

    All that refer to a model, directly or through another table, and two that need not. A table
    that names a model and outlives it has no foreign key.
    """
    without_key = (bin_running, window_block)
    return [
        table
        for table in reversed(metadata.sorted_tables)
        if "model" in table.c and (table.foreign_keys or table in without_key)
    ]
