"""Which receipts have been used: a label counts once."""

from __future__ import annotations

from collections.abc import Collection, Mapping

from sqlalchemy import Connection, bindparam, delete, select

from service.control.store.insertion import insert_into
from service.control.store.tables import label_key

__all__ = ["LabelKeys"]


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
        Sent in batches below either database's limit of bound parameters. Rows come back in any
        order, hence a set of nonces.
        """
        if not expires_at:
            return set()
        statement = (
            insert_into(self._connection, label_key)
            .on_conflict_do_nothing(index_elements=[label_key.c.nonce])
            .returning(label_key.c.nonce)
        )
        rows = [{"nonce": nonce, "expires_at": at} for nonce, at in expires_at.items()]
        return {bytes(nonce) for nonce in self._connection.execute(statement, rows).scalars()}

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
