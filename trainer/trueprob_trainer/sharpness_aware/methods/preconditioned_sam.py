"""Preconditioned SAM (Singh, Mobahi, Agarwala, Dauphin: arXiv:2502.02407).

An adaptive base rescales every coordinate of its step. The same rescaling of the perturbation
avoids the spurious sharpness that Functional-SAM avoids in another way::

    ε = ρ M⁻¹ ∇L / ‖M⁻¹ ∇L‖,     M = √v̂ + eps

v̂ is the base's second moment of the gradients with bias correction: ``exp_avg_sq`` of Adam and
similar optimisers, ``square_avg`` of RMSprop (not corrected there, so not here).

The paper divides by ‖∇L‖ instead (``norm="gradient"``). Then ‖ε‖ is not ρ but about ρ√P/‖∇L‖ for P
weights, and without bound where √v̂ is small, as in dead units: at ρ = 0.05 and a small network ‖ε‖
was 10⁵ in the second step, and nothing is learnt. With the length of ε itself ρ is a radius again.

For a base without a second moment, and in Adam's first step, a running mean of the squared
gradients at w with ``beta2`` replaces it, including this step (so M = |∇L| + eps in the first). It
is in the checkpoint and dropped when the base has its own. A public reimplementation takes M = 1 in
the first step and no bias correction; the scale of ε then jumps by orders of magnitude.
"""

from typing import Any

import torch
from torch import Tensor

from trueprob_trainer.sharpness_aware.ascent import joint_norm, scale_to_radius
from trueprob_trainer.sharpness_aware.methods.sam import SAM

NORMS = ("perturbation", "gradient")


class PreconditionedSAM(SAM):
    """Gradient of the base optimiser taken at w + ρ M⁻¹∇L/‖M⁻¹∇L‖ with M = √v̂ + eps.

    Parameters
    ----------
    base : torch.optim.Optimizer
    rho : float
        Radius in the 2-norm of the weights, at least 0; with ``norm="gradient"`` in units of the
        preconditioner.
    eps : float
        Added to the root of the second moment, in units of the gradient, above 0.
    beta2 : float
        Decay per step of the second moment, at least 0 and below 1; for a base that keeps none.
    norm : str
        Whose length is divided by: ``perturbation``, so that ε has the length rho, or ``gradient``
        as in the paper, which does not train at common radii.
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
        norm: str = "perturbation",
        **shared: Any,
    ) -> None:
        super().__init__(base, rho, **shared)
        if not eps > 0:
            raise ValueError(f"eps must be above 0, got {eps}")
        if not 0 <= beta2 < 1:
            raise ValueError(f"beta2 must be at least 0 and below 1, got {beta2}")
        if norm not in NORMS:
            raise ValueError(f"norm must be one of {', '.join(NORMS)}, got {norm}")
        self.norm = norm
        self.eps = eps
        self.beta2 = beta2

    def perturbation(
        self, parameters: list[Tensor], gradients: list[Tensor], radii: list[float]
    ) -> None:
        """See :meth:`AscentOptimizer.perturbation`."""
        length = joint_norm(gradients)
        betas = {p: g["betas"][1] for g in self.param_groups if "betas" in g for p in g["params"]}
        for p, gradient in zip(parameters, gradients, strict=True):
            square, correction = self._second_moment(p, gradient, betas.get(p, self.beta2))
            gradient.div_((square / correction).sqrt_().add_(self.eps))
        if self.norm == "perturbation":
            length = joint_norm(gradients)
        scale_to_radius(gradients, radii, length)

    def _second_moment(
        self, parameter: Tensor, gradient: Tensor, beta2: float
    ) -> tuple[Tensor, float]:
        """A second moment and its divisor for bias correction."""
        squares = self.kept.setdefault("squares", {})
        counts = self.kept.setdefault("n_squares", {})
        state = self.state.get(parameter, {})
        if "exp_avg_sq" in state or "square_avg" in state:
            squares.pop(parameter, None)
            counts.pop(parameter, None)
        if "exp_avg_sq" in state:
            return state["exp_avg_sq"], 1 - beta2 ** float(state["step"])
        if "square_avg" in state:
            return state["square_avg"], 1.0
        square = squares.setdefault(parameter, torch.zeros_like(gradient))
        count = counts.setdefault(parameter, torch.zeros((), dtype=torch.int64))
        square.lerp_(gradient**2, 1 - self.beta2)
        count += 1
        return square, 1 - self.beta2 ** int(count)
