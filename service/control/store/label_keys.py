"""Which receipts have been used: a label counts once."""

from __future__ import annotations

import itertools
from collections.abc import Collection, Iterator, Sequence
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray
from sqlalchemy import Connection, CursorResult, bindparam, delete, select

from service.control.store.tables import label_key

__all__ = ["LabelKeys"]

_NONCE_BYTES: Final = 24
# SQLite parses each new text: one of 500 rows is kept by its driver, and far below its limits.
_ROWS: Final = 500
_MANY: Final = 100  # rows of which asking for each costs more than a savepoint


class LabelKeys:
    """The table ``label_key``."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    def claim(self, nonces: Sequence[bytes], expires_at: Sequence[float]) -> NDArray[np.bool_]:
        """Mark nonces as used; which were not used before.

        Parameters
        ----------
        nonces : sequence of bytes
            Distinct, 24 bytes each.
        expires_at : sequence of float
            Until when each must be remembered.

        Returns
        -------
        ndarray of shape (n,), bool

        Notes
        -----
        As text for the driver: compiling and binding by SQLAlchemy takes several times as long as
        the database. Many keys are put in without asking which were new, as all are nearly always,
        and only when some were not, once more with the question.
        """
        if len(nonces) >= _MANY:
            with self._connection.begin_nested() as attempt:
                inserts = self._inserts(nonces, expires_at, returning=False)
                if sum(result.rowcount for result in inserts) == len(nonces):
                    return np.ones(len(nonces), np.bool_)
                attempt.rollback()
        fresh: set[bytes] = set()
        for result in self._inserts(nonces, expires_at, returning=True):
            fresh.update(bytes(nonce) for (nonce,) in result)
        return np.fromiter((nonce in fresh for nonce in nonces), np.bool_, len(nonces))

    def _inserts(
        self, nonces: Sequence[bytes], expires_at: Sequence[float], *, returning: bool
    ) -> Iterator[CursorResult[Any]]:
        end = "ON CONFLICT (nonce) DO NOTHING" + " RETURNING nonce" * returning
        if self._connection.dialect.name == "postgresql":
            # All nonces in one value and all times in another: an array of byte strings is written
            # by the driver in Python, one after the other.
            text = (
                "INSERT INTO label_key (nonce, expires_at) "  # noqa: S608 - no value in the text
                f"SELECT substr(%b::bytea, {_NONCE_BYTES} * (place - 1)::integer + 1, "
                f"{_NONCE_BYTES}), expires_at FROM unnest(%s::double precision[]) "
                f"WITH ORDINALITY AS given (expires_at, place) {end}"
            )
            times = f"{{{','.join(map(repr, expires_at))}}}"
            yield self._connection.exec_driver_sql(text, (b"".join(nonces), times))
            return
        rows = list(zip(nonces, expires_at, strict=True))
        for start in range(0, len(rows), _ROWS):
            some = rows[start : start + _ROWS]
            places = ", ".join(["(?, ?)"] * len(some))
            text = f"INSERT INTO label_key (nonce, expires_at) VALUES {places} {end}"  # noqa: S608
            values = tuple(itertools.chain.from_iterable(some))
            yield self._connection.exec_driver_sql(text, values)

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
