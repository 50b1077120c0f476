"""The calibrator `stack`: a weighted mean of other calibrators' probabilities, to a power.

    q = Σ_m w_m p_m,   p ∝ q^β,   w_m > 0,  Σ_m w_m = 1

The mean of calibrated probabilities is under-confident, hence β (Ranjan and Gneiting 2010,
Combining probability forecasts, J. R. Stat. Soc. B 72:71–91). A power keeps the order of the
classes, and a class that no member allows stays at 0; in a geometric mean one member could veto a
class. `trueprob.fitting.stacking` finds weights and power.

The members are summed in one order, and every step is increasing in floating point too. So where
all members predict one class, the mean does not predict another. The prediction is the argmax of
q, and its probability is the only largest one.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from types import MappingProxyType
from typing import Any, ClassVar, Final, Self

import numpy as np
from numpy.typing import NDArray

from trueprob.arrays import logit_functions
from trueprob.arrays.labels import Labels
from trueprob.arrays.logit_functions import (
    ABOVE_RUNNER_UP,
    TRANSPOSE_BELOW,
    Logits,
    Probabilities,
    is_masked,
)
from trueprob.calibrators.base import Calibrated, Calibrator
from trueprob.calibrators.isotonic import IsotonicCalibrator
from trueprob.calibrators.linear.smart_vector_matrix import (
    SmartMatrixCalibrator,
    SmartVectorCalibrator,
)
from trueprob.calibrators.linear.vector import VectorCalibrator
from trueprob.calibrators.parameters import number, require_keys
from trueprob.calibrators.smart.binary import SmartBinaryCalibrator
from trueprob.calibrators.smart.calibrator import SmartCalibrator
from trueprob.calibrators.temperature import IdentityCalibrator, TemperatureCalibrator
from trueprob.errors import InvalidDocument

__all__ = ["MEMBER_KINDS", "StackCalibrator", "pooled"]

# What `auto` mixes. `smart-mlp`, the published reference, is not among them.
MEMBER_KINDS: Final[Mapping[str, type[Calibrator]]] = MappingProxyType(
    {
        kind.kind: kind
        for kind in (
            IdentityCalibrator,
            IsotonicCalibrator,
            SmartBinaryCalibrator,
            SmartCalibrator,
            SmartMatrixCalibrator,
            SmartVectorCalibrator,
            TemperatureCalibrator,
            VectorCalibrator,
        )
    }
)
SUM_TOLERANCE: Final = 1e-9  # of the weights, which are written in float64
LARGEST_POWER: Final = 1e3  # fitted powers are near 1
BLOCK: Final = 1 << 18  # elements of a block, of which several stay in the cache

Array = NDArray[np.float64]


@dataclass(frozen=True)
class StackCalibrator(Calibrator):
    """A weighted mean of other calibrators' probabilities, to a power.

    Attributes
    ----------
    members : tuple of m calibrators
        m >= 2, of the kinds in `MEMBER_KINDS`, in the order in which they are summed.
    weights : tuple of m floats
        Positive; they sum to 1.
    power : float
        β, positive.
    preserves_prediction : bool
        Whether all members keep the prediction. An attribute of the instance: the kind promises
        nothing.
    preserves_ranking : bool
        Likewise.

    References
    ----------
    Ranjan and Gneiting 2010, Combining probability forecasts, J. R. Stat. Soc. B 72:71–91, for
    the lack of confidence of a mean of calibrated probabilities.
    """

    members: tuple[Calibrator, ...]
    weights: tuple[float, ...]
    power: float

    kind: ClassVar[str] = "stack"
    takes_masks: ClassVar[bool] = True

    @property
    def preserves_prediction(self) -> bool:  # type: ignore[override]
        """Whether all members keep the prediction."""
        return self._preserves_prediction

    @cached_property
    def _preserves_prediction(self) -> bool:
        return all(member.preserves_prediction for member in self.members)

    @cached_property
    def _gives_gap(self) -> Calibrator:
        """The member `smart`, which has the gap for nothing, else the last."""
        found = [member for member in self.members if isinstance(member, SmartCalibrator)]
        return found[0] if found else self.members[-1]

    @property
    def preserves_ranking(self) -> bool:  # type: ignore[override]
        """Whether all members keep the ranking."""
        return all(member.preserves_ranking for member in self.members)

    def parameters(self) -> dict[str, Any]:
        """Members with their weights, and the power, as JSON values."""
        members = [
            {"kind": member.kind, "weight": weight, "parameters": member.parameters()}
            for member, weight in zip(self.members, self.weights, strict=True)
        ]
        return {"members": members, "power": self.power}

    @classmethod
    def from_parameters(cls, n_classes: int, parameters: Mapping[str, Any]) -> Self:
        """Inverse of `parameters`; InvalidDocument when they cannot be used."""
        require_keys(parameters, ("members", "power"), where="parameters")
        power = number(parameters, "power", where="parameters", above=0.0, below=LARGEST_POWER)
        listed = parameters["members"]
        if not isinstance(listed, list | tuple) or len(listed) < 2:
            raise InvalidDocument("parameters.members must be a list of at least 2 calibrators")
        members, weights = [], []
        for index, entry in enumerate(listed):
            where = f"parameters.members[{index}]"
            if not isinstance(entry, Mapping):
                raise InvalidDocument(f"{where} must be an object, got {type(entry).__name__}")
            require_keys(entry, ("kind", "weight", "parameters"), where=where)
            kind, inner = entry["kind"], entry["parameters"]
            if not isinstance(kind, str) or kind not in MEMBER_KINDS:
                shown = repr(kind[:40]) if isinstance(kind, str) else type(kind).__name__
                raise InvalidDocument(
                    f"{where}.kind must be one of {', '.join(MEMBER_KINDS)}, got {shown}"
                )
            if not isinstance(inner, Mapping):
                raise InvalidDocument(f"{where}.parameters must be an object")
            weights.append(number(entry, "weight", where=where, above=0.0, below=1.0))
            members.append(MEMBER_KINDS[kind].from_parameters(n_classes, inner))
        if abs(math.fsum(weights) - 1.0) > SUM_TOLERANCE:
            raise InvalidDocument(
                f"the weights of parameters.members must sum to 1, got {math.fsum(weights):.6g}"
            )
        return cls(n_classes, tuple(members), tuple(weights), power)

    def _calibrated(self, logits: Logits) -> Calibrated:
        """One pass through each member, in blocks of rows."""
        n, k = logits.shape
        step = max(1, BLOCK // k)
        if n <= step:
            return self._block(logits)
        p, top = np.empty((n, k), np.float32), np.empty(n, np.int64)
        confidence, gap = np.empty(n, np.float32), np.empty(n, np.float32)
        for start in range(0, n, step):
            rows = slice(start, start + step)
            block = self._block(logits[rows])
            p[rows], top[rows] = block.probabilities, block.prediction
            confidence[rows], gap[rows] = block.confidence, block.logit_gap
        return Calibrated(p, top, confidence, None, gap)

    def _block(self, logits: Logits) -> Calibrated:
        # One member gives the gap of the logits and the prediction too.
        whole = self._gives_gap
        found = whole.calibrated(logits)
        masked = is_masked(logits)
        columns = [
            found.probabilities
            if member is whole
            else member.calibrated(logits).probabilities
            if masked
            else member._probabilities(logits)
            for member in self.members
        ]
        common = found.prediction if self._preserves_prediction else None
        p, top = pooled(columns, self.weights, self.power, common)
        return Calibrated(p, top, p[np.arange(len(p)), top], None, found.logit_gap)

    def _prediction(self, logits: Logits) -> Labels:
        """The members' prediction where all keep it, else the argmax of q, the first of ties."""
        if self._preserves_prediction:
            return logit_functions.prediction(logits)
        return self._calibrated(logits).prediction

    def _probabilities(self, logits: Logits) -> Probabilities:
        return self._calibrated(logits).probabilities

    def _temperature(self, logits: Logits) -> None:
        del logits
        return


def pooled(
    columns: list[Probabilities],  # of each member, (n, k) float32, overwritten
    weights: tuple[float, ...],
    power: float,
    prediction: Labels | None = None,  # (n,), that of all members; None: the argmax of q
) -> tuple[Probabilities, Labels]:
    """Mix probabilities and raise them to the power; the probabilities and the prediction.

    The prediction's probability is larger than all others.
    """
    n, k = columns[0].shape
    if k == 2:
        return _pooled_pair(columns, weights, power, prediction)
    class_major = k < TRANSPOSE_BELOW
    axis = 0 if class_major else 1
    if prediction is None:
        # In float64 a prediction that all members share stays above the others, by their last bits.
        precise = _mean(columns, weights)
        prediction = precise.argmax(axis=1)
        q = precise.astype(np.float32)
    else:
        # In units of the last weight, which the normalisation removes.
        *rest, q = columns
        for column, weight in zip(rest, weights, strict=False):
            column *= np.float32(weight / weights[-1])
            q += column
    if class_major:
        q = np.ascontiguousarray(q.T)
    top = prediction
    with np.errstate(divide="ignore", under="ignore"):
        np.log(q, out=q)  # −inf for a class that no member allows
        q *= np.float32(power)
        np.exp(q, out=q)
        q *= np.float32(1.0) / q.sum(axis=axis, keepdims=True)
    rows = np.arange(n)
    at = (top, rows) if class_major else (rows, top)
    confidence = q[at]
    q[at] = 0.0
    q[at] = np.maximum(confidence, q.max(axis=axis) * ABOVE_RUNNER_UP)
    return (np.ascontiguousarray(q.T) if class_major else q), top


def _mean(columns: list[Probabilities], weights: tuple[float, ...]) -> Array:
    q = columns[0] * np.float64(weights[0])
    for column, weight in zip(columns[1:], weights[1:], strict=True):
        q += column * np.float64(weight)
    return q


def _pooled_pair(
    columns: list[Probabilities],
    weights: tuple[float, ...],
    power: float,
    prediction: Labels | None,
) -> tuple[Probabilities, Labels]:
    """Two classes, by their log-odds in float64: rounding does not reverse the order of rows."""
    q = _mean(columns, weights)
    top = q.argmax(axis=1) if prediction is None else prediction
    with np.errstate(divide="ignore", over="ignore", under="ignore"):
        log_odds = power * (np.log(q[:, 1]) - np.log(q[:, 0]))
        p = (1.0 / (1.0 + np.exp(np.stack([log_odds, -log_odds], axis=1)))).astype(np.float32)
    tied = p[:, 0] == p[:, 1]
    p[tied, top[tied]] = np.nextafter(np.float32(0.5), np.float32(1.0))
    return p, top
