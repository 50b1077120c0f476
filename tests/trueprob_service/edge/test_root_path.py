"""A service behind a proxy under a prefix, which the proxy removes or passes on."""

from __future__ import annotations

import asyncio
import http.client
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import httpx
import pytest

from tests.browser import document, listed, text_of
from tests.running_service import ROOT, running_service
from tests.trueprob_service.application import application, lifespan
from tests.trueprob_service.inspections import shared_verdicts
from trueprob.client import Client
from trueprob_service.app import create_app
from trueprob_service.errors import InvalidSettings
from trueprob_service.settings import Settings, load_settings

PREFIX = "/tools/trueprob"
NPZ = {"content-type": "application/x-npz"}
UPLOAD = (ROOT / "examples/digits_drifted.npz").read_bytes()


@contextmanager
def proxy(port: int, *, strips: bool) -> Iterator[str]:
    """A proxy that serves the port below `PREFIX`, and nothing elsewhere; yields its address."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def _pass_on(self) -> None:
            path = urlsplit(self.path).path
            if path != PREFIX and not path.startswith(f"{PREFIX}/"):
                self.send_error(502)
                return
            target = self.path.removeprefix(PREFIX) if strips else self.path
            target = target if target.startswith("/") else f"/{target}"
            body = self.rfile.read(int(self.headers.get("content-length", 0)))
            upstream = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
            upstream.request(self.command, target, body, dict(self.headers))
            answer = upstream.getresponse()
            content = answer.read()
            self.send_response(answer.status)
            for name, value in answer.getheaders():
                if name.lower() not in ("date", "server", "transfer-encoding", "connection"):
                    self.send_header(name, value)
            self.end_headers()
            self.wfile.write(content)
            upstream.close()

        do_GET = do_HEAD = do_POST = do_PUT = do_DELETE = do_OPTIONS = _pass_on  # noqa: N815

        def log_message(self, *_: Any) -> None:
            """Says nothing."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


@pytest.mark.integration
@pytest.mark.parametrize("strips", [True, False])
def test_pages_links_and_the_client_work_behind_a_proxy(strips: bool, tmp_path: Path) -> None:
    flags = ("--root-path", PREFIX)
    with (
        running_service(tmp_path / "state", ROOT / "models", *flags) as service,
        proxy(service.port, strips=strips) as origin,
    ):
        for end in ("", "/"):
            page = document(f"{origin}{PREFIX}{end}#digits", tmp_path / f"profile{len(end)}")
            assert text_of(page, "model") == "digits"
            assert set(listed(page)) == {"digits", "cifar10"}
            assert text_of(page, "problem") == ""
        docs = document(f"{origin}{PREFIX}/docs", tmp_path / "docs", seconds=20)
        assert "Calibrated probabilities" in docs
        assert f"{PREFIX} - " in docs or f'value="{PREFIX}"' in docs  # Swagger UI's server
        with Client(f"{origin}{PREFIX}") as client:
            assert {model.model for model in client.models()} == {"digits", "cifar10"}
        with httpx.Client(base_url=origin, timeout=60) as client:
            answer = client.post(
                f"{PREFIX}/v1/models/digits/calibration-sets", content=UPLOAD, headers=NPZ
            )
            assert answer.headers["location"].startswith(f"{PREFIX}/v1/models/digits/fits/")
            assert client.get(answer.headers["location"]).json()["fit"] == answer.json()["fit"]
            moved = client.get(f"{PREFIX}/v1/models/", follow_redirects=True)
            assert urlsplit(str(moved.url)).path == f"{PREFIX}/v1/models"
            assert moved.json()["items"]
            # The same connection: a HEAD leaves nothing behind.
            for _ in range(3):
                assert client.head(f"{PREFIX}/docs/assets/swagger-ui.css").status_code == 200
                assert client.get(f"{PREFIX}/v2/health/live").json() == {"live": True}


PATHS = (
    "/", "/docs", "/openapi.json", "/metrics", "/page/page.js", "/docs/assets/swagger-ui.css",
    "/v1/models", "/v1/models/digits", "/v2", "/v2/models/digits", "/v2/health/ready",
)  # fmt: skip


def test_both_forms_of_every_path_are_answered(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with application(tmp_path, root_path=f"{PREFIX}/") as client:
            for prefix in ("", PREFIX):
                for path in PATHS:
                    for method in ("GET", "HEAD", "OPTIONS"):
                        answer = await client.request(method, prefix + path)
                        assert answer.is_success, (method, prefix + path)
                refused = await client.post(f"{prefix}/page/page.js")
                assert refused.headers["allow"] == "GET, HEAD, OPTIONS"
                refused = await client.delete(f"{prefix}/v1/models")
                assert refused.headers["allow"] == "GET, HEAD, OPTIONS"
                body = {"logits": [[0.0] * 10]}
                answer = await client.post(f"{prefix}/v1/models/digits/probabilities", json=body)
                assert answer.status_code == 200
            assert (await client.get(PREFIX)).status_code == 200
            for path in (f"{PREFIX}{PREFIX}/v1/models", f"{PREFIX}x/v1/models", "/tools/v1/models"):
                assert (await client.get(path)).status_code == 404
            servers = (await client.get("/openapi.json")).json()["servers"]
            assert servers == [{"url": PREFIX}]
            routes = (await client.get("/metrics")).text
            assert routes.count("/models/{model}") > 1
            assert PREFIX not in routes

    asyncio.run(scenario())


def test_keys_are_asked_for_under_the_prefix_too(tmp_path: Path) -> None:
    from trueprob_service.edge.keys import new_key

    keys = tmp_path / "keys.jsonl"
    keys.write_text(new_key("someone", ["predict"])[1])

    async def scenario() -> None:
        async with application(tmp_path / "s", root_path=PREFIX, api_keys_file=keys) as client:
            assert (await client.get(f"{PREFIX}/v1/models")).status_code == 401
            assert (await client.get(f"{PREFIX}/v2/health/ready")).status_code == 200

    asyncio.run(scenario())


@pytest.mark.parametrize("full_path", [True, False])
def test_the_server_s_root_path_counts_without_the_setting(full_path: bool, tmp_path: Path) -> None:
    app = create_app(
        Settings(state_dir=tmp_path, model_repository=ROOT / "models"), verdicts=shared_verdicts()
    )

    async def scenario() -> None:
        transport = httpx.ASGITransport(app=app, root_path="/mounted")  # type: ignore[arg-type]
        base = "http://localhost/mounted" if full_path else "http://localhost"
        async with lifespan(app), httpx.AsyncClient(transport=transport, base_url=base) as client:
            for path in PATHS:
                assert (await client.get(path)).status_code == 200, path
            assert '<base href="/mounted/">' in (await client.get("/")).text
            answer = await client.get("/openapi.json")
            assert answer.json()["servers"] == [{"url": "/mounted"}]

    asyncio.run(scenario())


def test_a_header_of_a_client_moves_nothing(tmp_path: Path) -> None:
    forged = {"x-forwarded-prefix": "/evil", "x-script-name": "/evil", "script_name": "/evil"}

    async def scenario() -> None:
        async with application(tmp_path) as client:
            page = await client.get("/", headers=forged)
            assert "<base" not in page.text
            assert "servers" not in (await client.get("/openapi.json", headers=forged)).json()
            answer = await client.post(
                "/v1/models/digits/calibration-sets", content=UPLOAD, headers={**NPZ, **forged}
            )
            assert answer.headers["location"].startswith("/v1/models/digits/fits/")

    asyncio.run(scenario())


@pytest.mark.parametrize(
    "value",
    ["trueprob", "//evil.example", "/a//b", "/a/../b", "/.", "https://a.example/b", "/a b", "/a?b",
     '/"><script>', "/v1", "/v1/models", "/v2", "/v2/health/live", "/docs", "/page", "/metrics",
     "/openapi.json/"],
)  # fmt: skip
def test_prefixes_that_cannot_work_are_refused(value: str) -> None:
    with pytest.raises(InvalidSettings, match=r"^root_path: "):
        load_settings([], {"TRUEPROB_ROOT_PATH": value})


@pytest.mark.parametrize(
    ("value", "kept"),
    [("", ""), ("/", ""), ("/a", "/a"), ("/a/b.c/", "/a/b.c"), ("/v1/trueprob", "/v1/trueprob"),
     ("/documents", "/documents")],
)  # fmt: skip
def test_prefixes_lose_their_last_slash(value: str, kept: str) -> None:
    settings, _ = load_settings([], {"TRUEPROB_ROOT_PATH": value})
    assert settings.root_path == kept
