"""Optimisers that look for flat minima: one file each, all of one shape.

``SAM(torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9), rho=0.05)`` wraps any built torch
optimiser. :mod:`wrapper` holds what all share (groups, checkpoint, schedulers, loss scaling,
clipping), :mod:`ascent` the pair ``ascend`` and ``descend``, :mod:`two_passes` and :mod:`passes`
``step(closure)`` over micro-batches, :mod:`displacement` weights that move and come back by copy,
:mod:`batch_norm` the running statistics, :mod:`checkpointing` a smaller memory.
"""

from trueprob_trainer.sharpness_aware.ascent import AscentOptimizer
from trueprob_trainer.sharpness_aware.batch_norm import (
    average_running_statistics,
    frozen_running_statistics,
    kept_running_statistics,
)
from trueprob_trainer.sharpness_aware.checkpointing import checkpointed
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
from trueprob_trainer.sharpness_aware.methods.registry import OPTIMISERS, check_options, options_of
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
    "frozen_running_statistics",
    "kept_running_statistics",
    "options_of",
]
