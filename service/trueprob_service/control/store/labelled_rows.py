"""Labelled rows: the newest logits with labels of each version, the data of the refit window."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from sqlalchemy import (
    BigInteger,
    Column,
    Connection,
    Double,
    ForeignKeyConstraint,
    Integer,
    LargeBinary,
    String,
    Table,
    UniqueConstraint,
    delete,
    func,
    insert,
    select,
)

from trueprob_service.control.store.tables import metadata

__all__ = ["LabelledRowTable", "StoredLabelledRow", "labelled_row"]

labelled_row: Final = Table(
    "labelled_row",
    metadata,
    Column("model", String(100), primary_key=True),
    Column("version", Integer, primary_key=True, autoincrement=False),
    Column("sequence", BigInteger, primary_key=True, autoincrement=False),  # only increases
    Column("row_key", LargeBinary(24), nullable=False),  # a key is stored once
    Column("logits", LargeBinary, nullable=False),  # (k,) little-endian float32
    Column("label", Integer, nullable=False),
    Column("row_group", BigInteger),  # a digest; a row without one is its own group
    Column("labelled_at", Double, nullable=False),
    UniqueConstraint("model", "version", "row_key"),
    ForeignKeyConstraint(["model", "version"], ["model_version.model", "model_version.version"]),
)


@dataclass(frozen=True)
class StoredLabelledRow:
    """A row of logits with its label."""

    row_key: bytes  # 24 bytes
    logits: bytes  # k little-endian float32
    label: int  # class index
    row_group: int | None  # signed 64-bit digest that dependent rows share


class LabelledRowTable:
    """The table ``labelled_row``. Writers hold the model's lock."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    def stored(self, model: str, version: int, row_keys: Sequence[bytes]) -> set[bytes]:
        """The keys among these whose rows are stored."""
        table = labelled_row
        found: set[bytes] = set()
        for start in range(0, len(row_keys), 500):
            statement = select(table.c.row_key).where(
                table.c.model == model,
                table.c.version == version,
                table.c.row_key.in_(row_keys[start : start + 500]),
            )
            found |= {bytes(key) for key in self._connection.execute(statement).scalars()}
        return found

    def add(
        self, model: str, version: int, rows: Sequence[StoredLabelledRow], *, cap: int, now: float
    ) -> None:
        """Append rows, and delete the oldest ones beyond the cap."""
        if not rows:
            return
        table = labelled_row
        ring = (table.c.model == model, table.c.version == version)
        last = self._connection.execute(select(func.max(table.c.sequence)).where(*ring)).scalar()
        first = 0 if last is None else last + 1
        skipped = max(0, len(rows) - cap)  # these would be deleted immediately
        self._connection.execute(
            insert(table),
            [
                {
                    **vars(row),
                    "model": model,
                    "version": version,
                    "sequence": first + index,
                    "labelled_at": now,
                }
                for index, row in enumerate(rows)
                if index >= skipped
            ],
        )
        oldest = first + len(rows) - cap
        self._connection.execute(delete(table).where(*ring, table.c.sequence < oldest))

    def newest(self, model: str, version: int, *, cap: int) -> list[StoredLabelledRow]:
        """The newest rows, at most ``cap``, in order of arrival."""
        table = labelled_row
        statement = (
            select(table.c.row_key, table.c.logits, table.c.label, table.c.row_group)
            .where(table.c.model == model, table.c.version == version)
            .order_by(table.c.sequence.desc())
            .limit(cap)
        )
        rows = [
            StoredLabelledRow(bytes(key), bytes(logits), label, group)
            for key, logits, label, group in self._connection.execute(statement)
        ]
        return rows[::-1]

    def counts(self) -> Mapping[tuple[str, int], tuple[int, int]]:
        """By (model, version): the number of stored rows, and of all received rows.

        Only the oldest rows are deleted, so the newest sequence number counts all received rows.
        """
        table = labelled_row
        statement = select(
            table.c.model, table.c.version, func.count(), func.max(table.c.sequence) + 1
        ).group_by(table.c.model, table.c.version)
        return {
            (model, version): (n, ever)
            for model, version, n, ever in self._connection.execute(statement)
        }

    def n_received(self, model: str, version: int) -> int:
        """Number of rows of a version that were ever received."""
        last = select(func.max(labelled_row.c.sequence)).where(
            labelled_row.c.model == model, labelled_row.c.version == version
        )
        found = self._connection.execute(last).scalar()
        return 0 if found is None else int(found) + 1

    def count(self, model: str, version: int) -> tuple[int, int]:
        """As `counts`, for one version."""
        table = labelled_row
        n, last = self._connection.execute(
            select(func.count(), func.max(table.c.sequence)).where(
                table.c.model == model, table.c.version == version
            )
        ).one()
        return n, 0 if last is None else last + 1
