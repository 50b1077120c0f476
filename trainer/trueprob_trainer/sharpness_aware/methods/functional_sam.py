"""Functional-SAM (Singh, Mobahi, Agarwala, Dauphin: arXiv:2502.02407).

With the logits z = F(θ), SAM's gradient at θ + ρε differs from the plain one in two factors of the
chain rule: the Jacobian ∂F/∂θ and the loss derivative ∂L/∂z. A network can flatten the second one
by smaller logits, without an improvement. Functional-SAM perturbs the Jacobian only::

    g = J(θ + ρε)ᵀ  ∂L/∂z at F(θ),     ε = ∇L(θ) / ‖∇L(θ)‖

A step keeps the gradient of the logits from the first pass, moves the weights as SAM does, runs the
network forward again *with the same dropout masks* (other masks would be another F) and
backpropagates the kept gradient.
"""

from typing import Any

import torch
from torch import Tensor

from trueprob_trainer.sharpness_aware.methods.sam import SAM
from trueprob_trainer.sharpness_aware.randomness import RandomState
from trueprob_trainer.sharpness_aware.wrapper import Closure, in_full_precision


class FunctionalSAM(SAM):
    """SAM with the Jacobian at the perturbed and the loss derivative at the original weights.

    Parameters
    ----------
    base : torch.optim.Optimizer
    rho : float
        Radius in the 2-norm of the weights, at least 0.
    **shared
        See :class:`TwoPassOptimizer`.

    References
    ----------
    arXiv:2502.02407, the update of its section on Functional-SAM.
    """

    _needs_closure = _needs_logits = True

    def __init__(self, base: Any, rho: float = 0.05, **shared: Any) -> None:
        super().__init__(base, rho, **shared)
        self._random = RandomState(None)
        # of each micro-batch: its random numbers, ∂L/∂z and the number of rows
        self._kept: list[tuple[RandomState, Tensor, Tensor | int]] = []

    def _both_passes(self, batches: Any) -> tuple[Tensor, Tensor | int]:
        self._kept = []
        try:
            return super()._both_passes(batches)
        finally:
            self._kept = []

    def _first_sum(self, index: int, closure: Closure) -> tuple[Tensor, Tensor | int | None]:
        self._random = RandomState(self.model)
        return super()._first_sum(index, closure)

    def _losses(self, logits: Tensor, labels: Tensor) -> tuple[Tensor, Tensor | int]:
        at_w = in_full_precision(logits).detach().requires_grad_()
        losses, rows = super()._losses(at_w, labels)
        (slopes,) = torch.autograd.grad(self._sum(losses, rows), at_w)
        self._kept.append((self._random, slopes, rows))
        return super()._losses(logits, labels)

    def _second_sum(self, index: int, closure: Closure) -> tuple[Tensor, Tensor | int | None]:
        """A linear function of the logits whose derivative is the kept gradient."""
        random, slopes, rows = self._kept[index]
        with random.replayed():
            logits, _ = closure()
        return (in_full_precision(logits) * slopes).sum(), rows
