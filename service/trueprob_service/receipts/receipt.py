"""Receipts: signed prediction ids that tie a later label to a prediction, with nothing stored.

A receipt is a block of fixed size and a truncated HMAC-SHA-256 of it, both in URL-safe base64
without padding. Big-endian layout of the block in format 2, 128 bytes:

======  =====  ==========================================================================
offset  bytes  field
======  =====  ==========================================================================
0       4      domain tag ``TPR2``: these bytes were signed as a receipt
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
88      4      candidate in shadow: class index of its prediction
92      8      … its confidence, float64 bits
100     8      … first 8 bytes of the digest of its id; 0 means no candidate
108     20     predecessor in shadow: the same three fields
======  =====  ==========================================================================

The tag follows: the first 16 bytes of HMAC-SHA-256(key, block). 144 bytes are 192 characters. Each
process is spawned, not forked, and draws its own 16 random bytes, so nonces never repeat.

Format 1 (release 0.2.0) has the domain tag ``TPR1``, no predecessor and 166 characters. It is no
longer issued, but verified, because its labels may be on their way.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import secrets
import struct
import threading
from collections.abc import Callable, Sequence
from typing import Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from trueprob_service.receipts.columns import (
    ROW,
    ReceiptColumns,
    ShadowBlock,
    ShadowRows,
    decode_all,
)
from trueprob_service.receipts.secrets import TAG_BYTES, ReceiptKey

__all__ = ["ForgedReceipt", "Receipt", "Receipts", "Stamp", "digest64", "input_digests"]

_DOMAIN: Final = b"TPR2"
_STRUCT: Final = struct.Struct(">4sI8sIQ8sIdQQ24sId8sId8s")
_NO_SHADOW: Final = ShadowBlock(0, 0.0, bytes(8))
_COUNTER: Final = struct.Struct(">Q")
# Domain tag and size of the block, by the number of characters.
_FORMATS: Final = {
    -(-(size + TAG_BYTES) * 4 // 3): (domain, size)
    for domain, size in ((_DOMAIN, _STRUCT.size), (b"TPR1", 108))
}


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
    candidate: ShadowBlock | None = None  # None without a candidate in shadow
    predecessor: ShadowBlock | None = None


class Stamp(NamedTuple):
    """What makes the predictions of one answer unique."""

    issued_at: int  # microseconds since 1970 UTC
    first: int  # counter in the nonce of the first row; the next rows have the next numbers


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
        self.process = random_bytes(16)  # of every nonce of this process
        self._counter = 0
        self._counting = threading.Lock()

    @property
    def secrets(self) -> list[bytes]:
        """The secrets, the current one first."""
        return [key.secret for key in self._keys.values()]

    def stamp(self, n: int) -> Stamp:
        """Time and nonces for n predictions, which nothing else gets."""
        with self._counting:
            first, self._counter = self._counter, self._counter + n
        return Stamp(int(self._clock() * 1e6), first)

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
        candidate: ShadowRows | None = None,  # answers of the calibrators in shadow
        predecessor: ShadowRows | None = None,
        stamp: Stamp | None = None,  # of these rows; None: a new one
    ) -> list[str]:
        """Prediction ids for the n rows of one answer, in their order."""
        key = self._current
        issued_at, counter = stamp or self.stamp(len(prediction))
        blocks = []
        groups = [group] * len(prediction) if isinstance(group, int) else group
        shadows = (
            [_NO_SHADOW] * len(prediction) if beside is None else beside.blocks()
            for beside in (candidate, predecessor)
        )
        rows = zip(prediction.tolist(), confidence.tolist(), groups, *shadows, strict=True)
        for place, (row, value, copies, first, second) in enumerate(rows, counter):
            nonce = self.process + _COUNTER.pack(place)
            blocks.append(_STRUCT.pack(
                _DOMAIN, key.key_id, model, version, revision, class_list, row, value, copies,
                issued_at, nonce, *first, *second,
            ))  # fmt: skip
        signed = zip(blocks, key.tags(blocks), strict=True)
        return [
            base64.urlsafe_b64encode(block + tag).rstrip(b"=").decode("ascii")
            for block, tag in signed
        ]

    def verify(self, prediction_id: str) -> Receipt:
        """Content of a prediction id, or `ForgedReceipt` if this service did not issue it."""
        if len(prediction_id) not in _FORMATS:
            lengths = " or ".join(map(str, _FORMATS))
            raise ForgedReceipt(
                f"prediction_id must have {lengths} characters, got {len(prediction_id)}"
            )
        verified = self.verify_all([prediction_id])
        if not verified.genuine[0]:
            raise ForgedReceipt("prediction_id was not signed by this service")
        fields = _STRUCT.unpack(verified.rows.tobytes())
        shadows = (ShadowBlock(*fields[11:14]), ShadowBlock(*fields[14:]))
        present = (None if shadow == _NO_SHADOW else shadow for shadow in shadows)
        return Receipt._make((*fields[2:9], fields[9] / 1e6, fields[10], *present))

    def verify_all(self, prediction_ids: Sequence[str]) -> ReceiptColumns:
        """Verify many ids; those that are forged are not `genuine` in the result."""
        n = len(prediction_ids)
        lengths = np.fromiter(map(len, prediction_ids), np.int64, n)
        blocks, genuine = np.zeros((n, ROW.itemsize), np.uint8), np.zeros(n, np.bool_)
        for characters, (domain, size) in _FORMATS.items():
            own = np.flatnonzero(lengths == characters)
            if not len(own):
                continue
            texts = prediction_ids if len(own) == n else [prediction_ids[i] for i in own.tolist()]
            raw, valid = decode_all(texts, characters=characters)
            self._check(raw, valid, domain, size)
            blocks[own, :size], genuine[own] = raw[:, :size], valid
        return ReceiptColumns(blocks.reshape(-1).view(ROW), genuine)

    def _check(
        self, raw: NDArray[np.uint8], valid: NDArray[np.bool_], domain: bytes, size: int
    ) -> None:
        """Clear ``valid`` where the domain or the signature of a decoded text is wrong."""
        heads = np.ascontiguousarray(raw[:, :8]).view([("domain", "S4"), ("key_id", ">u4")])[:, 0]
        valid &= heads["domain"] == domain
        for key_id in np.unique(heads["key_id"][valid]).tolist():
            signed = np.flatnonzero(valid & (heads["key_id"] == key_id))
            key = self._keys.get(key_id)
            valid[signed] = key is not None and _signed(raw[signed], key, size)


def _signed(raw: NDArray[np.uint8], key: ReceiptKey, size: int) -> NDArray[np.bool_]:
    """Which rows (a block of that size, then its tag) a key has signed; takes constant time."""
    blocks, tags = raw[:, :size].tobytes(), raw[:, size:].tobytes()
    expected = key.tags(blocks[start : start + size] for start in range(0, len(blocks), size))
    received = (tags[start : start + TAG_BYTES] for start in range(0, len(tags), TAG_BYTES))
    return np.fromiter(map(hmac.compare_digest, expected, received), np.bool_, len(expected))
