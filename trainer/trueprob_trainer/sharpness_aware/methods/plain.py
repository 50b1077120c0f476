"""The base optimiser without an ascent, one pass per step: the control of the family.

Constructor, closure and checkpoint are those of the others, so a comparison changes the ascent
only. ``rho`` is accepted and not used.
"""

from torch import Tensor

from trueprob_trainer.sharpness_aware.wrapper import Closures, WrappedOptimizer


class Plain(WrappedOptimizer):
    """The base optimiser alone, with the interface of the family.

    Parameters
    ----------
    base, rho, model, loss, scaler, clip_norm
        See :class:`WrappedOptimizer`. ``rho`` has no effect.
    """

    def step(self, closure: Closures | None = None) -> Tensor:  # type: ignore[override]
        """Run forward and backward, and step the base.

        Parameters
        ----------
        closure : callable or sequence of callable
            See :meth:`WrappedOptimizer.step`.

        Returns
        -------
        Tensor
            Mean loss of all rows before the step, detached.

        Raises
        ------
        RuntimeError
            There is no closure.
        """
        batches = self._micro_batches(closure)
        self.zero_grad()
        loss, _ = self._pass(batches, self._first_sum)
        self._step_base()
        return loss
