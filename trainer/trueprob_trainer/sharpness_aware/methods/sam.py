"""Sharpness-Aware Minimization (Foret, Kleiner, Mobahi, Neyshabur: arXiv:2010.01412).

SAM minimises the worst loss in a ball around the weights, min_w max_{‖ε‖₂ ≤ ρ} L(w + ε). To first
order L(w + ε) ≈ L(w) + εᵀ∇L(w), which is largest in the ball at (eq. 2 with p = 2)::

    ε(w) = ρ ∇L(w) / ‖∇L(w)‖₂

The gradient of L(w + ε(w)) contains dε/dw, a Hessian product that is dropped (eq. 3), which leaves
∇L(w)|_{w+ε}. So a step has two passes: compute the gradient at w and move by ε; compute the
gradient at w + ε, go back to w and let the base optimiser step with it.

BatchNorm must not update its running statistics in the second pass: activations at w + ε belong to
a function that is never evaluated (:mod:`trueprob_trainer.sharpness_aware.buffers`).

The norm is over all groups together; each group scales the common direction by its own ρ. A zero
gradient gives ε = 0.
"""

from torch import Tensor

from trueprob_trainer.sharpness_aware.ascent import joint_norm, scale_to_radius
from trueprob_trainer.sharpness_aware.two_passes import TwoPassOptimizer


class SAM(TwoPassOptimizer):
    """Gradient of the base optimiser taken at w + ρ ∇L/‖∇L‖ instead of at w.

    Parameters
    ----------
    base : torch.optim.Optimizer
        Any built torch optimiser.
    rho : float
        Radius in the 2-norm of the weights, at least 0, for groups without their own; the paper
        takes 0.05 for CIFAR-10.
    **shared
        See :class:`TwoPassOptimizer`.

    References
    ----------
    arXiv:2010.01412, eq. 2 and algorithm 1.
    """

    def perturbation(
        self,
        parameters: list[Tensor],  # noqa: ARG002 - the direction is that of the gradients
        gradients: list[Tensor],
        radii: list[float],
    ) -> None:
        """See :meth:`AscentOptimizer.perturbation`."""
        scale_to_radius(gradients, radii, joint_norm(gradients))
