"""Which uploaded rows a calibrator has not been fitted on, by their digests."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from trueprob.errors import InvalidInput

__all__ = ["is_new_row"]


def is_new_row(
    rows: NDArray[np.uint8], seen: NDArray[np.uint8] | Sequence[bytes]
) -> NDArray[np.bool_]:
    """Which rows are not among the seen ones, as a multiset difference.

    Returns: of equal rows, the first ones count as seen.
    """
    before = _as_keys(seen)
    uploaded = _as_keys(rows)
    both, key = np.unique(np.concatenate([before, uploaded]), return_inverse=True)
    times_seen = np.bincount(key[: before.shape[0]], minlength=both.shape[0])
    of_row = key[before.shape[0] :]
    order = np.argsort(of_row, kind="stable")
    sorted_keys = of_row[order]
    rank = np.arange(order.shape[0]) - np.searchsorted(sorted_keys, sorted_keys)
    new = np.empty(order.shape[0], dtype=np.bool_)
    new[order] = rank >= times_seen[sorted_keys]
    return new


def _as_keys(digests: NDArray[np.uint8] | Sequence[bytes]) -> NDArray[np.void]:
    if not isinstance(digests, np.ndarray):
        digests = np.frombuffer(b"".join(digests), dtype=np.uint8)
    raw = np.ascontiguousarray(digests).view(np.uint8).reshape(-1)
    if raw.shape[0] % 16:
        raise InvalidInput("seen_row_digests must have 16 bytes each", field="seen_row_digests")
    # Two integers compare and sort quickly, raw bytes do not.
    return raw.view([("high", "<u8"), ("low", "<u8")])
