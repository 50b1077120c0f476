"""The base class of the family: a wrapped torch optimiser.

It is a subclass of :class:`torch.optim.Optimizer`, which learning-rate schedulers require. The
parameter groups and the state *are* those of the base (the same objects), so a scheduler on either
acts on both, and ``rho`` is one more entry of a group::

    SAM(torch.optim.SGD([{"params": body}, {"params": head, "rho": 0.01}], lr=0.1), rho=0.05)

The checkpoint is that of the base, including momentum, with one more entry, ``ascent``.
"""

import functools
from abc import abstractmethod
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from trueprob_trainer.sharpness_aware.passes import Closure, Closures, LossesOf, gradient_pass

PerSampleLoss = Callable[[Tensor, Tensor], Tensor]
"""``loss(logits, labels)`` of shapes (n, k) and (n,) to (n,)."""

cross_entropy_per_sample: PerSampleLoss = functools.partial(
    nn.functional.cross_entropy, reduction="none"
)


class WrappedOptimizer(torch.optim.Optimizer):
    """Wraps a built torch optimiser and replaces its step.

    Parameters
    ----------
    base : torch.optim.Optimizer
        Makes the descent. Do not call its ``step`` yourself.
    rho : float
        Radius of the ascent in the 2-norm of the weights, for groups without their own, at least 0.
    model : torch.nn.Module, optional
        Needed by ``step(closure)``, which has to hold the running statistics of the network. With
        DDP, the wrapped network.
    loss : callable, optional
        Per-sample loss for ``step(closure)``, by default cross entropy in nats. It gets logits of
        half precision as float32.
    scaler : torch.amp.GradScaler, optional
        For float16. ``step(closure)`` scales the loss itself. With ``ascend`` and ``descend`` call
        ``scaler.scale(loss).backward()`` and no other method of the scaler: the ascent divides by
        its scale, the descent unscales, steps and updates.
    clip_norm : float, optional
        Largest 2-norm of the gradient that the base steps with, clipped once, after unscaling.
        (The length of ε is ρ anyway, so the first gradient is not clipped.)

    Raises
    ------
    ValueError
        ``rho`` is negative or not finite, or ``clip_norm`` is not above 0.
    """

    def __init__(
        self,
        base: torch.optim.Optimizer,
        rho: float = 0.05,
        *,
        model: nn.Module | None = None,
        loss: PerSampleLoss = cross_entropy_per_sample,
        scaler: torch.amp.GradScaler | None = None,
        clip_norm: float | None = None,
    ) -> None:
        super().__init__(base.param_groups, {**base.defaults, "rho": rho})
        self.base = base
        self.model = model
        self.loss = loss
        self.scaler = scaler if scaler is not None and scaler.is_enabled() else None
        self.clip_norm = clip_norm
        if clip_norm is not None and not clip_norm > 0:
            raise ValueError(f"clip_norm must be above 0, got {clip_norm}")
        self._share()
        for group in self.param_groups:
            require_range("rho", group["rho"])

    @abstractmethod
    def step(self, closure: Closures | None = None) -> Tensor:  # type: ignore[override]
        # Not torch's closure: the family needs logits and labels, some of them by row.
        """Make one whole step and return the mean loss; see the class."""

    def add_param_group(self, param_group: dict[str, Any]) -> None:
        """Add a parameter group to the base and to this optimiser.

        Parameters
        ----------
        param_group : dict
            ``params``, any options of the base, and ``rho`` if it differs from the default.

        Raises
        ------
        ValueError
            ``rho`` is negative or not finite.
        """
        if "base" not in self.__dict__:  # called by the constructor of torch's class
            super().add_param_group(param_group)
            return
        param_group.setdefault("rho", self.defaults["rho"])
        require_range("rho", param_group["rho"])
        self.base.add_param_group(param_group)
        self._share()

    def state_dict(self) -> dict[str, Any]:
        """State of the base, with momentum and ``rho`` of every group, and of the ascent."""
        ascent = {"optimiser": type(self).__name__, **self._ascent_state()}
        if self.scaler is not None:
            ascent["scaler"] = self.scaler.state_dict()
        return {**self.base.state_dict(), "ascent": ascent}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Resume bit for bit from :meth:`state_dict`.

        Parameters
        ----------
        state_dict : dict
            State of an optimiser of the same class with groups of the same sizes.

        Raises
        ------
        ValueError
            Another class wrote it.
        """
        ascent = state_dict.get("ascent", {})
        written_by = ascent.get("optimiser")
        if written_by != type(self).__name__:
            raise ValueError(
                f"state_dict must be written by {type(self).__name__}, got {written_by}"
            )
        self.base.load_state_dict({k: v for k, v in state_dict.items() if k != "ascent"})
        self._share()
        self._load_ascent_state(ascent)
        if self.scaler is not None and "scaler" in ascent:
            self.scaler.load_state_dict(ascent["scaler"])

    def _ascent_state(self) -> dict[str, Any]:
        """State of the ascent, kept apart from that of the base."""
        return {}

    def _load_ascent_state(self, ascent: dict[str, Any]) -> None:
        """Inverse of :meth:`_ascent_state`."""

    def _parameters(self) -> list[Tensor]:
        return [p for group in self.param_groups for p in group["params"]]

    def _share(self) -> None:
        # load_state_dict of a torch optimiser replaces both objects.
        self.param_groups = self.base.param_groups
        self.state = self.base.state

    def _pass(
        self, batches: Sequence[Closure], losses_of: LossesOf, *, synchronise: bool = True
    ) -> tuple[Tensor, int]:
        return gradient_pass(
            batches,
            losses_of,
            self._parameters(),
            model=self.model,
            scaler=self.scaler,
            synchronise=synchronise,
        )

    def _first_losses(self, index: int, closure: Closure) -> Tensor:  # noqa: ARG002 - see passes
        return self._losses(*closure())

    def _losses(self, logits: Tensor, labels: Tensor) -> Tensor:
        return self.loss(in_full_precision(logits), labels)

    @torch.no_grad()
    def _step_base(self) -> None:
        """Unscale, clip, step the base, update the scaler, clear the gradients."""
        if self.scaler is not None and self.clip_norm is not None:
            self.scaler.unscale_(self.base)
        if self.clip_norm is not None:
            torch.nn.utils.clip_grad_norm_(self._parameters(), self.clip_norm)
        if self.scaler is None:
            self.base.step()
        else:
            self.scaler.step(self.base)
            self.scaler.update()
        self._opt_called = True  # a scheduler of this object checks this flag
        self.zero_grad(set_to_none=True)


def in_full_precision(logits: Tensor) -> Tensor:
    """Logits in at least float32; autocast gives them in the precision of the last layer."""
    return logits.float() if logits.dtype in (torch.float16, torch.bfloat16) else logits


def require_range(name: str, value: float, *, most: float = float("inf")) -> None:
    """Refuse a hyperparameter outside [0, most], or infinite."""
    if not 0 <= value <= most or value == float("inf"):
        limits = "finite and at least 0" if most == float("inf") else f"between 0 and {most}"
        raise ValueError(f"{name} must be {limits}, got {value}")
