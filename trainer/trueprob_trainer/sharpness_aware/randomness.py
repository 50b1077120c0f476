"""Repeats the random numbers of an earlier forward, so that dropout masks are the same."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn


class RandomState:
    """Snapshot of the generators of the CPU and of the GPUs of a network."""

    def __init__(self, model: nn.Module | None) -> None:
        parameters = () if model is None else model.parameters()
        devices = {p.device for p in parameters if p.is_cuda}
        self._cpu: Tensor = torch.get_rng_state()
        self._gpus = {device: torch.cuda.get_rng_state(device) for device in devices}

    @contextmanager
    def replayed(self) -> Iterator[None]:
        """Repeat the random numbers that followed the snapshot; restore the state afterwards."""
        with torch.random.fork_rng(devices=[device.index for device in self._gpus]):
            torch.set_rng_state(self._cpu)
            for device, state in self._gpus.items():
                torch.cuda.set_rng_state(state, device)
            yield
