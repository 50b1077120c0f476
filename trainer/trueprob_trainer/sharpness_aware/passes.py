"""Forward and backward over the micro-batches of one step.

A step takes one closure or a list, one for each stored micro-batch. Both passes of a
sharpness-aware step run *all* of them. The gradient is that of the mean loss over all rows, however
the rows are split (except in networks where rows affect one another, such as by BatchNorm).
"""

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext

import torch
from torch import Tensor, nn

from trueprob_trainer.sharpness_aware.batch_norm import kept_running_statistics

Closure = Callable[..., tuple[Tensor, Tensor]]
"""``closure(rows=None) -> (logits, labels)`` of a micro-batch, or of some of its rows."""

Closures = Closure | Sequence[Closure]
"""One micro-batch or several."""

LossesOf = Callable[[int, Closure], Tensor]
"""Losses of the rows of micro-batch number i; runs its closure."""


def as_micro_batches(closures: Closures | None, caller: str) -> list[Closure]:
    """The closures as a list; none is refused."""
    batches = [closures] if callable(closures) else list(closures or ())
    if not batches:
        raise RuntimeError(
            f"{caller}.step needs closure(rows=None) -> (logits, labels), or a list of these"
        )
    return batches


def gradient_pass(
    batches: Sequence[Closure],
    losses_of: LossesOf,
    parameters: Sequence[Tensor],  # their gradients must be clear
    *,
    model: nn.Module | None = None,
    scaler: torch.amp.GradScaler | None = None,  # gradients are multiplied by its scale
    synchronise: bool = True,  # if false, each rank keeps its own gradient
) -> tuple[Tensor, int]:
    """Add the gradient of the mean loss of all rows to ``.grad``; the loss and number of rows."""
    sums: list[Tensor] = []
    rows: list[int] = []
    for index, closure in enumerate(batches):
        last = index == len(batches) - 1
        # no_sync must be around the forward too: that is where DDP decides.
        with _averaged_over_ranks(model, synchronise and last), torch.enable_grad():
            losses = losses_of(index, closure)
            rows.append(losses.numel())
            # One divisor for all; the right one is known after the last micro-batch.
            loss = losses.mean() if rows[-1] == rows[0] else losses.sum() / rows[0]
            sums.append(losses.detach().sum())
            with kept_running_statistics(model):
                torch.autograd.backward(loss if scaler is None else scaler.scale(loss))
        del losses, loss
    if len(batches) > 1:
        gradients = [p.grad for p in parameters if p.grad is not None]
        torch._foreach_mul_(gradients, rows[0] / sum(rows))
    return torch.stack(sums).sum() / sum(rows), sum(rows)


def _averaged_over_ranks(
    model: nn.Module | None, synchronise: bool
) -> AbstractContextManager[None]:
    if synchronise or not isinstance(model, nn.parallel.DistributedDataParallel):
        return nullcontext()
    context: AbstractContextManager[None] = model.no_sync()
    return context
