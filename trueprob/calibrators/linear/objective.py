"""The objective of a linear stage: a penalised likelihood, with its gradient and a preconditioner.

With x the centred logits times β, the single inverse temperature of the set,

    y = W x + b,   D = diag(W) − 1

    Σ NLL + s²·(min_δ [common·δ² + λ·Σ (D_j − δ)²] + λ·k·Σ_{i≠j} W_ij²) + λ·Σ b_j²

for n rows of weight one; the vector version has no entries off the diagonal. δ changes the common
temperature, and s² is the mean square of x, so every strength is in nats of the summed log
likelihood for a change of the output by about one nat, at any scale of the logits. Shrinking the
entries off the diagonal most and the common temperature least follows structured matrix scaling
(Berta et al. 2025, arXiv:2511.03685, package probmetrics); the strengths are ours.

The objective is strictly convex. Its Hessian at the start, mean (diag p − p pᵀ) ⊗ x xᵀ, is close to
a Kronecker product of two means. Their eigenvectors turn it into a diagonal, which preconditions
the search: a quarter to a half of the steps remain. For a diagonal W it is a diagonal itself.

Everything is class-major: one vector operation handles one class of all rows.
"""

from __future__ import annotations

import math
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from trueprob.arrays.labels import Labels

__all__ = ["LinearObjective"]

COMMON: Final = 0.1  # nats for a common change of scale, whatever λ is
NOTHING: Final = slice(0, 0)
BLOCK: Final = 1 << 17  # elements worked on at a time, which stay in the cache

Array = NDArray[np.float64]


class LinearObjective:
    """Mean objective and its gradient at θ = (W, b/bias_unit); W is (k, k), or (k, 1) if diagonal.

    Rows of θ belong to outputs; the last column is the bias in a unit in which its prior is that of
    the column beside it.
    """

    def __init__(
        self,
        x: NDArray[Any],  # (k, n), centred logits times β; float32 is twice as fast
        labels: Labels,  # (n,)
        weights: Array | None,  # (n,)
        *,
        full: bool,  # a matrix rather than its diagonal
        left_out: slice = NOTHING,  # rows of a fold
        masked: NDArray[np.bool_] | None = None,  # (k, n), classes that a row cannot have
    ) -> None:
        k, n = x.shape
        self.x, self.labels, self.full, self.masked = x, labels, full, masked
        share = np.ones(n) if weights is None else weights.astype(np.float64)
        share[left_out] = 0.0
        self.n, self.k = n - (left_out.stop - left_out.start), k
        self.share = share / share.sum()
        step = max(1, BLOCK // k)
        self.blocks = [
            slice(start, min(start + step, end))
            for first, end in ((0, left_out.start), (left_out.stop, n))
            for start in range(first, end, step)
        ]
        square = 0.0
        for rows in self.blocks:
            block = x[:, rows]
            square += float(np.einsum("ij,ij->j", block, block) @ self.share[rows]) / k
        self.square = square if square > 0.0 else 1.0  # constant rows: W does not matter
        # Off the diagonal a strength is k times that of the bias, on it the same.
        self.bias_unit = math.sqrt(self.square * (k if full else 1))
        self._find_curvature()
        self.shrink(1.0)

    def shrink(self, strength: float) -> None:
        """Set λ."""
        self.common = COMMON * self.square / self.n
        self.diagonal = strength * self.square / self.n
        self.off_diagonal = self.diagonal * self.k
        self.bias = strength / self.n
        # The δ of least penalty is this share of Σ D_j.
        self.pooled = self.diagonal / (self.common + self.k * self.diagonal)
        ridge = self.off_diagonal if self.full else self.diagonal
        self.scaled_curvature = self.curvature + 2.0 * ridge

    def pack(self, weights: Array, bias: Array) -> Array:
        """θ of W and b, the inverse of `unpack`."""
        return np.column_stack([weights, bias / self.bias_unit])

    def unpack(self, theta: Array) -> tuple[Array, Array]:
        """W (its diagonal, or row j gives y_j) and b."""
        weights = theta[:, :-1] if self.full else theta[:, 0]
        return weights, theta[:, -1] * self.bias_unit

    def __call__(self, theta: Array) -> tuple[float, Array]:
        """Mean penalised NLL and its gradient."""
        weights, bias = self.unpack(theta)
        value, by_weights, by_bias = self._likelihood(weights, bias)
        gradient = np.empty_like(theta)
        shift = (np.diag(weights) if self.full else weights) - 1.0
        pull = self.diagonal * (shift - self.pooled * shift.sum())
        value += float(shift @ pull) + self.bias * float(bias @ bias)
        if self.full:
            others = weights.copy()
            np.fill_diagonal(others, 0.0)
            value += self.off_diagonal * float(np.square(others).sum())
            by_weights += 2.0 * self.off_diagonal * others + np.diag(2.0 * pull)
            gradient[:, :-1] = by_weights
        else:
            gradient[:, 0] = by_weights + 2.0 * pull
        gradient[:, -1] = (by_bias + 2.0 * self.bias * bias) * self.bias_unit
        return value, gradient

    def precondition(self, gradient: Array) -> Array:
        """H⁻¹g with the approximation H of the Hessian at the start."""
        if not self.full:
            return np.asarray(gradient / self.scaled_curvature)
        by_output, by_input = self.vectors
        along = (by_output.T @ gradient @ by_input) / self.scaled_curvature
        result: Array = by_output @ along @ by_input.T
        return result

    def _likelihood(self, weights: Array, bias: Array) -> tuple[float, Array, Array]:
        """Mean NLL and its derivatives by W and b."""
        dtype = self.x.dtype
        linear, shift = weights.astype(dtype), bias.astype(dtype)[:, None]
        value = 0.0
        by_weights, by_bias = np.zeros(weights.shape), np.zeros(self.k)
        for rows in self.blocks:
            x, labels, share = self.x[:, rows], self.labels[rows], self.share[rows]
            index = np.arange(labels.shape[0])
            y = linear @ x if self.full else linear[:, None] * x
            y += shift
            if self.masked is not None:
                y[self.masked[:, rows]] = -np.inf
            y -= np.maximum.reduce(y, axis=0)
            chosen = y[labels, index].astype(np.float64)
            with np.errstate(under="ignore"):
                np.exp(y, out=y)
                total = np.add.reduce(y, axis=0)
                value += float(share @ (np.log(total) - chosen))
                y *= (share / total).astype(dtype)
                y[labels, index] -= share.astype(dtype)
                by_bias += y.sum(axis=1)
                by_weights += y @ x.T if self.full else np.einsum("ij,ij->i", y, x)
        return value, by_weights, by_bias

    def _find_curvature(self) -> None:
        """Curvature of the likelihood at the start: along eigenvectors, or of each parameter."""
        k = self.k
        by_output, by_input = np.zeros((k, k)), np.zeros((k + 1, k + 1))
        mean, uncertain = np.zeros(k), 0.0
        own = np.zeros((k, 2))
        for rows in self.blocks:
            x, share = self.x[:, rows], self.share[rows].astype(self.x.dtype)
            y = x if self.masked is None else np.where(self.masked[:, rows], -np.inf, x)
            with np.errstate(under="ignore"):
                p = np.exp(y - np.maximum.reduce(y, axis=0)).astype(x.dtype, copy=False)
                p /= np.add.reduce(p, axis=0)
                if self.full:
                    # Rows count as far as they are uncertain: the trace of diag p − p pᵀ.
                    weight = share * (1.0 - np.einsum("ij,ij->j", p, p))
                    weighted = x * weight
                    mean += p @ share
                    by_output -= (p * share) @ p.T
                    by_input[:k, :k] += weighted @ x.T
                    by_input[k, :k] += weighted.sum(axis=1)
                    uncertain += float(weight.sum())
                else:
                    p *= (1.0 - p) * share
                    own[:, 0] += np.einsum("ij,ij,ij->i", p, x, x)
                    own[:, 1] += p.sum(axis=1)
        if not self.full:
            self.curvature = own * np.array([1.0, self.bias_unit**2])
            return
        by_output += np.diag(mean)
        by_input[k, :k] *= self.bias_unit
        by_input[:k, k] = by_input[k, :k]
        by_input[k, k] = uncertain * self.bias_unit**2
        outputs, left = np.linalg.eigh(by_output)
        inputs, right = np.linalg.eigh(by_input / max(uncertain, 1e-30))
        self.vectors = left, right
        self.curvature = np.maximum(outputs, 0.0)[:, None] * np.maximum(inputs, 0.0)
