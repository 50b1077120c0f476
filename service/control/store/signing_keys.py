"""Keys that sign receipts, as stored: wrapped when the operator has set a secret."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass

from sqlalchemy import Connection, delete, select, update

from service.control.store.insertion import insert_into
from service.control.store.tables import signing_key

__all__ = ["SigningKeyRow", "SigningKeys"]


@dataclass(frozen=True)
class SigningKeyRow:
    """A key: 32 secret bytes, or those bytes wrapped."""

    key_id: int
    secret: bytes
    wrapped: bool
    created_at: float


class SigningKeys:
    """The table ``signing_key``."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    def add(self, row: SigningKeyRow) -> bool:
        """Keep a key; False when one of the same id is there (another process was first)."""
        statement = insert_into(self._connection, signing_key).values(**vars(row))
        kept = statement.on_conflict_do_nothing().returning(signing_key.c.key_id)
        return self._connection.execute(kept).first() is not None

    def forget(self, key_ids: Collection[int]) -> None:
        """Drop keys: what they have signed is forged from now on."""
        self._connection.execute(delete(signing_key).where(signing_key.c.key_id.in_(key_ids)))

    def wrap(self, key_id: int, wrapped: bytes) -> None:
        """Put a key's wrapped bytes in place of the bare ones."""
        self._connection.execute(
            update(signing_key)
            .where(signing_key.c.key_id == key_id)
            .values(secret=wrapped, wrapped=True)
        )

    def all(self) -> list[SigningKeyRow]:
        """By id."""
        statement = select(signing_key).order_by(signing_key.c.key_id)
        return [
            SigningKeyRow(**{**row._mapping, "secret": bytes(row.secret)})
            for row in self._connection.execute(statement)
        ]
