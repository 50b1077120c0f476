"""The receipt secret of a service on SQLite that was given none: made once, kept in a file."""

from __future__ import annotations

import contextlib
import os
import secrets
from pathlib import Path
from typing import Final

from trueprob.arrays.synced_files import sync_directory
from trueprob_service.receipt_key import ReceiptKey
from trueprob_service.receipts.secrets import read_receipt_secrets
from trueprob_service.settings import Settings
from trueprob_service.settings_reading import InvalidSettings

__all__ = ["open_receipt_keys"]

_SECRET_BYTES: Final = 32


def open_receipt_keys(settings: Settings) -> tuple[ReceiptKey, ...]:
    """The keys of the settings; without any, the key of the state folder's secret.

    Raises `InvalidSettings`: the file cannot be made or read, or holds no secret.
    """
    if keys := read_receipt_secrets(settings.receipt_secrets):
        return keys
    path = settings.receipt_secret_file
    try:
        _make(path)
        keys = read_receipt_secrets(path.read_text("utf-8"))
    except OSError as error:
        raise InvalidSettings(
            f"receipt_secrets: {path} cannot be used ({error.strerror}): make the folder writable, "
            "or set receipt_secrets"
        ) from None
    except ValueError as error:
        raise InvalidSettings(f"receipt_secrets: {path}: {error}") from None
    if not keys:
        raise InvalidSettings(
            f"receipt_secrets: {path} is empty: restore it, or remove it for a new secret"
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
