"""The family's control: the wrapped optimiser as it is, one pass a step.

Same constructor, same closure, same checkpoint as the others, so that a comparison changes nothing
but the ascent. ``rho`` is accepted and not used.
"""

from torch import Tensor

from trueprob_trainer.sharpness_aware.passes import Closures, as_micro_batches
from trueprob_trainer.sharpness_aware.wrapper import WrappedOptimizer


class Plain(WrappedOptimizer):
    """The base optimiser in the family's shape; parameters as :class:`WrappedOptimizer`."""

    def step(self, closure: Closures | None = None) -> Tensor:  # type: ignore[override]
        # Not torch's closure: see WrappedOptimizer.
        """Forward, backward and a step of the base.

        Parameters
        ----------
        closure : callable or sequence of callable
            ``closure(rows=None) -> (logits, labels)``, one for each micro-batch.

        Returns
        -------
        Tensor
            Mean loss of all rows before the step, detached.
        """
        batches = as_micro_batches(closure, type(self).__name__)
        self.zero_grad()
        loss, _ = self._pass(batches, self._first_losses)
        self._step_base()
        return loss
