"""The family's control: the wrapped optimiser as it is, one pass a step.

Same constructor, same closure, same checkpoint as the others, so that a comparison changes nothing
but the ascent. ``rho`` is accepted and not used.
"""

import torch
from torch import Tensor

from trainer.sharpness_aware.wrapper import Closure, WrappedOptimizer


class Plain(WrappedOptimizer):
    """The base optimiser in the family's shape; parameters as :class:`WrappedOptimizer`."""

    def step(self, closure: Closure | None = None) -> Tensor:  # type: ignore[override]
        # Not torch's closure: see WrappedOptimizer.
        """Forward, backward and a step of the base.

        Parameters
        ----------
        closure : callable
            ``closure(rows=None) -> (logits, labels)``.

        Returns
        -------
        Tensor
            Mean loss of the batch before the step, detached.
        """
        loss = self._evaluated(closure)
        self.zero_grad()
        torch.autograd.backward(loss)
        self.base.step()
        self.zero_grad()
        return loss.detach()
