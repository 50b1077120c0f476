"""The processes that ``torchrun`` starts: each takes its part of every batch.

Without ``torchrun`` there is one rank, and nothing here does anything. The gradients are averaged
by DistributedDataParallel. What is decided by time or by a signal is decided for all ranks
together, or they would wait for one another for ever.
"""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from trueprob_trainer.errors import BadInput


@dataclass(frozen=True)
class Ranks:
    """The processes that train together, and the number of the present one."""

    rank: int = 0
    world: int = 1

    @property
    def first(self) -> bool:
        """Whether this process writes the run folder and reports progress."""
        return self.rank == 0

    def part_of(self, rows: Tensor) -> Tensor:
        """The part of this rank in batches of rows, (n, batch_size) to (n, batch_size / world)."""
        if self.world > 1 and (rows.shape[1] % self.world or rows.shape[1] < 2 * self.world):
            raise BadInput(
                f"batch_size must be a multiple of the {self.world} ranks with at least two rows "
                f"each, got {rows.shape[1]}"
            )
        return rows.chunk(self.world, dim=1)[self.rank]

    def seed(self, seed: int) -> int:
        """A seed of this rank's own; that of the first is the given one."""
        return seed + (self.rank << 32)

    def distributed(self, model: nn.Module) -> nn.Module:
        """The network whose gradients are averaged over the ranks."""
        if self.world == 1:
            return model
        # Running statistics are averaged after each epoch.
        return nn.parallel.DistributedDataParallel(model, forward_sync_buffers=False)

    def any(self, flag: bool) -> bool:
        """Whether it holds for any rank."""
        if self.world == 1:
            return flag
        everywhere = torch.tensor(float(flag), device=_device())
        torch.distributed.all_reduce(everywhere, torch.distributed.ReduceOp.MAX)
        return bool(everywhere)

    def mean(self, value: Tensor) -> Tensor:
        """The mean of a value over the ranks."""
        if self.world > 1:
            torch.distributed.all_reduce(value)
            value = value / self.world
        return value

    def gathered(self, value: Any) -> list[Any]:
        """The values of all ranks, in order."""
        values = [value] * self.world
        if self.world > 1:
            torch.distributed.all_gather_object(values, value)
        return values


ALONE = Ranks()


@contextmanager
def joined_ranks() -> Iterator[Ranks]:
    """Meet the other processes of ``torchrun``, and part from them at the end."""
    world = int(os.environ.get("WORLD_SIZE", "1"))
    if world == 1 or "RANK" not in os.environ:
        yield ALONE
        return
    if torch.cuda.is_available():
        torch.cuda.set_device(int(os.environ.get("LOCAL_RANK", "0")))
    torch.distributed.init_process_group("nccl" if torch.cuda.is_available() else "gloo")
    try:
        yield Ranks(torch.distributed.get_rank(), world)
    finally:
        torch.distributed.destroy_process_group()


def _device() -> str:
    return "cuda" if torch.distributed.get_backend() == "nccl" else "cpu"
