"""The whole application in this process, for tests that need no port."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx

from tests.trueprob_service.inspections import shared_verdicts
from trueprob_service.app import create_app
from trueprob_service.inspection.verdicts import Verdicts
from trueprob_service.server import limited_connections
from trueprob_service.settings import Settings

ROOT = Path(__file__).parents[2]


@asynccontextmanager
async def application(
    state_dir: Path,
    *,
    clock: Callable[[], float] = time.time,
    verdicts: Verdicts | None = None,  # default: those that all tests of this process share
    **values: Any,
) -> AsyncIterator[httpx.AsyncClient]:
    """A client of a started service with the shipped model repository."""
    settings = Settings(**{"state_dir": state_dir, "model_repository": ROOT / "models", **values})
    app = create_app(
        settings,
        clock=clock,
        verdicts=verdicts or shared_verdicts(),
        connections=limited_connections(settings),
    )
    async with (
        lifespan(app),
        httpx.AsyncClient(
            transport=httpx.ASGITransport(app=app),  # type: ignore[arg-type]  # looser scopes
            base_url="http://localhost",
            timeout=60,
        ) as client,
    ):
        yield client


@asynccontextmanager
async def lifespan(app: Any) -> AsyncIterator[None]:
    """Enter an ASGI application's lifespan, which httpx's transport leaves to the caller."""
    import asyncio

    to_app: asyncio.Queue[dict[str, Any]] = asyncio.Queue()
    from_app: asyncio.Queue[dict[str, Any]] = asyncio.Queue()
    task = asyncio.create_task(app({"type": "lifespan"}, to_app.get, from_app.put))
    await to_app.put({"type": "lifespan.startup"})
    started = await from_app.get()
    if started["type"] != "lifespan.startup.complete":
        await asyncio.gather(task, return_exceptions=True)  # what it raised is the server's to log
        raise AssertionError(started)
    try:
        yield
    finally:
        await to_app.put({"type": "lifespan.shutdown"})
        stopped = await from_app.get()
        assert stopped["type"] == "lifespan.shutdown.complete", stopped
        await task
