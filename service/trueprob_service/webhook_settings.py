"""Checks the webhook's settings: its address, and its secrets as in Standard Webhooks.

A secret is ``whsec_`` and the base64 of 24 to 64 bytes. Several, separated by commas, all sign, so
that one can replace another. Reference: "Signature scheme" of https://www.standardwebhooks.com.
"""

from __future__ import annotations

import base64
import binascii
from typing import Final
from urllib.parse import urlsplit

__all__ = ["check_webhook", "read_secrets"]

PREFIX: Final = "whsec_"
_MIN_BYTES: Final = 24
_MAX_BYTES: Final = 64


def check_webhook(url: str) -> None:
    """Raise `ValueError` for an address that is not http or https.

    The message does not repeat the address, which may hold a secret.
    """
    try:
        parts = urlsplit(url)
        valid = parts.scheme in ("http", "https") and bool(parts.hostname)
    except ValueError:
        valid = False
    if not valid:
        raise ValueError("webhook_url must be an address, as in https://example.org/hook")


def read_secrets(text: str) -> tuple[str, ...]:
    """Split the setting into secrets, each with its prefix.

    Raises `ValueError` for one in another form. The message does not repeat it.
    """
    secrets = []
    for number, part in enumerate(text.split(","), 1):
        secret = part.strip()
        try:
            decoded = base64.b64decode(secret.removeprefix(PREFIX), validate=True)
        except (binascii.Error, ValueError):
            decoded = b""
        if not secret.startswith(PREFIX) or not _MIN_BYTES <= len(decoded) <= _MAX_BYTES:
            raise ValueError(
                f"webhook_secret must be {PREFIX} and the base64 of {_MIN_BYTES} to {_MAX_BYTES} "
                f"bytes, secret {number} is not"
            )
        secrets.append(secret)
    return tuple(secrets)
