"""Models and their versions, and the names of deleted models.

A version is stored when it is first seen and never changes.

A prediction id names its model by name and its promotion by revision. A new model under the name of
a deleted one starts with the revision after the deleted one's last, so labels of the deleted
model's predictions never count for it.
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
    func,
    select,
)

from trueprob_service.control.store.labels import group_count
from trueprob_service.control.store.remembered.blocks import remembered_block
from trueprob_service.control.store.tables import (
    bin_running,
    class_running,
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
    Column("revision", Integer, nullable=False),  # its last revision
    Column("deleted_at", Double, nullable=False),
)
_NAMED: Final = select(model).where(model.c.name == bindparam("name"))
_LOCKED: Final = select(model.c.id).where(model.c.name == bindparam("name")).with_for_update()


@dataclass(frozen=True)
class ModelRow:
    """A model."""

    id: int  # rises with time; orders the list
    name: str
    declared: bool  # declared over HTTP; otherwise found in the model repository
    created_at: float


@dataclass(frozen=True)
class VersionRow:
    """A version of a model, with its factory calibrator."""

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
        """Lock a model until the transaction ends, and return its id; None when there is none.

        First in the order of locks (model, alarm_state, bins). SQLite has one writer anyway.
        """
        return self._connection.execute(_LOCKED, {"name": name}).scalar()

    def add(self, name: str, *, declared: bool, now: float) -> bool:
        """Add a model; False if one of this name exists."""
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

    def page(self, *, before: int | None, limit: int, pattern: str | None = None) -> list[ModelRow]:
        """A page of the models below an id, newest first; only names that match a pattern."""
        statement = select(model).order_by(model.c.id.desc()).limit(limit)
        if before is not None:
            statement = statement.where(model.c.id < before)
        if pattern is not None:
            statement = statement.where(model.c.name.regexp_match(pattern))
        return [ModelRow(**row._mapping) for row in self._connection.execute(statement)]

    def add_version(
        self, name: str, version: int, *, class_names: Sequence[str], factory: str, now: float
    ) -> bool:
        """Add a version; False if it exists."""
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
        """The versions of a model, in rising order."""
        statement = (
            select(model_version)
            .where(model_version.c.model == name)
            .order_by(model_version.c.version)
        )
        return [_version(row) for row in self._connection.execute(statement)]

    def class_names(self, *, most: int) -> dict[tuple[str, int], tuple[str, ...]]:
        """Names of the classes of every (model, version) that has at most so many."""
        columns = (model_version.c.model, model_version.c.version, model_version.c.class_names)
        few = func.json_array_length(model_version.c.class_names) <= most
        return {
            (name, version): tuple(names)
            for name, version, names in self._connection.execute(select(*columns).where(few))
        }


def _version(row: Row[tuple[object, ...]]) -> VersionRow:
    fields = dict(row._mapping)
    return VersionRow(**{**fields, "class_names": tuple(fields["class_names"])})


class DeletedModelTable:
    """The table ``deleted_model``, and deleting a model from all other tables."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    def delete(self, name: str, *, revision: int, now: float) -> None:
        """Delete a model and all its rows. The caller holds the model's lock."""
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
        """The last revision of a deleted model of this name; 0 when there was none."""
        query = select(deleted_model.c.revision).where(deleted_model.c.name == name)
        return self._connection.execute(query).scalar() or 0

    def prune(self, *, deleted_before: float) -> int:
        """Delete the names of models deleted before a time; returns how many."""
        old = delete(deleted_model).where(deleted_model.c.deleted_at < deleted_before)
        return self._connection.execute(old).rowcount


def owned_tables() -> list[Table]:
    """Tables whose rows are deleted with their model, referring tables first.

    A table with a column ``model`` belongs to the model if it has a foreign key; rows of other
    tables outlive it. Four tables have no foreign key but belong to it too.
    """
    without_key = (bin_running, class_running, window_block, remembered_block)
    return [
        table
        for table in reversed(metadata.sorted_tables)
        if "model" in table.c and (table.foreign_keys or table in without_key)
    ]
