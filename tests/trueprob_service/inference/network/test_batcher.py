import asyncio

import numpy as np
import pytest

from tests.trueprob_service.inference.recorded_network import (
    POISON,
    Recorder,
    batcher,
    held,
    images,
)
from trueprob_service.errors import BodyTooLarge, InferenceFailed, ModelUnavailable, Overloaded
from trueprob_service.inference.network.batcher import Batcher


def test_requests_that_wait_share_a_batch_and_get_their_own_rows() -> None:
    network, seen = Recorder(), []

    async def scenario() -> None:
        running = batcher(network, observe=lambda **kw: seen.append(kw))
        first = await held(network, running)
        others = [asyncio.create_task(running.run(images(v, n=v))) for v in (2, 3)]
        await asyncio.sleep(0.01)
        network.gate.set()
        results = await asyncio.gather(first, *others)
        running.close()
        assert [r[0, 0] for r in results] == [1, 2, 3]
        assert [len(r) for r in results] == [1, 2, 3]

    asyncio.run(scenario())
    assert network.batches == [1, 5]
    assert len(network.threads) == 1
    assert [(kw["rows"], len(kw["delays"])) for kw in seen] == [(1, 1), (5, 2)]


def test_a_request_larger_than_a_batch_is_run_in_parts() -> None:
    network = Recorder()

    async def scenario() -> np.ndarray:
        running = batcher(network, batch=4)
        try:
            return await running.run(np.arange(10, dtype=np.uint8).reshape(10, 1, 1, 1))
        finally:
            running.close()

    logits = asyncio.run(scenario())
    np.testing.assert_array_equal(logits[:, 0], np.arange(10))
    assert network.batches == [4, 4, 2]


def test_only_the_culprit_of_a_failed_batch_fails() -> None:
    network = Recorder()

    async def scenario() -> list[object]:
        running = batcher(network)
        first = await held(network, running)
        others = [asyncio.create_task(running.run(images(v))) for v in (2, POISON, 4)]
        await asyncio.sleep(0.01)
        network.gate.set()
        outcome = await asyncio.gather(first, *others, return_exceptions=True)
        alive = await running.run(images(7))
        running.close()
        return [*outcome, alive]

    first, two, poisoned, four, alive = asyncio.run(scenario())
    assert isinstance(poisoned, InferenceFailed)
    assert [r[0, 0] for r in (first, two, four, alive)] == [1, 2, 4, 7]


def test_a_full_queue_refuses_at_once_and_says_when_to_come_back() -> None:
    network = Recorder()

    async def scenario() -> None:
        running = batcher(network, queue=3)
        first = await held(network, running)
        waiting = asyncio.create_task(running.run(images(2, n=3)))
        await asyncio.sleep(0.01)
        with pytest.raises(Overloaded, match="3 rows wait for test, at most 3 may") as caught:
            await running.run(images(3))
        assert caught.value.retry_after_seconds >= 1
        network.gate.set()
        await asyncio.gather(first, waiting)
        running.close()

    asyncio.run(scenario())


def test_a_request_that_could_never_wait_is_too_large() -> None:
    async def scenario() -> None:
        running = batcher(Recorder(), queue=3)
        with pytest.raises(BodyTooLarge, match="got 4 rows, at most 3 fit"):
            await running.run(images(1, n=4))
        running.close()

    asyncio.run(scenario())


def test_a_poisoned_large_request_fails_alone() -> None:
    network = Recorder()

    async def scenario() -> None:
        running = batcher(network, batch=4)
        requests = (running.run(images(POISON, n=9)), running.run(images(3)))
        poisoned, three = await asyncio.gather(*requests, return_exceptions=True)
        running.close()
        assert isinstance(poisoned, InferenceFailed)
        assert three[0, 0] == 3

    asyncio.run(scenario())


def test_the_worker_outlives_a_counter_that_raises() -> None:
    def observe(**_: object) -> None:
        raise RuntimeError("the counter is broken")

    async def scenario() -> None:
        running = batcher(Recorder(), observe=observe)
        for value in (1, 2):
            assert (await running.run(images(value)))[0, 0] == value
        running.close()

    asyncio.run(scenario())


def test_closing_refuses_what_waits() -> None:
    network = Recorder()

    async def scenario() -> None:
        running = batcher(network)
        first = await held(network, running)
        waiting = asyncio.create_task(running.run(images(2)))
        await asyncio.sleep(0.01)
        closing = asyncio.create_task(asyncio.to_thread(running.close))
        with pytest.raises(ModelUnavailable):
            await waiting
        network.gate.set()
        await closing
        assert (await first)[0, 0] == 1
        with pytest.raises(ModelUnavailable):
            await running.run(images(1))

    asyncio.run(scenario())


def test_a_network_that_cannot_be_loaded_says_so_at_once() -> None:
    def load() -> Recorder:
        raise ModelUnavailable("no such provider")

    with pytest.raises(ModelUnavailable, match="no such provider"):
        Batcher(load, max_batch_rows=1, queue_rows=1, observe=lambda **_: None, name="test")
