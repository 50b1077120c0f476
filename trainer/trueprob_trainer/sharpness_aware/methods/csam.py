"""CSAM, calibrated SAM (Tan, Zhou, Ye, Dai, Liu, Song, Zhang, Zhao, Hao, Xu: arXiv:2505.23866).

SAM already reduces overconfidence; CSAM reduces it more for confident rows. The ascent is SAM's, on
the plain loss. At the perturbed weights the loss of a row whose label has probability p is::

    −log p                   where p ≤ ½
    −(1 + p)^(−γ) log p      else

So rows that are right with high confidence at w + ε have less weight, and their confidence is not
raised further. γ = 0 is SAM, up to rounding. The paper tries γ in {0.5, 1, 2} and takes ρ = 0.05
for CIFAR-10 and ResNets on ImageNet, 0.2 for CIFAR-100 and ViT. The weight is differentiated too.
It jumps at p = ½ from 1 to 1.5^(−γ), as in the paper.
"""

from typing import Any

import torch
from torch import Tensor

from trueprob_trainer.sharpness_aware.methods.sam import SAM
from trueprob_trainer.sharpness_aware.wrapper import Closure, in_full_precision, require_range


class CSAM(SAM):
    """SAM whose second pass weights rows by (1 + p)^(−γ) where p > ½.

    Parameters
    ----------
    base : torch.optim.Optimizer
    rho : float
        Radius in the 2-norm of the weights, at least 0.
    gamma : float
        Exponent of the weight of confident rows in the second pass, at least 0; 0 is SAM.
    **shared
        See :class:`TwoPassOptimizer`. The weights apply to any ``loss``.

    Raises
    ------
    ValueError
        A hyperparameter is out of its range.

    References
    ----------
    arXiv:2505.23866, the loss of its section on CSAM.
    """

    _needs_closure = _needs_logits = True

    def __init__(self, base: Any, rho: float = 0.05, *, gamma: float = 1.0, **shared: Any) -> None:
        super().__init__(base, rho, **shared)
        require_range("gamma", gamma)
        self.gamma = gamma

    def _second_sum(
        self,
        index: int,  # noqa: ARG002 - see SumOf
        closure: Closure,
    ) -> tuple[Tensor, Tensor | int | None]:
        logits, labels = closure()
        losses, rows = self._losses(logits, labels)
        self._by_row(losses)
        weights = calibrating_weight(logits, labels.clamp(min=0), self.gamma)
        return (losses * weights).sum(), rows


def calibrating_weight(logits: Tensor, labels: Tensor, gamma: float) -> Tensor:
    """(1 + p)^(−γ) for rows whose label has probability p above ½, else 1."""
    log_probabilities = torch.log_softmax(in_full_precision(logits), dim=-1)
    p = log_probabilities.gather(-1, labels[..., None])[..., 0].exp()
    return torch.where(p > 0.5, (1 + p) ** -gamma, torch.ones_like(p))
