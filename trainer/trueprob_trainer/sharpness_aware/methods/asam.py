"""Adaptive SAM (Kwon, Kim, Park, Choi: arXiv:2102.11600).

A ReLU network computes the same function if one layer is scaled up and the next one down, but its
sharpness in SAM's ball changes. ASAM measures ε in units of the weights: with T_w = diag(|w| + η)
the neighbourhood is ‖T_w⁻¹ ε‖₂ ≤ ρ, where the first-order maximum is (algorithm 1, p = 2)::

    ε = ρ T_w² ∇L / ‖T_w ∇L‖₂

With η > 0 weights at zero can move too. L(w + ε) is exactly invariant to the rescaling at η = 0
only; a test checks this, and that SAM's is not.

The authors' program applies T to tensors named "weight" and moves biases and normalisation gains as
SAM does. T in the paper is element-wise without regard to names, and so it is here; put such
parameters into their own group with another ``rho`` to treat them differently. ρ is larger than
SAM's (0.5 for CIFAR-10, 1.0 for CIFAR-100, η = 0.01 in the paper).
"""

from typing import Any

import torch
from torch import Tensor

from trueprob_trainer.sharpness_aware.ascent import joint_norm, scale_to_radius
from trueprob_trainer.sharpness_aware.two_passes import TwoPassOptimizer
from trueprob_trainer.sharpness_aware.wrapper import require_range


class ASAM(TwoPassOptimizer):
    """Gradient of the base optimiser taken at w + ρ T²∇L/‖T∇L‖ with T = |w| + η.

    Parameters
    ----------
    base : torch.optim.Optimizer
    rho : float
        Radius relative to the weights, at least 0.
    eta : float
        Added to the magnitude of each weight, in units of the weights, at least 0.
    **shared
        See :class:`TwoPassOptimizer`.

    Raises
    ------
    ValueError
        A hyperparameter is out of its range.

    References
    ----------
    arXiv:2102.11600, algorithm 1.
    """

    def __init__(self, base: Any, rho: float = 0.5, *, eta: float = 0.01, **shared: Any) -> None:
        super().__init__(base, rho, **shared)
        require_range("eta", eta)
        self.eta = eta

    def perturbation(
        self, parameters: list[Tensor], gradients: list[Tensor], radii: list[float]
    ) -> None:
        """See :meth:`AscentOptimizer.perturbation`."""
        widths = torch._foreach_abs(parameters)
        torch._foreach_add_(widths, self.eta)
        torch._foreach_mul_(gradients, widths)
        norm = joint_norm(gradients)
        torch._foreach_mul_(gradients, widths)
        scale_to_radius(gradients, radii, norm)
