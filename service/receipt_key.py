"""The key that signs prediction ids, and the tags that it gives blocks."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Final

__all__ = ["TAG_BYTES", "ReceiptKey"]

TAG_BYTES: Final = 16
_BLOCK_BYTES: Final = 64  # of SHA-256; a key is 32


@dataclass(frozen=True, slots=True)
class ReceiptKey:
    """A signing key: its id in the shared state and 32 secret bytes."""

    key_id: int
    secret: bytes
    _started: tuple[hashlib._Hash, hashlib._Hash] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        long = len(self.secret) > _BLOCK_BYTES
        secret = hashlib.sha256(self.secret).digest() if long else self.secret
        padded = secret.ljust(_BLOCK_BYTES, b"\0")
        started = tuple(hashlib.sha256(bytes(b ^ pad for b in padded)) for pad in (0x36, 0x5C))
        object.__setattr__(self, "_started", started)

    def tag(self, block: bytes) -> bytes:
        """What a block is signed by: HMAC-SHA-256 (RFC 2104), cut."""
        return self.tags([block])[0]

    def tags(self, blocks: Iterable[bytes]) -> list[bytes]:
        """`tag` of each block.

        `hmac` does the same at three times the cost: hashes that have taken in the padded key are
        copied here, there they are made each time.
        """
        inner_copy, outer_copy = (started.copy for started in self._started)
        tags = []
        for block in blocks:
            inner = inner_copy()
            inner.update(block)
            outer = outer_copy()
            outer.update(inner.digest())
            tags.append(outer.digest()[:TAG_BYTES])
        return tags
