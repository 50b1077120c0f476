"""The pair ``ascend`` and ``descend``: move to w + ε, come back to w, step with that gradient.

Most optimisers differ in ε only; a subclass defines it in :meth:`_perturbation`. The rest is here:

- Weights are restored *by copying the saved start*, not by subtracting ε: floating point does not
  undo an addition, and replicas would drift apart.
- Gradients are cleared between the passes; otherwise the base would step with their sum.
- Parameters without a gradient are neither moved nor restored.
- ε is computed in the gradients and in the memory of the saved start, so the ascent needs one
  additional copy of the weights.
"""

from abc import abstractmethod
from typing import Any

import torch
from torch import Tensor

from trueprob_trainer.sharpness_aware.displacement import (
    Displacement,
    ParameterBlock,
    dense_gradient,
    joint_norm,
)
from trueprob_trainer.sharpness_aware.wrapper import WrappedOptimizer


class AscentOptimizer(WrappedOptimizer):
    """A base optimiser with ``ascend()`` and ``descend()``; base class of the family.

    ::

        loss(model(images), labels).backward()
        if optimiser.ascend():
            with frozen_running_statistics(model):
                loss(model(images), labels).backward()
        optimiser.descend()

    With gradient accumulation, run the same micro-batches before ``ascend`` and before ``descend``.

    Parameters
    ----------
    base, rho, model, loss, scaler, clip_norm
        See :class:`WrappedOptimizer`.
    """

    _needs_closure = False  # if true, ascend() and descend() are refused: they have only gradients

    def __init__(self, base: torch.optim.Optimizer, rho: float = 0.05, **shared: Any) -> None:
        super().__init__(base, rho, **shared)
        self._displacement = Displacement()
        self._in_single_pass = False  # in a step with one pass, after ascend()
        self._overflowed = False  # the first gradient of this step is not finite
        self._collected: dict[Tensor, Tensor] = {}

    @property
    def second_pass_due(self) -> bool:
        """Whether this step has a second pass; True unless a subclass overrides it."""
        return True

    @abstractmethod
    def _perturbation(self, blocks: list[ParameterBlock]) -> list[float]:
        """Overwrite the gradients by ε divided by the returned factors, one per block."""

    def ascend(self) -> bool:
        """Move from w to w + ε, computed from the gradients, and clear them.

        Returns
        -------
        bool
            Whether a second pass is due. If not, nothing was moved and the gradients are kept.

        Raises
        ------
        RuntimeError
            It was called twice without ``descend``, there is no gradient, a gradient is sparse, or
            the class needs ``step(closure)``.
        """
        self._refuse_without_closure("ascend()")
        return self._ascend()

    def descend(self) -> None:
        """Restore w, step the base with the gradients at w + ε, and clear them.

        Raises
        ------
        RuntimeError
            ``ascend()`` was not called before.
        """
        self._refuse_without_closure("descend()")
        self._descend()

    @torch.no_grad()
    def collect(self, weight: float = 1.0) -> None:
        """Restore w and keep the gradient for ``descend``: m-sharpness with micro-batches.

        For each micro-batch call ``backward``, ``ascend``, ``backward`` and ``collect(fraction of
        the rows)``; at the end ``descend``.

        Parameters
        ----------
        weight : float
            Weight of this gradient in the sum that the base steps with.

        Raises
        ------
        RuntimeError
            ``ascend()`` was not called before.
        """
        self._restore("collect()")
        for parameter in self._parameters():
            if parameter.grad is not None:
                if parameter in self._collected:
                    self._collected[parameter].add_(parameter.grad, alpha=weight)
                else:
                    self._collected[parameter] = parameter.grad * weight
        self.zero_grad(set_to_none=True)

    @torch.no_grad()
    def restore(self) -> None:
        """Go back to w without a step, after a second pass that failed, and clear the gradients.

        Raises
        ------
        RuntimeError
            ``ascend()`` was not called before.
        """
        self._restore("restore()")
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
    def _ascend(self) -> bool:
        self._refuse_second_ascent()
        self._share()
        blocks = self._displacement.blocks(self.param_groups, dense_gradient)
        if not blocks:
            raise RuntimeError("ascend() found no gradient: call backward() on the loss first")
        self._overflowed = False
        if not self.second_pass_due:
            self._in_single_pass = True
            return False
        self._overflowed = not self._unscaled(blocks)
        if self._overflowed:
            for block in blocks:
                torch._foreach_zero_(block.gradients)
        factors = None if self._overflowed else self._perturbation(blocks)
        self._displacement.move(blocks, factors=factors)
        self.zero_grad(set_to_none=True)
        return True

    def _unscaled(self, blocks: list[ParameterBlock]) -> bool:
        """Divide the gradients by the loss scale; False if float16 overflowed."""
        # After an overflow the second pass is made at w, since other ranks may wait for it. It
        # overflows too, and the scaler skips the step.
        if self.scaler is None:
            return True
        # Not unscale_(): the scaler allows one call per update, and the descent makes it.
        for block in blocks:
            torch._foreach_mul_(block.gradients, 1 / self.scaler.get_scale())
        return bool(joint_norm([g for block in blocks for g in block.gradients]).isfinite())

    @torch.no_grad()
    def _descend(self) -> None:
        if self._collected and not self._displacement:
            for parameter, gradient in self._collected.items():
                parameter.grad = gradient
            self._collected = {}
        else:
            self._restore("descend()")
        self._before_step()
        self._step_base()

    def _before_step(self) -> None:
        """Change the gradients that the base will step with; they are still scaled."""

    def _restore(self, call: str) -> None:
        if not (self._displacement or self._in_single_pass):
            raise RuntimeError(f"{call} needs ascend() before it: there are no weights to restore")
        self._displacement.restore()
        self._in_single_pass = False

    def _refuse_second_ascent(self) -> None:
        if self._displacement or self._in_single_pass:
            raise RuntimeError("ascend() was called twice: call descend() or restore() in between")

    def _refuse_without_closure(self, call: str) -> None:
        if self._needs_closure:
            raise RuntimeError(
                f"{type(self).__name__} needs more than gradients: call step(closure), not {call}"
            )

    def _refuse_while_perturbed(self, call: str) -> None:
        if self._displacement or self._in_single_pass or self._collected:
            raise RuntimeError(
                f"{call} between ascend() and descend(): the weights are perturbed; "
                "use checkpoints after descend()"
            )
