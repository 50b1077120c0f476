"""Every kind of calibrator, as the cases of a test."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np
import pytest

from trueprob.calibrators import Calibrator, StackCalibrator
from trueprob.fitting.methods import FITTERS

BINARY = "smart-binary"  # for two classes only
TRAINED = "smart-mlp"  # by gradient descent, which takes seconds
MEMBERS = {"temperature": 0.25, "smart": 0.25, "smart-vector": 0.5}  # of the stack of a test


def width(kind: str, k: int) -> int:
    """k, or 2 for a kind of two classes only."""
    return 2 if kind == BINARY else k


def cases(kinds: Iterable[str]) -> list[object]:
    return [pytest.param(k, marks=pytest.mark.slow) if k == TRAINED else k for k in kinds]


def fit_kind(kind: str, logits: Any, labels: Any, weights: Any = None) -> Calibrator:
    """A calibrator of this kind; no method fits exactly a stack."""
    if kind != StackCalibrator.kind:
        return FITTERS[kind](logits, labels, weights, seed=0).calibrator
    members = tuple(fit_kind(member, logits, labels, weights) for member in MEMBERS)
    return StackCalibrator(logits.shape[1], members, tuple(MEMBERS.values()), 1.2)


def assert_prediction_is_above(p: np.ndarray, prediction: np.ndarray) -> None:
    """The prediction is the only largest probability, so any argmax finds it."""
    rows = np.arange(p.shape[0])
    others = p.copy()
    others[rows, prediction] = -1.0
    assert (p[rows, prediction] > others.max(axis=1)).all()
