"""Models and their versions, as they were first seen. A version never changes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from sqlalchemy import Connection, Row, bindparam, select

from trueprob_service.control.store.insertion import insert_into
from trueprob_service.control.store.tables import model, model_version

__all__ = ["ModelRow", "Models", "VersionRow"]

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


class Models:
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
