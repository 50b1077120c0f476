"""LookSAM (Liu, Mai, Chen, Hsieh, You: arXiv:2203.02714).

SAM's gradient g_s without its component along the plain gradient g is the direction towards flatter
regions. It changes slowly, so it is computed every k steps and reused in between (algorithm 1)::

    steps 0, k, 2k, …:  descend with g_s, and keep g_v = g_s − (g_s·g) g / ‖g‖²
    other steps:        descend with g + α (‖g‖ / ‖g_v‖) g_v

Products and norms are over all parameters together. Well-known implementations project each tensor
separately, which is another algorithm, or never reuse g_v.

The paper takes α = 0.7 with batches of thousands. With batches of 64 training collapses at 0.7 and
works at 0.1, the default here. g_v and the position in the cycle are in the checkpoint.
"""

from typing import Any

import torch
from torch import Tensor

from trueprob_trainer.sharpness_aware.ascent import joint_norm
from trueprob_trainer.sharpness_aware.methods.periodic import PeriodicSAM
from trueprob_trainer.sharpness_aware.wrapper import PerParameter, require_range


class LookSAM(PeriodicSAM):
    """A SAM step, then k − 1 steps that reuse its component orthogonal to the gradient.

    Parameters
    ----------
    base : torch.optim.Optimizer
    rho : float
        Radius of the SAM steps in the 2-norm of the weights, at least 0.
    k : int
        Length of the cycle in steps, at least 1; the paper takes 5.
    alpha : float
        Length of the reused direction, relative to that of the gradient, at least 0.
    **shared
        See :class:`TwoPassOptimizer`; ``rank_local`` and ``m_sharpness`` must be False.

    Raises
    ------
    ValueError
        A hyperparameter is out of its range, or ``rank_local`` or ``m_sharpness`` is True.

    References
    ----------
    arXiv:2203.02714, algorithm 1.
    """

    _reuses_gradients = True

    def __init__(
        self, base: Any, rho: float = 0.05, *, k: int = 5, alpha: float = 0.1, **shared: Any
    ) -> None:
        super().__init__(base, rho, k=k, **shared)
        require_range("alpha", alpha)
        self.alpha = alpha
        self._flat_length: Tensor | None = None  # ‖g_v‖, computed at its first use

    def perturbation(
        self, parameters: list[Tensor], gradients: list[Tensor], radii: list[float]
    ) -> None:
        """See :meth:`AscentOptimizer.perturbation`."""
        # g between the passes of a SAM step, g_v afterwards
        old, self._flat = self._flat, {}
        for p, gradient in zip(parameters, gradients, strict=True):
            self._flat[p] = old[p].copy_(gradient) if p in old else gradient.clone()
        super().perturbation(parameters, gradients, radii)

    @property
    def _flat(self) -> PerParameter:
        return self.kept.setdefault("flat", {})

    @_flat.setter
    def _flat(self, tensors: PerParameter) -> None:
        self.kept["flat"] = tensors

    def before_step(self) -> None:
        """Keep g_v after a SAM step, or add it to the gradients."""
        due = self.second_pass_due
        super().before_step()
        if due:
            self._flat_length = None
        if self._overflowed:
            self._flat = {}
        elif due:
            self._keep_flat_direction()
        elif self._flat:
            self._reuse_flat_direction()

    def _keep_flat_direction(self) -> None:
        scale = self.loss_scale
        plain_gradients, sharp_gradients = {}, []
        for parameter, gradient in self._flat.items():
            if parameter.grad is not None:
                plain_gradients[parameter] = gradient
                sharp_gradients.append(parameter.grad if scale == 1.0 else parameter.grad / scale)
        first = list(plain_gradients.values())
        square = joint_norm(first) ** 2
        along = _dot(sharp_gradients, first) / square
        if self.scaler is not None and not bool(torch.isfinite(along)):
            self._flat, self._position = {}, 0  # only the second pass overflowed; repeat it
            return
        # A zero gradient has no direction to remove.
        torch._foreach_mul_(first, torch.where(square > 0, -along, torch.zeros_like(along)))
        torch._foreach_add_(first, sharp_gradients)
        self._flat = plain_gradients

    def _reuse_flat_direction(self) -> None:
        gradients = [p.grad for p in self._parameters() if p.grad is not None]
        directions = list(self._flat.values())
        if self._flat_length is None:
            self._flat_length = joint_norm(directions)
        length = self._flat_length
        factor = self.alpha * joint_norm(gradients) / length
        factor = torch.where(length > 0, factor, torch.zeros_like(factor))
        for parameter, direction in self._flat.items():
            if parameter.grad is not None:
                parameter.grad.addcmul_(direction, factor.to(direction))

    def _load_ascent_state(self, ascent: dict[str, Any]) -> None:
        super()._load_ascent_state(ascent)
        self._flat_length = None


def _dot(left: list[Tensor], right: list[Tensor]) -> Tensor:
    wide = torch.float64 if left[0].dtype == torch.float64 else torch.float32
    device = left[0].device
    products = [(a * b).sum(dtype=wide).to(device) for a, b in zip(left, right, strict=True)]
    return torch.stack(products).sum()
