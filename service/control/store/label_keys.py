"""Which receipts have been used: a label counts once."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import Any, Final

from sqlalchemy import Connection, CursorResult, bindparam, delete, select

from service.control.store.insertion import insert_new
from service.control.store.tables import label_key

__all__ = ["LabelKeys"]

_MANY: Final = 100  # rows of which asking for each costs more than a savepoint


class LabelKeys:
    """The table ``label_key``."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    def claim(self, expires_at: Mapping[bytes, float]) -> set[bytes]:
        """Mark nonces as used; those that were not used before.

        Parameters
        ----------
        expires_at : mapping of bytes to float
            Until when each nonce must be remembered.

        Returns
        -------
        set of bytes

        Notes
        -----
        As text for the driver: compiling and binding by SQLAlchemy takes several times as long as
        the database. Many keys are put in without asking which were new, as all are nearly always,
        and only when some were not, once more with the question.
        """
        rows = list(expires_at.items())
        if len(rows) >= _MANY:
            with self._connection.begin_nested() as attempt:
                inserts = self._inserts(rows, returning=False)
                if sum(result.rowcount for result in inserts) == len(rows):
                    return set(expires_at)
                attempt.rollback()
        fresh: set[bytes] = set()
        for result in self._inserts(rows, returning=True):
            fresh.update(bytes(nonce) for (nonce,) in result)
        return fresh

    def _inserts(
        self, rows: Sequence[tuple[bytes, float]], *, returning: bool
    ) -> Iterator[CursorResult[Any]]:
        for statement, values in insert_new(self._connection, label_key, rows, returning=returning):
            yield self._connection.exec_driver_sql(statement, values)

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
