"""Large JSON bodies are parsed in a thread, and nothing else waits for it."""

import asyncio
import json
import threading
from pathlib import Path

import numpy as np
import pytest

from tests.trueprob_service.application import application
from trueprob_service.edge.json_blocks import BLOCK_BYTES
from trueprob_service.errors import BadRequest, InvalidRequest, Overloaded
from trueprob_service.inference.body import INLINE_BYTES, JsonBodies

pytestmark = pytest.mark.slow

PREDICT = "/v1/models/digits/probabilities"
ROWS = np.random.default_rng(0).normal(0, 4, (16_000, 10))
LARGE = json.dumps({"logits": ROWS.tolist()}).encode()
FLAT = {"name": "logits", "shape": [16_000, 10], "datatype": "FP64", "data": ROWS.ravel().tolist()}


def test_large_bodies_are_parsed() -> None:
    async def scenario() -> None:
        bodies = JsonBodies()
        assert len(LARGE) > 2 * BLOCK_BYTES
        name, values = await bodies.decode(LARGE)
        assert name == "logits"
        np.testing.assert_array_equal(values, ROWS)
        for tensor in (FLAT, {**FLAT, "data": ROWS.tolist()}):
            head = json.dumps({"inputs": [tensor]}).encode()
            request = await bodies.decode_inference(head, None)
            np.testing.assert_array_equal(request.inputs[0].values, ROWS)
        bodies.close()

    asyncio.run(scenario())


def test_errors_of_large_bodies_are_those_of_small_ones() -> None:
    async def scenario() -> None:
        bodies, start = JsonBodies(), LARGE[:-2]
        with pytest.raises(BadRequest, match="the body is not JSON"):
            await bodies.decode(start)
        with pytest.raises(InvalidRequest, match=r"got null at logits\[16000\]\[1\]"):
            await bodies.decode(start + b", [1, null, 3, 4, 5, 6, 7, 8, 9, 10]]}")
        with pytest.raises(InvalidRequest, match="row 0 has 10 numbers, row 16000 has 2"):
            await bodies.decode(start + b", [1, 2]]}")
        with pytest.raises(InvalidRequest, match="expected a JSON object with inputs"):
            await bodies.decode_inference(b"[]" + b" " * INLINE_BYTES, None)
        bodies.close()

    asyncio.run(scenario())


def test_too_many_large_bodies_are_refused() -> None:
    async def scenario() -> None:
        bodies = JsonBodies()
        outcomes = await asyncio.gather(
            *(bodies.decode(LARGE) for _ in range(17)), return_exceptions=True
        )
        assert [type(outcome) for outcome in outcomes].count(Overloaded) == 1
        assert (await bodies.decode(LARGE))[0] == "logits"
        bodies.close()

    asyncio.run(scenario())


def test_small_bodies_and_binary_tensors_need_no_thread() -> None:
    head = b'{"inputs": [{"name": "a", "shape": [2000000], "datatype": "UINT8", '
    head += b'"parameters": {"binary_data_size": 2000000}}]}'

    async def scenario() -> None:
        bodies = JsonBodies()
        await bodies.decode(b'{"logits": [[1, 2]]}')
        await bodies.decode_inference(head + bytes(2_000_000), len(head))
        assert not any("trueprob-json" in thread.name for thread in threading.enumerate())
        bodies.close()

    asyncio.run(scenario())


JSON = {"content-type": "application/json"}


def test_large_and_small_bodies_get_the_same_answer_and_health_answers_meanwhile(
    tmp_path: Path,
) -> None:
    async def scenario() -> None:
        async with application(tmp_path) as client:
            large = asyncio.create_task(client.post(PREDICT, content=LARGE, headers=JSON))
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
