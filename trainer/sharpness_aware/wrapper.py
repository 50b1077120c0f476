"""What every optimiser of the family shares: the wrapped torch optimiser.

A subclass of :class:`torch.optim.Optimizer`, because learning-rate schedulers insist on one. The
parameter groups and the state *are* those of the base (the same objects), so a scheduler on either
acts on both, and ``rho`` is one more entry of a group::

    SAM(torch.optim.SGD([{"params": body}, {"params": head, "rho": 0.01}], lr=0.1), rho=0.05)

The checkpoint is the base's, momentum included, with one entry ``ascent`` beside it.
"""

import functools
from abc import abstractmethod
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

Closure = Callable[..., tuple[Tensor, Tensor]]
"""``closure(rows=None) -> (logits, labels)`` of the batch, or of some of its rows."""

PerSampleLoss = Callable[[Tensor, Tensor], Tensor]
"""``loss(logits, labels)`` of shapes (n, k) and (n,) to (n,)."""

cross_entropy_per_sample: PerSampleLoss = functools.partial(
    nn.functional.cross_entropy, reduction="none"
)


class WrappedOptimizer(torch.optim.Optimizer):
    """A built torch optimiser with a step of another kind around it.

    Parameters
    ----------
    base : torch.optim.Optimizer
        Does the descent. Owned by this object from now on: call its ``step`` no more.
    rho : float
        Radius of the ascent in the 2-norm of the weights, for groups that name none. At least 0.
    model : torch.nn.Module, optional
        Needed by ``step(closure)``, which runs the network itself more than once and has to hold
        its running statistics.
    loss : callable, optional
        Per-sample loss for ``step(closure)``; cross entropy in nats unless told otherwise.

    Raises
    ------
    ValueError
        ``rho`` is negative or not finite.
    """

    def __init__(
        self,
        base: torch.optim.Optimizer,
        rho: float = 0.05,
        *,
        model: nn.Module | None = None,
        loss: PerSampleLoss = cross_entropy_per_sample,
    ) -> None:
        super().__init__(base.param_groups, {**base.defaults, "rho": rho})
        self.base = base
        self.model = model
        self.loss = loss
        self._share()
        for group in self.param_groups:
            _check_rho(group["rho"])

    @abstractmethod
    def step(self, closure: Closure | None = None) -> Tensor:  # type: ignore[override]
        # Not torch's closure: the family needs logits and labels, some of them by row.
        """One whole step; see the class."""

    def add_param_group(self, param_group: dict[str, Any]) -> None:
        """Add a group to the base and to this optimiser (also while torch constructs it).

        Parameters
        ----------
        param_group : dict
            ``params`` and any options of the base; ``rho`` where it differs from the default.
        """
        if "base" not in self.__dict__:
            super().add_param_group(param_group)
            return
        param_group.setdefault("rho", self.defaults["rho"])
        _check_rho(param_group["rho"])
        self.base.add_param_group(param_group)
        self._share()

    def state_dict(self) -> dict[str, Any]:
        """State of the base, momentum and ``rho`` of every group included, and of the ascent."""
        ascent = {"optimiser": type(self).__name__, **self._ascent_state()}
        return {**self.base.state_dict(), "ascent": ascent}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Resume bit for bit from :meth:`state_dict`.

        Parameters
        ----------
        state_dict : dict
            Of an optimiser of the same class over groups of the same sizes.

        Raises
        ------
        ValueError
            It was written by another class.
        """
        written_by = state_dict.get("ascent", {}).get("optimiser")
        if written_by != type(self).__name__:
            raise ValueError(
                f"state_dict must have been written by {type(self).__name__}, got {written_by}"
            )
        self.base.load_state_dict({k: v for k, v in state_dict.items() if k != "ascent"})
        self._load_ascent_state(state_dict["ascent"])
        self._share()

    def _ascent_state(self) -> dict[str, Any]:
        """State beyond the base's; kept apart, as bases take a non-empty state for their own."""
        return {}

    def _load_ascent_state(self, ascent: dict[str, Any]) -> None:
        """Take back what :meth:`_ascent_state` gave."""

    def _share(self) -> None:
        # load_state_dict of a torch optimiser replaces both objects.
        self.param_groups = self.base.param_groups
        self.state = self.base.state

    def _evaluated(self, closure: Closure | None) -> Tensor:
        """Mean loss of the batch, ready for ``backward``."""
        if closure is None:
            raise RuntimeError(
                f"{type(self).__name__}.step needs closure(rows=None) -> (logits, labels)"
            )
        with torch.enable_grad():
            return self.loss(*closure()).mean()


def _check_rho(rho: float) -> None:
    if not 0 <= rho < float("inf"):
        raise ValueError(f"rho must be finite and at least 0, got {rho}")
