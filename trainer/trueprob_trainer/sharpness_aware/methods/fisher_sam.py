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

The paper's η = 1 is SAM in practice: squared gradients of single weights are 10⁻⁴ and less, and the
cosine of the two perturbations is 0.9997 and more. So f is in units of its own mean over all
weights, unless ``fisher_unit="one"`` asks for the literal formula. Half of a typical F⁻¹ is then
what the Fisher information decides, whatever the scale of the loss.
"""

from typing import Any

import torch
from torch import Tensor, nn

from trueprob_trainer.sharpness_aware.ascent import joint_norm, scale_to_radius
from trueprob_trainer.sharpness_aware.two_passes import TwoPassOptimizer
from trueprob_trainer.sharpness_aware.wrapper import PerParameter, require_range

ESTIMATES = ("gradient", "samples")
UNITS = ("mean", "one")


class FisherSAM(TwoPassOptimizer):
    """Gradient of the base optimiser taken at w + ρ F⁻¹∇L/√(∇LᵀF⁻¹∇L).

    Parameters
    ----------
    base : torch.optim.Optimizer
    rho : float
        Radius in the Fisher norm, at least 0; the paper takes 0.1 for CIFAR-10 (its γ).
    eta : float
        Weight of the Fisher information f in 1 + η f, at least 0; 0 is SAM.
    fisher : str
        Estimate of f, ``gradient`` (square of the batch's gradient) or ``samples`` (mean of the
        squared gradients of single rows).
    fisher_unit : str
        Unit of f in 1 + η f: ``mean``, the mean of f over all weights, or ``one``, the paper's
        formula, which is SAM in practice unless η is very large.
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
        fisher_unit: str = "mean",
        decay: float = 0.0,
        **shared: Any,
    ) -> None:
        super().__init__(base, rho, **shared)
        require_range("eta", eta)
        if fisher not in ESTIMATES:
            raise ValueError(f"fisher must be one of {', '.join(ESTIMATES)}, got {fisher}")
        if fisher_unit not in UNITS:
            raise ValueError(f"fisher_unit must be one of {', '.join(UNITS)}, got {fisher_unit}")
        if not 0 <= decay < 1:
            raise ValueError(f"decay must be at least 0 and below 1, got {decay}")
        distributed = isinstance(self.model, nn.parallel.DistributedDataParallel)
        if fisher == "samples" and distributed and not self.rank_local:
            raise ValueError(
                'fisher="samples" uses the rows of one rank: with a DDP model rank_local must be '
                "True, got False"
            )
        self.eta = eta
        self.fisher_unit = fisher_unit
        self.decay = decay
        self._needs_closure = self._needs_logits = self._by_rows = fisher == "samples"
        self._squares: PerParameter = {}  # sums over the rows of this step
        self._n_rows: Tensor | int = 0

    def _both_passes(self, batches: Any) -> tuple[Tensor, Tensor | int]:
        self._squares, self._n_rows = {}, 0
        return super()._both_passes(batches)

    def _losses(self, logits: Tensor, labels: Tensor) -> tuple[Tensor, Tensor | int]:
        losses, rows = super()._losses(logits, labels)
        if self._by_rows and not self._moved:
            self._by_row(losses)
            trained = [p for p in self._parameters() if p.requires_grad]
            for loss in losses.flatten():
                gradients = torch.autograd.grad(loss, trained, retain_graph=True, allow_unused=True)
                for parameter, gradient in zip(trained, gradients, strict=True):
                    if gradient is not None:
                        old = self._squares.get(parameter)
                        square = gradient**2
                        self._squares[parameter] = square if old is None else old.add_(square)
            self._n_rows = self._n_rows + rows
        return losses, rows

    def perturbation(
        self, parameters: list[Tensor], gradients: list[Tensor], radii: list[float]
    ) -> None:
        """See :meth:`AscentOptimizer.perturbation`."""
        fisher = self._fisher(parameters, gradients)
        if self.fisher_unit == "mean":
            mean = torch.stack([f.sum() for f in fisher]).sum() / sum(f.numel() for f in fisher)
            torch._foreach_div_(fisher, torch.where(mean > 0, mean, torch.ones_like(mean)))
        torch._foreach_mul_(fisher, self.eta)
        torch._foreach_add_(fisher, 1.0)
        torch._foreach_sqrt_(fisher)
        torch._foreach_div_(gradients, fisher)
        norm = joint_norm(gradients)
        torch._foreach_div_(gradients, fisher)
        scale_to_radius(gradients, radii, norm)

    def _fisher(self, parameters: list[Tensor], gradients: list[Tensor]) -> list[Tensor]:
        """The estimate f of each parameter, as tensors that may be overwritten."""
        if self._by_rows:
            fisher = [self._squares[p] / self._n_rows for p in parameters]
        else:
            fisher = list(torch._foreach_mul(gradients, gradients))
        if self.decay > 0:
            running = self.kept.setdefault("fisher", {})
            for i, (p, f) in enumerate(zip(parameters, fisher, strict=True)):
                if p in running:
                    fisher[i] = running[p].lerp_(f, 1 - self.decay).clone()
                else:
                    running[p] = f.clone()
        return fisher
