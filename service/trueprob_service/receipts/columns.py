"""What many prediction ids say, a column each: a request may bring 100 000 of them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from trueprob_service.receipt_key import TAG_BYTES

__all__ = ["BLOCK_BYTES", "ROW", "ReceiptColumns", "number"]

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
