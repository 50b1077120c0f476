"""Pictures faster than the network, and clients that do not wait: what HTTP says and does."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest

from tests.trueprob_service.application import ROOT, lifespan
from trueprob_service.app import create_app
from trueprob_service.inference.network.batcher import Batcher
from trueprob_service.settings import Settings

PREDICT = "/v1/models/digits/probabilities"
PNG = {"content-type": "image/png"}
SEVEN = (ROOT / "examples/seven.png").read_bytes()


class Gated:
    """A network that waits for its gate."""

    def __init__(self) -> None:
        self.gate, self.entered = threading.Event(), threading.Event()
        self.batches: list[int] = []
        self.asked = 0

    def run(self, images: np.ndarray) -> np.ndarray:
        self.batches.append(len(images))
        self.entered.set()
        assert self.gate.wait(60)
        return np.zeros((len(images), 10), np.float32)


class Counting:
    """A batcher that says how many requests it was asked for."""

    failure = None

    def __init__(self, batcher: Batcher, network: Gated) -> None:
        self._batcher, self._network = batcher, network

    async def run(self, tensor: np.ndarray) -> np.ndarray:
        self._network.asked += 1  # what the batcher takes is in its queue before it waits
        return await self._batcher.run(tensor)

    def close(self) -> None:
        self._batcher.close()


@asynccontextmanager
async def service(folder: Path, network: Gated) -> AsyncIterator[tuple[Any, httpx.AsyncClient]]:
    """The application with room for one picture in its queue."""
    settings = Settings(state_dir=folder, model_repository=ROOT / "models")
    app = create_app(
        settings,
        model_factory=lambda served: Counting(
            Batcher(
                lambda: network,
                max_batch_rows=8,
                queue_rows=1,
                observe=lambda **measured: None,
                name="digits/1",
            ),
            network,
        ),
    )
    transport = httpx.ASGITransport(app=app)  # type: ignore[arg-type]  # looser scopes
    async with (
        lifespan(app),
        httpx.AsyncClient(transport=transport, base_url="http://localhost") as client,
    ):
        yield app, client


async def picture(client: httpx.AsyncClient) -> httpx.Response:
    return await client.post(PREDICT, content=SEVEN, headers=PNG)


async def busy(client: httpx.AsyncClient, network: Gated) -> asyncio.Task[httpx.Response]:
    """A request that the network works on until its gate opens."""
    first = asyncio.create_task(picture(client))
    assert await asyncio.to_thread(network.entered.wait, 10)
    return first


async def until_asked(network: Gated, times: int) -> None:
    """Wait until so many requests have come to the network's queue."""
    async with asyncio.timeout(30):
        while network.asked < times:
            await asyncio.sleep(0.005)


async def leave(app: Any, waiting: asyncio.Event, path: str = PREDICT, body: bytes = SEVEN) -> None:
    """A client that sends a picture and hangs up once told to."""
    sent = False

    async def receive() -> dict[str, Any]:
        nonlocal sent
        if not sent:
            sent = True
            return {"type": "http.request", "body": body}
        await waiting.wait()
        return {"type": "http.disconnect"}

    async def send(message: Any) -> None:
        raise AssertionError(f"nobody is there for {message}")

    headers = [
        (b"host", b"localhost"),
        (b"content-type", b"image/png"),
        (b"inference-header-content-length", b"0"),
    ]
    scope = {"type": "http", "method": "POST", "path": path, "headers": headers}
    await app(scope, receive, send)


def test_a_full_queue_answers_503_at_once_and_says_when_to_come_back(tmp_path: Path) -> None:
    async def scenario() -> None:
        network = Gated()
        async with service(tmp_path, network) as (_, client):
            first = await busy(client, network)
            second = asyncio.create_task(picture(client))
            await until_asked(network, 2)
            refused = await picture(client)
            assert refused.status_code == 503
            assert int(refused.headers["retry-after"]) >= 1
            assert refused.json()["code"] == "overloaded"
            assert refused.headers["content-type"] == "application/problem+json"
            assert not first.done()
            network.gate.set()
            assert [(await task).status_code for task in (first, second)] == [200, 200]

    asyncio.run(scenario())


@pytest.mark.slow
@pytest.mark.parametrize(
    ("path", "body"), [(PREDICT, SEVEN), ("/v2/models/digits/infer", bytes(64))]
)
def test_a_client_that_hangs_up_leaves_the_queue(tmp_path: Path, path: str, body: bytes) -> None:
    async def scenario() -> None:
        network = Gated()
        async with service(tmp_path, network) as (app, client):
            first = await busy(client, network)
            hang_up = asyncio.Event()
            left = asyncio.create_task(leave(app, hang_up, path, body))
            await until_asked(network, 2)
            hang_up.set()
            await left
            instead = asyncio.create_task(picture(client))
            await until_asked(network, 3)
            await asyncio.sleep(0.05)
            assert not instead.done(), "there is room for it"
            network.gate.set()
            assert [(await task).status_code for task in (first, instead)] == [200, 200]
            assert 'status="499"} 1.0' in (await client.get("/metrics")).text
        assert network.batches == [1, 1]

    asyncio.run(scenario())
