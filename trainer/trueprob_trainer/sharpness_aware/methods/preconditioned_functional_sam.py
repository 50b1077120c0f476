"""Preconditioned Functional-SAM (arXiv:2502.02407): both remedies of the paper together.

The perturbation of :mod:`preconditioned_sam`, the gradient of :mod:`functional_sam`::

    g = J(θ + ε)ᵀ  ∂L/∂z at F(θ),     ε = ρ M⁻¹ ∇L / ‖∇L‖
"""

from trueprob_trainer.sharpness_aware.methods.functional_sam import FunctionalSAM
from trueprob_trainer.sharpness_aware.methods.preconditioned_sam import PreconditionedSAM


class PreconditionedFunctionalSAM(FunctionalSAM, PreconditionedSAM):
    """Functional-SAM with a preconditioned perturbation.

    Parameters as :class:`PreconditionedSAM`; ``step(closure)`` only.

    References
    ----------
    arXiv:2502.02407.
    """
