"""Every kind of calibrator, as the cases of a test."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
import pytest

BINARY = "smart-binary"  # for two classes only
TRAINED = "smart-mlp"  # by gradient descent, which takes seconds


def width(kind: str, k: int) -> int:
    """k, or 2 for a kind of two classes only."""
    return 2 if kind == BINARY else k


def cases(kinds: Iterable[str]) -> list[object]:
    return [pytest.param(k, marks=pytest.mark.slow) if k == TRAINED else k for k in kinds]


def assert_prediction_is_above(p: np.ndarray, prediction: np.ndarray) -> None:
    """The prediction is the only largest probability, so any argmax finds it."""
    rows = np.arange(p.shape[0])
    others = p.copy()
    others[rows, prediction] = -1.0
    assert (p[rows, prediction] > others.max(axis=1)).all()
