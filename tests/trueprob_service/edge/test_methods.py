"""HEAD wherever GET is, OPTIONS and preflights everywhere, and ``Allow`` with every 405."""

from __future__ import annotations

import asyncio
import re
from pathlib import Path

import httpx
import pytest

from tests.trueprob_service.application import ROOT, application

VERBS = ("GET", "POST", "PUT", "DELETE")
# Answered, but not in the OpenAPI document.
PAGES = {
    "/": {"GET"},
    "/docs": {"GET"},
    "/openapi.json": {"GET"},
    "/page/page.js": {"GET"},
    "/docs/assets/swagger-ui.css": {"GET"},
}
VALUES = {"model": "digits", "version": "1", "digest": "reference", "name": "reference"}
ID = {"x-request-id": "the-same"}
ORIGIN = "https://app.example.com"


async def routes(client: httpx.AsyncClient) -> dict[str, set[str]]:
    """Concrete path → its methods."""
    paths = (await client.get("/openapi.json")).json()["paths"]
    found: dict[str, set[str]] = {}
    for path, item in paths.items():
        concrete = re.sub(r"\{(\w+)\}", lambda name: VALUES.get(name[1], "1"), path)
        found.setdefault(concrete, set()).update(m.upper() for m in item)
    assert len(found) > 25
    return {**found, **PAGES}


async def with_a_set(client: httpx.AsyncClient) -> None:
    upload = (ROOT / "examples/digits_drifted.npz").read_bytes()
    answer = await client.post(
        "/v1/models/digits/calibration-sets?name=reference&promote=never",
        content=upload,
        headers={"content-type": "application/x-npz", "prefer": "wait=60"},
    )
    assert answer.status_code == 201


def allowed(answer: httpx.Response) -> set[str]:
    return set(answer.headers["allow"].split(", "))


def test_head_is_get_without_the_body(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with application(tmp_path) as client:
            await with_a_set(client)
            tried = 0
            for path, methods in (await routes(client)).items():
                if "GET" not in methods:
                    continue
                for more in ({}, {"accept": "application/x-npz"}, {"range": "bytes=0-3"}):
                    got = await client.get(path, headers={**ID, **more})
                    head = await client.head(path, headers={**ID, **more})
                    if "range" in more and got.status_code == 206:
                        assert head.status_code == 200, "Range is for GET"
                        continue
                    tried += 1
                    assert (head.status_code, head.content) == (got.status_code, b""), path
                    expected, found = dict(got.headers), dict(head.headers)
                    if path == "/metrics":  # each answer counts itself
                        assert int(found.pop("content-length")) > 1000
                        del expected["content-length"]
                    assert found == expected, path
            assert tried > 50

    asyncio.run(scenario())


def test_head_of_what_is_missing_is_the_404_without_its_body(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with application(tmp_path) as client:
            for path in ("/nothing", "/v1/models/none", "/v2/models/none", "/page/none.js"):
                got, head = await client.get(path), await client.head(path)
                assert (head.status_code, head.content) == (404, b"")
                assert head.headers["content-type"] == got.headers["content-type"]

    asyncio.run(scenario())


def test_options_and_405_name_the_methods_of_every_route(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with application(tmp_path) as client:
            for path, methods in (await routes(client)).items():
                expected = {*methods, "OPTIONS"} | ({"HEAD"} if "GET" in methods else set())
                options = await client.options(path)
                assert (options.status_code, options.content) == (204, b""), path
                assert allowed(options) == expected, path
                assert options.headers["x-request-id"]
                for verb in {*VERBS, "HEAD", "PATCH", "TRACE", "BREW"} - expected:
                    refused = await client.request(verb, path)
                    assert refused.status_code == 405, (verb, path)
                    assert allowed(refused) == expected, (verb, path)
                    assert (refused.content == b"") == (verb == "HEAD")
                    if verb != "HEAD":
                        assert refused.json()["code"] == "method_not_allowed"
                        assert refused.json()["detail"].endswith(f"got {verb}")
            assert (await client.options("/nothing")).status_code == 404

    asyncio.run(scenario())


def test_options_without_a_key_is_401_and_a_preflight_needs_none(tmp_path: Path) -> None:
    from trueprob_service.edge.keys import new_key

    key, line = new_key("someone", [])
    keys = tmp_path / "keys.jsonl"
    keys.write_text(line)
    path = "/v1/models/digits/probabilities"

    async def scenario() -> None:
        settings = {"api_keys_file": keys, "cors_origins": (ORIGIN,)}
        async with application(tmp_path / "state", **settings) as client:
            assert (await client.options(path)).status_code == 401
            options = await client.options(path, headers={"authorization": f"Bearer {key}"})
            assert (options.status_code, allowed(options)) == (204, {"POST", "OPTIONS"})
            preflight = {"origin": ORIGIN, "access-control-request-method": "POST"}
            assert (await client.options(path, headers=preflight)).is_success

    asyncio.run(scenario())


@pytest.mark.parametrize("header", ["authorization", "content-type", "if-match"])
def test_a_preflight_passes_for_every_route_and_method(header: str, tmp_path: Path) -> None:
    async def scenario() -> None:
        async with application(tmp_path, cors_origins=(ORIGIN,)) as client:
            for path, methods in (await routes(client)).items():
                for method in methods:
                    preflight = {
                        "origin": ORIGIN,
                        "access-control-request-method": method,
                        "access-control-request-headers": header,
                    }
                    answer = await client.options(path, headers=preflight)
                    assert answer.is_success, (method, path)
                    assert answer.headers["access-control-allow-origin"] == ORIGIN
                    assert method in answer.headers["access-control-allow-methods"]
                    assert header in answer.headers["access-control-allow-headers"]
                    foreign = {**preflight, "origin": "https://evil.example"}
                    answer = await client.options(path, headers=foreign)
                    assert "access-control-allow-origin" not in answer.headers
                plain = await client.options(path, headers={"origin": ORIGIN})
                assert (plain.status_code, methods <= allowed(plain)) == (204, True)

    asyncio.run(scenario())
