"""What many prediction ids say, a column each: a request may bring 100 000 of them.

The key that signs prediction ids, and the tags that it gives blocks.

What a candidate would have answered, as receipts carry it.

Many texts of URL-safe base64 at once, in the one spelling that an encoder gives them.
"""

from __future__ import annotations

import binascii
import hashlib
import hmac
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

__all__ = [
    "BLOCK_BYTES",
    "ROW",
    "TAG_BYTES",
    "ReceiptColumns",
    "ReceiptKey",
    "ShadowRow",
    "ShadowRows",
    "decode_all",
    "number",
]


_STANDARD: Final = bytes.maketrans(b"-_", b"+/")


def decode_all(
    texts: Sequence[str], *, characters: int
) -> tuple[NDArray[np.uint8], NDArray[np.bool_]]:
    """Decode texts of one length, without padding.

    One call of the decoder costs about a microsecond, as much as its work on 170 characters. Each
    text is filled up with A, which stands for zero bits, to whole groups of four.
    """
    together = _decoded(texts, characters)
    if together is not None:
        return together
    # Some are in no such form: told one by one, and the others decoded together all the same.
    form = re.compile(f"[A-Za-z0-9_-]{{{characters}}}")
    good = np.array([form.fullmatch(text) is not None for text in texts])
    raw = np.zeros((len(texts), characters * 3 // 4), np.uint8)
    decoded = _decoded([text for text, each in zip(texts, good, strict=True) if each], characters)
    if decoded is not None:
        raw[good], good[good] = decoded  # in this order: the second changes who is good
    return raw, good


def _decoded(
    texts: Sequence[str], characters: int
) -> tuple[NDArray[np.uint8], NDArray[np.bool_]] | None:
    """As `decode_all`; None when any of them cannot be decoded."""
    if not set(map(len, texts)) <= {characters}:
        return None
    fill = "A" * (-characters % 4)
    whole = fill.join((*texts, ""))
    if "+" in whole or "/" in whole:
        return None
    try:
        raw = binascii.a2b_base64(whole.encode("ascii").translate(_STANDARD), strict_mode=True)
    except (UnicodeEncodeError, binascii.Error):
        return None
    size, used = (characters + len(fill)) * 3 // 4, characters * 3 // 4
    rows = np.frombuffer(raw, np.uint8).reshape(len(texts), size)
    # What follows each row are the bits of the filling, and those that a text had to spare.
    spare: NDArray[np.uint8] = rows[:, used:].max(axis=1, initial=0)
    well_formed = spare == 0
    return np.where(well_formed[:, np.newaxis], rows[:, :used], np.uint8(0)), well_formed


class ShadowRow(NamedTuple):
    """Shadow block of one receipt: class index, confidence, digest of the candidate's id."""

    prediction: int
    confidence: float
    candidate: bytes


@dataclass(frozen=True, slots=True)
class ShadowRows:
    """A candidate's answers to the rows of one request."""

    candidate: bytes  # 8-byte digest of its id
    prediction: NDArray[np.int64]
    confidence: NDArray[np.float64]

    def blocks(self) -> list[ShadowRow]:
        """What goes into the receipts, one a row."""
        pairs = zip(self.prediction.tolist(), self.confidence.tolist(), strict=True)
        return [ShadowRow(*pair, self.candidate) for pair in pairs]


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


# The layout of `trueprob_service.receipts.receipt`, digests as numbers.
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
        ("shadow_prediction", ">u4"),
        ("shadow_confidence", ">f8"),
        ("shadow_candidate", ">u8"),
        ("tag", "u1", (TAG_BYTES,)),
    ]
)
BLOCK_BYTES: Final = ROW.itemsize - TAG_BYTES


def number(digest: bytes) -> int:
    """An 8-byte digest as the columns have it."""
    return int.from_bytes(digest, "big")


@dataclass(frozen=True, eq=False)
class ReceiptColumns:
    """Receipts of one request, in its order."""

    rows: NDArray[np.void]  # as decoded
    # signed by a key of ours. What the columns say of others means nothing
    genuine: NDArray[np.bool_]

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
        """Shape (n,)."""
        return self.rows["version"].astype(np.int64)

    @property
    def revision(self) -> NDArray[np.int64]:
        """Of the promotion that was live, shape (n,)."""
        return self.rows["revision"].astype(np.int64)

    @property
    def prediction(self) -> NDArray[np.int64]:
        """Class index, shape (n,)."""
        return self.rows["prediction"].astype(np.int64)

    @property
    def confidence(self) -> NDArray[np.float64]:
        """The float64 that the prediction was answered with, shape (n,)."""
        return self.rows["confidence"].astype(np.float64)

    @property
    def group(self) -> NDArray[np.uint64]:
        """Digest of what copies share; 0 for a row that is its own group. Shape (n,)."""
        return self.rows["group"].astype(np.uint64)

    @property
    def issued_at(self) -> NDArray[np.float64]:
        """Seconds since 1970 UTC, shape (n,)."""
        return self.rows["issued_at"].astype(np.float64) / 1e6

    @property
    def nonce(self) -> NDArray[np.uint64]:
        """24 bytes that no other receipt has, shape (n, 3)."""
        return self.rows["nonce"].astype(np.uint64)

    @property
    def nonce_bytes(self) -> list[bytes]:
        """The same, as the key under which a label counts once."""
        whole = np.ascontiguousarray(self.rows["nonce"]).tobytes()
        return [whole[start : start + 24] for start in range(0, len(whole), 24)]

    @property
    def shadow_prediction(self) -> NDArray[np.int64]:
        """Class index of the candidate's prediction, shape (n,)."""
        return self.rows["shadow_prediction"].astype(np.int64)

    @property
    def shadow_confidence(self) -> NDArray[np.float64]:
        """Shape (n,)."""
        return self.rows["shadow_confidence"].astype(np.float64)

    @property
    def shadow_candidate(self) -> NDArray[np.uint64]:
        """Digest of the candidate's id; 0 when none shadowed. Shape (n,)."""
        return self.rows["shadow_candidate"].astype(np.uint64)
