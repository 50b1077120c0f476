"""Synthetic networks with known faults, and the folder of real ones."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

Rows = tuple[NDArray[np.float32], NDArray[np.int64]]


@pytest.fixture(scope="session")
def overconfident() -> Callable[..., Rows]:
    """Logits that are `factor` times those from which the labels were drawn."""

    def draw(n: int, k: int = 5, *, seed: int = 0, factor: float = 2.5, scale: float = 2.0) -> Rows:
        generator = np.random.default_rng(seed)
        logits = generator.normal(size=(n, k)) * scale
        gumbel = generator.gumbel(size=(n, k))
        labels = (logits + gumbel).argmax(axis=1)
        return (factor * logits).astype(np.float32), labels.astype(np.int64)

    return draw


@pytest.fixture
def fault() -> Callable[[str], Rows]:
    """Logits and labels of a small set that breaks fits; skips when they are not here."""
    root = Path(__file__).parents[2]
    folder = Path(os.environ.get("BENCH_DATA", root.parent / "shared" / "data")) / "faults"

    def load(name: str) -> Rows:
        path = folder / f"{name}.npz"
        if not path.is_file():
            pytest.skip(f"{path} is not here: set BENCH_DATA to the folder of data")
        with np.load(path) as arrays:
            return arrays["logits"].astype(np.float32), arrays["labels"].astype(np.int64)

    return load


@pytest.fixture
def real_set() -> Callable[[str], tuple[Rows, Rows]]:
    """Validation and test half of a real network's logits; skips when they are not here."""
    root = Path(__file__).parents[2]
    folder = Path(os.environ.get("BENCH_DATA", root.parent / "shared" / "data")) / "logits"

    def load(name: str) -> tuple[Rows, Rows]:
        path = folder / f"{name}.npz"
        if not path.is_file():
            pytest.skip(f"{path} is not here: set BENCH_DATA to the folder of real logits")
        with np.load(path) as arrays:
            return (
                (arrays["val_logits"].astype(np.float32), arrays["val_labels"].astype(np.int64)),
                (arrays["test_logits"].astype(np.float32), arrays["test_labels"].astype(np.int64)),
            )

    return load
