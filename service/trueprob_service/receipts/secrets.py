"""The secrets that sign prediction ids, as they are set: the first signs, all verify.

The receipt secret of a service on SQLite that was given none: made once, kept in a file.
"""

from __future__ import annotations

import contextlib
import os
import secrets
from pathlib import Path
from typing import Final

from trueprob.arrays.synced_files import sync_directory
from trueprob_service.errors import InvalidSettings
from trueprob_service.receipts.columns import ReceiptKey

__all__ = ["HOW_TO_MAKE_ONE", "open_receipt_keys", "read_receipt_secrets"]


HOW_TO_MAKE_ONE: Final = "python -c 'import secrets; print(secrets.token_hex(32))'"
_MIN_BYTES: Final = 16


def read_receipt_secrets(text: str) -> tuple[ReceiptKey, ...]:
    """The keys of comma-separated secrets, in their order; none of an empty text.

    Raises `ValueError`: a secret is too short or is there twice; it is not repeated.
    """
    if not text.strip():
        return ()
    keys: dict[int, ReceiptKey] = {}
    for number, part in enumerate(text.split(","), 1):
        key = ReceiptKey.of(part.strip())
        if len(key.secret) < _MIN_BYTES:
            raise ValueError(
                f"secret {number} has {len(key.secret)} bytes, expected at least {_MIN_BYTES}; "
                f"make one with: {HOW_TO_MAKE_ONE}"
            )
        if key.key_id in keys:
            raise ValueError(f"secret {number} repeats an earlier one: remove it")
        keys[key.key_id] = key
    return tuple(keys.values())


_SECRET_BYTES: Final = 32


def open_receipt_keys(receipt_secrets: str, file: Path) -> tuple[ReceiptKey, ...]:
    """The keys of the given secrets; without any, the key of the secret in ``file``.

    Raises `InvalidSettings`: the file cannot be made or read, or holds no secret.
    """
    if keys := read_receipt_secrets(receipt_secrets):
        return keys
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
    """Write a new secret unless there is one; of processes that start at once, the first wins."""
    if path.exists():
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f".{path.name}-{secrets.token_hex(8)}")
    try:
        with open(part, "x", opener=lambda name, flags: os.open(name, flags, 0o600)) as file:
            file.write(secrets.token_hex(_SECRET_BYTES) + "\n")
            file.flush()
            os.fsync(file.fileno())
        with contextlib.suppress(FileExistsError):
            path.hardlink_to(part)  # the whole file or nothing, and never over another's
        sync_directory(path.parent)
    finally:
        part.unlink(missing_ok=True)
