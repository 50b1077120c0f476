"""A network that records its batches, and a batcher around it, for tests."""

import asyncio
import threading
from collections.abc import Callable

import numpy as np

from trueprob_service.inference.network.batcher import Batcher

__all__ = ["POISON", "Recorder", "batcher", "held", "images"]

POISON = 255


class Recorder:
    """A network whose logits repeat the image's first pixel; it can be held and can fail."""

    def __init__(self) -> None:
        self.batches: list[int] = []
        self.threads: set[int] = set()
        self.gate = threading.Event()
        self.gate.set()
        self.entered = threading.Event()
        self.stopped = False

    def run(self, images: np.ndarray) -> np.ndarray:
        self.threads.add(threading.get_ident())
        self.batches.append(len(images))
        self.entered.set()
        assert self.gate.wait(10)
        if (images == POISON).any():
            raise ValueError("poison")
        return np.repeat(images[:, 0, 0].astype(np.float32), 2, axis=1)

    def stop(self) -> None:
        self.stopped = True


def images(value: int, n: int = 1) -> np.ndarray:
    return np.full((n, 2, 2, 1), value, np.uint8)


def batcher(
    network: Recorder,
    *,
    batch: int = 8,
    queue: int = 16,
    observe: Callable[..., None] | None = None,
) -> Batcher:
    return Batcher(
        lambda: network,
        max_batch_rows=batch,
        queue_rows=queue,
        observe=observe or (lambda **_: None),
        name="test",
    )


async def held(network: Recorder, running: Batcher) -> asyncio.Task[np.ndarray]:
    """A first request that keeps the worker busy until the gate opens."""
    network.gate.clear()
    first = asyncio.create_task(running.run(images(1)))
    await asyncio.to_thread(network.entered.wait, 10)
    return first
