"""Decodes many prediction ids into NumPy columns; a request may carry 100 000 labels.

`decode_all` decodes the texts, `ReceiptColumns` gives the fields, and `ShadowRows` holds what the
receipts of one answer say about a calibrator in shadow.
"""

from __future__ import annotations

import binascii
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

__all__ = [
    "ROLES",
    "ROW",
    "ReceiptColumns",
    "ShadowBlock",
    "ShadowColumns",
    "ShadowRows",
    "decode_all",
    "number",
]

# Calibrators whose answers a receipt carries, in the order in which labels decide about them.
ROLES: Final = ("predecessor", "candidate")
_SHADOW: Final = np.dtype([("prediction", ">u4"), ("confidence", ">f8"), ("calibrator", ">u8")])
# The block that `trueprob_service.receipts.receipt` documents, with digests as integers.
ROW: Final = np.dtype(
    [
        ("domain", "S4"),
        ("key_id", ">u4"),
        ("model", ">u8"),
        ("version", ">u4"),
        ("revision", ">u8"),
        ("class_list", ">u8"),
        ("prediction", ">u4"),
        ("confidence", ">f8"),
        ("group", ">u8"),
        ("issued_at", ">u8"),  # microseconds
        ("nonce", ">u8", (3,)),
        ("candidate", _SHADOW),
        ("predecessor", _SHADOW),  # zero in format 1
    ]
)
_TO_STANDARD_BASE64: Final = bytes.maketrans(b"-_", b"+/")


def decode_all(
    texts: Sequence[str], *, characters: int
) -> tuple[NDArray[np.uint8], NDArray[np.bool_]]:
    """Decode URL-safe base64 without padding: bytes of shape (n, size), and which texts are valid.

    All texts have that many characters. Only the canonical spelling is valid. All are decoded in
    one call, because a call costs as much as 170 characters; each is filled up with A (zero bits)
    to whole groups of four.
    """
    decoded = _decoded(texts, characters)
    if decoded is not None:
        return decoded
    # Some texts are malformed. Find them one by one, then decode the others together.
    form = re.compile(f"[A-Za-z0-9_-]{{{characters}}}")
    valid = np.array([form.fullmatch(text) is not None for text in texts])
    raw = np.zeros((len(texts), characters * 3 // 4), np.uint8)
    decoded = _decoded([text for text, each in zip(texts, valid, strict=True) if each], characters)
    if decoded is not None:
        raw[valid], valid[valid] = decoded  # in this order: the second assignment changes `valid`
    return raw, valid


def _decoded(
    texts: Sequence[str], characters: int
) -> tuple[NDArray[np.uint8], NDArray[np.bool_]] | None:
    """As `decode_all`; None when any text cannot be decoded."""
    fill = "A" * (-characters % 4)
    joined = fill.join((*texts, ""))
    if "+" in joined or "/" in joined:
        return None
    try:
        raw = binascii.a2b_base64(
            joined.encode("ascii").translate(_TO_STANDARD_BASE64), strict_mode=True
        )
    except (UnicodeEncodeError, binascii.Error):
        return None
    size, used = (characters + len(fill)) * 3 // 4, characters * 3 // 4
    rows = np.frombuffer(raw, np.uint8).reshape(len(texts), size)
    # After each row come the padding bits and the unused bits of the last character.
    spare: NDArray[np.uint8] = rows[:, used:].max(axis=1, initial=0)
    well_formed = spare == 0
    return np.where(well_formed[:, np.newaxis], rows[:, :used], np.uint8(0)), well_formed


class ShadowBlock(NamedTuple):
    """The part of a receipt about a calibrator in shadow."""

    prediction: int  # class index
    confidence: float
    calibrator: bytes  # 8-byte digest of its id


@dataclass(frozen=True, slots=True)
class ShadowRows:
    """Answers of a calibrator in shadow to the rows of one request."""

    calibrator: bytes  # 8-byte digest of its id
    prediction: NDArray[np.int64]
    confidence: NDArray[np.float64]

    def blocks(self) -> list[ShadowBlock]:
        """The blocks for the receipts, one for each row."""
        pairs = zip(self.prediction.tolist(), self.confidence.tolist(), strict=True)
        return [ShadowBlock(*pair, self.calibrator) for pair in pairs]


@dataclass(frozen=True, eq=False)
class ShadowColumns:
    """What the receipts of one request say about a calibrator in shadow; arrays of shape (n,)."""

    prediction: NDArray[np.int64]  # class index
    confidence: NDArray[np.float64]
    calibrator: NDArray[np.uint64]  # digest of its id; 0: there was none


def number(digest: bytes) -> int:
    """An 8-byte digest as the integer that the columns hold."""
    return int.from_bytes(digest, "big")


@dataclass(frozen=True, eq=False)
class ReceiptColumns:
    """Receipts of one request, in its order."""

    rows: NDArray[np.void]  # decoded, of dtype `ROW`
    genuine: NDArray[np.bool_]  # has a valid signature; other rows hold no valid fields

    def __len__(self) -> int:
        return int(self.rows.shape[0])

    def __getitem__(self, chosen: NDArray[np.int64] | NDArray[np.bool_]) -> ReceiptColumns:
        return ReceiptColumns(self.rows[chosen], self.genuine[chosen])

    @property
    def model(self) -> NDArray[np.uint64]:
        """Digest of the model's name, shape (n,)."""
        return self.rows["model"].astype(np.uint64)

    @property
    def class_list(self) -> NDArray[np.uint64]:
        """Digest of the class list, shape (n,)."""
        return self.rows["class_list"].astype(np.uint64)

    @property
    def version(self) -> NDArray[np.int64]:
        """Version of the model, shape (n,)."""
        return self.rows["version"].astype(np.int64)

    @property
    def revision(self) -> NDArray[np.int64]:
        """Revision of the promotion that was live, shape (n,)."""
        return self.rows["revision"].astype(np.int64)

    @property
    def prediction(self) -> NDArray[np.int64]:
        """Class index, shape (n,)."""
        return self.rows["prediction"].astype(np.int64)

    @property
    def confidence(self) -> NDArray[np.float64]:
        """Confidence of the prediction, bit for bit as it was answered. Shape (n,)."""
        return self.rows["confidence"].astype(np.float64)

    @property
    def group(self) -> NDArray[np.uint64]:
        """Digest that copies of an input share; 0 for a row that is its own group. Shape (n,)."""
        return self.rows["group"].astype(np.uint64)

    @property
    def issued_at(self) -> NDArray[np.float64]:
        """Seconds since 1970 UTC, shape (n,)."""
        return self.rows["issued_at"].astype(np.float64) / 1e6

    @property
    def nonce(self) -> NDArray[np.uint64]:
        """24 bytes that are unique to a receipt, as integers of shape (n, 3)."""
        return self.rows["nonce"].astype(np.uint64)

    @property
    def nonce_bytes(self) -> list[bytes]:
        """The nonces as bytes, the key under which a label counts once."""
        joined = np.ascontiguousarray(self.rows["nonce"]).tobytes()
        return [joined[start : start + 24] for start in range(0, len(joined), 24)]

    def shadow(self, role: str) -> ShadowColumns:
        """The answers of the calibrator in one of the `ROLES`."""
        block = self.rows[role]
        return ShadowColumns(
            block["prediction"].astype(np.int64),
            block["confidence"].astype(np.float64),
            block["calibrator"].astype(np.uint64),
        )
