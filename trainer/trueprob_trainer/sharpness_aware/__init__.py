"""Sharpness-aware optimisers, which look for flat minima; one module each in ``methods``.

Each wraps a built torch optimiser::

    SAM(torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9), rho=0.05)

:mod:`wrapper` has what all share: groups, checkpoints, schedulers, loss scaling, clipping, the loop
over micro-batches. :mod:`ascent` has the pair ``ascend`` and ``descend`` with the way back,
:mod:`two_passes` ``step(closure)``, and :mod:`buffers` running statistics and activation
checkpointing.
"""

from trueprob_trainer.sharpness_aware.ascent import (
    AscentOptimizer,
    joint_norm,
    scale_to_radius,
)
from trueprob_trainer.sharpness_aware.buffers import (
    average_running_statistics,
    checkpointed,
    frozen_running_statistics,
)
from trueprob_trainer.sharpness_aware.methods.asam import ASAM
from trueprob_trainer.sharpness_aware.methods.csam import CSAM
from trueprob_trainer.sharpness_aware.methods.esam import ESAM
from trueprob_trainer.sharpness_aware.methods.fisher_sam import FisherSAM
from trueprob_trainer.sharpness_aware.methods.functional_sam import FunctionalSAM
from trueprob_trainer.sharpness_aware.methods.look_sam import LookSAM
from trueprob_trainer.sharpness_aware.methods.momentum_sam import MomentumSAM
from trueprob_trainer.sharpness_aware.methods.periodic import PeriodicSAM
from trueprob_trainer.sharpness_aware.methods.plain import Plain
from trueprob_trainer.sharpness_aware.methods.preconditioned_functional_sam import (
    PreconditionedFunctionalSAM,
)
from trueprob_trainer.sharpness_aware.methods.preconditioned_sam import PreconditionedSAM
from trueprob_trainer.sharpness_aware.methods.registry import (
    OPTIMISERS,
    check_options,
    default_rho,
    meanings_of,
    optimiser_class,
    options_of,
)
from trueprob_trainer.sharpness_aware.methods.sam import SAM
from trueprob_trainer.sharpness_aware.two_passes import TwoPassOptimizer
from trueprob_trainer.sharpness_aware.wrapper import WrappedOptimizer

__all__ = [
    "ASAM",
    "CSAM",
    "ESAM",
    "OPTIMISERS",
    "SAM",
    "AscentOptimizer",
    "FisherSAM",
    "FunctionalSAM",
    "LookSAM",
    "MomentumSAM",
    "PeriodicSAM",
    "Plain",
    "PreconditionedFunctionalSAM",
    "PreconditionedSAM",
    "TwoPassOptimizer",
    "WrappedOptimizer",
    "average_running_statistics",
    "check_options",
    "checkpointed",
    "default_rho",
    "frozen_running_statistics",
    "joint_norm",
    "meanings_of",
    "optimiser_class",
    "options_of",
    "scale_to_radius",
]
