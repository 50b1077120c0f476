"""Up to when the sweep has forgotten, and what that hangs on: numbers that move one way only."""

from __future__ import annotations

from typing import Final

from sqlalchemy import ColumnElement, Connection, bindparam, select

from trueprob_service.control.store.insertion import insert_into
from trueprob_service.control.store.tables import swept

__all__ = ["Swept"]

_KEYS: Final = "label_keys"
_SHORTEST: Final = "shortest_keep_seconds"
_BEFORE: Final = select(swept.c.before).where(swept.c.what == bindparam("what"))


class Swept:
    """The table ``swept``."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    def keys_before(self) -> float:
        """Receipts issued before this time may have been counted and forgotten."""
        return self._get(_KEYS) or 0.0

    def raise_keys_before(self, time: float) -> None:
        """Forget up to a time; an earlier one than before changes nothing."""
        self._put(_KEYS, time, only_if=swept.c.before < time)

    def shortest_keep_seconds(self) -> float:
        """The shortest time for which any process has ever remembered a key."""
        return self._get(_SHORTEST) or 0.0

    def lower_shortest_keep(self, seconds: float) -> None:
        """A process remembers keys for this long; a longer time than before changes nothing."""
        self._put(_SHORTEST, seconds, only_if=swept.c.before > seconds)

    def _get(self, what: str) -> float | None:
        return self._connection.execute(_BEFORE, {"what": what}).scalar()

    def _put(self, what: str, value: float, *, only_if: ColumnElement[bool]) -> None:
        """Write a number, compared with the one that is there by the database itself.

        Of processes that do so at the same time the last must not undo the first.
        """
        self._connection.execute(
            insert_into(self._connection, swept)
            .values(what=what, before=value)
            .on_conflict_do_update(
                index_elements=[swept.c.what], set_={"before": value}, where=only_if
            )
        )
