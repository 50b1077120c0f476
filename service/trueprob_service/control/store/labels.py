"""Keys of counted labels, so that a label counts once, and counts of dependent labels.

Copies of one outcome share a group: a key of the client, or the digest of the input. Only the first
label of a group changes the alarms, and only ``labels_per_input`` of its labels count a day. Groups
of labelled rows belong to no promotion and are stored under revision 0.

The clean-up job deletes a group that had no label for as long as a receipt is valid. So the table
has at most one row for each label of that time, and later copies count as new.

Statements for many rows are text for the driver, with all rows in one or two parameters:
compiling and binding by SQLAlchemy takes several times as long as the database.
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

__all__ = [
    "NO_PROMOTION",
    "EarlierLabels",
    "GroupCountTable",
    "LabelKeyTable",
    "Position",
    "group_count",
]

NO_PROMOTION: Final = 0  # the revision of groups of labelled rows

# Most services have one row a label here, so rows are narrow: numbers only, no second index, and no
# foreign key, which PostgreSQL would check for each row.
group_count: Final = Table(
    "group_count",
    metadata,
    Column("model_id", Integer, primary_key=True, autoincrement=False),
    Column("revision", Integer, primary_key=True, autoincrement=False),
    Column("digest", BigInteger, primary_key=True, autoincrement=False),  # its 64 bits, signed
    Column("day", Integer, nullable=False),  # of the last counted label, since 1970 UTC
    Column("labels", Integer, nullable=False),  # counted on that day
    sqlite_with_rowid=False,
)
_KEY: Final = list(group_count.primary_key.columns)
Position = tuple[int, int, int]
_MANY: Final = 100  # for this many keys or more, a savepoint is cheaper than RETURNING each key


class LabelKeyTable:
    """The table ``label_key``."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    def claim(self, nonces: Sequence[bytes], expires_at: Sequence[float]) -> NDArray[np.bool_]:
        """Mark nonces as used, and return which of them were new.

        Nearly always all are new, so many keys are first inserted without RETURNING. Only if some
        were not new, this is undone and repeated with RETURNING.
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
        """Insert new keys: all nonces joined in one parameter, all times in another.

        PostgreSQL's driver would encode an array of byte strings one by one in Python, and SQLite
        is slower with parameters for each row.
        """
        joined = b"".join(nonces)
        if self._connection.dialect.name == "postgresql":
            given = (
                "SELECT substr(%b::bytea, 24 * (place - 1)::integer + 1, 24), expires_at "
                "FROM unnest(%s::double precision[]) WITH ORDINALITY AS given (expires_at, place)"
            )
            times = f"{{{','.join(map(repr, expires_at))}}}"
        else:
            given = (  # without WHERE the parser reads ON as part of a join
                "SELECT substr(?, 24 * key + 1, 24), value FROM json_each(?) WHERE true"
            )
            times = orjson.dumps(expires_at).decode()
        text = (
            f"INSERT INTO label_key (nonce, expires_at) {given} "
            "ON CONFLICT (nonce) DO NOTHING" + " RETURNING nonce" * returning
        )
        return self._connection.exec_driver_sql(text, (joined, times))

    def claim_ids(
        self, keys: Sequence[bytes], labels: NDArray[np.int64], *, expires_at: float
    ) -> tuple[NDArray[np.bool_], dict[bytes, int]]:
        """As `claim`, for keys of callers' ids, with the labels that count for them.

        Returns which keys were new, and the labels that had counted for the others.
        """
        if not keys:
            return np.zeros(0, np.bool_), {}
        joined, listed = b"".join(keys), labels.tolist()
        if self._connection.dialect.name == "postgresql":
            given = (
                "SELECT substr(%b::bytea, 24 * (place - 1)::integer + 1, 24), %s, label "
                "FROM unnest(%s::integer[]) WITH ORDINALITY AS given (label, place)"
            )
            values: tuple[Any, ...] = (joined, expires_at, _array(listed))
        else:
            given = "SELECT substr(?, 24 * key + 1, 24), ?, value FROM json_each(?) WHERE true"
            values = (joined, expires_at, orjson.dumps(listed).decode())
        text = (
            f"INSERT INTO label_key (nonce, expires_at, label) {given} "
            "ON CONFLICT (nonce) DO NOTHING"
        )
        if len(keys) >= _MANY:
            with self._connection.begin_nested() as attempt:
                if self._connection.exec_driver_sql(text, values).rowcount == len(keys):
                    return np.ones(len(keys), np.bool_), {}
                attempt.rollback()
        new = self._connection.exec_driver_sql(f"{text} RETURNING nonce", values)
        fresh = {bytes(key) for (key,) in new}
        old = [key for key in keys if key not in fresh]
        counted: dict[bytes, int] = {}
        for start in range(0, len(old), 500):
            some = label_key.c.nonce.in_(old[start : start + 500])
            found = self._connection.execute(
                select(label_key.c.nonce, label_key.c.label).where(some)
            )
            counted |= {bytes(row.nonce): row.label for row in found if row.label is not None}
        return np.fromiter((key in fresh for key in keys), np.bool_, len(keys)), counted

    def unclaim(self, nonces: Collection[bytes]) -> None:
        """Remove nonces that were claimed in this transaction."""
        if nonces:
            self._connection.execute(
                delete(label_key).where(label_key.c.nonce == bindparam("claimed")),
                [{"claimed": nonce} for nonce in nonces],
            )

    def prune(self, *, expired_before: float, limit: int) -> int:
        """Delete keys that expired before a time, at most so many; returns how many."""
        some = select(label_key.c.nonce).where(label_key.c.expires_at < expired_before).limit(limit)
        statement = delete(label_key).where(label_key.c.nonce.in_(some))
        return self._connection.execute(statement).rowcount


@dataclass(frozen=True, eq=False)
class EarlierLabels:
    """Counted labels of some groups, from the table."""

    counted: NDArray[np.bool_]  # whether any label of the group was counted
    # The last day with a counted label, and the number of them on it; 0 without any.
    day: NDArray[np.int64]
    labels: NDArray[np.int64]

    @classmethod
    def none(cls, n: int) -> EarlierLabels:
        """The value for n new groups."""
        day, labels = np.zeros((2, n), np.int64)
        return cls(np.zeros(n, np.bool_), day, labels)


class GroupCountTable:
    """The table ``group_count``. The caller holds the model's lock."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._postgresql = connection.dialect.name == "postgresql"

    def get(self, model_id: int, revision: int, groups: NDArray[np.uint64]) -> EarlierLabels:
        """The counted labels of some groups, given in ascending order without repeats."""
        earlier = EarlierLabels.none(len(groups))
        given = groups.view(np.int64).tolist()
        if not given:
            return earlier
        if self._postgresql:
            # LATERAL and LIMIT force one index look-up for each group, whatever table size the
            # planner assumes.
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
        earlier.counted[places], earlier.day[places], earlier.labels[places] = True, *found[:, 1:].T
        return earlier

    def put_new(
        self,
        model_id: int,
        revision: int,
        groups: NDArray[np.uint64],
        labels: NDArray[np.int64],
        *,
        day: int,
    ) -> bool:
        """As `put`, if all groups are new; else False, and nothing is written."""
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
        labels: NDArray[np.int64],  # (n,) int64; 0 deletes the group
        *,
        day: int,
    ) -> None:
        """Write how many labels each group has on a day."""
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
        """Insert rows and return how many were written."""
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
        # One statement for each number of labels; nearly all groups have 1.
        text = f"{into} SELECT ?, ?, value, ?, ? FROM json_each(?) WHERE true {end}"  # noqa: S608
        written = 0
        for n in np.unique(labels).tolist():
            digests = orjson.dumps(groups[labels == n].view(np.int64).tolist()).decode()
            values = (model_id, revision, day, n, digests)
            written += self._connection.exec_driver_sql(text, values).rowcount
        return written

    def prune(
        self, *, before_day: int, limit: int, after: Position | None
    ) -> tuple[int, Position | None]:
        """Delete groups without a label since a day, among the next ones after a position.

        Returns how many were deleted, and the position to continue from; None at the table's end.
        """
        key = tuple_(*_KEY)
        ahead = select(*_KEY).order_by(*_KEY)
        if after is not None:
            ahead = ahead.where(key > tuple_(*after))
        last = self._connection.execute(ahead.offset(limit - 1).limit(1)).first()
        # Does not wait for requests that write a group.
        old = ahead.where(group_count.c.day < before_day).with_for_update(skip_locked=True)
        if last is not None:
            old = old.where(key <= tuple_(*last))
        gone = delete(group_count).where(key.in_(old))
        return self._connection.execute(gone).rowcount, None if last is None else tuple(last)


def _array(values: list[int]) -> str:
    """A PostgreSQL array literal; the driver's own encoding takes as long as the insert."""
    return f"{{{','.join(map(str, values))}}}"
