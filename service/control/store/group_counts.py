"""Groups of labels that a promotion has counted: how many of the day, and that there were any.

A group is what copies of an outcome share: a key of the client, or the digest of the input. Later
copies do not move the alarm, and of one group only so many count a day. Groups of rows that came
with their labels belong to no promotion and stand under revision 0.

A group is forgotten when no row of it has come for as long as a receipt lives, so the table has at
most a row for each label of that time. Copies that lie further apart count as new.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import orjson
from numpy.typing import NDArray
from sqlalchemy import BigInteger, Column, Connection, Integer, Table, delete, select, tuple_

from service.control.store.tables import metadata

__all__ = ["NO_PROMOTION", "GroupCounts", "Known", "Position", "group_count"]

NO_PROMOTION: Final = 0

# One row a label in most services, so it is narrow: numbers only, no index beside the key, and no
# foreign key, which PostgreSQL would look up for each row.
group_count: Final = Table(
    "group_count",
    metadata,
    Column("model_id", Integer, primary_key=True, autoincrement=False),
    Column("revision", Integer, primary_key=True, autoincrement=False),
    Column("digest", BigInteger, primary_key=True, autoincrement=False),  # its 64 bits, signed
    Column("day", Integer, nullable=False),  # of the last label that counted, since 1970 UTC
    Column("labels", Integer, nullable=False),  # that counted on that day
    sqlite_with_rowid=False,
)
_KEY: Final = list(group_count.primary_key.columns)
Position = tuple[int, int, int]


@dataclass(frozen=True, eq=False)
class Known:
    """What is known of some groups.

    Attributes
    ----------
    counted : ndarray of shape (n,), bool
        Whether any label of the group was counted.
    day, labels : ndarray of shape (n,), int64
        The last day that one was, and how many were on that day; 0 where none was.
    """

    counted: NDArray[np.bool_]
    day: NDArray[np.int64]
    labels: NDArray[np.int64]


class GroupCounts:
    """The table ``group_count``. The caller holds the model's lock.

    Statements are text for the driver, all groups in one parameter: compiling and binding by
    SQLAlchemy takes several times as long as the database.
    """

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._postgresql = connection.dialect.name == "postgresql"

    def known(self, model_id: int, revision: int, groups: NDArray[np.uint64]) -> Known:
        """What is known of these groups.

        Parameters
        ----------
        model_id, revision : int
        groups : ndarray of shape (n,), uint64
            Ascending and distinct, none of them 0.
        """
        day, labels = np.zeros((2, len(groups)), np.int64)
        counted = np.zeros(len(groups), np.bool_)
        given = groups.view(np.int64)
        if not len(given):
            return Known(counted, day, labels)
        if self._postgresql:
            rows = self._execute(
                "SELECT digest, day, labels FROM group_count WHERE model_id = %s "
                "AND revision = %s AND digest = ANY(%s::bigint[])",
                (model_id, revision, _array(given.tolist())),
            )
        else:
            rows = self._execute(
                "SELECT digest, day, labels FROM group_count WHERE model_id = ? "
                "AND revision = ? AND digest IN (SELECT value FROM json_each(?))",
                (model_id, revision, orjson.dumps(given.tolist()).decode()),
            )
        found = np.array([tuple(row) for row in rows], np.int64).reshape(-1, 3)
        places = np.searchsorted(groups, found[:, 0].astype(np.int64).view(np.uint64))
        counted[places], day[places], labels[places] = True, found[:, 1], found[:, 2]
        return Known(counted, day, labels)

    def put(
        self,
        model_id: int,
        revision: int,
        groups: NDArray[np.uint64],
        labels: NDArray[np.int64],
        *,
        day: int,
    ) -> None:
        """Write how many labels of a day each group has.

        Parameters
        ----------
        model_id, revision : int
        groups : ndarray of shape (n,), uint64
        labels : ndarray of shape (n,), int64
        day : int
        """
        given, counts = groups.view(np.int64).tolist(), labels.tolist()
        update = (
            "ON CONFLICT (model_id, revision, digest) "
            "DO UPDATE SET day = excluded.day, labels = excluded.labels"
        )
        into = "INSERT INTO group_count (model_id, revision, digest, day, labels)"
        if not given:
            return
        if self._postgresql:
            self._execute(
                f"{into} SELECT %s, %s, digest, %s, labels "  # noqa: S608 - no value in the text
                f"FROM unnest(%s::bigint[], %s::bigint[]) AS given (digest, labels) {update}",
                (model_id, revision, day, _array(given), _array(counts)),
            )
        else:
            self._connection.exec_driver_sql(
                f"{into} VALUES (?, ?, ?, ?, ?) {update}",
                [
                    (model_id, revision, digest, day, n)
                    for digest, n in zip(given, counts, strict=True)
                ],
            )

    def forget(
        self, *, before_day: int, limit: int, after: Position | None
    ) -> tuple[int, Position | None]:
        """Drop those of the next groups in the table of which no label came for long.

        Parameters
        ----------
        before_day : int
        limit : int
            Groups that are looked at.
        after : tuple of int or None
            Where the last call ended; None for the beginning.

        Returns
        -------
        forgotten : int
        position : tuple of int or None
            Where this call ended; None at the end of the table.
        """
        key = tuple_(*_KEY)
        ahead = select(*_KEY).order_by(*_KEY)
        if after is not None:
            ahead = ahead.where(key > tuple_(*after))
        last = self._connection.execute(ahead.offset(limit - 1).limit(1)).first()
        # A request that writes one is not waited for.
        old = ahead.where(group_count.c.day < before_day).with_for_update(skip_locked=True)
        if last is not None:
            old = old.where(key <= tuple_(*last))
        gone = delete(group_count).where(key.in_(old))
        return self._connection.execute(gone).rowcount, None if last is None else tuple(last)

    def _execute(self, text: str, values: tuple[Any, ...]) -> Any:
        return self._connection.exec_driver_sql(text, values)


def _array(values: list[int]) -> str:
    """An array as PostgreSQL writes it: the driver's own way takes as long as the insert."""
    return f"{{{','.join(map(str, values))}}}"
