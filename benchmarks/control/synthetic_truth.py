"""Uploads with known true probabilities, and calibrators that are off by a given NLL.

Rows are z ~ 3·N(0, 1) of ten classes, labels are drawn from softmax(z). Against that truth,
softmax(βz) loses E[log softmax(z)_y − log softmax(βz)_y] nats: 0 at β = 1, more on either side.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from typing import Final

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import brentq

from trueprob import CalibrationSet
from trueprob.arrays.logit_functions import log_softmax
from trueprob.calibrators import Calibrator, TemperatureCalibrator

K: Final = 10
SPREAD: Final = 3.0  # accuracy 0.66, mean confidence alike
SAMPLE: Final = 100_000  # rows over which a loss is the mean; its error is 1 % of it


@dataclass(frozen=True)
class Condition:
    """One upload's candidate and incumbent; losses are nats above the truth.

    Attributes
    ----------
    name : str
    method : str
        ``identity``: the candidate is exactly `candidate` worse than the truth; another one is
        fitted and has what it has.
    candidate, incumbent : float
        Positive: too sure (β > 1). Negative: not sure enough, by as many nats.
    """

    name: str
    method: str
    candidate: float
    incumbent: float

    @property
    def gain(self) -> float:
        """By how many nats the candidate is better, were its method exact."""
        return abs(self.incumbent) - abs(self.candidate)

    def draw(self, n: int, seed: int) -> tuple[Calibrator, CalibrationSet]:
        """The incumbent, and an upload of n rows."""
        rng = np.random.default_rng(seed)
        z = SPREAD * rng.standard_normal((n, K))
        labels = np.argmax(z + rng.gumbel(size=z.shape), axis=1)
        sent = inverse_temperature(self.candidate)
        temperature = sent / inverse_temperature(self.incumbent)
        rows = CalibrationSet((sent * z).astype(np.float32), labels)
        return TemperatureCalibrator(K, temperature), rows


@cache
def inverse_temperature(loss: float) -> float:
    """The β with this loss: above 1 for a positive loss, below for a negative one."""
    if loss == 0.0:
        return 1.0
    logits, truth = _sample()

    def excess(beta: float) -> float:
        own = log_softmax((beta * logits).astype(np.float32))
        # Against the same sum at β = 1, so that the sample's own error falls out.
        return float(-(truth * own).sum(axis=1).mean()) - _entropy() - abs(loss)

    low, high = (1.0, 4.0) if loss > 0 else (0.1, 1.0)
    return float(brentq(excess, low, high, xtol=1e-6))


@cache
def _sample() -> tuple[NDArray[np.float32], NDArray[np.float64]]:
    z = SPREAD * np.random.default_rng(1).standard_normal((SAMPLE, K))
    logits = z.astype(np.float32)
    return logits, np.exp(log_softmax(logits)).astype(np.float64)


@cache
def _entropy() -> float:
    logits, truth = _sample()
    return float(-(truth * log_softmax(logits)).sum(axis=1).mean())
