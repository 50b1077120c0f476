"""Blocks of remembered predictions: rows sorted by the keyed hash of their id.

A block holds rows of one model and one hour (UTC) of prediction. A row takes 48 bytes, 64 if a
calibrator was in shadow: the hash of its id (16 bytes), and what a receipt would carry. What many
rows share (version, revision, class list, process) is a `CONTEXT` of the block. The id itself is
not stored.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from trueprob_service.receipts.columns import ROLES, ROW, ShadowRows, number
from trueprob_service.receipts.identified import IdentifiedRows
from trueprob_service.receipts.receipt import input_digests

__all__ = [
    "BLOCK_ROWS",
    "CONTEXT",
    "HOUR_MICROSECONDS",
    "RememberedBlock",
    "blocks_of",
    "id_hashes",
    "id_key",
    "matches",
    "signed",
]

BLOCK_ROWS: Final = 2048  # in one row of the database: a lookup reads a whole block's keys
HOUR_MICROSECONDS: Final = 3_600_000_000
_HASH: Final = np.dtype([("high", "<u8"), ("low", "<u8")])
_SHADOW: Final = np.dtype([("prediction", "<u4"), ("confidence", "<f4")])
_FIELDS: Final = [
    ("counter", "<u8"),
    ("group", "<u8"),
    ("issued", "<u4"),  # microseconds since the hour began
    ("prediction", "<u4"),
    ("confidence", "<f4"),  # as it was answered: a float32
    ("context", "<u2"),
    ("replaced", "?"),  # an earlier prediction of the id was dropped
    ("unused", "u1"),
]
_PLAIN: Final = np.dtype(_FIELDS)
_SHADOWED: Final = np.dtype([*_FIELDS, *((role, _SHADOW) for role in ROLES)])
CONTEXT: Final = np.dtype(
    [
        ("process", ">u8", (2,)),
        ("version", "<u4"),
        ("revision", "<u8"),
        ("class_list", "<u8"),
        *((role, "<u8") for role in ROLES),  # digest of its id; 0: there was none
    ]
)
_KEY_LABEL: Final = b"trueprob remembered id\0"


def id_key(secret: bytes) -> bytes:
    """The key of the hashes, from a secret that signs receipts."""
    return hashlib.sha256(_KEY_LABEL + secret).digest()


def id_hashes(key: bytes, model: str, ids: Sequence[str]) -> NDArray[np.void]:
    """Keyed BLAKE2b hashes of ids of a model, 16 bytes each, as an array of shape (n,)."""
    begun = hashlib.blake2b(model.encode() + b"\0", key=key, digest_size=16)
    copy, digests = begun.copy, []
    for text in ids:
        hashed = copy()
        hashed.update(text.encode())
        digests.append(hashed.digest())
    return np.frombuffer(b"".join(digests), _HASH)


@dataclass(frozen=True, eq=False)
class RememberedBlock:
    """Rows in ascending order of their hashes, of which no two are equal.

    The halves of the hashes are apart, because a lookup searches the first ones only.
    """

    high: NDArray[np.uint64]  # (n,), first 8 bytes of the hashes
    low: NDArray[np.uint64]  # (n,), the other 8 bytes
    rows: NDArray[np.void]  # (n,)
    contexts: NDArray[np.void]  # (m,), which the rows refer to

    def __len__(self) -> int:
        return len(self.high)

    @classmethod
    def from_bytes(cls, hashes: bytes, content: bytes, contexts: bytes) -> RememberedBlock:
        """The block of what `to_bytes` returned."""
        high = np.frombuffer(hashes, "<u8")
        n = len(high)
        fields = _PLAIN if len(content) == n * (8 + _PLAIN.itemsize) else _SHADOWED
        low = np.frombuffer(content, "<u8", n)
        rows = np.frombuffer(content, fields, n, offset=8 * n)
        return cls(high, low, rows, np.frombuffer(contexts, CONTEXT))

    def to_bytes(self) -> tuple[bytes, bytes, bytes]:
        """First halves of the hashes, the rest of the rows, and contexts, to be stored."""
        return (
            self.high.tobytes(),
            self.low.tobytes() + self.rows.tobytes(),
            self.contexts.tobytes(),
        )

    @classmethod
    def merged(cls, blocks: Sequence[RememberedBlock]) -> RememberedBlock:
        """One block of all rows of one hour; of several with one id, the latest."""
        fields = _SHADOWED if any(b.rows.dtype == _SHADOWED for b in blocks) else _PLAIN
        high = np.concatenate([block.high for block in blocks])
        low = np.concatenate([block.low for block in blocks])
        rows = np.zeros(len(high), fields)
        places: dict[bytes, int] = {}
        start = 0
        for block in blocks:
            part = rows[start : start + len(block)]
            for name in block.rows.dtype.names or ():
                part[name] = block.rows[name]
            new = [places.setdefault(c.tobytes(), len(places)) for c in block.contexts]
            part["context"] = np.array(new, np.uint16)[block.rows["context"]]
            start += len(block)
        contexts = np.frombuffer(b"".join(places), CONTEXT)
        order = np.argsort(high, kind="stable")
        ascending = high[order]
        if (ascending[1:] == ascending[:-1]).any():
            order = np.lexsort((rows["counter"], rows["issued"], low, high))
            order = _latest(high, low, rows, order)
        return cls(high[order], low[order], rows[order], contexts)

    def parts(self, n: int = BLOCK_ROWS) -> Iterator[RememberedBlock]:
        """The same rows in blocks of at most n."""
        for start in range(0, len(self), n):
            part = slice(start, start + n)
            yield RememberedBlock(self.high[part], self.low[part], self.rows[part], self.contexts)

    @property
    def span(self) -> tuple[int, int]:
        """The first and the last hash, as `signed` of their first 8 bytes."""
        first, last = signed(self.high[[0, -1]]).tolist()
        return first, last

    def receipts(self, places: NDArray[np.int64], *, hour: int, model: int) -> NDArray[np.void]:
        """Rows as the content of receipts, of dtype `ROW`; ``model`` is the digest of its name."""
        rows = self.rows[places]
        context = self.contexts[rows["context"]]
        found = np.zeros(len(rows), ROW)
        found["model"] = model
        for name in ("version", "revision", "class_list"):
            found[name] = context[name]
        for name in ("prediction", "confidence", "group"):
            found[name] = rows[name]
        found["issued_at"] = hour * HOUR_MICROSECONDS + rows["issued"].astype(np.int64)
        found["nonce"][:, :2] = context["process"]
        found["nonce"][:, 2] = rows["counter"]
        if rows.dtype == _SHADOWED:
            for role in ROLES:
                shadow, digest = found[role], context[role]
                some = digest != 0
                for name in ("prediction", "confidence"):
                    shadow[name] = np.where(some, rows[role][name], 0)
                shadow["calibrator"] = digest
        return found


def _latest(
    high: NDArray[np.uint64],
    low: NDArray[np.uint64],
    rows: NDArray[np.void],
    order: NDArray[np.int64],
) -> NDArray[np.int64]:
    """Of an order by hash and time, the last place of each hash; marks what replaced another."""
    high, low = high[order], low[order]
    last = np.append((high[1:] != high[:-1]) | (low[1:] != low[:-1]), True)
    run = np.cumsum(np.insert(last[:-1], 0, False))  # number of the hash
    several = np.bincount(run)[run] > 1
    replaced = np.bincount(run, rows["replaced"][order] | several) > 0
    kept: NDArray[np.int64] = order[last]
    rows["replaced"][kept] = replaced
    return kept


def signed(high: NDArray[np.uint64]) -> NDArray[np.int64]:
    """Unsigned numbers as signed ones in the same order: databases have no others."""
    flipped: NDArray[np.int64] = (high ^ np.uint64(1 << 63)).view(np.int64)
    return flipped


def blocks_of(
    answers: Sequence[IdentifiedRows], *, key: bytes, process: bytes
) -> dict[tuple[str, int], RememberedBlock]:
    """Answered rows by model and hour."""
    found: dict[tuple[str, int], list[RememberedBlock]] = {}
    for answer in answers:
        hour = answer.stamp.issued_at // HOUR_MICROSECONDS
        block = _block_of(answer, id_hashes(key, answer.model, answer.ids), process)
        found.setdefault((answer.model, hour), []).append(block)
    return {place: RememberedBlock.merged(blocks) for place, blocks in found.items()}


def _block_of(answer: IdentifiedRows, hashes: NDArray[np.void], process: bytes) -> RememberedBlock:
    """The rows of one answer, in its order: only `RememberedBlock.merged` takes them."""
    n, shadows = len(hashes), {}
    for role, compute in zip(ROLES, (answer.predecessor, answer.candidate), strict=True):
        if compute is not None:
            shadows[role] = compute(answer.logits)
    rows = np.zeros(n, _SHADOWED if shadows else _PLAIN)
    rows["counter"] = np.arange(answer.stamp.first, answer.stamp.first + n)
    rows["group"] = np.array(input_digests(answer.logits), np.uint64)
    rows["issued"] = answer.stamp.issued_at % HOUR_MICROSECONDS
    rows["prediction"], rows["confidence"] = answer.prediction, answer.confidence
    contexts = np.zeros(1, CONTEXT)
    contexts["process"] = np.frombuffer(process, ">u8")
    contexts["version"], contexts["revision"] = answer.version, answer.revision
    contexts["class_list"] = number(answer.class_list)
    for role, shadow in shadows.items():
        _add_shadow(rows[role], contexts, role, shadow)
    high, low = (np.ascontiguousarray(hashes[half]) for half in ("high", "low"))
    return RememberedBlock(high, low, rows, contexts)


def _add_shadow(
    rows: NDArray[np.void], contexts: NDArray[np.void], role: str, shadow: ShadowRows
) -> None:
    rows["prediction"], rows["confidence"] = shadow.prediction, shadow.confidence
    contexts[role] = number(shadow.calibrator)


def matches(
    wanted: NDArray[np.uint64], high: NDArray[np.uint64]
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Places in `wanted` and in `high`, both sorted, of equal first halves.

    Whether the other halves are equal too, the caller must see. Of several in `high` that are equal
    (64 bits, so never of one id) only the first is found.
    """
    place = np.searchsorted(high, wanted)
    inside = place < len(high)
    if not inside.all():
        place[~inside] = 0
    found = np.flatnonzero(high[place] == wanted)
    return found, place[found]
