"""Signed prediction ids: what ties a later label to a prediction, with nothing stored for it.

A receipt is a fixed block of bytes, a truncated HMAC-SHA-256 over it, both in URL-safe base64
without padding. Big-endian layout of format 1 (``BODY``), 108 bytes:

======  =====  ==========================================================================
offset  bytes  field
======  =====  ==========================================================================
0       4      domain tag ``TPR1``: these bytes were signed as a receipt and nothing else
4       4      key id: which secret signed (``trueprob_service.receipt_key``)
8       8      model: first 8 bytes of the SHA-256 of its name
16      4      version
20      8      revision of the promotion that was live
28      8      class list: first 8 bytes of its digest
36      4      prediction (class index)
40      8      confidence, float64 bits
48      8      group digest; 0 means "the row is its own group"
56      8      issue time, microseconds since 1970 UTC
64      24     nonce: 16 random bytes drawn by the process, 8 bytes of a counter
88      4      shadow: class index of the candidate's prediction
92      8      shadow: confidence, float64 bits
100     8      shadow: first 8 bytes of the candidate's id digest; 0 means no candidate
======  =====  ==========================================================================

followed by the tag, the first 16 bytes of HMAC-SHA-256(key, body). 124 bytes are 166 characters.
A process that is spawned, not forked, draws its own 16 random bytes, so nonces never repeat.
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

from trueprob_service.receipt_key import TAG_BYTES, ReceiptKey
from trueprob_service.receipts.columns import BLOCK_BYTES, ROW, ReceiptColumns
from trueprob_service.shadow_rows import ShadowRow, ShadowRows
from trueprob_service.url_safe_base64 import decode_all

__all__ = ["ForgedReceipt", "Receipt", "Receipts", "digest64"]

_DOMAIN: Final = b"TPR1"
_STRUCT: Final = struct.Struct(">4sI8sIQ8sIdQQ24sId8s")
_NO_SHADOW: Final = ShadowRow(0, 0.0, bytes(8))
_CHARACTERS: Final = -(-(_STRUCT.size + TAG_BYTES) * 4 // 3)
_COUNTER: Final = struct.Struct(">Q")


class ForgedReceipt(ValueError):
    """The text is no receipt of ours: wrong form, unknown key or wrong signature."""


class Receipt(NamedTuple):
    """What a verified prediction id says."""

    model: bytes  # 8-byte digests (`digest64`)
    version: int
    revision: int
    class_list: bytes  # 8-byte digests (`digest64`)
    prediction: int
    confidence: float  # the float64 that the prediction was answered with
    group: int  # 64-bit digest; 0 means that the row is its own group
    issued_at: float  # seconds since 1970 UTC
    nonce: bytes  # 24 bytes that no other receipt has: the key under which a label counts once
    shadow: ShadowRow | None = None  # none when no candidate shadowed


def digest64(text: str | bytes) -> bytes:
    """First 8 bytes of the SHA-256 of a text (UTF-8) or of bytes."""
    return hashlib.sha256(text.encode() if isinstance(text, str) else text).digest()[:8]


class Receipts:
    """Issue and verify prediction ids."""

    def __init__(
        self,
        keys: Sequence[ReceiptKey],  # the first signs, all verify
        *,
        clock: Callable[[], float],  # returns seconds since 1970 UTC
        random_bytes: Callable[[int], bytes] = secrets.token_bytes,
    ) -> None:
        self._keys = {key.key_id: key for key in keys}
        self._current = keys[0]
        self._clock = clock
        self._process = random_bytes(16)
        # next() on itertools.count is atomic under the interpreter lock: no lock is needed.
        self._counter = itertools.count()

    def issue(
        self,
        *,
        model: bytes,  # 8-byte digests (`digest64`)
        version: int,  # of the deployment that answered
        revision: int,  # of the deployment that answered
        class_list: bytes,  # 8-byte digests (`digest64`)
        prediction: NDArray[np.int64],  # (n,) int64
        confidence: NDArray[np.float64],  # (n,) float64
        group: int | Sequence[int] = 0,
        shadow: ShadowRows | None = None,  # what a candidate would have answered
    ) -> list[str]:
        """Prediction ids for the rows of one answer.

        Returns: one id a row, URL-safe base64.
        """
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
        """What a prediction id says, when it is one of ours.

        Raises `ForgedReceipt`: not in the form that `issue` gives, signed by no key of ours, or
        changed.
        """
        if len(prediction_id) != _CHARACTERS:
            raise ForgedReceipt(
                f"prediction_id must have {_CHARACTERS} characters, got {len(prediction_id)}"
            )
        verified = self.verify_all([prediction_id])
        if not verified.genuine[0]:
            raise ForgedReceipt("prediction_id was not signed by this service")
        fields = _STRUCT.unpack(verified.rows.tobytes()[:BLOCK_BYTES])
        shadow = None if fields[13] == _NO_SHADOW.candidate else ShadowRow(*fields[11:])
        return Receipt._make((*fields[2:9], fields[9] / 1e6, fields[10], shadow))

    def verify_all(self, prediction_ids: Sequence[str]) -> ReceiptColumns:
        """`verify` for each id, as columns; those that are forged are not `genuine`."""
        raw, genuine = decode_all(prediction_ids, characters=_CHARACTERS)
        rows = raw.reshape(-1).view(ROW)
        genuine &= rows["domain"] == _DOMAIN
        for key_id in np.unique(rows["key_id"][genuine]).tolist():
            signed = np.flatnonzero(genuine & (rows["key_id"] == key_id))
            key = self._keys.get(key_id)
            genuine[signed] = key is not None and _signed(raw[signed], key)
        return ReceiptColumns(rows, genuine)


def _signed(raw: NDArray[np.uint8], key: ReceiptKey) -> NDArray[np.bool_]:
    """Which rows a key has signed, in a time that does not hang on where tags differ."""
    whole, given = raw[:, :BLOCK_BYTES].tobytes(), raw[:, BLOCK_BYTES:].tobytes()
    starts = range(0, len(whole), BLOCK_BYTES)
    ours = key.tags(whole[start : start + BLOCK_BYTES] for start in starts)
    theirs = (given[start : start + TAG_BYTES] for start in range(0, len(given), TAG_BYTES))
    return np.fromiter(map(hmac.compare_digest, ours, theirs), np.bool_, len(ours))
