"""Momentum-SAM (Becker, Altrock, Risse: arXiv:2401.12033).

One pass per step: the momentum v that the base already keeps replaces the gradient of this batch,
which would need a pass of its own (eq. 5, algorithm 1)::

    gradient at  w − ρ v / ‖v‖

The sign is negative: the last step went along −v and overshot, so −v points uphill on the next
batch. v is SGD's ``momentum_buffer`` or Adam's ``exp_avg``, with one norm over all parameters. In
the first step there is none, and nothing is perturbed.

The weights differ from w between ``ascend`` and ``descend`` only. The authors' program keeps the
perturbed weights between steps and applies weight decay to them; here the base sees w. BatchNorm
statistics come from the only pass, at the perturbed weights; call
``torch.optim.swa_utils.update_bn`` before evaluation if that matters.
"""

from typing import Any

import torch
from torch import Tensor

from trueprob_trainer.sharpness_aware.ascent import (
    AscentOptimizer,
    joint_norm,
    scale_to_radius,
)
from trueprob_trainer.sharpness_aware.wrapper import Closures

BUFFERS = ("momentum_buffer", "exp_avg")


class MomentumSAM(AscentOptimizer):
    """Gradient of the base optimiser taken at w − ρ v/‖v‖, with v its momentum.

    With the pair, ``ascend`` comes *before* the only pass::

        optimiser.ascend()
        loss(model(images), labels).backward()
        optimiser.descend()

    Parameters
    ----------
    base : torch.optim.Optimizer
        An optimiser that keeps a momentum.
    rho : float
        Radius in the 2-norm of the weights, at least 0; the paper's best are between 0.3 and 3.
    **shared
        See :class:`WrappedOptimizer`.

    Raises
    ------
    ValueError
        The base has no momentum.

    References
    ----------
    arXiv:2401.12033, eq. 5 and algorithm 1.
    """

    def __init__(self, base: torch.optim.Optimizer, rho: float = 0.3, **shared: Any) -> None:
        super().__init__(base, rho, **shared)
        if not any(group.get("momentum") or "betas" in group for group in self.param_groups):
            raise ValueError(
                f"base must keep a momentum, got {type(base).__name__} with momentum 0"
            )

    @property
    def second_pass_due(self) -> bool:
        """False: a step has one pass."""
        return False

    @torch.no_grad()
    def ascend(self) -> bool:
        """Move from w to w − ρ v/‖v‖, before the only pass.

        Returns
        -------
        bool
            False: no second pass is due.

        Raises
        ------
        RuntimeError
            It was called twice without ``descend``, or after ``backward``.
        """
        self._refuse_second_ascent()
        if any(p.grad is not None for p in self._parameters()):
            raise RuntimeError(
                "MomentumSAM has one pass: call ascend() before backward(), not after it"
            )
        self._share()
        groups = [(p, float(g["rho"])) for g in self.param_groups for p in g["params"]]
        found = [(p, v, rho) for p, rho in groups if (v := self._momentum(p)) is not None]
        if found:
            momenta = [v.clone() for _, v, _ in found]
            scale_to_radius(momenta, [-rho for _, _, rho in found], joint_norm(momenta))
            self._move([p for p, _, _ in found], momenta)
        self._in_single_pass = True
        return False

    def step(self, closure: Closures | None = None) -> Tensor | None:  # type: ignore[override]
        """Move the weights, run the closures once, restore the weights and step the base.

        Parameters
        ----------
        closure : callable or sequence of callable
            See :meth:`WrappedOptimizer.step`. After ``ascend()`` there may be none: the step is
            then ``descend()``, for programs that call ``step()`` themselves.

        Returns
        -------
        Tensor or None
            Mean loss of all rows at the perturbed weights, detached; None without closures.

        Raises
        ------
        RuntimeError
            There is no closure.
        """
        if closure is None and self._is_under_way():
            self.descend()
            return None
        batches = self._micro_batches(closure)
        self.zero_grad()
        self.ascend()
        try:
            loss, _ = self._pass(batches, self._first_sum)
        except BaseException:
            self.restore()
            raise
        self.descend()
        return loss

    def perturbation(
        self, parameters: list[Tensor], gradients: list[Tensor], radii: list[float]
    ) -> None:
        """Not called: the momentum takes the place of the gradients."""
        raise NotImplementedError

    def _momentum(self, parameter: Tensor) -> Tensor | None:
        state = self.state.get(parameter, {})
        buffers = [state[name] for name in BUFFERS if state.get(name) is not None]
        return buffers[0] if buffers else None
