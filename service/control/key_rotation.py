"""Another key for receipts: made by hand or by age, learnt by every replica, forgotten in time.

A new key signs from the moment at which a process knows it; each asks the database every few
seconds, and at once when a label's receipt names a key that it does not know. Receipts signed by
an older key stay good: that key is forgotten once the youngest of them is too old to be taken.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from itertools import pairwise
from typing import Final

from service.control.keys import new_key, opened, wrap_bare
from service.control.store import Store, Transaction
from service.control.store.signing_keys import SigningKeyRow
from service.receipt_key import ReceiptKey
from service.receipts import Receipts
from service.settings_reading import InvalidSettings

__all__ = ["LATE_SECONDS", "ReceiptKeys", "forget_old_keys", "rotate", "rotate_by_age"]

_LOG: Final = logging.getLogger(__name__)
# So long a replica may sign with the older key, or for a model that was deleted: until it has
# heard of it. The longest time between two questions is an hour, and the database may be away.
LATE_SECONDS: Final = 86_400.0


class ReceiptKeys:
    """The keys of one process, in step with the database.

    Parameters
    ----------
    store : Store
    receipts : Receipts
        Signs and verifies with them.
    secret : str
        Unwraps the keys.
    """

    def __init__(self, store: Store, receipts: Receipts, *, secret: str) -> None:
        self._store = store
        self._receipts = receipts
        self._secret = secret
        self._opened: dict[int, tuple[bytes, ReceiptKey]] = {}  # and the bytes as they are stored
        self._said = False
        self._changing = threading.Lock()

    def refresh(self) -> bool:
        """Take over the keys that the database has; whether some were new or are gone.

        Keys that are wrapped by another secret than this process's are not taken over.

        Raises
        ------
        DatabaseUnavailable
        """
        with self._changing:
            with self._store.read() as transaction:
                rows = transaction.signing_keys.all()
            known = self._opened
            if not rows or {row.key_id: row.secret for row in rows} == {
                key_id: stored for key_id, (stored, _) in known.items()
            }:
                return False
            try:
                self._opened = {row.key_id: self._open(row) for row in rows}
            except InvalidSettings as error:
                if not self._said:
                    _LOG.error("receipt keys of the database cannot be used here: %s", error)
                self._said = True
                return False
            keys = {key_id: key for key_id, (_, key) in self._opened.items()}
            self._receipts.use(keys, max(keys))
            self._said = False
            return set(keys) != set(known)

    def _open(self, row: SigningKeyRow) -> tuple[bytes, ReceiptKey]:
        known = self._opened.get(row.key_id)
        if known is not None and known[0] == row.secret:
            return known  # unwrapping takes a tenth of a second
        return row.secret, opened(row, secret=self._secret)


def rotate(store: Store, *, secret: str, clock: Callable[[], float], revoke: bool = False) -> int:
    """Make another key the one that signs; its id.

    Parameters
    ----------
    store : Store
    secret : str
        Wraps it; must be the one that the others are wrapped by.
    clock : callable
        Seconds since 1970 UTC.
    revoke : bool
        Forget the others now: receipts that were signed by them are forged from now on.

    Raises
    ------
    InvalidSettings
        The keys are wrapped, and not by this secret.
    DatabaseUnavailable
    """
    with store.write() as transaction:
        rows = transaction.signing_keys.all()
        for row in rows[-1:]:
            opened(row, secret=secret)  # the others could not read a key that is wrapped otherwise
        wrap_bare(transaction, rows, secret=secret)
        key_id = 1 + max((row.key_id for row in rows), default=0)
        transaction.signing_keys.add(new_key(key_id, secret=secret, now=clock()))
        if revoke:
            transaction.signing_keys.forget([row.key_id for row in rows])
    return key_id


def rotate_by_age(transaction: Transaction, *, secret: str, seconds: float, now: float) -> bool:
    """Make another key when the newest is older than so many seconds; whether it was made here."""
    rows = transaction.signing_keys.all()
    if not rows or now - rows[-1].created_at <= seconds:
        return False
    key = new_key(rows[-1].key_id + 1, secret=secret, now=now)
    return transaction.signing_keys.add(key)


def forget_old_keys(transaction: Transaction, *, issued_before: float) -> int:
    """Drop keys all of whose receipts were issued before a time; how many."""
    rows = transaction.signing_keys.all()
    old = [
        row.key_id
        for row, following in pairwise(rows)
        if max(row.created_at, following.created_at) + LATE_SECONDS < issued_before
    ]
    if old:
        transaction.signing_keys.forget(old)
        _LOG.info("receipt keys %s were forgotten: no receipt of theirs can be taken", old)
    return len(old)
