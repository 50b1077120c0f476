"""The keys that sign prediction ids, and the secrets that they come from.

Of several secrets the first signs and all verify. Without any, a service on SQLite makes one at its
first start and keeps it in a file.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import secrets
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from trueprob.arrays.synced_files import sync_directory
from trueprob_service.errors import InvalidSettings

__all__ = [
    "HOW_TO_MAKE_ONE",
    "TAG_BYTES",
    "ReceiptKey",
    "open_receipt_keys",
    "read_receipt_secrets",
]

TAG_BYTES: Final = 16
_BLOCK_BYTES: Final = 64  # of SHA-256
_KEY_ID_LABEL: Final = b"trueprob receipt key id\0"
HOW_TO_MAKE_ONE: Final = "python -c 'import secrets; print(secrets.token_hex(32))'"
_MIN_BYTES: Final = 16
_NEW_SECRET_BYTES: Final = 32


@dataclass(frozen=True, slots=True)
class ReceiptKey:
    """A secret that signs receipts, and the id by which receipts name it."""

    key_id: int
    secret: bytes = field(repr=False)
    # SHA-256 of the two padded keys of RFC 2104, to be copied for each block.
    _inner: hashlib._Hash = field(init=False, repr=False, compare=False)
    _outer: hashlib._Hash = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        key = self.secret
        if len(key) > _BLOCK_BYTES:
            key = hashlib.sha256(key).digest()
        padded = key.ljust(_BLOCK_BYTES, b"\0")
        for name, pad in (("_inner", 0x36), ("_outer", 0x5C)):
            started = hashlib.sha256(bytes(byte ^ pad for byte in padded))
            object.__setattr__(self, name, started)

    @classmethod
    def from_secret(cls, secret: str) -> ReceiptKey:
        """The key of a configured secret; its id is 4 bytes of a hash of the secret."""
        key = secret.encode()
        digest = hashlib.sha256(_KEY_ID_LABEL + key).digest()
        return cls(int.from_bytes(digest[:4], "big"), key)

    def tag(self, block: bytes) -> bytes:
        """Signature of a block: HMAC-SHA-256 (RFC 2104), cut to `TAG_BYTES`."""
        return self.tags([block])[0]

    def tags(self, blocks: Iterable[bytes]) -> list[bytes]:
        """`tag` of each block; the objects of `hmac` take 1.6 times as long."""
        inner, outer = self._inner.copy, self._outer.copy
        tags = []
        for block in blocks:
            signed, sealed = inner(), outer()
            signed.update(block)
            sealed.update(signed.digest())
            tags.append(sealed.digest()[:TAG_BYTES])
        return tags


def read_receipt_secrets(text: str) -> tuple[ReceiptKey, ...]:
    """Parse comma-separated secrets into keys, in the same order; empty text gives no key.

    Raises `ValueError` when a secret is too short or occurs twice. The message never has a secret.
    """
    if not text.strip():
        return ()
    keys: dict[int, ReceiptKey] = {}
    for number, part in enumerate(text.split(","), 1):
        key = ReceiptKey.from_secret(part.strip())
        if len(key.secret) < _MIN_BYTES:
            raise ValueError(
                f"secret {number} has {len(key.secret)} bytes, expected at least {_MIN_BYTES}; "
                f"make one with: {HOW_TO_MAKE_ONE}"
            )
        if key.key_id in keys:
            raise ValueError(f"secret {number} repeats an earlier one: remove it")
        keys[key.key_id] = key
    return tuple(keys.values())


def open_receipt_keys(receipt_secrets: str, file: Path | None) -> tuple[ReceiptKey, ...]:
    """The keys of the given secrets; without any, of the secret in ``file``, made if missing.

    ``file`` is None where the secrets must be given. Raises `InvalidSettings` when they are not,
    and when the file cannot be used.
    """
    if keys := read_receipt_secrets(receipt_secrets):
        return keys
    if file is None:
        raise InvalidSettings(
            "receipt_secrets must be set with PostgreSQL, the same for every process on the "
            f"database; make one with: {HOW_TO_MAKE_ONE}"
        )
    try:
        _make(file)
        keys = read_receipt_secrets(file.read_text("utf-8"))
    except OSError as error:
        raise InvalidSettings(
            f"receipt_secrets: {file} cannot be used ({error.strerror}): make the folder writable, "
            "or set receipt_secrets"
        ) from None
    except ValueError as error:
        raise InvalidSettings(f"receipt_secrets: {file}: {error}") from None
    if not keys:
        raise InvalidSettings(
            f"receipt_secrets: {file} is empty: restore it, or remove it for a new secret"
        )
    return keys


def _make(path: Path) -> None:
    """Write a new secret if there is none; if several processes start together, the first wins."""
    if path.exists():
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f".{path.name}-{secrets.token_hex(8)}")
    try:
        with open(part, "x", opener=lambda name, flags: os.open(name, flags, 0o600)) as file:
            file.write(secrets.token_hex(_NEW_SECRET_BYTES) + "\n")
            file.flush()
            os.fsync(file.fileno())
        with contextlib.suppress(FileExistsError):
            path.hardlink_to(part)  # atomic; never replaces the file of another process
        sync_directory(path.parent)
    finally:
        part.unlink(missing_ok=True)
