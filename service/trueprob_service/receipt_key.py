"""The key that signs prediction ids, and the tags that it gives blocks."""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Final

__all__ = ["TAG_BYTES", "ReceiptKey"]

TAG_BYTES: Final = 16
_KEY_ID_LABEL: Final = b"trueprob receipt key id\0"


@dataclass(frozen=True, slots=True)
class ReceiptKey:
    """A signing key: the id that receipts name it by, and the secret."""

    key_id: int
    secret: bytes = field(repr=False)
    _started: hmac.HMAC = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "_started", hmac.new(self.secret, digestmod="sha256"))

    @classmethod
    def of(cls, secret: str) -> ReceiptKey:
        """The key of a configured secret; its id is 4 bytes of a hash of the secret."""
        key = secret.encode()
        digest = hashlib.sha256(_KEY_ID_LABEL + key).digest()
        return cls(int.from_bytes(digest[:4], "big"), key)

    def tag(self, block: bytes) -> bytes:
        """What a block is signed by: HMAC-SHA-256 (RFC 2104), cut."""
        return self.tags([block])[0]

    def tags(self, blocks: Iterable[bytes]) -> list[bytes]:
        """`tag` of each block; copies of a keyed hash cost less than `hmac.digest` of each."""
        copy = self._started.copy
        tags = []
        for block in blocks:
            signed = copy()
            signed.update(block)
            tags.append(signed.digest()[:TAG_BYTES])
        return tags
