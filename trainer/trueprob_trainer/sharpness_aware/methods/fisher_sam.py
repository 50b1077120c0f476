"""Fisher SAM (Kim, Li, Hu, Hospedales: arXiv:2206.04920).

Two networks are close if their predictions are similar, not if their weights are. So the
neighbourhood is the ellipsoid εᵀ F ε ≤ ρ² of the Fisher information F, where the first-order
maximum is::

    ε = ρ F⁻¹ ∇L / √(∇Lᵀ F⁻¹ ∇L)

Only the diagonal of F is used. There are two estimates:

- ``"gradient"``: the square of the mini-batch gradient, f = (∇L)². It costs nothing, and the paper
  uses it for deep networks (the gradient magnitude approximation).
- ``"samples"``: the mean over the rows of the squared gradients of log p(y_i | x_i), which is the
  empirical Fisher information. It needs one backward pass per row and ``step(closure)``.

With ``decay`` above 0 a running mean of the estimates is used and saved in the checkpoint.

With DDP ``"samples"`` needs ``rank_local=True``: each rank squares the gradients of its own rows,
and they are not sent to the others.

An inverse without damping explodes where f is near zero (‖ε‖ = 8·10⁷ was seen with f = g² and a
dead unit). As in the paper, F⁻¹ = 1 / (1 + η f), which is SAM at η = 0 and at most 1.
"""

from typing import Any

import torch
from torch import Tensor, nn

from trueprob_trainer.sharpness_aware.displacement import (
    ParameterBlock,
    joint_norm,
    scale_to_radius,
)
from trueprob_trainer.sharpness_aware.passes import Closure
from trueprob_trainer.sharpness_aware.per_parameter import (
    PerParameter,
    from_positions,
    to_positions,
)
from trueprob_trainer.sharpness_aware.two_passes import TwoPassOptimizer
from trueprob_trainer.sharpness_aware.wrapper import require_range

ESTIMATES = ("gradient", "samples")


class FisherSAM(TwoPassOptimizer):
    """Gradient of the base optimiser taken at w + ρ F⁻¹∇L/√(∇LᵀF⁻¹∇L).

    Parameters
    ----------
    base : torch.optim.Optimizer
    rho : float
        Radius in the Fisher norm, at least 0; the paper takes 0.1 for CIFAR-10 (its γ).
    eta : float
        Weight of the Fisher information f in 1 + η f, at least 0; the paper takes 1, and 0 is SAM.
    fisher : str
        Estimate of f, ``gradient`` (square of the batch's gradient) or ``samples`` (mean of the
        squared gradients of single rows).
    decay : float
        Fraction of the old estimate kept in a step, at least 0 and below 1; 0 keeps none.
    **shared
        See :class:`TwoPassOptimizer`.

    Raises
    ------
    ValueError
        A parameter is out of its range; or ``"samples"`` with a DDP model and not ``rank_local``.

    References
    ----------
    arXiv:2206.04920, section 3.
    """

    def __init__(
        self,
        base: Any,
        rho: float = 0.1,
        *,
        eta: float = 1.0,
        fisher: str = "gradient",
        decay: float = 0.0,
        **shared: Any,
    ) -> None:
        super().__init__(base, rho, **shared)
        require_range("eta", eta)
        if fisher not in ESTIMATES:
            raise ValueError(f"fisher must be one of {', '.join(ESTIMATES)}, got {fisher}")
        if not 0 <= decay < 1:
            raise ValueError(f"decay must be at least 0 and below 1, got {decay}")
        distributed = isinstance(self.model, nn.parallel.DistributedDataParallel)
        if fisher == "samples" and distributed and not self.rank_local:
            raise ValueError(
                'fisher="samples" uses the rows of one rank: with a DDP model rank_local must be '
                "True, got False"
            )
        self.eta = eta
        self.decay = decay
        self._needs_closure = self._by_rows = fisher == "samples"
        self._running: PerParameter = {}
        self._squares: PerParameter = {}  # sums over the rows of this step
        self._n_rows = 0

    def _both_passes(self, batches: Any) -> tuple[Tensor, int]:
        self._squares, self._n_rows = {}, 0
        return super()._both_passes(batches)

    def _first_losses(self, index: int, closure: Closure) -> Tensor:
        losses = super()._first_losses(index, closure)
        if self._by_rows and not self._displacement:
            trained = [p for p in self._parameters() if p.requires_grad]
            for loss in losses:
                gradients = torch.autograd.grad(loss, trained, retain_graph=True, allow_unused=True)
                for parameter, gradient in zip(trained, gradients, strict=True):
                    if gradient is not None:
                        old = self._squares.get(parameter)
                        square = gradient**2
                        self._squares[parameter] = square if old is None else old.add_(square)
            self._n_rows += losses.numel()
        return losses

    def _perturbation(self, blocks: list[ParameterBlock]) -> list[float]:
        for block in blocks:
            self._estimate_fisher(block)
            torch._foreach_mul_(block.scratch, self.eta)
            torch._foreach_add_(block.scratch, 1.0)
            torch._foreach_sqrt_(block.scratch)
            torch._foreach_div_(block.gradients, block.scratch)
        norm = joint_norm([g for block in blocks for g in block.gradients])
        for block in blocks:
            torch._foreach_div_(block.gradients, block.scratch)
        self._squares = {}
        return scale_to_radius(blocks, norm)

    def _estimate_fisher(self, block: ParameterBlock) -> None:
        """Put f into the scratch tensors."""
        if self._by_rows:
            squares = [self._squares[p] for p in block.parameters]
            torch._foreach_copy_(block.scratch, squares)
            torch._foreach_div_(block.scratch, self._n_rows)
        else:
            torch._foreach_copy_(block.scratch, block.gradients)
            torch._foreach_mul_(block.scratch, block.gradients)
        if self.decay > 0:
            for parameter, f in zip(block.parameters, block.scratch, strict=True):
                old = self._running.get(parameter)
                if old is None:
                    self._running[parameter] = f.clone()
                else:
                    f.copy_(old.lerp_(f, 1 - self.decay))

    def _ascent_state(self) -> dict[str, Any]:
        return {"fisher": to_positions(self._running, self._parameters())} if self.decay else {}

    def _load_ascent_state(self, ascent: dict[str, Any]) -> None:
        self._running = from_positions(ascent.get("fisher", {}), self._parameters())
