import asyncio
import logging
import re
from collections.abc import MutableMapping
from pathlib import Path
from typing import Any

import orjson
import pytest

from tests.trueprob_service.application import application
from trueprob_service.edge.auth import Keyring, OriginPolicy
from trueprob_service.edge.middleware import Edge
from trueprob_service.metrics.telemetry import Telemetry

Message = MutableMapping[str, Any]


async def call(
    app: Any,
    *,
    path: str = "/x",
    headers: tuple[tuple[bytes, bytes], ...] = (),
    receive: Any = None,
) -> tuple[list[Message], str]:
    telemetry = Telemetry(version="1", commit="c")
    edge = Edge(
        app,
        origins=OriginPolicy(hosts=None, trusted_origins=()),
        keyring=Keyring((), everywhere=False),
        telemetry=telemetry,
        max_body_bytes=100,
        max_upload_bytes=1000,
    )
    sent: list[Message] = []

    async def nothing() -> Message:
        return {"type": "http.request", "body": b"", "more_body": False}

    async def send(message: Message) -> None:
        sent.append(message)

    scope = {"type": "http", "method": "GET", "path": path, "headers": [*headers]}
    await edge(scope, receive or nothing, send)
    return sent, telemetry.exposition().decode()


def test_an_unforeseen_error_is_a_problem_without_its_detail(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async def broken(scope: Any, receive: Any, send: Any) -> None:
        raise RuntimeError("a secret")

    sent, metrics = asyncio.run(call(broken))
    assert sent[0]["status"] == 500
    assert (b"content-type", b"application/problem+json") in sent[0]["headers"]
    assert b"a secret" not in sent[1]["body"]
    assert "a secret" in caplog.text
    assert 'count{route="unmatched",status="500"} 1.0' in metrics


def test_a_client_that_went_away_is_counted_and_not_an_error(
    caplog: pytest.LogCaptureFixture,
) -> None:
    from starlette.requests import Request

    async def reads(scope: Any, receive: Any, send: Any) -> None:
        await Request(scope, receive).body()

    async def gone() -> Message:
        return {"type": "http.disconnect"}

    with caplog.at_level(logging.INFO):
        sent, metrics = asyncio.run(call(reads, receive=gone))
    assert sent == []
    assert caplog.text == ""
    assert 'status="499"} 1.0' in metrics


def test_metrics_name_routes_as_the_documentation_does(tmp_path: Path) -> None:
    async def scenario() -> str:
        async with application(tmp_path, root_path="/under") as client:
            for method, path in (
                ("GET", "/v1/models"),
                ("GET", "/under/v1/models/digits/fits"),
                ("HEAD", "/v1/models/digits/fits/7"),
                ("GET", "/v1/models/none"),
                ("PATCH", "/v1/models"),
                ("GET", "/docs"),
                ("GET", "/elsewhere"),
            ):
                await client.request(method, path)
            return (await client.get("/metrics")).text

    metrics = asyncio.run(scenario())
    found = re.findall(r'_count{route="([^"]+)",status="(\d+)"', metrics)
    assert sorted(found) == [
        ("/docs", "200"),
        ("/v1/models", "200"),
        ("/v1/models/{model}", "404"),
        ("/v1/models/{model}/fits", "200"),
        ("/v1/models/{model}/fits/{fit}", "404"),
        ("unmatched", "404"),
        ("unmatched", "405"),
    ]


def test_an_answer_that_breaks_off_stays_broken_off() -> None:
    async def half(scope: Any, receive: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})
        raise RuntimeError

    with pytest.raises(RuntimeError):
        asyncio.run(call(half))


@pytest.mark.parametrize(("path", "limit"), [("/x", 100), ("/v1/models/m/calibration-sets", 1000)])
@pytest.mark.parametrize(
    "headers",
    [
        (),
        ((b"transfer-encoding", b"chunked"),),
        # Chunks have no declared length, whatever the other header says (RFC 9112, 6.3).
        ((b"content-length", b"10"), (b"transfer-encoding", b"chunked")),
        ((b"transfer-encoding", b"chunked"), (b"content-length", b"10")),
    ],
)
def test_the_limit_holds_for_bodies_whose_length_is_not_known(
    path: str, limit: int, headers: tuple[tuple[bytes, bytes], ...]
) -> None:
    received = 0

    async def endless() -> Message:
        nonlocal received
        received += 60
        return {"type": "http.request", "body": bytes(60), "more_body": received < 10 * limit}

    async def reads(scope: Any, receive: Any, send: Any) -> None:
        while (await receive())["more_body"]:
            pass

    sent, _ = asyncio.run(call(reads, path=path, headers=headers, receive=endless))
    assert sent[0]["status"] == 413
    assert (b"content-type", b"application/problem+json") in sent[0]["headers"]
    assert orjson.loads(sent[1]["body"])["status"] == 413
    assert limit < received <= limit + 60
