"""Which receipts have been used: a label counts once.

Groups of labels that a promotion has counted: how many of the day, and that there were any.

A group is what copies of an outcome share: a key of the client, or the digest of the input. Later
copies do not move the alarm, and of one group only so many count a day. Groups of rows that came
with their labels belong to no promotion and stand under revision 0.

A group is forgotten when no row of it has come for as long as a receipt lives, so the table has at
most a row for each label of that time. Copies that lie further apart count as new.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import orjson
from numpy.typing import NDArray
from sqlalchemy import (
    BigInteger,
    Column,
    Connection,
    CursorResult,
    Integer,
    Table,
    bindparam,
    delete,
    select,
    tuple_,
)

from trueprob_service.control.store.tables import label_key, metadata

__all__ = ["NO_PROMOTION", "GroupCountTable", "Known", "LabelKeyTable", "Position", "group_count"]


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
    """What is known of some groups."""

    counted: NDArray[np.bool_]  # whether any label of the group was counted
    # the last day that one was, and how many were on that day; 0 where none was
    day: NDArray[np.int64]
    # the last day that one was, and how many were on that day; 0 where none was
    labels: NDArray[np.int64]

    @classmethod
    def nothing(cls, n: int) -> Known:
        """Of n groups none of which was counted."""
        day, labels = np.zeros((2, n), np.int64)
        return cls(np.zeros(n, np.bool_), day, labels)


class GroupCountTable:
    """The table ``group_count``. The caller holds the model's lock.

    Statements are text for the driver, all groups in one parameter: compiling and binding by
    SQLAlchemy takes several times as long as the database.
    """

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._postgresql = connection.dialect.name == "postgresql"

    def known(self, model_id: int, revision: int, groups: NDArray[np.uint64]) -> Known:
        """What is known of these groups."""
        known = Known.nothing(len(groups))
        given = groups.view(np.int64).tolist()
        if not given:
            return known
        if self._postgresql:
            # One look into the index each, whatever the planner takes the table's size for.
            text = (
                "SELECT given.digest, found.day, found.labels "
                "FROM unnest(%s::bigint[]) AS given (digest), LATERAL ("
                "SELECT day, labels FROM group_count "
                "WHERE model_id = %s AND revision = %s AND digest = given.digest LIMIT 1) AS found"
            )
            values = (_array(given), model_id, revision)
        else:
            text = (
                "SELECT digest, day, labels FROM group_count "
                "WHERE digest IN (SELECT value FROM json_each(?)) "
                "AND model_id = ? AND revision = ?"
            )
            values = (orjson.dumps(given).decode(), model_id, revision)
        rows = self._connection.exec_driver_sql(text, values)
        found = np.array([tuple(row) for row in rows], np.int64).reshape(-1, 3)
        places = np.searchsorted(groups, np.ascontiguousarray(found[:, 0]).view(np.uint64))
        known.counted[places], known.day[places], known.labels[places] = True, *found[:, 1:].T
        return known

    def put_new(
        self,
        model_id: int,
        revision: int,
        groups: NDArray[np.uint64],
        labels: NDArray[np.int64],
        *,
        day: int,
    ) -> bool:
        """`put`, or nothing and False where any of the groups is known already."""
        with self._connection.begin_nested() as attempt:
            n = self._insert(model_id, revision, groups, labels, day, "DO NOTHING")
            if n == len(groups):
                return True
            attempt.rollback()
        return False

    def put(
        self,
        model_id: int,
        revision: int,
        groups: NDArray[np.uint64],  # (n,) uint64, distinct, none of them 0
        labels: NDArray[np.int64],  # (n,) int64, 0: the group is taken out
        *,
        day: int,
    ) -> None:
        """Write how many labels of a day each group has."""
        some = labels > 0
        update = "DO UPDATE SET day = excluded.day, labels = excluded.labels"
        self._insert(model_id, revision, groups[some], labels[some], day, update)
        out = groups[~some].view(np.int64).tolist()
        if out:
            gone = delete(group_count).where(
                group_count.c.model_id == model_id,
                group_count.c.revision == revision,
                group_count.c.digest == bindparam("out"),
            )
            self._connection.execute(gone, [{"out": digest} for digest in out])

    def _insert(
        self,
        model_id: int,
        revision: int,
        groups: NDArray[np.uint64],
        labels: NDArray[np.int64],
        day: int,
        conflict: str,
    ) -> int:
        """Insert rows; how many were written."""
        into = "INSERT INTO group_count (model_id, revision, digest, day, labels)"
        end = f"ON CONFLICT (model_id, revision, digest) {conflict}"
        if not len(groups):
            return 0
        if self._postgresql:
            given, counts = groups.view(np.int64).tolist(), labels.tolist()
            text = (
                f"{into} SELECT %s, %s, digest, %s, labels "  # noqa: S608 - no value in the text
                f"FROM unnest(%s::bigint[], %s::bigint[]) AS given (digest, labels) {end}"
            )
            values = (model_id, revision, day, _array(given), _array(counts))
            return self._connection.exec_driver_sql(text, values).rowcount
        # One statement for each number of labels, which is 1 nearly always.
        text = f"{into} SELECT ?, ?, value, ?, ? FROM json_each(?) WHERE true {end}"  # noqa: S608
        written = 0
        for n in np.unique(labels).tolist():
            digests = orjson.dumps(groups[labels == n].view(np.int64).tolist()).decode()
            values = (model_id, revision, day, n, digests)
            written += self._connection.exec_driver_sql(text, values).rowcount
        return written

    def forget(
        self, *, before_day: int, limit: int, after: Position | None
    ) -> tuple[int, Position | None]:
        """Drop those of the next groups in the table of which no label came for long."""
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


def _array(values: list[int]) -> str:
    """An array as PostgreSQL writes it: the driver's own way takes as long as the insert."""
    return f"{{{','.join(map(str, values))}}}"


_MANY: Final = 100  # rows of which asking for each costs more than a savepoint


class LabelKeyTable:
    """The table ``label_key``."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    def claim(self, nonces: Sequence[bytes], expires_at: Sequence[float]) -> NDArray[np.bool_]:
        """Mark nonces as used; which were not used before.

        As text for the driver: compiling and binding by SQLAlchemy takes several times as long as
        the database. Many keys are put in without asking which were new, as all are nearly always,
        and only when some were not, once more with the question.
        """
        if len(nonces) >= _MANY:
            with self._connection.begin_nested() as attempt:
                inserted = self._insert(nonces, expires_at, returning=False)
                if inserted.rowcount == len(nonces):
                    return np.ones(len(nonces), np.bool_)
                attempt.rollback()
        if not nonces:
            return np.zeros(0, np.bool_)
        new = self._insert(nonces, expires_at, returning=True)
        fresh = {bytes(nonce) for (nonce,) in new}
        return np.fromiter((nonce in fresh for nonce in nonces), np.bool_, len(nonces))

    def _insert(
        self, nonces: Sequence[bytes], expires_at: Sequence[float], *, returning: bool
    ) -> CursorResult[Any]:
        """Insert those that are not there: all nonces in one value, all times in another.

        An array of byte strings is written by PostgreSQL's driver in Python, one after the other,
        and SQLite takes longer over parameters for each row.
        """
        whole = b"".join(nonces)
        if self._connection.dialect.name == "postgresql":
            given = (
                "SELECT substr(%b::bytea, 24 * (place - 1)::integer + 1, 24), expires_at "
                "FROM unnest(%s::double precision[]) WITH ORDINALITY AS given (expires_at, place)"
            )
            times = f"{{{','.join(map(repr, expires_at))}}}"
        else:
            given = (  # WHERE tells the parser that ON is not of a join
                "SELECT substr(?, 24 * key + 1, 24), value FROM json_each(?) WHERE true"
            )
            times = orjson.dumps(expires_at).decode()
        text = (
            f"INSERT INTO label_key (nonce, expires_at) {given} "
            "ON CONFLICT (nonce) DO NOTHING" + " RETURNING nonce" * returning
        )
        return self._connection.exec_driver_sql(text, (whole, times))

    def unclaim(self, nonces: Collection[bytes]) -> None:
        """Let go of nonces that were claimed in this transaction."""
        if nonces:
            self._connection.execute(
                delete(label_key).where(label_key.c.nonce == bindparam("claimed")),
                [{"claimed": nonce} for nonce in nonces],
            )

    def forget(self, *, expired_before: float, limit: int) -> int:
        """Drop some keys that were to be kept until before a time; how many."""
        some = select(label_key.c.nonce).where(label_key.c.expires_at < expired_before).limit(limit)
        statement = delete(label_key).where(label_key.c.nonce.in_(some))
        return self._connection.execute(statement).rowcount
