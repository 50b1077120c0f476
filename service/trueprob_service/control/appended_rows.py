"""Rows after rows: one calibration set of two, and whether that was done before."""

from __future__ import annotations

from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from trueprob.arrays.calibration_set import CalibrationSet
from trueprob_service.errors import InvalidRequest

__all__ = ["holds", "joined"]

_DIGEST_BYTES: Final = 16


def joined(first: CalibrationSet, second: CalibrationSet) -> CalibrationSet:
    """Rows after rows.

    Raises `InvalidRequest`: only one of the two has weights, or groups, or their groups are of
    another kind.
    """
    optional: dict[str, NDArray[Any] | None] = {}
    for name in ("weights", "groups"):
        left, right = getattr(first, name), getattr(second, name)
        if (left is None) != (right is None):
            has = "has" if right is None else "has no"
            raise InvalidRequest(
                f"{name} must come with every row or with none: the set {has} {name}"
            )
        if left is not None and (left.dtype.kind == "U") != (right.dtype.kind == "U"):
            raise InvalidRequest("groups must be integers or texts, as those of the set are")
        optional[name] = None if left is None else np.concatenate([left, right])
    return CalibrationSet(
        np.concatenate([first.logits, second.logits]),
        np.concatenate([first.labels, second.labels]),
        optional["weights"],
        optional["groups"],
    )


def holds(whole: CalibrationSet, part: CalibrationSet) -> bool:
    """Whether a set has the rows of another one in a run and in their order, as `joined` left them.

    Weights and groups count too; both sets have them or neither does.
    """
    rows, wanted = whole.row_digests.tobytes(), part.row_digests.tobytes()
    at = rows.find(wanted)
    while at >= 0:
        start, off = divmod(at, _DIGEST_BYTES)
        if off == 0 and _same_beside(whole, part, start):
            return True
        at = rows.find(wanted, at + 1)
    return False


def _same_beside(whole: CalibrationSet, part: CalibrationSet, start: int) -> bool:
    """Whether weights and groups from a row on are those of the other set."""
    stop = start + part.n
    pairs = ((whole.weights, part.weights), (whole.groups, part.groups))
    return all(
        left is None or right is None or np.array_equal(left[start:stop], right)
        for left, right in pairs
    )
