"""The base class of the family: a wrapped torch optimiser.

It is a subclass of :class:`torch.optim.Optimizer`, which learning-rate schedulers require. The
parameter groups and the state *are* those of the base (the same objects), so a scheduler on either
acts on both, and ``rho`` is one more entry of a group::

    SAM(torch.optim.SGD([{"params": body}, {"params": head, "rho": 0.01}], lr=0.1), rho=0.05)

The checkpoint is that of the base, including momentum, with one more entry, ``ascent``.

A step takes one closure or a list, one for each stored micro-batch, and every pass runs all of
them. The gradient is that of the mean loss over all rows, however the rows are split (except in
networks where rows affect one another, such as by BatchNorm).
"""

import functools
from abc import abstractmethod
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from torch import Tensor, nn

from trueprob_trainer.sharpness_aware.buffers import frozen_running_statistics

PerSampleLoss = Callable[[Tensor, Tensor], Tensor]
"""``loss(logits, labels)`` of shapes (n, k) and (n,) to (n,), or to the mean over the n rows."""

Closure = Callable[..., Any]
"""``closure(rows=None) -> (logits, labels)`` of a micro-batch, or of some of its rows; or torch's
``closure() -> loss``."""

Closures = Closure | Sequence[Closure]
"""One micro-batch or several."""

SumOf = Callable[[int, Closure], tuple[Tensor, Tensor | int | None]]
"""Sum of the losses of micro-batch number i, and the number of its rows; runs its closure. Of a
closure of torch's kind, its loss and None."""

PerParameter = dict[Tensor, Tensor]

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
        Loss for ``step(closure)``, by default cross entropy in nats: of each row, or their mean,
        which is then weighted by the number of rows. It gets logits of half precision as float32.
    ignore_index : int
        Rows with this label have no loss and do not count in the mean. A ``loss`` of your own has
        to leave them out itself.
    scaler : torch.amp.GradScaler, optional
        For float16. ``step(closure)`` scales the loss itself. With ``ascend`` and ``descend`` call
        ``scaler.scale(loss).backward()`` and no other method of the scaler: the ascent divides by
        its scale, the descent unscales, steps and updates.
    clip_norm : float, optional
        Largest 2-norm of the gradient that the base steps with, clipped once, after unscaling.
        (The length of ε is ρ anyway, so the first gradient is not clipped.)

    Attributes
    ----------
    base : torch.optim.Optimizer
        The wrapped optimiser.
    kept : dict of str to dict of Tensor to Tensor
        What a subclass keeps of each parameter between steps, by a name. It is in the checkpoint,
        where parameters are referred to by position, as torch's checkpoints do.

    Raises
    ------
    TypeError
        ``base`` is not a built optimiser.
    ValueError
        ``rho`` is negative or not finite, or ``clip_norm`` is not above 0.
    """

    def __new__(cls, *arguments: Any, **options: Any) -> "WrappedOptimizer":
        """Say what to write instead of ``Class(parameters, torch.optim.SGD, lr=0.1)``."""
        base = arguments[0] if arguments else options.get("base")
        # copy and pickle give nothing
        if (arguments or options) and not isinstance(base, torch.optim.Optimizer):
            given = (*arguments, *options.values())
            kind = next((a for a in given if isinstance(a, type)), torch.optim.SGD).__name__
            raise TypeError(
                f"base must be a built optimiser, got {type(base).__name__}: write "
                f"{cls.__name__}(torch.optim.{kind}(parameters, lr=...), rho=...)"
            )
        return object.__new__(cls)

    def __init__(
        self,
        base: torch.optim.Optimizer,
        rho: float = 0.05,
        *,
        model: nn.Module | None = None,
        loss: PerSampleLoss | None = None,
        ignore_index: int = -100,
        scaler: torch.amp.GradScaler | None = None,
        clip_norm: float | None = None,
    ) -> None:
        super().__init__(base.param_groups, {**base.defaults, "rho": rho})
        self.base = base
        self.model = model
        self.loss: PerSampleLoss = loss or functools.partial(
            nn.functional.cross_entropy, reduction="none", ignore_index=ignore_index
        )
        self.ignore_index = ignore_index
        self.kept: dict[str, PerParameter] = {}
        self.scaler = scaler if scaler is not None and scaler.is_enabled() else None
        self.clip_norm = clip_norm
        if clip_norm is not None and not clip_norm > 0:
            raise ValueError(f"clip_norm must be above 0, got {clip_norm}")
        self._share()
        for group in self.param_groups:
            require_range("rho", group["rho"])

    @abstractmethod
    def step(self, closure: Closures | None = None) -> Tensor | None:  # type: ignore[override]
        """Make one whole step and return the mean loss.

        Parameters
        ----------
        closure : callable or sequence of callable
            ``closure(rows=None) -> (logits, labels)``, one for each micro-batch: it runs the
            network, and neither clears gradients nor calls ``backward``. Logits have the shape
            (n, k), or (n, t, k) with labels (n, t). Or one closure of torch's kind, which returns
            a loss and may call ``backward`` itself, where the class does not need the logits.
        """

    @property
    def loss_scale(self) -> float:
        """What gradients in ``.grad`` are multiplied by: the scale of the ``scaler``, or 1."""
        return 1.0 if self.scaler is None else float(self.scaler.get_scale())

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
        parameters = self._parameters()
        ascent = {"optimiser": type(self).__name__, **self._ascent_state()}
        ascent["kept"] = {
            name: {i: tensors[p] for i, p in enumerate(parameters) if p in tensors}
            for name, tensors in self.kept.items()
        }
        if self.scaler is not None:
            ascent["scaler"] = self.scaler.state_dict()
        return {**self.base.state_dict(), "ascent": ascent}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Resume bit for bit from :meth:`state_dict`, or take over the state of a plain optimiser.

        Parameters
        ----------
        state_dict : dict
            State of an optimiser of the same class with groups of the same sizes; or of an
            optimiser like the base, for the base: the ascent then starts anew, with this ``rho``.

        Raises
        ------
        ValueError
            Another class of this family wrote it.
        """
        ascent = state_dict.get("ascent", {"optimiser": type(self).__name__, "kept": {}})
        if ascent["optimiser"] != type(self).__name__:
            raise ValueError(
                f"state_dict must be written by {type(self).__name__}, got {ascent['optimiser']}"
            )
        radii = [group["rho"] for group in self.param_groups]
        self.base.load_state_dict({k: v for k, v in state_dict.items() if k != "ascent"})
        self._share()
        for group, rho in zip(self.param_groups, radii, strict=True):
            group.setdefault("rho", rho)
        parameters = self._parameters()
        self.kept = {
            name: {parameters[i]: t.to(parameters[i].device).clone() for i, t in tensors.items()}
            for name, tensors in ascent["kept"].items()
        }
        if "ascent" in state_dict:
            self._load_ascent_state(ascent)
        if self.scaler is not None and "scaler" in ascent:
            self.scaler.load_state_dict(ascent["scaler"])

    def _ascent_state(self) -> dict[str, Any]:
        """State of the ascent beside :attr:`kept`."""
        return {}

    def _load_ascent_state(self, ascent: dict[str, Any]) -> None:
        """Inverse of :meth:`_ascent_state`."""

    def _parameters(self) -> list[Tensor]:
        return [p for group in self.param_groups for p in group["params"]]

    def _share(self) -> None:
        # load_state_dict of a torch optimiser replaces both objects.
        self.param_groups = self.base.param_groups
        self.state = self.base.state

    def _micro_batches(self, closures: Closures | None) -> list[Closure]:
        """The closures as a list; none is refused."""
        batches = [closures] if callable(closures) else list(closures or ())
        if not batches:
            raise RuntimeError(
                f"{type(self).__name__}.step needs closure(rows=None) -> (logits, labels), or a "
                "list of these"
            )
        return batches

    def _pass(
        self,
        batches: Sequence[Closure],
        sum_of: SumOf,
        *,
        synchronise: bool = True,  # if false, each rank of DDP keeps its own gradient
    ) -> tuple[Tensor, Tensor | int]:
        """Add the gradient of the mean loss to the clear ``.grad``; the loss, and the rows."""
        parameters = self._parameters()
        sums: list[Tensor] = []
        rows: list[Tensor | int] = []
        for index, closure in enumerate(batches):
            last = index == len(batches) - 1
            # no_sync must be around the forward too: that is where DDP decides.
            with self._averaged_over_ranks(synchronise and last), torch.enable_grad():
                total, n = sum_of(index, closure)
                if n is None and len(batches) > 1:
                    raise RuntimeError(
                        "several micro-batches need closures that return (logits, labels): the "
                        "mean over all rows needs their number, got a loss"
                    )
                sums.append(total.detach())
                rows.append(1 if n is None else n)
                if n is None and any(p.grad is not None for p in parameters):
                    break  # it called backward itself
                # One divisor for all; the right one is known after the last micro-batch.
                loss = total / _at_least_one(rows[0])
                with frozen_running_statistics(self.model):
                    torch.autograd.backward(
                        loss if self.scaler is None else self.scaler.scale(loss)
                    )
        n_rows = sum(rows)
        if len(batches) > 1:
            gradients = [p.grad for p in parameters if p.grad is not None]
            _scale(gradients, _at_least_one(rows[0]) / _at_least_one(n_rows))
        return torch.stack(sums).sum() / n_rows, n_rows

    def _averaged_over_ranks(self, synchronise: bool) -> AbstractContextManager[None]:
        if synchronise or not isinstance(self.model, nn.parallel.DistributedDataParallel):
            return nullcontext()
        context: AbstractContextManager[None] = self.model.no_sync()
        return context

    _needs_logits = False  # if true, a closure that returns a loss is refused

    def _first_sum(
        self,
        index: int,  # noqa: ARG002 - see SumOf
        closure: Closure,
    ) -> tuple[Tensor, Tensor | int | None]:
        result = closure()
        if not isinstance(result, Tensor):
            losses, rows = self._losses(*result)
            return self._sum(losses, rows), rows
        if self._needs_logits:
            raise TypeError(
                f"{type(self).__name__} needs the logits: its closure must return "
                "(logits, labels), got a loss"
            )
        if result.numel() != 1:
            raise TypeError(
                f"a closure must return (logits, labels) or one loss, got a tensor of shape "
                f"{tuple(result.shape)}"
            )
        return result.reshape(()), None

    def _losses(self, logits: Tensor, labels: Tensor) -> tuple[Tensor, Tensor | int]:
        """Losses in the shape of the labels, or their mean, and the number of rows that count."""
        logits = in_full_precision(logits)
        if labels.is_floating_point():  # distributions over the classes
            return self.loss(logits, labels), len(labels)
        rows = (labels != self.ignore_index).sum()
        if logits.ndim > 2 and logits.shape[:-1] == labels.shape:  # one row for each token
            losses = self.loss(logits.flatten(0, -2), labels.flatten())
            return losses.view(labels.shape) if losses.ndim else losses, rows
        return self.loss(logits, labels), rows

    def _sum(self, losses: Tensor, rows: Tensor | int) -> Tensor:
        return losses.sum() if losses.ndim else losses * rows

    def _by_row(self, losses: Tensor) -> Tensor:
        """Losses of the rows of a batch, (n,), of all tokens together; a mean is refused."""
        if not losses.ndim:
            raise ValueError(
                f"{type(self).__name__} compares rows: loss must give one number for each row, "
                "got their mean"
            )
        return losses.flatten(1).sum(1) if losses.ndim > 1 else losses

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


def _at_least_one(rows: Tensor | int) -> Tensor | int:
    """A divisor where all rows are ignored."""
    return rows.clamp(min=1) if isinstance(rows, Tensor) else max(rows, 1)


def _scale(tensors: Sequence[Tensor], factor: Tensor | float) -> None:
    for tensor in tensors:
        tensor.mul_(factor)
