"""Large JSON bodies are parsed elsewhere: the same result, and nothing else waits for it."""

import asyncio
import json
import os
import signal
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from multiprocessing.connection import Connection
from pathlib import Path

import numpy as np
import pytest

from service.errors import BadRequest, InvalidRequest, Overloaded, Unavailable
from service.inference import wire_json, wire_oip
from service.inference.json_pool import LARGE_BYTES, SIMD_BYTES, JsonPool
from service.inference.json_worker import JsonWorker
from tests.service.application import application

PREDICT = "/v1/models/digits/probabilities"
ROWS = np.random.default_rng(0).normal(0, 4, (8000, 10))
MEDIUM = json.dumps({"logits": ROWS.tolist()}).encode()
LARGE = MEDIUM + b" " * SIMD_BYTES


@asynccontextmanager
async def pool(workers: int = 1) -> AsyncIterator[tuple[JsonPool, list[JsonWorker]]]:
    made: list[JsonWorker] = []

    def make() -> JsonWorker:
        made.append(JsonWorker())
        return made[-1]

    running = JsonPool(workers, worker=make)
    try:
        yield running, made
    finally:
        await asyncio.to_thread(running.close)


def padded(body: bytes) -> bytes:
    return body + b" " * SIMD_BYTES


def test_what_comes_back_is_what_parsing_here_gives() -> None:
    bodies = [
        LARGE,
        padded(b'{"logits": [[1, 2], [3, 4]]}'),
        padded(b'{"probabilities": [[18446744073709551615, 2]]}'),
        padded(b'{"logits": [[], []]}'),
        padded(b'{"images": ["AAEC", "/w==", ""]}'),
    ]

    async def scenario() -> None:
        async with pool() as (running, _):
            for body in bodies:
                (name, values), (expected_name, expected) = (
                    await running.decode(body),
                    wire_json.decode(body),
                )
                assert name == expected_name
                assert type(values) is type(expected)
                if isinstance(expected, np.ndarray):
                    assert isinstance(values, np.ndarray)
                    assert (values.dtype, values.shape) == (expected.dtype, expected.shape)
                    np.testing.assert_array_equal(values, expected)
                else:
                    assert values == expected

    asyncio.run(scenario())


def test_open_inference_requests_come_back_the_same() -> None:
    flat = {
        "name": "logits",
        "shape": [8000, 10],
        "datatype": "FP32",
        "data": ROWS.ravel().tolist(),
    }
    plain = json.dumps({"id": "7", "inputs": [flat], "outputs": [{"name": "logit_gap"}]}).encode()
    head = padded(plain)
    binary = {"name": "image", "shape": [4], "datatype": "UINT8"}
    mixed = {**binary, "parameters": {"binary_data_size": 4}}
    both = padded(json.dumps({"inputs": [flat, mixed]}).encode())

    async def scenario() -> None:
        async with pool() as (running, (worker,)):
            assert len(plain) > LARGE_BYTES
            assert (await running.decode_inference(plain, None)).id == "7"
            assert worker.pid is None, "plain numbers are read on the spot"
            for body, length in ((head, None), (both + b"abcd", len(both))):
                got = await running.decode_inference(body, length)
                expected = wire_oip.decode(body, length)
                assert (got.id, got.outputs) == (expected.id, expected.outputs)
                for tensor, same in zip(got.inputs, expected.inputs, strict=True):
                    assert (tensor.name, tensor.datatype) == (same.name, same.datatype)
                    assert tensor.values.dtype == same.values.dtype
                    np.testing.assert_array_equal(tensor.values, same.values)
            assert worker.pid is not None
            with pytest.raises(BadRequest, match="bytes follow the last tensor"):
                await running.decode_inference(both + b"abcde", len(both))
            with pytest.raises(InvalidRequest, match="expected a JSON object with inputs"):
                await running.decode_inference(padded(b"[]"), None)
            assert (await running.decode(LARGE))[0] == "logits"

    asyncio.run(scenario())


def test_small_and_binary_open_inference_requests_are_read_here() -> None:
    head = b'{"inputs": [{"name": "a", "shape": [2000000], "datatype": "UINT8", '
    head += b'"parameters": {"binary_data_size": 2000000}}]}'

    async def scenario() -> None:
        async with pool() as (running, (worker,)):
            await running.decode_inference(head + bytes(2_000_000), len(head))
            assert worker.pid is None

    asyncio.run(scenario())


def test_errors_come_back_as_themselves() -> None:
    async def scenario() -> None:
        async with pool() as (running, _):
            with pytest.raises(BadRequest, match="the body is not JSON"):
                await running.decode(padded(b'{"logits": [[1, 2'))
            with pytest.raises(InvalidRequest, match=r"got null at logits\[0\]\[1\]"):
                await running.decode(padded(b'{"logits": [[1, null]]}'))
            assert (await running.decode(LARGE))[0] == "logits"

    asyncio.run(scenario())


def test_processes_start_when_they_are_needed_and_not_for_small_bodies() -> None:
    async def scenario() -> None:
        async with pool(2) as (running, workers):
            await running.decode(b'{"logits": [[1, 2]]}')
            assert len(MEDIUM) > LARGE_BYTES
            _, values = await running.decode(MEDIUM)  # plain rows: no lists to make
            np.testing.assert_array_equal(values, ROWS)
            assert [worker.pid for worker in workers] == [None, None]
            await running.decode(LARGE)
            await running.decode(LARGE)
            assert [worker.pid is None for worker in workers] == [False, True]
            await asyncio.gather(running.decode(LARGE), running.decode(LARGE))
            assert None not in [worker.pid for worker in workers]

    asyncio.run(scenario())


def test_what_is_not_plain_goes_elsewhere_though_it_is_not_as_large() -> None:
    async def scenario() -> None:
        async with pool() as (running, (worker,)):
            with pytest.raises(InvalidRequest, match="null at logits"):
                await running.decode(b'{"logits": [[1, null]]}' + b" " * LARGE_BYTES)
            assert worker.pid is not None

    asyncio.run(scenario())


def test_a_process_that_died_is_replaced_and_its_body_parsed() -> None:
    async def scenario() -> None:
        async with pool() as (running, (worker,)):
            await running.decode(LARGE)
            first = worker.pid
            assert first is not None
            os.kill(first, signal.SIGKILL)
            _, values = await running.decode(LARGE)
            np.testing.assert_array_equal(values, ROWS)
            assert worker.pid not in (None, first)

    asyncio.run(scenario())


def die(connection: Connection) -> None:
    connection.recv_bytes()
    os._exit(7)


def die_halfway(connection: Connection) -> None:
    connection.recv_bytes()
    connection.send(("logits", ("<f8", (3, 10))))
    os._exit(7)


@pytest.mark.parametrize("target", [die, die_halfway])
def test_a_body_that_its_process_dies_of_is_answered_503(target: object) -> None:
    worker = JsonWorker(target)  # type: ignore[arg-type]
    for _ in range(2):
        with pytest.raises(Unavailable, match="ended while it had this one"):
            worker.decode(b"x")
        assert worker.pid is None
    worker.close()


def never_answer(connection: Connection) -> None:
    connection.recv_bytes()
    signal.pause()


def test_closing_gives_up_what_is_being_parsed_and_what_waits() -> None:
    workers = [JsonWorker(never_answer)]

    async def scenario() -> None:
        running = JsonPool(1, worker=lambda: workers[0])
        parsing = [asyncio.create_task(running.decode(LARGE)) for _ in range(9)]
        while workers[0].pid is None:
            await asyncio.sleep(0.01)
        with pytest.raises(Overloaded, match="9 large JSON bodies"):
            await running.decode(LARGE)
        await asyncio.to_thread(running.close)
        outcomes = await asyncio.gather(*parsing, return_exceptions=True)
        assert {type(outcome) for outcome in outcomes} == {Unavailable}

    asyncio.run(scenario())


def test_no_workers_parse_here() -> None:
    async def scenario() -> None:
        async with pool(0) as (running, workers):
            _, values = await running.decode(LARGE)
            np.testing.assert_array_equal(values, ROWS)
            assert workers == []

    asyncio.run(scenario())


def test_large_and_small_bodies_get_the_same_answer_and_health_answers_meanwhile(
    tmp_path: Path,
) -> None:
    async def scenario() -> None:
        async with application(tmp_path, json_workers=1) as client:
            large = asyncio.create_task(client.post(PREDICT, content=LARGE))
            answered = 0
            while not large.done():
                assert (await client.get("/v2/health/live")).status_code == 200
                answered += 1
                await asyncio.sleep(0.001)  # nothing else gives the loop its turn
            assert answered > 3
            whole = (await large).json()
            assert "prediction_ids" not in whole
            few = (await client.post(PREDICT, json={"logits": ROWS[:100].tolist()})).json()
            for name in ("probabilities", "class", "confidence", "temperature"):
                assert whole[name][:100] == few[name], name
            assert len(whole["probabilities"]) == len(ROWS)

    asyncio.run(scenario())
