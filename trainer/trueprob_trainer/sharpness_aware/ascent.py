"""The pair ``ascend`` and ``descend``: move to w + ε, come back to w, step with that gradient.

Most optimisers differ in ε only; a subclass defines it in :meth:`AscentOptimizer.perturbation`. The
rest is here:

- Weights are restored *by copying the saved start*, not by subtracting ε: floating point does not
  undo an addition, and replicas would drift apart.
- Gradients are cleared between the passes; otherwise the base would step with their sum.
- Parameters without a gradient are neither moved nor restored.
- ε is computed in the gradients, so the ascent needs one additional copy of the weights: the saved
  start, which is allocated once and kept.
"""

from abc import abstractmethod
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

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
        self._starts: dict[Tensor, Tensor] = {}  # w, of the parameters that were moved before
        self._moved: list[Tensor] = []  # parameters that are at w + ε now
        self._in_single_pass = False  # in a step with one pass, after ascend()
        self._overflowed = False  # the first gradient of this step is not finite
        self._collected: dict[Tensor, Tensor] = {}

    @property
    def second_pass_due(self) -> bool:
        """Whether this step has a second pass; True unless a subclass overrides it."""
        return True

    @abstractmethod
    def perturbation(
        self, parameters: list[Tensor], gradients: list[Tensor], radii: list[float]
    ) -> None:
        """Overwrite the gradients at w by ε; called without recording gradients.

        What it keeps between steps belongs in :attr:`WrappedOptimizer.kept`. Use
        :func:`joint_norm` and :func:`scale_to_radius`.

        Parameters
        ----------
        parameters : list of Tensor
            The parameters that have a gradient, of all groups, at w.
        gradients : list of Tensor
            Their gradients, unscaled and finite.
        radii : list of float
            ``rho`` of the group of each parameter.
        """

    def before_step(self) -> None:
        """Change the gradients at w + ε, in ``.grad``, that the base will step with.

        They are still multiplied by :attr:`loss_scale`.
        """

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
        self._overflowed = False
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
        groups = [(p, float(g["rho"])) for g in self.param_groups for p in g["params"]]
        parameters = [p for p, _ in groups if p.grad is not None]
        radii = [rho for p, rho in groups if p.grad is not None]
        gradients = [p.grad for p in parameters if p.grad is not None]
        if not gradients:
            raise RuntimeError("ascend() found no gradient: call backward() on the loss first")
        if any(gradient.layout is not torch.strided for gradient in gradients):
            raise RuntimeError("ascend() takes dense gradients, got a sparse one")
        if not self.second_pass_due:
            self._in_single_pass = True
            return False
        if self.scaler is not None:
            # Not unscale_(): the scaler allows one call per update, and the descent makes it.
            torch._foreach_mul_(gradients, 1 / self.loss_scale)
            self._overflowed = self._overflowed or not joint_norm(gradients).isfinite()
        if self._overflowed:  # the second pass is made at w: other ranks may wait for it
            torch._foreach_zero_(gradients)
        else:
            self.perturbation(parameters, gradients, radii)
        self._move(parameters, gradients)
        self.zero_grad(set_to_none=True)
        return True

    def _move(self, parameters: list[Tensor], by: list[Tensor]) -> None:
        """Save the parameters and add a displacement."""
        for p in parameters:
            start = self._starts.get(p)
            form = (p.shape, p.dtype, p.device, p.stride())
            if start is None or (start.shape, start.dtype, start.device, start.stride()) != form:
                self._starts[p] = torch.empty_like(p, requires_grad=False)
        torch._foreach_copy_([self._starts[p] for p in parameters], parameters)
        torch._foreach_add_(parameters, by)
        self._moved = parameters

    @torch.no_grad()
    def _descend(self) -> None:
        if self._collected and not self._moved:
            for parameter, gradient in self._collected.items():
                parameter.grad = gradient
            self._collected = {}
        else:
            self._restore("descend()")
        if self._overflowed:
            # The second pass may be finite. The scaler skips the step and lowers its scale only if
            # a gradient is not.
            for parameter in self._parameters():
                if parameter.grad is not None:
                    parameter.grad.fill_(float("inf"))
        self.before_step()
        self._step_base()
        self._overflowed = False

    def _restore(self, call: str) -> None:
        if not (self._moved or self._in_single_pass):
            raise RuntimeError(f"{call} needs ascend() before it: there are no weights to restore")
        if self._moved:
            torch._foreach_copy_(self._moved, [self._starts[p] for p in self._moved])
        self._moved = []
        self._in_single_pass = False

    def _is_under_way(self) -> bool:
        return bool(self._moved or self._in_single_pass or self._collected)

    def _refuse_second_ascent(self) -> None:
        if self._moved or self._in_single_pass:
            raise RuntimeError("ascend() was called twice: call descend() or restore() in between")

    def _refuse_without_closure(self, call: str) -> None:
        if self._needs_closure:
            raise RuntimeError(
                f"{type(self).__name__} needs more than gradients: call step(closure), not {call}"
            )

    def _refuse_while_perturbed(self, call: str) -> None:
        if self._is_under_way():
            raise RuntimeError(
                f"{call} between ascend() and descend(): the weights are perturbed; "
                "use checkpoints after descend()"
            )


def joint_norm(tensors: Sequence[Tensor]) -> Tensor:
    """2-norm over all tensors together.

    Parameters
    ----------
    tensors : sequence of Tensor
        Of any shapes, types and devices.

    Returns
    -------
    Tensor
        A scalar in at least float32, on the device of the first tensor; nothing waits for a GPU.
    """
    wide = torch.float64 if any(t.dtype == torch.float64 for t in tensors) else torch.float32
    norms = torch._foreach_norm(list(tensors), 2.0, dtype=wide)
    together: Tensor = torch.linalg.vector_norm(
        torch.stack([norm.to(norms[0].device) for norm in norms])
    )
    return together


def scale_to_radius(tensors: list[Tensor], radii: list[float], norm: Tensor) -> None:
    """Multiply each tensor by its radius over a norm, in place; a norm of zero gives zeros.

    Parameters
    ----------
    tensors : list of Tensor
        Directions.
    radii : list of float
        A length for each tensor.
    norm : Tensor
        Joint norm of what is to have the length of the radius, a scalar.
    """
    inverse = torch.where(norm > 0, 1 / norm, torch.zeros_like(norm))
    by_place: dict[tuple[float, torch.device], list[Tensor]] = {}
    for tensor, radius in zip(tensors, radii, strict=True):
        by_place.setdefault((radius, tensor.device), []).append(tensor)
    for (radius, device), together in by_place.items():
        torch._foreach_mul_(together, (radius * inverse).to(device))
