"""Which receipts have been used: a label counts once."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Any, Final

import numpy as np
import orjson
from numpy.typing import NDArray
from sqlalchemy import Connection, CursorResult, bindparam, delete, select

from trueprob_service.control.store.tables import label_key

__all__ = ["LabelKeys"]

_MANY: Final = 100  # rows of which asking for each costs more than a savepoint


class LabelKeys:
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
