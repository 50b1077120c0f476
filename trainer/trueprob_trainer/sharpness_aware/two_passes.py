"""``step(closure)`` of the optimisers with two passes.

The closures of all micro-batches run at w and again at w + ε, with BatchNorm's statistics held. One
ε is for all rows, for each micro-batch (m-sharpness), or for each rank of a distributed run.
"""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from trueprob_trainer.sharpness_aware.ascent import AscentOptimizer
from trueprob_trainer.sharpness_aware.buffers import frozen_running_statistics
from trueprob_trainer.sharpness_aware.wrapper import Closure, Closures


class TwoPassOptimizer(AscentOptimizer):
    """Adds a ``step(closure)`` of two passes to the ascent.

    Parameters
    ----------
    base, rho, model, loss, scaler, clip_norm
        See :class:`WrappedOptimizer`.
    rank_local : bool
        For ``step(closure)`` with DDP: each rank computes ε from the gradient of its own rows
        (m-sharpness, with one synchronisation less) instead of the average gradient.
    m_sharpness : bool
        For ``step([closure, …])`` on one device: each micro-batch has its own ε, from the same w,
        and the base steps with the mean of their gradients, as with as many ranks.

    Raises
    ------
    ValueError
        See :class:`WrappedOptimizer`; or one of the two is set for a class that reuses gradients
        in later steps.
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
            raise RuntimeError(f"{type(self).__name__} has no collect(): it reuses gradients")
        super().collect(weight)

    def step(self, closure: Closures | None = None) -> Tensor | None:  # type: ignore[override]
        """Run the closures at w and, with buffers held, at w + ε; step the base.

        Parameters
        ----------
        closure : callable or sequence of callable
            See :meth:`WrappedOptimizer.step`. After ``ascend()`` there may be none: the step is
            then ``descend()``, for programs that call ``step()`` themselves.

        Returns
        -------
        Tensor or None
            Mean loss of all rows at w, detached; None without closures.

        Raises
        ------
        RuntimeError
            There is no closure, the constructor got no ``model``, or several micro-batches give a
            loss only.
        TypeError
            A closure gives a loss where the class needs the logits.
        """
        if closure is None and self._is_under_way():
            self.descend()
            return None
        batches = self._micro_batches(closure)
        self.zero_grad()
        self._collected = {}
        if not self.m_sharpness:
            loss, _ = self._both_passes(batches)
        else:
            losses, rows = [], []
            for batch in batches:
                loss, n = self._both_passes([batch])
                losses.append(loss)
                rows.append(float(n))
                self.collect(rows[-1])
            torch._foreach_div_(list(self._collected.values()), sum(rows))
            loss = torch.stack([x * n for x, n in zip(losses, rows, strict=True)]).sum() / sum(rows)
        self._descend()
        return loss

    def _second_sum(self, index: int, closure: Closure) -> tuple[Tensor, Tensor | int | None]:
        return self._first_sum(index, closure)

    def _both_passes(self, batches: Sequence[Closure]) -> tuple[Tensor, Tensor | int]:
        """Run both passes; the weights stay at w + ε, with the gradients for the descent."""
        if self.model is None:
            raise RuntimeError(
                f"{type(self).__name__}.step(closure) needs the constructor's model= to hold "
                "buffers such as BatchNorm's in the second pass; or call ascend() and descend()"
            )
        synchronise = not (self.rank_local and self.second_pass_due)
        result = self._pass(batches, self._first_sum, synchronise=synchronise)
        if self._ascend():
            try:
                with frozen_running_statistics(self.model):
                    self._pass(batches, self._second_sum)
            except BaseException:
                self.restore()
                raise
        return result
