"""Groups whose outcome a promotion's alarm state has counted: copies count once.

A group is forgotten when no row of it has come for as long as a receipt lives, so the table has at
most a row for each label of that time. Copies that lie further apart count as new.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Final

from sqlalchemy import Connection, delete, select, tuple_, update

from service.control.store.alarm_tables import counted_group
from service.control.store.insertion import insert_into

__all__ = ["CountedGroups"]

_RENEW_SECONDS: Final = 86_400.0  # a group that is seen all day long is written once a day
_DIGESTS: Final = 500  # of one statement
_MANY: Final = 50  # rows of which asking for each costs more than a savepoint


class CountedGroups:
    """The table ``counted_group``. The caller holds the promotion's alarm state."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    def claim(
        self, model: str, revision: int, digests: Collection[bytes], *, now: float
    ) -> set[bytes]:
        """Mark groups as counted; those that were not before.

        Parameters
        ----------
        model, revision : str, int
        digests : collection of bytes
            Distinct, 8 bytes each.
        now : float
        """
        if not digests:
            return set()
        rows = [(model, revision, digest, now) for digest in digests]
        if len(rows) >= _MANY and self._all_new(rows):
            return set(digests)
        statement = (
            insert_into(self._connection, counted_group)
            .on_conflict_do_nothing(index_elements=list(counted_group.primary_key.columns))
            .returning(counted_group.c.digest)
        )
        values = [dict(zip(counted_group.c.keys(), row, strict=True)) for row in rows]
        fresh = {bytes(digest) for digest in self._connection.execute(statement, values).scalars()}
        self._renew(model, revision, [d for d in digests if d not in fresh], now)
        return fresh

    def _all_new(self, rows: Sequence[tuple[str, int, bytes, float]]) -> bool:
        """Put rows in, or none of them when some are there.

        As text for the driver and without asking which were new, since nearly always all are:
        compiling and binding takes several times as long as the database.
        """
        value = "%s" if self._connection.dialect.name == "postgresql" else "?"
        text = (
            "INSERT INTO counted_group (model, revision, digest, seen_at) "  # noqa: S608
            f"VALUES ({', '.join([value] * 4)}) ON CONFLICT DO NOTHING"  # values go beside the text
        )
        with self._connection.begin_nested() as attempt:
            if self._connection.exec_driver_sql(text, list(rows)).rowcount == len(rows):
                return True
            attempt.rollback()
        return False

    def _renew(self, model: str, revision: int, known: Sequence[bytes], now: float) -> None:
        for start in range(0, len(known), _DIGESTS):
            self._connection.execute(
                update(counted_group)
                .where(
                    counted_group.c.model == model,
                    counted_group.c.revision == revision,
                    counted_group.c.digest.in_(known[start : start + _DIGESTS]),
                    counted_group.c.seen_at < now - _RENEW_SECONDS,
                )
                .values(seen_at=now)
            )

    def forget(self, *, seen_before: float, limit: int) -> int:
        """Drop some groups of which no row has come since a time; how many."""
        key = tuple_(*counted_group.primary_key.columns)
        some = (
            select(*counted_group.primary_key.columns)
            .where(counted_group.c.seen_at < seen_before - _RENEW_SECONDS)
            .limit(limit)
            .with_for_update(skip_locked=True)  # a request that renews one is not waited for
        )
        return self._connection.execute(delete(counted_group).where(key.in_(some))).rowcount
