"""A linear map of centred logits, the stage before the softmax in vector and matrix scaling.

    x = z − max z, minus its mean over the classes;   y = W x + b

W is diagonal (vector scaling, Guo et al. 2017, arXiv:1706.04599, section 4.2) or full (matrix
scaling). Guo's maps take z itself, so a constant added to a row changes their result; x does not
change. The largest logit is subtracted first, so a constant that float32 holds exactly does not
change the mean. A masked class has no part in the mean, x is 0 and y is −inf.
`trueprob.calibrators.linear.fit` finds W and b.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Final, Self

import numpy as np
from numpy.typing import NDArray

from trueprob.arrays.logit_functions import Logits, is_masked
from trueprob.calibrators.parameters import numbers, require_keys
from trueprob.errors import InvalidDocument

__all__ = ["CHUNK", "LinearStage", "centred"]

CHUNK: Final = 1 << 18  # elements worked on at a time: 2 MiB of float64
LARGEST: Final = 1e37  # float32 holds 3e38; differences of two such outputs still fit

Array = NDArray[np.float64]


def centred(logits: Logits) -> Array:
    """Logits of each row minus their mean, in float64; a constant in a row cancels exactly.

    Masked classes are 0, which is the mean of the others.
    """
    x: Array = logits.astype(np.float64)
    x -= x.max(axis=1, keepdims=True)
    if is_masked(logits):
        allowed = np.isfinite(x)
        x[~allowed] = 0.0
        mean = x.sum(axis=1, keepdims=True) / allowed.sum(axis=1, keepdims=True)
        return np.where(allowed, x - mean, 0.0)
    x -= x.mean(axis=1, keepdims=True)
    return x


@dataclass(frozen=True)
class LinearStage:
    """y = W x + b with x the centred logits."""

    weights: tuple[float, ...]  # the diagonal of W, or W row by row: row j gives y_j
    bias: tuple[float, ...]  # nats

    def parameters(self) -> dict[str, Any]:
        """Weights and bias, as JSON values."""
        return {"weights": list(self.weights), "bias": list(self.bias)}

    @classmethod
    def from_parameters(cls, n_classes: int, parameters: object, *, full: bool, where: str) -> Self:
        """Inverse of `parameters`; InvalidDocument when they cannot be used."""
        if not isinstance(parameters, Mapping):
            raise InvalidDocument(f"{where} must be an object")
        require_keys(parameters, ("weights", "bias"), where=where)
        weights = numbers(parameters, "weights", where=where)
        bias = numbers(parameters, "bias", where=where)
        expected = n_classes * n_classes if full else n_classes
        for name, values, size in (("weights", weights, expected), ("bias", bias, n_classes)):
            if len(values) != size:
                raise InvalidDocument(
                    f"{where}.{name} must have {size} numbers for {n_classes} classes, "
                    f"got {len(values)}"
                )
        return cls(weights, bias)

    @cached_property
    def _arrays(self) -> tuple[Array, Array]:
        k = len(self.bias)
        weights = np.array(self.weights)
        return (weights if weights.size == k else weights.reshape(k, k).T), np.array(self.bias)

    def apply(self, logits: Logits) -> Logits:
        """The output y, clipped to stay finite; its argmax is the prediction."""
        weights, bias = self._arrays
        result = np.empty(logits.shape, dtype=np.float32)
        step = max(1, CHUNK // logits.shape[1])
        for start in range(0, logits.shape[0], step):
            rows = slice(start, start + step)
            x = centred(logits[rows])
            y = x * weights if weights.ndim == 1 else x @ weights
            result[rows] = np.clip(y + bias, -LARGEST, LARGEST)
        if is_masked(logits):
            result[np.isneginf(logits)] = -np.inf
        return result
