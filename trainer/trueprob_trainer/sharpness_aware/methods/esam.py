"""ESAM, efficient SAM (Du, Yan, Feng, Zhou, Zhen, Goh, Tan: arXiv:2110.03141).

Two savings in the second pass (sections 3.1 and 3.2 of the paper):

- Stochastic weight perturbation: each tensor is moved with probability β, by ε/β, so that the
  expected perturbation is SAM's. The draw does not depend on the gradient; some programs move the
  tensors with the largest gradients, which is a different, biased method.
- Sharpness-sensitive data selection: a forward without gradients at the perturbed weights shows how
  much the loss of each row rose. The second backward uses only the fraction γ that rose most.

The norm in ε is that of the whole gradient. The authors' program differs from the paper: it moves
every tensor by ε/β and freezes random tensors in the *next* first pass, and it selects the rows
strictly above a threshold, one too few. Here ⌊γn⌋ rows are selected by index, at least one. Both
forwards that are compared use the same dropout masks.
"""

from typing import Any

import torch
from torch import Tensor

from trueprob_trainer.sharpness_aware.methods.sam import SAM
from trueprob_trainer.sharpness_aware.randomness import RandomState
from trueprob_trainer.sharpness_aware.wrapper import Closure, require_range


class ESAM(SAM):
    """SAM that moves random tensors and runs the second backward on the sharpest rows only.

    Parameters
    ----------
    base : torch.optim.Optimizer
    rho : float
        Radius in the 2-norm of the weights, at least 0.
    beta : float
        Probability that a tensor is moved, above 0 and at most 1; the paper takes 0.6.
    gamma : float
        Fraction of the rows in the second pass, above 0 and at most 1; the paper takes 0.5.
    seed : int
        Seed of the draws; their generator is separate and saved in the checkpoint.
    **shared
        See :class:`TwoPassOptimizer`.

    Raises
    ------
    ValueError
        A hyperparameter is out of its range.

    References
    ----------
    arXiv:2110.03141, sections 3.1 and 3.2.
    """

    _needs_closure = _needs_logits = True

    def __init__(
        self,
        base: Any,
        rho: float = 0.05,
        *,
        beta: float = 0.6,
        gamma: float = 0.5,
        seed: int = 0,
        **shared: Any,
    ) -> None:
        super().__init__(base, rho, **shared)
        for name, share in (("beta", beta), ("gamma", gamma)):
            require_range(name, share, most=1)
            if share == 0:
                raise ValueError(f"{name} must be above 0, got 0")
        self.beta = beta
        self.gamma = gamma
        self._draws = torch.Generator().manual_seed(seed)
        self._random = RandomState(None)
        self._kept: list[tuple[RandomState, Tensor]] = []  # of each micro-batch

    def _both_passes(self, batches: Any) -> tuple[Tensor, Tensor | int]:
        self._kept = []
        try:
            return super()._both_passes(batches)
        finally:
            self._kept = []

    def _first_sum(self, index: int, closure: Closure) -> tuple[Tensor, Tensor | int | None]:
        self._random = RandomState(self.model)
        return super()._first_sum(index, closure)

    def _losses(self, logits: Tensor, labels: Tensor) -> tuple[Tensor, Tensor | int]:
        losses, rows = super()._losses(logits, labels)
        if not self._moved:
            self._kept.append((self._random, self._by_row(losses).detach()))
        return losses, rows

    def perturbation(
        self, parameters: list[Tensor], gradients: list[Tensor], radii: list[float]
    ) -> None:
        """See :meth:`AscentOptimizer.perturbation`."""
        super().perturbation(parameters, gradients, radii)
        draws = torch.rand(len(gradients), generator=self._draws).tolist()
        factors = [1 / self.beta if draw < self.beta else 0.0 for draw in draws]
        torch._foreach_mul_(gradients, factors)

    def _second_sum(self, index: int, closure: Closure) -> tuple[Tensor, Tensor | int | None]:
        random, before = self._kept[index]
        n_rows = max(1, int(self.gamma * len(before)))
        if n_rows == len(before):
            return super()._first_sum(index, closure)
        with torch.no_grad(), random.replayed():
            rise = self._by_row(self._losses(*closure())[0]) - before
        rows = rise.topk(n_rows).indices.sort().values
        losses, n = self._losses(*closure(rows=rows))
        return losses.sum(), n

    def _ascent_state(self) -> dict[str, Any]:
        return {"draws": self._draws.get_state()}

    def _load_ascent_state(self, ascent: dict[str, Any]) -> None:
        self._draws.set_state(ascent["draws"].cpu())
