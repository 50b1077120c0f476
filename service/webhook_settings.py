"""Signatures of Standard Webhooks: HMAC-SHA-256 over id, time and body.

Reference: https://www.standardwebhooks.com, "Signature scheme": the signed content is
``{id}.{timestamp}.{body}``, a symmetric signature is ``v1,`` and base64, several are separated by
spaces, a secret is ``whsec_`` and the base64 of 24 to 64 bytes.
"""

from __future__ import annotations

import base64
import binascii
import hmac
from collections.abc import Sequence
from typing import Final
from urllib.parse import urlsplit

__all__ = ["check_webhook", "read_secrets", "signed_headers"]

PREFIX: Final = "whsec_"
_MIN_BYTES: Final = 24
_MAX_BYTES: Final = 64


def check_webhook(url: str) -> None:
    """Refuse what nothing can be posted to.

    Raises
    ------
    ValueError
        It is not repeated: it may hold a secret.
    """
    try:
        parts = urlsplit(url)
        fine = parts.scheme in ("http", "https") and bool(parts.hostname)
    except ValueError:
        fine = False
    if not fine:
        raise ValueError("webhook_url must be an address, as in https://example.org/hook")


def read_secrets(text: str) -> tuple[bytes, ...]:
    """Secrets as they are set: one, or several separated by commas while they are changed.

    Raises
    ------
    ValueError
        One has another form; it is not repeated.
    """
    secrets = []
    for number, part in enumerate(text.split(","), 1):
        try:
            secret = base64.b64decode(part.strip().removeprefix(PREFIX), validate=True)
        except (binascii.Error, ValueError):
            secret = b""
        if not part.strip().startswith(PREFIX) or not _MIN_BYTES <= len(secret) <= _MAX_BYTES:
            raise ValueError(
                f"webhook_secret must be {PREFIX} and the base64 of {_MIN_BYTES} to {_MAX_BYTES} "
                f"bytes, secret {number} is not"
            )
        secrets.append(secret)
    return tuple(secrets)


def signed_headers(
    secrets: Sequence[bytes], *, message: str, timestamp: int, body: bytes
) -> dict[str, str]:
    """Headers of one attempt.

    Parameters
    ----------
    secrets : sequence of bytes
        The receiver accepts any of them.
    message : str
        The same at every attempt: what the receiver knows a repetition by.
    timestamp : int
        Of this attempt, seconds since 1970 UTC.
    body : bytes
    """
    content = f"{message}.{timestamp}.".encode() + body
    signatures = [
        f"v1,{base64.b64encode(hmac.digest(secret, content, 'sha256')).decode()}"
        for secret in secrets
    ]
    return {
        "webhook-id": message,
        "webhook-timestamp": str(timestamp),
        "webhook-signature": " ".join(signatures),
    }
