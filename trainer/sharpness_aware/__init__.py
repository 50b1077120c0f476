"""Optimisers that look for flat minima: one file each, all of one shape.

``SAM(torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9), rho=0.05)`` wraps any built torch
optimiser. :mod:`wrapper` holds what all share (groups, checkpoint, schedulers), :mod:`ascent` what
the two-pass ones share (perturb, restore by copy), :mod:`batch_norm` the running statistics.
"""

from trainer.sharpness_aware.batch_norm import frozen_running_statistics
from trainer.sharpness_aware.plain import Plain
from trainer.sharpness_aware.sam import SAM
from trainer.sharpness_aware.wrapper import WrappedOptimizer

OPTIMISERS: dict[str, type[WrappedOptimizer]] = {"sgd": Plain, "sam": SAM}
"""Names that ``--optimiser`` takes; each wraps ``torch.optim.SGD`` in the training loop."""

__all__ = ["OPTIMISERS", "SAM", "Plain", "WrappedOptimizer", "frozen_running_statistics"]
