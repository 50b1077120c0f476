"""Rows to draw calibration rows from, and a test half, as whoever made them handed them over.

Development pools are the given sets, which the methods were developed on. Confirmation pools are
trained by the benchmark itself with seeds of its own, and nothing was chosen by looking at them.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from benchmarks.calibration.sets import logit_sets
from trueprob.arrays.labels import Labels
from trueprob.arrays.logit_functions import Logits

Part = Literal["development", "confirmation"]
PARTS: tuple[Part, ...] = ("development", "confirmation")
MAX_TEST_ROWS, MAX_TEST_ELEMENTS = 4_000, 400_000
FLOOR = 1e-12  # what a probability of 0 counts as for those that want logits


@dataclass(frozen=True)
class Pool:
    """Numbers of one classifier, as it gives them.

    Attributes
    ----------
    inputs : str
        What the numbers are: `logits`, `probabilities` (with exact zeros) or `log_probabilities`.
    values, test_values : ndarray of shape (n, k)
    """

    name: str
    part: Part
    inputs: str
    values: NDArray[Any]
    labels: Labels
    test_values: NDArray[Any]
    test_labels: Labels

    @property
    def family(self) -> str:
        """The data, which classifiers share."""
        return self.name.split("_", 1)[0]

    @property
    def n_classes(self) -> int:
        return int(self.values.shape[1])

    @cached_property
    def digest(self) -> str:
        """Of everything that a score depends on."""
        found = hashlib.sha256(self.inputs.encode())
        for array in (self.values, self.labels, self.test_values, self.test_labels):
            found.update(f"{array.dtype} {array.shape}".encode())
            found.update(np.ascontiguousarray(array).tobytes())
        return found.hexdigest()

    def finite_logits(self, values: NDArray[Any]) -> Logits:
        """The numbers as logits without infinities, for methods that take nothing else."""
        if self.inputs == "logits":
            return values.astype(np.float32)
        if self.inputs == "probabilities":
            return np.log(np.maximum(values, FLOOR)).astype(np.float32)
        return np.maximum(values, np.log(FLOOR)).astype(np.float32)


def tested(values: NDArray[Any], labels: Labels) -> tuple[NDArray[Any], Labels]:
    """As much of a test half as is scored thousands of times."""
    kept = min(MAX_TEST_ROWS, MAX_TEST_ELEMENTS // values.shape[1])
    return values[:kept], labels[:kept].astype(np.int64)


def development_pools(folder: Path) -> Iterator[Pool]:
    """The given sets without those whose tail was rebuilt: their NLL means nothing."""
    for data in logit_sets(folder):
        if data.has_real_tail:
            test = tested(data.test_logits, data.test_labels)
            yield Pool(data.name, "development", "logits", data.val_logits, data.val_labels, *test)
