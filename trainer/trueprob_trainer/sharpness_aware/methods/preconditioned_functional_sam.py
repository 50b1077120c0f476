"""Preconditioned Functional-SAM (arXiv:2502.02407): both methods of the paper together.

It has the perturbation of :mod:`preconditioned_sam` and the gradient of :mod:`functional_sam`::

    g = J(θ + ε)ᵀ  ∂L/∂z at F(θ),     ε = ρ M⁻¹ ∇L / ‖M⁻¹ ∇L‖
"""

from trueprob_trainer.sharpness_aware.methods.functional_sam import FunctionalSAM
from trueprob_trainer.sharpness_aware.methods.preconditioned_sam import PreconditionedSAM


class PreconditionedFunctionalSAM(FunctionalSAM, PreconditionedSAM):
    """Functional-SAM with a preconditioned perturbation.

    It has ``step(closure)`` only.

    Parameters
    ----------
    base, rho, eps, beta2, norm
        See :class:`PreconditionedSAM`.
    **shared
        See :class:`TwoPassOptimizer`.

    References
    ----------
    arXiv:2502.02407.
    """
