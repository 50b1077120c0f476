"""Smooth ECE: calibration error with a kernel, whose width follows from the data, instead of bins.

With residuals y − p of the confidences p of n rows and the Gaussian kernel K_σ on [0, 1],
reflected at both ends,

    smECE_σ = ∫₀¹ | (1/n)·Σ_i K_σ(t, p_i)·(y_i − p_i) | dt,      smECE = σ* with smECE_σ* = σ*.

smECE_σ falls as σ grows, so there is exactly one σ*.

The reflected Gaussian is the heat kernel of [0, 1] with insulated ends, so smoothing multiplies
the j-th cosine coefficient by exp(−(πjσ)²/2). Each residual is first shared between the two
nearest of 4 096 cells: O(n + m log m) for every σ. A σ* below two cells (0.0005) is an
effect of the grid.

References
----------
Błasiok, Nakkiran 2023, Smooth ECE: principled reliability diagrams via kernel smoothing,
arXiv:2309.12236, definitions 4 to 6. Their package is relplot.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import ArrayLike, NDArray

from trueprob.scores.confidence import checked_rows

__all__ = ["SmoothEce", "smooth_ece", "smooth_ece_at_width", "smooth_ece_value"]

N_CELLS: Final = 4096
BISECTIONS: Final = 40  # of [0, 1]: σ* to 1e-12

Array = NDArray[np.float64]


@dataclass(frozen=True)
class SmoothEce:
    """A smooth ECE and its noise floor."""

    n: int  # rows
    value: float  # smECE, a fraction; also the kernel's standard deviation σ*
    floor: float  # about what perfect calibration would show on the same confidences


def smooth_ece(
    confidence: ArrayLike, correct: ArrayLike, *, weights: ArrayLike | None = None
) -> SmoothEce:
    """Smooth ECE and its noise floor."""
    # The floor solves the same equation with |residual| replaced by its expectation under
    # calibration, sqrt(2/π·variance(t)), where variance(t) = Σ_i K_σ(t, p_i)²·p_i(1 − p_i)/n² and
    # K_σ² is taken as K_{σ/√2}/(2σ√π), which is exact away from the ends.
    p, y, w = checked_rows(confidence, correct, weights)
    share = w / w.sum()
    spectrum = _spectrum(p, share * (y - p))
    variance = _spectrum(p, share * share * p * (1.0 - p))

    def expected(sigma: float) -> float:
        density = np.maximum(_smoothed(variance, sigma / math.sqrt(2.0)), 0.0)
        return float(np.sqrt(density / (sigma * math.pi**1.5)).mean())

    return SmoothEce(
        n=p.shape[0],
        value=_fixed_point(lambda sigma: _mean_absolute(spectrum, sigma)),
        floor=_fixed_point(expected),
    )


def smooth_ece_value(
    confidence: ArrayLike, correct: ArrayLike, *, weights: ArrayLike | None = None
) -> float:
    """The smooth ECE without its floor, a fraction."""
    p, y, w = checked_rows(confidence, correct, weights)
    spectrum = _spectrum(p, w / w.sum() * (y - p))
    return _fixed_point(lambda sigma: _mean_absolute(spectrum, sigma))


def smooth_ece_at_width(confidence: ArrayLike, correct: ArrayLike, sigma: float) -> float:
    """smECE_σ for a kernel of standard deviation σ, a fraction."""
    p, y, w = checked_rows(confidence, correct, None)
    return _mean_absolute(_spectrum(p, w / w.sum() * (y - p)), sigma)


def _spectrum(p: Array, mass: Array) -> Array:
    """Cosine coefficients of the masses on the grid, with their first moment preserved."""
    from scipy.fft import dct

    position = np.clip(p * N_CELLS - 0.5, 0.0, N_CELLS - 1.0)
    lower = np.minimum(position.astype(np.int64), N_CELLS - 2)
    upper_share = position - lower
    grid = np.bincount(lower, weights=mass * (1.0 - upper_share), minlength=N_CELLS)
    grid += np.bincount(lower + 1, weights=mass * upper_share, minlength=N_CELLS)
    return np.asarray(dct(grid * N_CELLS, type=2), dtype=np.float64)


def _smoothed(spectrum: Array, sigma: float) -> Array:
    from scipy.fft import idct

    frequency = np.pi * np.arange(N_CELLS)
    damped = spectrum * np.exp(-0.5 * np.square(sigma * frequency))
    return np.asarray(idct(damped, type=2), dtype=np.float64)


def _mean_absolute(spectrum: Array, sigma: float) -> float:
    return float(np.abs(_smoothed(spectrum, sigma)).mean())


def _fixed_point(error_at: Callable[[float], float]) -> float:
    low, high = 0.0, 1.0
    for _ in range(BISECTIONS):
        middle = 0.5 * (low + high)
        if error_at(middle) > middle:
            low = middle
        else:
            high = middle
    return 0.5 * (low + high)
