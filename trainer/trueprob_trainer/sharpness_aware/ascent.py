"""Climb to w + ε, come back to w exactly, descend with the gradient found there.

What differs between most members of the family is ε alone: a subclass writes :meth:`_perturbation`.

Kept here once: weights are restored *by copying the saved start*, never by subtracting ε (floating
point does not undo an addition, and replicas drift apart); gradients are cleared between the passes
(else the base would step with their sum); parameters without a gradient are neither moved nor
restored; the ascent works on the gradients in place and borrows the memory of the saved start, so
the one extra copy of the weights is all that it takes.
"""

from abc import abstractmethod
from typing import Any

import torch
from torch import Tensor

from trueprob_trainer.sharpness_aware.displacement import (
    Displacement,
    Part,
    dense_gradient,
    joint_norm,
)
from trueprob_trainer.sharpness_aware.wrapper import WrappedOptimizer


class AscentOptimizer(WrappedOptimizer):
    """``ascend()`` and ``descend()`` around a base optimiser.

    ::

        loss(model(images), labels).backward()
        if optimiser.ascend():
            with frozen_running_statistics(model):
                loss(model(images), labels).backward()
        optimiser.descend()

    Under gradient accumulation run the same micro-batches before ``ascend`` and before ``descend``.
    Parameters as :class:`WrappedOptimizer`.
    """

    _needs_closure = False  # more than gradients: ascend() and descend() alone are refused

    def __init__(self, base: torch.optim.Optimizer, rho: float = 0.05, **shared: Any) -> None:
        super().__init__(base, rho, **shared)
        self._displacement = Displacement()
        self._stayed = False  # ascend() found that this step has one pass
        self._overflowed = False  # the first gradient of this step is not finite
        self._collected: dict[Tensor, Tensor] = {}

    @property
    def second_pass_due(self) -> bool:
        """Whether this step has a second pass; True unless a subclass says otherwise."""
        return True

    @abstractmethod
    def _perturbation(self, parts: list[Part]) -> list[float]:
        """Overwrite the gradients by ε over the factors returned, one for each part."""

    def ascend(self) -> bool:
        """Move from w to w + ε by the gradients in place, and clear them.

        Returns
        -------
        bool
            Whether a second pass is due. Where not, nothing moved and the gradients are kept.

        Raises
        ------
        RuntimeError
            Called twice without ``descend``, without any gradient, or with a sparse one; or the
            class needs ``step(closure)``.
        """
        self._refuse_without_closure("ascend()")
        return self._climb()

    def descend(self) -> None:
        """Restore w by copy, step the base with the gradients of w + ε, and clear them.

        Raises
        ------
        RuntimeError
            ``ascend()`` did not come before.
        """
        self._refuse_without_closure("descend()")
        self._descend()

    @torch.no_grad()
    def collect(self, weight: float = 1.0) -> None:
        """Restore w and keep the gradient for ``descend``: m-sharpness by micro-batches.

        For each micro-batch ``backward``, ``ascend``, ``backward``, ``collect(share of the rows)``;
        at the end ``descend``.

        Parameters
        ----------
        weight : float
            Of this gradient in the sum that the base descends with.

        Raises
        ------
        RuntimeError
            ``ascend()`` did not come before.
        """
        self._put_back("collect()")
        for parameter in self._parameters():
            if parameter.grad is not None:
                if parameter in self._collected:
                    self._collected[parameter].add_(parameter.grad, alpha=weight)
                else:
                    self._collected[parameter] = parameter.grad * weight
        self.zero_grad(set_to_none=True)

    @torch.no_grad()
    def restore(self) -> None:
        """Go back to w without a step, for a second pass that failed; clears gradients.

        Raises
        ------
        RuntimeError
            ``ascend()`` did not come before.
        """
        self._put_back("restore()")
        self._collected = {}
        self.zero_grad(set_to_none=True)

    def state_dict(self) -> dict[str, Any]:
        """See :meth:`WrappedOptimizer.state_dict`; refused while the weights are perturbed."""
        self._refuse_while_perturbed("state_dict()")
        return super().state_dict()

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """See :meth:`WrappedOptimizer.load_state_dict`; refused while the weights are perturbed."""
        self._refuse_while_perturbed("load_state_dict()")
        super().load_state_dict(state_dict)

    @torch.no_grad()
    def _climb(self) -> bool:
        self._refuse_a_second_climb()
        self._share()
        parts = self._displacement.parts(self.param_groups, dense_gradient)
        if not parts:
            raise RuntimeError("ascend() found no gradient: call backward() on the loss first")
        self._overflowed = False
        if not self.second_pass_due:
            self._stayed = True
            return False
        self._overflowed = not self._unscaled(parts)
        if self._overflowed:
            for part in parts:
                torch._foreach_zero_(part.gradients)
        factors = None if self._overflowed else self._perturbation(parts)
        self._displacement.move(parts, factors=factors)
        self.zero_grad(set_to_none=True)
        return True

    def _unscaled(self, parts: list[Part]) -> bool:
        """Take the loss scale out of the gradients; False where float16 overflowed.

        Then nothing is learnt from this step and the second pass, which other ranks may be waiting
        for, is done where the weights are. It overflows too, and the scaler skips the step.
        """
        if self.scaler is None:
            return True
        # Not unscale_(): the scaler allows one before its update, and that is the descent's.
        for part in parts:
            torch._foreach_mul_(part.gradients, 1 / self.scaler.get_scale())
        return bool(joint_norm([g for part in parts for g in part.gradients]).isfinite())

    @torch.no_grad()
    def _descend(self) -> None:
        if self._collected and not self._displacement:
            for parameter, gradient in self._collected.items():
                parameter.grad = gradient
            self._collected = {}
        else:
            self._put_back("descend()")
        self._before_step()
        self._step_base()

    def _before_step(self) -> None:
        """Last look at the gradients that the base will step with; scaled still."""

    def _put_back(self, call: str) -> None:
        if not (self._displacement or self._stayed):
            raise RuntimeError(f"{call} without ascend(): there is no start to come back to")
        self._displacement.put_back()
        self._stayed = False

    def _refuse_a_second_climb(self) -> None:
        if self._displacement or self._stayed:
            raise RuntimeError(
                "ascend() was called twice: descend() or restore() must come between"
            )

    def _refuse_without_closure(self, call: str) -> None:
        if self._needs_closure:
            raise RuntimeError(
                f"{type(self).__name__} needs more than gradients: call step(closure), not {call}"
            )

    def _refuse_while_perturbed(self, call: str) -> None:
        if self._displacement or self._stayed or self._collected:
            raise RuntimeError(
                f"{call} between ascend() and descend(): the weights are perturbed, "
                "a checkpoint belongs after descend()"
            )
