"""Receipts: signed prediction ids that tie a later label to a prediction, with nothing stored.

A receipt is a block of fixed size and a truncated HMAC-SHA-256 of it, both in URL-safe base64
without padding. Big-endian layout of the block in format 1, 108 bytes:

======  =====  ==========================================================================
offset  bytes  field
======  =====  ==========================================================================
0       4      domain tag ``TPR1``: these bytes were signed as a receipt
4       4      key id: which secret signed (``trueprob_service.receipts.secrets``)
8       8      model: first 8 bytes of the SHA-256 of its name
16      4      version
20      8      revision of the promotion that was live
28      8      class list: first 8 bytes of its digest
36      4      prediction (class index)
40      8      confidence, float64 bits
48      8      group digest; 0: the row is a group of its own
56      8      issue time, microseconds since 1970 UTC
64      24     nonce: 16 random bytes of the process, 8 bytes of a counter
88      4      shadow: class index of the candidate's prediction
92      8      shadow: confidence, float64 bits
100     8      shadow: first 8 bytes of the candidate's id digest; 0 means no candidate
======  =====  ==========================================================================

The tag follows: the first 16 bytes of HMAC-SHA-256(key, block). 124 bytes are 166 characters. Each
process is spawned, not forked, and draws its own 16 random bytes, so nonces never repeat.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import itertools
import secrets
import struct
from collections.abc import Callable, Sequence
from typing import Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from trueprob_service.receipts.columns import (
    BLOCK_BYTES,
    ROW,
    ReceiptColumns,
    ShadowBlock,
    ShadowRows,
    decode_all,
)
from trueprob_service.receipts.secrets import TAG_BYTES, ReceiptKey

__all__ = ["ForgedReceipt", "Receipt", "Receipts", "digest64", "input_digests"]

_DOMAIN: Final = b"TPR1"
_STRUCT: Final = struct.Struct(">4sI8sIQ8sIdQQ24sId8s")
_NO_SHADOW: Final = ShadowBlock(0, 0.0, bytes(8))
_CHARACTERS: Final = -(-(_STRUCT.size + TAG_BYTES) * 4 // 3)
_COUNTER: Final = struct.Struct(">Q")


class ForgedReceipt(ValueError):
    """The text is not one of our receipts: wrong form, unknown key or wrong signature."""


class Receipt(NamedTuple):
    """Content of a verified prediction id."""

    model: bytes  # `digest64` of its name
    version: int
    revision: int
    class_list: bytes  # `digest64` of the class list
    prediction: int  # class index
    confidence: float  # bit for bit as it was answered
    group: int  # 64-bit digest; 0 means that the row is its own group
    issued_at: float  # seconds since 1970 UTC
    nonce: bytes  # 24 bytes, unique; the key under which a label counts once
    shadow: ShadowBlock | None = None  # None without a candidate in shadow


def digest64(text: str | bytes) -> bytes:
    """First 8 bytes of the SHA-256 of a text (UTF-8) or of bytes."""
    return hashlib.sha256(text.encode() if isinstance(text, str) else text).digest()[:8]


def input_digests(logits: NDArray[np.float32]) -> list[int]:
    """64-bit digests of the bits of each row, never 0, the same in every process.

    Receipts carry the digest as the row's group: retries, frames of a still picture and inputs that
    are sent again share their outcome, so their labels are not new evidence. The digest need not
    withstand an adversary, who can get another one by changing a bit.
    """
    width = logits.shape[1] * 4
    raw = np.ascontiguousarray(logits, "<f4").view(np.uint8).reshape(-1).data
    return [
        int.from_bytes(hashlib.blake2b(raw[start : start + width], digest_size=8).digest()) or 1
        for start in range(0, len(raw), width)
    ]


class Receipts:
    """Issues and verifies prediction ids."""

    def __init__(
        self,
        keys: Sequence[ReceiptKey],  # the first signs, all verify
        *,
        clock: Callable[[], float],  # seconds since 1970 UTC
        random_bytes: Callable[[int], bytes] = secrets.token_bytes,
    ) -> None:
        self._keys = {key.key_id: key for key in keys}
        self._current = keys[0]
        self._clock = clock
        self._process = random_bytes(16)
        # next() of itertools.count is atomic under the interpreter lock, so no lock is needed.
        self._counter = itertools.count()

    def issue(
        self,
        *,
        model: bytes,  # `digest64` of its name
        version: int,
        revision: int,
        class_list: bytes,  # `digest64` of the class list
        prediction: NDArray[np.int64],  # (n,), class indices
        confidence: NDArray[np.float64],  # (n,)
        group: int | Sequence[int] = 0,  # one for all rows, or one for each
        shadow: ShadowRows | None = None,  # answers of a candidate in shadow
    ) -> list[str]:
        """Prediction ids for the n rows of one answer, in their order."""
        key = self._current
        issued_at, blocks = int(self._clock() * 1e6), []
        groups = [group] * len(prediction) if isinstance(group, int) else group
        shadows = [_NO_SHADOW] * len(prediction) if shadow is None else shadow.blocks()
        rows = zip(prediction.tolist(), confidence.tolist(), groups, shadows, strict=True)
        for row, value, copies, candidate in rows:
            nonce = self._process + _COUNTER.pack(next(self._counter))
            blocks.append(_STRUCT.pack(
                _DOMAIN, key.key_id, model, version, revision, class_list, row, value, copies,
                issued_at, nonce, *candidate,
            ))  # fmt: skip
        signed = zip(blocks, key.tags(blocks), strict=True)
        return [
            base64.urlsafe_b64encode(block + tag).rstrip(b"=").decode("ascii")
            for block, tag in signed
        ]

    def verify(self, prediction_id: str) -> Receipt:
        """Content of a prediction id, or `ForgedReceipt` if this service did not issue it."""
        if len(prediction_id) != _CHARACTERS:
            raise ForgedReceipt(
                f"prediction_id must have {_CHARACTERS} characters, got {len(prediction_id)}"
            )
        verified = self.verify_all([prediction_id])
        if not verified.genuine[0]:
            raise ForgedReceipt("prediction_id was not signed by this service")
        fields = _STRUCT.unpack(verified.rows.tobytes()[:BLOCK_BYTES])
        shadow = None if fields[13] == _NO_SHADOW.candidate else ShadowBlock(*fields[11:])
        return Receipt._make((*fields[2:9], fields[9] / 1e6, fields[10], shadow))

    def verify_all(self, prediction_ids: Sequence[str]) -> ReceiptColumns:
        """Verify many ids; those that are forged are not `genuine` in the result."""
        raw, genuine = decode_all(prediction_ids, characters=_CHARACTERS)
        rows = raw.reshape(-1).view(ROW)
        genuine &= rows["domain"] == _DOMAIN
        for key_id in np.unique(rows["key_id"][genuine]).tolist():
            signed = np.flatnonzero(genuine & (rows["key_id"] == key_id))
            key = self._keys.get(key_id)
            genuine[signed] = key is not None and _signed(raw[signed], key)
        return ReceiptColumns(rows, genuine)


def _signed(raw: NDArray[np.uint8], key: ReceiptKey) -> NDArray[np.bool_]:
    """Which rows a key has signed; the comparison takes constant time."""
    blocks, tags = raw[:, :BLOCK_BYTES].tobytes(), raw[:, BLOCK_BYTES:].tobytes()
    starts = range(0, len(blocks), BLOCK_BYTES)
    expected = key.tags(blocks[start : start + BLOCK_BYTES] for start in starts)
    received = (tags[start : start + TAG_BYTES] for start in range(0, len(tags), TAG_BYTES))
    return np.fromiter(map(hmac.compare_digest, expected, received), np.bool_, len(expected))
