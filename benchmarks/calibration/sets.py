"""Logits of real networks: a validation half to fit on, a test half to score."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from trueprob.arrays.labels import Labels, as_labels
from trueprob.arrays.logit_functions import Logits
from trueprob.arrays.logits import as_logits

ROOT = Path(__file__).resolve().parents[2]
SMALL_ELEMENTS = 100_000  # validation rows times classes of the sets that `--small` keeps


@dataclass(frozen=True)
class LogitSet:
    """One network on one data set."""

    name: str
    val_logits: Logits
    val_labels: Labels
    test_logits: Logits
    test_labels: Labels

    @property
    def family(self) -> str:
        """The data set, by which the bootstrap resamples: networks on one are not independent."""
        return self.name.split("_", 1)[0]

    @property
    def n_classes(self) -> int:
        return int(self.val_logits.shape[1])

    @property
    def has_real_tail(self) -> bool:
        """False where only the top five values are real: NLL and Brier mean nothing there."""
        return not self.name.endswith("_top5")


def default_folder() -> Path:
    """$BENCH_DATA, a relative one taken from the repository's root."""
    return ROOT / os.environ.get("BENCH_DATA", "../shared/data")


def logit_sets(folder: Path, *, small: bool = False) -> Iterator[LogitSet]:
    """Every `logits/NAME.npz` of the folder, by name, one in memory at a time."""
    for path in sorted((folder / "logits").glob("*.npz")):
        with np.load(path, allow_pickle=False) as arrays:
            if small and arrays["val_logits"].size > SMALL_ELEMENTS:
                continue
            yield of_arrays(path.stem, *(arrays[key] for key in KEYS))


KEYS = ("val_logits", "val_labels", "test_logits", "test_labels")


def of_arrays(
    name: str,
    val_logits: NDArray[np.floating],
    val_labels: NDArray[np.integer],
    test_logits: NDArray[np.floating],
    test_labels: NDArray[np.integer],
) -> LogitSet:
    """A set from raw arrays, checked and cast as the library does it."""
    k = val_logits.shape[1]
    return LogitSet(
        name,
        as_logits(val_logits),
        as_labels(val_labels.astype(np.int64), n_classes=k),
        as_logits(test_logits),
        as_labels(test_labels.astype(np.int64), n_classes=k),
    )
