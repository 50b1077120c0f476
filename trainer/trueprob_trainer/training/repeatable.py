"""Where a run computes, and the state of torch around it: seeded inside, as it was outside."""

import os
from collections.abc import Iterator
from contextlib import contextmanager

import torch

from trueprob_trainer.config import TrainConfig
from trueprob_trainer.errors import BadInput


def device_of(config: TrainConfig) -> torch.device:
    """The device that a recipe asks for.

    Raises `BadInput`: a GPU was asked for and torch sees none.
    """
    available = torch.cuda.is_available()
    if config.device == "cuda" and not available:
        raise BadInput("device must be cpu or auto here, torch finds no GPU, got cuda")
    on_gpu = config.device == "cuda" or (config.device == "auto" and available)
    return torch.device("cuda" if on_gpu else "cpu")


@contextmanager
def repeatable(config: TrainConfig, device: torch.device) -> Iterator[None]:
    """Seed torch, fix its threads, choose deterministic kernels, and leave all as it was."""
    threads = torch.get_num_threads()
    strict = torch.are_deterministic_algorithms_enabled()
    benchmark = torch.backends.cudnn.benchmark
    if config.deterministic:
        # cuBLAS reads it when it is first used; without it torch refuses in deterministic mode.
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
        torch.manual_seed(config.seed)
        torch.set_num_threads(config.threads)
        torch.use_deterministic_algorithms(config.deterministic or strict)
        torch.backends.cudnn.benchmark = device.type == "cuda" and not config.deterministic
        try:
            yield
        finally:
            torch.backends.cudnn.benchmark = benchmark
            torch.use_deterministic_algorithms(strict)
            torch.set_num_threads(threads)
