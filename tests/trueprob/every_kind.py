"""Every kind of calibrator, as the cases of a test."""

from __future__ import annotations

from collections.abc import Iterable

import pytest

TRAINED = "smart-mlp"  # by gradient descent, which takes seconds


def cases(kinds: Iterable[str]) -> list[object]:
    return [pytest.param(k, marks=pytest.mark.slow) if k == TRAINED else k for k in kinds]
