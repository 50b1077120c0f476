"""Requests whose clients went away: what of them still runs."""

import asyncio
import threading

import numpy as np

from tests.trueprob_service.inference.recorded_network import (
    POISON,
    Recorder,
    batcher,
    held,
    images,
)


def test_a_client_that_gave_up_frees_its_rows() -> None:
    network = Recorder()

    async def scenario() -> None:
        running = batcher(network, queue=3)
        first = await held(network, running)
        gone = asyncio.create_task(running.run(images(2, n=3)))
        await asyncio.sleep(0.01)
        gone.cancel()
        await asyncio.gather(gone, return_exceptions=True)
        instead = asyncio.create_task(running.run(images(5, n=3)))
        await asyncio.sleep(0.01)
        network.gate.set()
        assert (await instead)[0, 0] == 5
        await first
        running.close()

    asyncio.run(scenario())
    assert network.batches == [1, 3]


def test_what_is_left_of_a_large_request_is_not_run_for_a_client_that_gave_up() -> None:
    network = Recorder()

    async def scenario() -> None:
        running = batcher(network, batch=4)
        network.gate.clear()
        large = asyncio.create_task(running.run(images(1, n=12)))
        await asyncio.to_thread(network.entered.wait, 10)
        large.cancel()
        await asyncio.gather(large, return_exceptions=True)
        network.gate.set()
        assert (await running.run(images(5)))[0, 0] == 5
        running.close()

    asyncio.run(scenario())
    assert network.batches == [4, 1]


class Stepper(Recorder):
    """A network that needs a turn for every run."""

    def __init__(self) -> None:
        super().__init__()
        self.begun, self.turns = threading.Semaphore(0), threading.Semaphore(0)

    def run(self, images: np.ndarray) -> np.ndarray:
        self.begun.release()
        assert self.turns.acquire(timeout=10)
        return super().run(images)


def test_a_failed_batch_is_not_rerun_for_a_client_that_gave_up() -> None:
    network = Stepper()

    async def scenario() -> None:
        running = batcher(network)
        first = asyncio.create_task(running.run(images(1)))
        await asyncio.to_thread(network.begun.acquire)
        two, poison = (asyncio.create_task(running.run(images(v, n=2))) for v in (2, POISON))
        await asyncio.sleep(0.01)
        network.turns.release()
        await first
        await asyncio.to_thread(network.begun.acquire)  # both are in the batch that will fail
        poison.cancel()
        await asyncio.gather(poison, return_exceptions=True)
        network.turns.release(2)
        assert (await two)[0, 0] == 2
        running.close()

    asyncio.run(scenario())
    assert network.batches == [1, 4, 2]
