"""The secrets that sign prediction ids, as they are set: the first signs, all verify."""

from __future__ import annotations

from typing import Final

from trueprob_service.receipt_key import ReceiptKey

__all__ = ["HOW_TO_MAKE_ONE", "read_receipt_secrets"]

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
