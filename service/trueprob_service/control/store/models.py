"""Models and their versions, as they were first seen. A version never changes.

Models that were deleted: which revisions their names have used up, and deleting itself.

A prediction id names its model by name and its promotion by revision. A model that is declared anew
under a deleted one's name begins with the revision after that one's last, so what the deleted model
predicted never counts for it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from sqlalchemy import (
    Column,
    Connection,
    Double,
    Integer,
    Row,
    String,
    Table,
    bindparam,
    delete,
    select,
)

from trueprob_service.control.store.labels import group_count
from trueprob_service.control.store.tables import (
    bin_running,
    insert_into,
    metadata,
    model,
    model_version,
    window_block,
)

__all__ = ["DeletedModelTable", "ModelRow", "ModelTable", "VersionRow", "deleted_model"]


deleted_model: Final = Table(
    "deleted_model",
    metadata,
    Column("name", String(100), primary_key=True),
    Column("revision", Integer, nullable=False),  # its last
    Column("deleted_at", Double, nullable=False),
)


class DeletedModelTable:
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


_NAMED: Final = select(model).where(model.c.name == bindparam("name"))
_LOCKED: Final = select(model.c.id).where(model.c.name == bindparam("name")).with_for_update()


@dataclass(frozen=True)
class ModelRow:
    """A model: its place in the list, and whether it was declared over HTTP."""

    id: int
    name: str
    declared: bool
    created_at: float


@dataclass(frozen=True)
class VersionRow:
    """A version of a model: its classes and the calibrator that it came with."""

    model: str
    version: int
    class_names: tuple[str, ...]
    factory_calibrator: str
    created_at: float


class ModelTable:
    """The tables ``model`` and ``model_version``."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    def lock(self, name: str) -> int | None:
        """Wait for, and keep until the end, the right to change this model's state.

        First in the order of locks (model, bins). SQLite has one writer anyway.

        Returns: its place in the list, which no other model ever had; None when there is none.
        """
        return self._connection.execute(_LOCKED, {"name": name}).scalar()

    def add(self, name: str, *, declared: bool, now: float) -> bool:
        """Register a model; False when it is known already."""
        statement = (
            insert_into(self._connection, model)
            .values(name=name, declared=declared, created_at=now)
            .on_conflict_do_nothing(index_elements=[model.c.name])
            .returning(model.c.id)
        )
        return self._connection.execute(statement).first() is not None

    def get(self, name: str) -> ModelRow | None:
        """The model of this name."""
        row = self._connection.execute(_NAMED, {"name": name}).first()
        return None if row is None else ModelRow(**row._mapping)

    def all(self) -> list[ModelRow]:
        """Every model, by name."""
        return [
            ModelRow(**row._mapping)
            for row in self._connection.execute(select(model).order_by(model.c.name))
        ]

    def page(self, *, before: int | None, limit: int) -> list[ModelRow]:
        """Newest first, from below an id."""
        statement = select(model).order_by(model.c.id.desc()).limit(limit)
        if before is not None:
            statement = statement.where(model.c.id < before)
        return [ModelRow(**row._mapping) for row in self._connection.execute(statement)]

    def add_version(
        self, name: str, version: int, *, class_names: Sequence[str], factory: str, now: float
    ) -> bool:
        """Register a version; False when it is known already."""
        statement = (
            insert_into(self._connection, model_version)
            .values(
                model=name,
                version=version,
                class_names=list(class_names),
                factory_calibrator=factory,
                created_at=now,
            )
            .on_conflict_do_nothing()
            .returning(model_version.c.version)
        )
        return self._connection.execute(statement).first() is not None

    def version(self, name: str, version: int) -> VersionRow | None:
        """One version of a model."""
        row = self._connection.execute(
            select(model_version).where(
                model_version.c.model == name, model_version.c.version == version
            )
        ).first()
        return None if row is None else _version(row)

    def versions(self, name: str) -> list[VersionRow]:
        """Those of one model, in rising order."""
        statement = (
            select(model_version)
            .where(model_version.c.model == name)
            .order_by(model_version.c.version)
        )
        return [_version(row) for row in self._connection.execute(statement)]


def _version(row: Row[tuple[object, ...]]) -> VersionRow:
    fields = dict(row._mapping)
    return VersionRow(**{**fields, "class_names": tuple(fields["class_names"])})
