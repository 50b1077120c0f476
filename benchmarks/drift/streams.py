"""Synthetic streams: realistic confidences, and outcomes with a known calibration error."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]
Truth = Callable[[Array], Array]


def sigmoid(x: Array) -> Array:
    return 1.0 / (1.0 + np.exp(-x))


def logit(p: Array) -> Array:
    return np.log(p / (1.0 - p))


def confidences(generator: np.random.Generator, shape: tuple[int, ...] | int) -> Array:
    """clip(sigmoid(N(2.5, sd 1.8)), 0.1, 0.9999): mean 0.85, a third above 0.97."""
    return np.clip(sigmoid(generator.normal(2.5, 1.8, shape)), 0.1, 0.9999)


def tempered(temperature: float) -> Truth:
    """The true probability if confidences are overconfident by this temperature."""
    return lambda p: sigmoid(logit(p) / temperature)


CALIBRATED: Truth = lambda p: p  # noqa: E731
SHIFTS: dict[str, Truth] = {
    "temperature 1.5": tempered(1.5),
    "temperature 0.7": tempered(0.7),
    "10 points less": lambda p: np.maximum(p - 0.1, 0.0),
    "6 points less above 0.95": lambda p: np.where(p > 0.95, p - 0.06, p),
    "20 points less in (0.7, 0.85]": lambda p: np.where((p > 0.7) & (p <= 0.85), p - 0.2, p),
}
