"""A session that hangs or fails on everything is replaced; only its own model is refused."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable

import numpy as np
import pytest

from tests.trueprob_service.inference.recorded_network import POISON, Recorder, images
from trueprob_service.errors import InferenceFailed, ModelUnavailable
from trueprob_service.inference.network.batcher import Batcher

DEADLINE = 0.2


class Broken(Recorder):
    """A network that worked when it was loaded and now fails on everything."""

    def run(self, images: np.ndarray) -> np.ndarray:
        raise InferenceFailed("the device is gone")


def batcher(load: Callable[[], Recorder]) -> Batcher:
    return Batcher(
        load,
        max_batch_rows=8,
        queue_rows=16,
        observe=lambda **_: None,
        name="m/1",
        deadline_seconds=DEADLINE,
        reload_seconds=0.05,
    )


async def until_it_runs(running: Batcher) -> None:
    deadline = time.monotonic() + 20
    while running.failure is not None:
        assert time.monotonic() < deadline
        await asyncio.sleep(0.01)


def loader(*networks: Recorder | Exception) -> Callable[[], Recorder]:
    waiting = iter(networks)

    def load() -> Recorder:
        network = next(waiting)
        if isinstance(network, Exception):
            raise network
        return network

    return load


def test_a_run_that_outlives_its_deadline_loses_its_session() -> None:
    stuck, next_one = Recorder(), Recorder()
    stuck.gate.clear()
    loading = threading.Event()

    def load() -> Recorder:
        if not loading.is_set():
            loading.set()
            return stuck
        time.sleep(0.2)  # a request comes meanwhile
        return next_one

    async def scenario() -> None:
        running = batcher(load)
        first = asyncio.create_task(running.run(images(1)))
        await asyncio.to_thread(stuck.entered.wait, 10)
        second = asyncio.create_task(running.run(images(2)))
        for refused in await asyncio.gather(first, second, return_exceptions=True):
            assert isinstance(refused, ModelUnavailable)
            assert "m/1 does not run: a run took longer than 0.2 s" in refused.detail
        assert stuck.stopped
        with pytest.raises(ModelUnavailable, match="its session is being replaced"):
            await running.run(images(3))
        await until_it_runs(running)
        assert (await running.run(images(4)))[0, 0] == 4
        stuck.gate.set()  # what the old one answers goes nowhere
        assert (await running.run(images(5)))[0, 0] == 5
        running.close()

    asyncio.run(scenario())
    assert next_one.batches == [1, 1]


def test_a_queue_that_is_long_is_no_run_that_is_long() -> None:
    class Slow(Recorder):
        def run(self, images: np.ndarray) -> np.ndarray:
            time.sleep(DEADLINE / 2)
            return super().run(images)

    async def scenario() -> None:
        running = batcher(Slow)
        answers = await asyncio.gather(*(running.run(images(v, n=4)) for v in (1, 2)), *(
            running.run(images(v, n=4)) for v in (3, 4)
        ))  # fmt: skip
        assert [int(a[0, 0]) for a in answers] == [1, 2, 3, 4]
        assert running.failure is None
        running.close()

    asyncio.run(scenario())


def test_a_session_that_fails_on_everything_is_loaded_again_until_that_works() -> None:
    load = loader(Broken(), OSError("the file is away"), Recorder())

    async def scenario() -> None:
        running = batcher(load)
        with pytest.raises(ModelUnavailable, match="fails on every input"):
            await running.run(images(1))
        await until_it_runs(running)
        assert (await running.run(images(2)))[0, 0] == 2
        running.close()

    asyncio.run(scenario())


def test_rows_that_a_session_cannot_take_do_not_cost_it() -> None:
    only = Recorder()

    async def scenario() -> None:
        running = batcher(loader(only))
        with pytest.raises(InferenceFailed):
            await running.run(images(POISON))
        assert running.failure is None
        assert (await running.run(images(2)))[0, 0] == 2
        running.close()

    asyncio.run(scenario())


def test_sessions_that_never_end_are_not_collected_without_end() -> None:
    networks = [Recorder() for _ in range(5)]
    for network in networks:
        network.gate.clear()

    async def scenario() -> None:
        running = batcher(loader(*networks))
        for _ in range(3):
            await until_it_runs(running)
            with pytest.raises(ModelUnavailable):
                await running.run(images(1))
        deadline = time.monotonic() + 20
        while "restart the service" not in (running.failure or ""):
            assert time.monotonic() < deadline
            await asyncio.sleep(0.01)
        networks[0].gate.set()  # one of them ends after all
        await until_it_runs(running)
        running.close()
        for network in networks:
            network.gate.set()

    asyncio.run(scenario())
