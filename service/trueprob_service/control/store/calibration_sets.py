"""Calibration sets: their sizes, digests and names. The rows themselves are in files."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass

from sqlalchemy import Connection, delete, select, update

from trueprob_service.control.store.tables import calibration_set, calibration_set_name, insert_into

__all__ = ["CalibrationSetRow", "CalibrationSetTable"]

# Without `row_digests`, which may be long: 16 bytes a row.
_COLUMNS = [column for column in calibration_set.c if column.name != "row_digests"]


@dataclass(frozen=True)
class CalibrationSetRow:
    """A stored calibration set."""

    id: int  # rises with time; orders the list
    model: str
    digest: str  # of the content: `sha256:` and 64 hex digits
    n_rows: int
    n_classes: int
    size_bytes: int
    created_at: float
    created_by: str | None
    deleted_at: float | None
    class_names: list[str] | None = None  # in the order of its columns; None for old sets


class CalibrationSetTable:
    """The tables ``calibration_set`` and ``calibration_set_name``."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    def add(
        self,
        model: str,
        digest: str,
        *,
        n_rows: int,
        class_names: Sequence[str],
        size_bytes: int,
        row_digests: bytes,
        created_by: str | None,
        now: float,
    ) -> None:
        """Add a set; the same content again undoes a deletion and renews the class names."""
        names = list(class_names)
        self._connection.execute(
            insert_into(self._connection, calibration_set)
            .values(
                model=model,
                digest=digest,
                n_rows=n_rows,
                n_classes=len(names),
                class_names=names,
                size_bytes=size_bytes,
                row_digests=row_digests,
                created_by=created_by,
                created_at=now,
            )
            .on_conflict_do_update(
                index_elements=[calibration_set.c.model, calibration_set.c.digest],
                set_={"deleted_at": None, "class_names": names},
            )
        )

    def delete(self, model: str, digest: str, *, now: float) -> None:
        """Mark a set as deleted and remove its names.

        The digests of its rows stay: they identify the rows that a calibrator was fitted on.
        """
        named = calibration_set_name
        self._connection.execute(
            delete(named).where(named.c.model == model, named.c.digest == digest)
        )
        self._connection.execute(
            update(calibration_set)
            .where(calibration_set.c.model == model, calibration_set.c.digest == digest)
            .values(deleted_at=now)
        )

    def stored(self, digests: Collection[str]) -> set[str]:
        """The digests among these that belong to a set of any model, except deleted sets."""
        statement = select(calibration_set.c.digest).where(
            calibration_set.c.digest.in_(digests), calibration_set.c.deleted_at.is_(None)
        )
        return set(self._connection.execute(statement).scalars())

    def name(self, model: str, name: str, digest: str, *, now: float) -> None:
        """Point a name to a set."""
        self._connection.execute(
            insert_into(self._connection, calibration_set_name)
            .values(model=model, name=name, digest=digest, updated_at=now)
            .on_conflict_do_update(
                index_elements=[calibration_set_name.c.model, calibration_set_name.c.name],
                set_={"digest": digest, "updated_at": now},
                where=calibration_set_name.c.digest != digest,
            )
        )

    def names(self, model: str) -> dict[str, list[str]]:
        """The names of a model's sets, by digest; sets without a name are left out."""
        named: dict[str, list[str]] = {}
        statement = (
            select(calibration_set_name.c.digest, calibration_set_name.c.name)
            .where(calibration_set_name.c.model == model)
            .order_by(calibration_set_name.c.name)
        )
        for digest, name in self._connection.execute(statement):
            named.setdefault(digest, []).append(name)
        return named

    def get(
        self, model: str, digest_or_name: str, *, deleted: bool = False
    ) -> CalibrationSetRow | None:
        """The set with this digest (``sha256:…``), or the one that the name points to.

        Finds deleted sets too with ``deleted=True``, by digest only.
        """
        digest: str | None = digest_or_name
        if not digest_or_name.startswith("sha256:"):
            digest = self._connection.execute(
                select(calibration_set_name.c.digest).where(
                    calibration_set_name.c.model == model,
                    calibration_set_name.c.name == digest_or_name,
                )
            ).scalar()
        statement = select(*_COLUMNS).where(
            calibration_set.c.model == model, calibration_set.c.digest == digest
        )
        if not deleted:
            statement = statement.where(calibration_set.c.deleted_at.is_(None))
        row = self._connection.execute(statement).first()
        return None if row is None else CalibrationSetRow(**row._mapping)

    def row_digests(self, model: str, digest: str) -> bytes:
        """The digests of a set's rows, 16 bytes each; empty when there is no such set."""
        return bytes(
            self._connection.execute(
                select(calibration_set.c.row_digests).where(
                    calibration_set.c.model == model, calibration_set.c.digest == digest
                )
            ).scalar()
            or b""
        )

    def page(self, model: str, *, before: int | None, limit: int) -> list[CalibrationSetRow]:
        """A page of a model's sets below an id, newest first."""
        statement = (
            select(*_COLUMNS)
            .where(calibration_set.c.model == model, calibration_set.c.deleted_at.is_(None))
            .order_by(calibration_set.c.id.desc())
            .limit(limit)
        )
        if before is not None:
            statement = statement.where(calibration_set.c.id < before)
        return [CalibrationSetRow(**row._mapping) for row in self._connection.execute(statement)]
