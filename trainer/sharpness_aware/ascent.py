"""The two passes: climb to w + ε, come back to w exactly, descend with the gradient found there.

What differs between the members of the family is ε alone: a subclass writes :meth:`_perturb`.

Kept here once: weights are restored *by copying the saved start*, never by subtracting ε (floating
point does not undo an addition, and replicas drift apart); gradients are cleared between the passes
(else the base would step with their sum); parameters without a gradient are neither moved nor
restored; the ascent works on the gradients in place, so the one extra copy of the weights is all
the memory that it takes.
"""

from abc import abstractmethod
from typing import Any

import torch
from torch import Tensor

from trainer.sharpness_aware.batch_norm import frozen_running_statistics
from trainer.sharpness_aware.wrapper import Closure, WrappedOptimizer


class AscentOptimizer(WrappedOptimizer):
    """``ascend()`` and ``descend()`` around a base optimiser.

    ::

        loss(model(images), labels).backward()
        optimiser.ascend()
        with frozen_running_statistics(model):
            loss(model(images), labels).backward()
        optimiser.descend()

    Parameters as :class:`WrappedOptimizer`. Under gradient accumulation run the same micro-batches
    before ``ascend`` and before ``descend``.
    """

    _start: tuple[list[Tensor], list[Tensor]] | None = None  # parameters moved, their values before

    @abstractmethod
    def _perturb(self, groups: list[tuple[float, list[Tensor], list[Tensor]]]) -> None:
        """Add ε to the parameters; groups are (rho, parameters, their gradients).

        None is empty, each lies on one device. The gradients may be overwritten: they are cleared
        next.
        """

    @torch.no_grad()
    def ascend(self) -> None:
        """Move from w to w + ε by the gradients in place, and clear them.

        Raises
        ------
        RuntimeError
            Called twice without ``descend``, without any gradient, or with a sparse one.
        """
        if self._start is not None:
            raise RuntimeError(
                "ascend() was called twice: descend() or restore() must come between"
            )
        self._share()
        groups: list[tuple[float, list[Tensor], list[Tensor]]] = []
        for group in self.param_groups:
            by_device: dict[torch.device, list[Tensor]] = {}
            for parameter in group["params"]:
                if parameter.grad is not None:
                    by_device.setdefault(parameter.device, []).append(parameter)
            groups += [
                (float(group["rho"]), moved, [_dense_gradient(p) for p in moved])
                for moved in by_device.values()
            ]
        if not groups:
            raise RuntimeError("ascend() found no gradient: call backward() on the loss first")
        parameters = [p for _, moved, _ in groups for p in moved]
        self._start = (parameters, [p.detach().clone() for p in parameters])
        self._perturb(groups)
        self.zero_grad(set_to_none=True)

    @torch.no_grad()
    def descend(self) -> None:
        """Restore w by copy, step the base with the gradients of w + ε, and clear them.

        Raises
        ------
        RuntimeError
            ``ascend()`` did not come before.
        """
        self._put_back("descend()")
        self.base.step()
        self._opt_called = True  # a scheduler built on this object looks here for a step
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
        self.zero_grad(set_to_none=True)

    def step(self, closure: Closure | None = None) -> Tensor:  # type: ignore[override]
        # Not torch's closure: see WrappedOptimizer.
        """Both passes: the closure is run at w and again, statistics held, at w + ε.

        Parameters
        ----------
        closure : callable
            ``closure(rows=None) -> (logits, labels)``.

        Returns
        -------
        Tensor
            Mean loss of the batch at w, detached.

        Raises
        ------
        RuntimeError
            No closure, or the constructor was given no ``model``.
        """
        if self.model is None:
            raise RuntimeError(
                f"{type(self).__name__}.step(closure) needs the constructor's model= to hold "
                "BatchNorm statistics in the second pass; or call ascend() and descend()"
            )
        loss = self._evaluated(closure)
        self.zero_grad()
        torch.autograd.backward(loss)
        self.ascend()
        try:
            with frozen_running_statistics(self.model):
                torch.autograd.backward(self._evaluated(closure))
        except BaseException:
            self.restore()
            raise
        self.descend()
        return loss.detach()

    def state_dict(self) -> dict[str, Any]:
        """See :meth:`WrappedOptimizer.state_dict`; refused while the weights are perturbed."""
        self._refuse_while_perturbed("state_dict()")
        return super().state_dict()

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """See :meth:`WrappedOptimizer.load_state_dict`; refused while the weights are perturbed."""
        self._refuse_while_perturbed("load_state_dict()")
        super().load_state_dict(state_dict)

    def _refuse_while_perturbed(self, call: str) -> None:
        if self._start is not None:
            raise RuntimeError(
                f"{call} between ascend() and descend(): the weights are perturbed, "
                "a checkpoint belongs after descend()"
            )

    def _put_back(self, call: str) -> None:
        if self._start is None:
            raise RuntimeError(f"{call} without ascend(): there is no start to come back to")
        torch._foreach_copy_(*self._start)
        self._start = None


def _dense_gradient(parameter: Tensor) -> Tensor:
    gradient = parameter.grad
    if gradient is None or gradient.layout is not torch.strided:
        raise RuntimeError("ascend() takes dense gradients, got a sparse one")
    return gradient


def joint_norm(tensors: list[Tensor]) -> Tensor:
    """2-norm over all tensors together, in at least float32.

    Parameters
    ----------
    tensors : list of Tensor
        Not empty; any shapes, floating types and devices.

    Returns
    -------
    Tensor
        0-dimensional, on the first tensor's device, without waiting for it.
    """
    wide = torch.float64 if any(t.dtype == torch.float64 for t in tensors) else torch.float32
    norms = torch._foreach_norm(tensors, 2.0, dtype=wide)
    together: Tensor = torch.linalg.vector_norm(
        torch.stack([norm.to(tensors[0].device) for norm in norms])
    )
    return together
