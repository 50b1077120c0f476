"""Large ``.npy`` bodies are put in place as they come, and answered from where the answer is."""

import asyncio
import io
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import httpx
import numpy as np
import pytest

from tests.trueprob_service.application import application
from trueprob import softmax
from trueprob_service.inference.wire import npy

pytestmark = pytest.mark.slow

URL = "/v1/models/wide/probabilities"
N_CLASSES = 64


def logits_of(n: int) -> np.ndarray:
    return np.random.default_rng(n).normal(size=(n, N_CLASSES)).astype(np.float32)


def saved(array: np.ndarray) -> bytes:
    stream = io.BytesIO()
    np.save(stream, array)
    return stream.getvalue()


def pieces(body: bytes, size: int) -> Iterator[bytes]:
    for start in range(0, len(body), size):
        yield body[start : start + size]


async def asked(
    tmp_path: Path, body: bytes, *, declared: int, size: int = 65_536
) -> httpx.Response:
    async def stream() -> AsyncIterator[bytes]:
        for piece in pieces(body, size):
            yield piece

    headers = {"content-type": "application/x-npy", "accept": "application/x-npy"}
    async with application(tmp_path) as client:
        await client.put("/v1/models/wide", json={"n_classes": N_CLASSES})
        return await client.post(
            URL, content=stream(), headers={**headers, "content-length": str(declared)}
        )


@pytest.mark.parametrize("n", [10, 5_000])
@pytest.mark.parametrize("fortran", [False, True])
def test_rows_come_back_whatever_the_size_and_the_order(
    tmp_path: Path, n: int, fortran: bool
) -> None:
    logits = logits_of(n)
    body = saved(np.asfortranarray(logits) if fortran else logits)
    assert (len(body) > npy.SHARED_BYTES) == (n == 5_000)
    answer = asyncio.run(asked(tmp_path, body, declared=len(body)))
    assert answer.status_code == 200
    assert int(answer.headers["content-length"]) == len(answer.content)
    np.testing.assert_array_equal(np.load(io.BytesIO(answer.content)), softmax(logits))


def test_a_body_that_ends_early_is_refused(tmp_path: Path) -> None:
    body = saved(logits_of(5_000))
    answer = asyncio.run(asked(tmp_path, body[:-4], declared=len(body)))
    assert answer.status_code == 400
    assert "bytes follow" in answer.json()["detail"]


def test_a_body_that_goes_on_is_refused(tmp_path: Path) -> None:
    body = saved(logits_of(5_000))
    answer = asyncio.run(asked(tmp_path, body + b"more", declared=len(body)))
    assert answer.status_code == 400
    assert answer.json()["detail"].startswith("the body is longer than its Content-Length")


def test_what_is_sent_from_its_own_memory_is_what_numpy_saves() -> None:
    array = logits_of(5_000)
    whole = npy.encode(array)
    assert isinstance(whole, tuple)
    assert b"".join(whole) == saved(array)
    assert npy.encode(array[:3]) == saved(array[:3])
