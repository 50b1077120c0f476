"""The keys that sign receipts: kept in the database, wrapped when a secret is set.

The first process to start makes one; `service.control.key_rotation` makes others.

Wrapping: K = PBKDF2-HMAC-SHA-256(secret, salt, 200 000 rounds), 64 bytes (K1, K2); the stored
bytes are salt (16), key XOR K1 (32), HMAC-SHA-256(K2, salt + ciphertext) (32). K1 is used for
these 32 bytes only, so XOR is a one-time pad under it. The rounds are OWASP's order of magnitude
for a passphrase and cost a tenth of a second at start.
"""

from __future__ import annotations

import hashlib
import hmac
import secrets
from collections.abc import Callable, Iterable
from typing import Final

from service.control.store import Store, Transaction
from service.control.store.signing_keys import SigningKeyRow
from service.receipt_key import ReceiptKey
from service.receipts import Receipts
from service.settings_reading import InvalidSettings

__all__ = ["new_key", "open_receipts", "opened", "unwrap", "wrap", "wrap_bare"]

_ROUNDS: Final = 200_000
_SALT_BYTES: Final = 16
_KEY_BYTES: Final = 32


def open_receipts(store: Store, *, secret: str, clock: Callable[[], float]) -> Receipts:
    """Receipts signed with the shared key, which the first process to start has made.

    Parameters
    ----------
    store : Store
    secret : str
        Wraps the key; empty for none. Keys stored before it was set are wrapped now.
    clock : callable
        Seconds since 1970 UTC.

    Raises
    ------
    InvalidSettings
        The stored key is wrapped, and not by this secret.
    """
    with store.write() as transaction:
        if not transaction.signing_keys.all():
            transaction.signing_keys.add(new_key(1, secret="", now=clock()))
        rows = transaction.signing_keys.all()
        wrap_bare(transaction, rows, secret=secret)
    keys = {row.key_id: opened(row, secret=secret) for row in rows}
    return Receipts(keys, max(keys), clock=clock)


def new_key(key_id: int, *, secret: str, now: float) -> SigningKeyRow:
    """A random key, wrapped when there is a secret."""
    key = secrets.token_bytes(_KEY_BYTES)
    return SigningKeyRow(key_id, wrap(key, secret) if secret else key, bool(secret), now)


def wrap_bare(transaction: Transaction, rows: Iterable[SigningKeyRow], *, secret: str) -> None:
    """Wrap what was stored before there was a secret."""
    for row in rows:
        if secret and not row.wrapped:
            transaction.signing_keys.wrap(row.key_id, wrap(row.secret, secret))


def opened(row: SigningKeyRow, *, secret: str) -> ReceiptKey:
    """A stored key, ready for use.

    Raises
    ------
    InvalidSettings
        It is wrapped, and not by this secret.
    """
    return ReceiptKey(row.key_id, unwrap(row.secret, secret) if row.wrapped else row.secret)


def wrap(key: bytes, secret: str) -> bytes:
    """A key as it may lie in a database that others can read."""
    salt = secrets.token_bytes(_SALT_BYTES)
    pad, sealing = _derive(secret, salt)
    body = salt + _xor(key, pad)
    return body + hmac.digest(sealing, body, "sha256")


def unwrap(wrapped: bytes, secret: str) -> bytes:
    """The key again.

    Raises
    ------
    InvalidSettings
        The secret is missing or is another one.
    """
    if not secret:
        raise InvalidSettings("receipt_secret: the stored receipt keys need the secret that wraps")
    body, seal = wrapped[:-32], wrapped[-32:]
    pad, sealing = _derive(secret, body[:_SALT_BYTES])
    if not hmac.compare_digest(hmac.digest(sealing, body, "sha256"), seal):
        raise InvalidSettings("receipt_secret: not the secret that the stored keys are wrapped by")
    return _xor(body[_SALT_BYTES:], pad)


def _derive(secret: str, salt: bytes) -> tuple[bytes, bytes]:
    derived = hashlib.pbkdf2_hmac("sha256", secret.encode(), salt, _ROUNDS, 2 * _KEY_BYTES)
    return derived[:_KEY_BYTES], derived[_KEY_BYTES:]


def _xor(left: bytes, right: bytes) -> bytes:
    return bytes(a ^ b for a, b in zip(left, right, strict=True))
