"""Preconditioned SAM (Singh, Mobahi, Agarwala, Dauphin: arXiv:2502.02407).

An adaptive base rescales every coordinate of its step. The same rescaling of the perturbation
avoids the spurious sharpness that Functional-SAM avoids in another way::

    ε = ρ M⁻¹ ∇L / ‖∇L‖,     M = √v̂ + eps

v̂ is the base's second moment of the gradients with bias correction: ``exp_avg_sq`` of Adam and
similar optimisers, ``square_avg`` of RMSprop (not corrected there, so not here). The norm is that
of the plain gradient, so ‖ε‖ is *not* ρ: ρ is in units of Adam's steps and needs tuning.

For a base without a second moment, and in Adam's first step, a running mean of the squared
gradients at w with ``beta2`` replaces it, including this step (so M = |∇L| + eps in the first). It
is in the checkpoint and dropped when the base has its own. A public reimplementation takes M = 1 in
the first step and no bias correction; the scale of ε then jumps by orders of magnitude.
"""

from typing import Any

import torch
from torch import Tensor

from trueprob_trainer.sharpness_aware.displacement import (
    ParameterBlock,
    joint_norm,
    scale_to_radius,
)
from trueprob_trainer.sharpness_aware.methods.sam import SAM
from trueprob_trainer.sharpness_aware.per_parameter import (
    PerParameter,
    from_positions,
    to_positions,
)


class PreconditionedSAM(SAM):
    """Gradient of the base optimiser taken at w + ρ M⁻¹∇L/‖∇L‖ with M = √v̂ + eps.

    Parameters
    ----------
    base : torch.optim.Optimizer
    rho : float
        Radius in units of the preconditioner, at least 0.
    eps : float
        Added to the root of the second moment, in units of the gradient, above 0.
    beta2 : float
        Decay per step of the second moment, at least 0 and below 1; for a base that keeps none.
    **shared
        See :class:`TwoPassOptimizer`.

    Raises
    ------
    ValueError
        A hyperparameter is out of its range.

    References
    ----------
    arXiv:2502.02407, its section on preconditioning.
    """

    def __init__(
        self,
        base: Any,
        rho: float = 0.05,
        *,
        eps: float = 1e-8,
        beta2: float = 0.999,
        **shared: Any,
    ) -> None:
        super().__init__(base, rho, **shared)
        if not eps > 0:
            raise ValueError(f"eps must be above 0, got {eps}")
        if not 0 <= beta2 < 1:
            raise ValueError(f"beta2 must be at least 0 and below 1, got {beta2}")
        self.eps = eps
        self.beta2 = beta2
        self._squares: PerParameter = {}
        self._n_squares: PerParameter = {}  # number of squares in each mean

    def _perturbation(self, blocks: list[ParameterBlock]) -> list[float]:
        norm = joint_norm([g for block in blocks for g in block.gradients])
        for block in blocks:
            found = [
                self._second_moment(p, g, block.group)
                for p, g in zip(block.parameters, block.gradients, strict=True)
            ]
            torch._foreach_copy_(block.scratch, [square for square, _ in found])
            torch._foreach_div_(block.scratch, [correction for _, correction in found])
            torch._foreach_sqrt_(block.scratch)
            torch._foreach_add_(block.scratch, self.eps)
            torch._foreach_div_(block.gradients, block.scratch)
        return scale_to_radius(blocks, norm)

    def _second_moment(
        self, parameter: Tensor, gradient: Tensor, group: dict[str, Any]
    ) -> tuple[Tensor, float]:
        """A second moment and its divisor for bias correction."""
        state = self.state.get(parameter, {})
        if "exp_avg_sq" in state:
            self._squares.pop(parameter, None)
            return state["exp_avg_sq"], 1 - float(group["betas"][1] ** float(state["step"]))
        if "square_avg" in state:
            self._squares.pop(parameter, None)
            return state["square_avg"], 1.0
        square = self._squares.setdefault(parameter, torch.zeros_like(gradient))
        count = self._n_squares.setdefault(parameter, torch.zeros((), dtype=torch.int64))
        square.lerp_(gradient**2, 1 - self.beta2)
        count += 1
        return square, 1 - self.beta2 ** int(count)

    def _ascent_state(self) -> dict[str, Any]:
        parameters = self._parameters()
        kept = {p: n for p, n in self._n_squares.items() if p in self._squares}
        return {
            "squares": to_positions(self._squares, parameters),
            "n_squares": to_positions(kept, parameters),
        }

    def _load_ascent_state(self, ascent: dict[str, Any]) -> None:
        parameters = self._parameters()
        self._squares = from_positions(ascent["squares"], parameters)
        self._n_squares = from_positions(ascent["n_squares"], parameters)
