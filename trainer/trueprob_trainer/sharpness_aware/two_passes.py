"""``step(closure)`` of the members that look at the rows twice.

The closures of all micro-batches are run at w and again at w + ε, with BatchNorm's statistics held.
Who climbs with whom is said here: all rows together, each micro-batch by itself (m-sharpness), or
each rank of a distributed run by itself.
"""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from trueprob_trainer.sharpness_aware.ascent import AscentOptimizer
from trueprob_trainer.sharpness_aware.batch_norm import frozen_running_statistics
from trueprob_trainer.sharpness_aware.passes import Closure, Closures, as_micro_batches


class TwoPassOptimizer(AscentOptimizer):
    """An ascent with a ``step(closure)`` of two passes.

    Parameters
    ----------
    base, rho, model, loss, scaler, clip_norm
        See :class:`WrappedOptimizer`.
    rank_local : bool
        For ``step(closure)`` under DDP: each rank climbs along the gradient of its own rows
        (m-sharpness, and one synchronisation less) instead of the average gradient.
    m_sharpness : bool
        For ``step([closure, …])`` on one device: each micro-batch climbs by itself, from the same
        w, and the base descends with the mean of what they find: as so many ranks would.

    Raises
    ------
    ValueError
        See :class:`WrappedOptimizer`; or the class reuses gradients in later steps, where they
        have to be those of all ranks and micro-batches.
    """

    _reuses_gradients = False

    def __init__(
        self,
        base: torch.optim.Optimizer,
        rho: float = 0.05,
        *,
        rank_local: bool = False,
        m_sharpness: bool = False,
        **shared: Any,
    ) -> None:
        super().__init__(base, rho, **shared)
        if self._reuses_gradients and (rank_local or m_sharpness):
            raise ValueError(
                f"{type(self).__name__} uses a gradient in later steps: it must be that of all "
                "ranks and micro-batches; rank_local and m_sharpness must be False"
            )
        self.rank_local = rank_local
        self.m_sharpness = m_sharpness

    def collect(self, weight: float = 1.0) -> None:
        """See :meth:`AscentOptimizer.collect`; refused where gradients are reused."""
        if self._reuses_gradients:
            raise RuntimeError(f"collect() does not go with {type(self).__name__}")
        super().collect(weight)

    def step(self, closure: Closures | None = None) -> Tensor:  # type: ignore[override]
        # Not torch's closure: see WrappedOptimizer.
        """Both passes: the closures are run at w and again, statistics held, at w + ε.

        Parameters
        ----------
        closure : callable or sequence of callable
            ``closure(rows=None) -> (logits, labels)``, one for each micro-batch.

        Returns
        -------
        Tensor
            Mean loss of all rows at w, detached.

        Raises
        ------
        RuntimeError
            No closure, or the constructor was given no ``model``.
        """
        batches = as_micro_batches(closure, type(self).__name__)
        self.zero_grad()
        self._collected = {}
        if not self.m_sharpness:
            loss, _ = self._both_passes(batches)
        else:
            found = []
            for batch in batches:
                found.append(self._both_passes([batch]))
                self.collect(found[-1][1] / found[0][1])
            n_rows = sum(rows for _, rows in found)
            torch._foreach_mul_(list(self._collected.values()), found[0][1] / n_rows)
            loss = torch.stack([loss * rows for loss, rows in found]).sum() / n_rows
        self._descend()
        return loss

    def _second_losses(self, index: int, closure: Closure) -> Tensor:
        return self._first_losses(index, closure)

    def _both_passes(self, batches: Sequence[Closure]) -> tuple[Tensor, int]:
        """Leave the gradients for the descent in place, the weights displaced."""
        if self.model is None:
            raise RuntimeError(
                f"{type(self).__name__}.step(closure) needs the constructor's model= to hold "
                "BatchNorm statistics in the second pass; or call ascend() and descend()"
            )
        synchronise = not (self.rank_local and self.second_pass_due)
        result = self._pass(batches, self._first_losses, synchronise=synchronise)
        if self._climb():
            try:
                with frozen_running_statistics(self.model):
                    self._pass(batches, self._second_losses)
            except BaseException:
                self.restore()
                raise
        return result
