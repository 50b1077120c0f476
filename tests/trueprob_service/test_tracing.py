"""Traces: spans of requests, networks and fits, and trace contexts that go on to webhooks."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import SpanKind, StatusCode

from tests.running_service import ROOT, running_service
from tests.trueprob_service.application import lifespan
from tests.trueprob_service.control.harness import overconfident
from tests.waiting import wait_until
from trueprob_service.app import create_app
from trueprob_service.control.store import open_store
from trueprob_service.control.upkeep.webhook import Webhook
from trueprob_service.edge.auth import Keyring, OriginPolicy
from trueprob_service.edge.keys import new_key
from trueprob_service.edge.middleware import Edge
from trueprob_service.errors import InvalidSettings
from trueprob_service.logs import traceparent_below
from trueprob_service.metrics.telemetry import Telemetry
from trueprob_service.settings import Settings
from trueprob_service.tracing import Tracing, require_otel

pytestmark = pytest.mark.slow

TRACE, PARENT = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"
LOGITS = {"logits": [[0.1, 4.2, 0.3, 1.0, 0.0, 2.0, 1.1, 0.7, 0.2, 0.1]]}
PREDICT = "/v1/models/digits/probabilities"


class Traced:
    """The application with spans in memory."""

    def __init__(self, folder: Path, **settings: Any) -> None:
        self.exporter = InMemorySpanExporter()
        provider = TracerProvider()
        provider.add_span_processor(SimpleSpanProcessor(self.exporter))
        values = {"state_dir": folder, "model_repository": ROOT / "models", **settings}
        self.app = create_app(Settings(**values), tracing=Tracing(provider))

    def run(self, *requests: tuple[str, str, dict[str, Any]]) -> list[httpx.Response]:
        async def scenario() -> list[httpx.Response]:
            transport = httpx.ASGITransport(app=self.app)  # type: ignore[arg-type]
            async with (
                lifespan(self.app),
                httpx.AsyncClient(transport=transport, base_url="http://localhost") as client,
            ):
                return [
                    await client.request(method, path, timeout=60, **more)
                    for method, path, more in requests
                ]

        return asyncio.run(scenario())

    def spans(self, kind: SpanKind | None = None) -> list[ReadableSpan]:
        return [s for s in self.exporter.get_finished_spans() if kind in (None, s.kind)]


def attributes(span: ReadableSpan) -> dict[str, Any]:
    return dict(span.attributes or {})


def context_of(span: ReadableSpan) -> tuple[str, str | None]:
    """Trace id, and the id of the parent span."""
    assert span.context is not None
    parent = None if span.parent is None else f"{span.parent.span_id:016x}"
    return f"{span.context.trace_id:032x}", parent


def test_a_request_is_a_server_span_that_continues_the_trace(tmp_path: Path) -> None:
    key, line = new_key("team-a", ["predict"])
    (tmp_path / "keys").write_text(line)
    traced = Traced(tmp_path / "state", api_keys_file=tmp_path / "keys")
    headers = {"authorization": f"Bearer {key}", "traceparent": f"00-{TRACE}-{PARENT}-01"}
    answers = traced.run(
        ("POST", PREDICT, {"json": LOGITS, "headers": headers}),
        ("POST", "/v1/models/none/probabilities", {"json": LOGITS, "headers": headers}),
        ("POST", PREDICT, {"json": LOGITS}),
        ("GET", "/somewhere", {"headers": headers}),
    )
    assert [answer.status_code for answer in answers] == [200, 404, 401, 404]
    spans = traced.spans(SpanKind.SERVER)
    route = "/v1/models/{model}/probabilities"
    assert [span.name for span in spans] == [f"POST {route}"] * 2 + [
        "POST unmatched",
        "GET unmatched",
    ]
    found = attributes(spans[0])
    assert found == {
        "http.request.method": "POST",
        "url.path": PREDICT,
        "url.scheme": "http",
        "network.protocol.version": "1.1",
        "http.route": route,
        "http.response.status_code": 200,
        "trueprob.model": "digits",
        "trueprob.key_id": "team-a",
    }
    assert attributes(spans[1])["error.type"] == "model_not_found"
    assert "trueprob.key_id" not in attributes(spans[2])
    assert [context_of(span) for span in spans[:2]] == [(TRACE, PARENT)] * 2
    assert context_of(spans[2])[0] != TRACE
    assert context_of(spans[2])[1] is None
    assert {span.status.status_code for span in spans} == {StatusCode.UNSET}


@pytest.mark.parametrize(
    ("sent", "sampled", "continued"),
    [
        ([f"00-{TRACE}-{PARENT}-01"], True, True),
        ([f"00-{TRACE}-{PARENT}-00"], False, True),
        ([f"00-{TRACE}-{PARENT}-01"] * 2, True, False),
        ([f"00-{'0' * 32}-{PARENT}-01"], True, False),
        (["nonsense"], True, False),
        ([], True, False),
    ],
)
def test_the_sampling_flag_is_honoured_and_a_broken_context_is_not(
    tmp_path: Path, sent: list[str], sampled: bool, continued: bool
) -> None:
    traced = Traced(tmp_path)
    headers = [("traceparent", value) for value in sent]
    traced.run(("POST", PREDICT, {"json": LOGITS, "headers": headers}))
    spans = traced.spans(SpanKind.SERVER)
    assert len(spans) == sampled
    if sampled:
        assert (context_of(spans[0])[0] == TRACE) == continued


def test_the_run_of_a_network_and_a_fit_are_below_their_request(tmp_path: Path) -> None:
    traced = Traced(tmp_path)
    picture = (ROOT / "examples" / "seven.png").read_bytes()
    rng = np.random.default_rng(0)
    logits = 6 * rng.normal(size=(600, 10))
    labels = np.argmax(logits / 4 + rng.gumbel(size=logits.shape), axis=1)
    rows = {"logits": logits.tolist(), "labels": labels.tolist()}
    headers = {"traceparent": f"00-{TRACE}-{PARENT}-01", "prefer": "wait=60"}
    image = {"content": picture, "headers": {**headers, "content-type": "image/png"}}
    answers = traced.run(
        ("POST", "/v1/models/digits/calibration-sets", {"json": rows, "headers": headers}),
        ("POST", PREDICT, image),
    )
    assert [answer.status_code for answer in answers] == [201, 200]
    by_name = {span.name: span for span in traced.spans()}
    upload = by_name["POST /v1/models/{model}/calibration-sets"]
    assert upload.context is not None
    assert context_of(by_name["fit"]) == (TRACE, f"{upload.context.span_id:016x}")
    assert attributes(by_name["fit"])["trueprob.outcome"] == "admitted"
    predicted = by_name["POST /v1/models/{model}/probabilities"]
    assert predicted.context is not None
    run = by_name["network.run"]
    assert context_of(run) == (TRACE, f"{predicted.context.span_id:016x}")
    assert attributes(run) == {"trueprob.model": "digits", "trueprob.version": 1}


@contextmanager
def receiver(answer: int = 200) -> Iterator[tuple[str, list[tuple[str, dict[str, str], bytes]]]]:
    """A small server that keeps what is posted to it: path, headers, body."""
    received: list[tuple[str, dict[str, str], bytes]] = []

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["content-length"]))
            headers = {name.lower(): value for name, value in self.headers.items()}
            received.append((self.path, headers, body))
            self.send_response(answer)
            self.send_header("content-length", "0")
            self.end_headers()

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}", received
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


@pytest.mark.integration
def test_spans_arrive_at_a_collector_and_a_webhook_is_in_the_trace(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A real service with the exporter of the environment; what it has made is sent at its end."""
    with receiver() as (collector, spans), receiver() as (hook, events):
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", collector)
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_HEADERS", "x-tenant=mine")
        monkeypatch.setenv("OTEL_RESOURCE_ATTRIBUTES", "deployment.environment=test")
        flags = ("--traces", "--log-format", "json", "--poll-seconds", "0.1")
        flags += ("--webhook-url", hook, "--webhook-secret", "whsec_" + "A" * 44)
        with running_service(tmp_path / "state", ROOT / "models", *flags) as service:
            put = service.client.put("/v1/models/m", json={"n_classes": 3})
            assert put.status_code == 201
            sent = service.client.post(
                "/v1/models/m/calibration-sets",
                content=overconfident(),
                headers={
                    "content-type": "application/x-npz",
                    "prefer": "wait=60",
                    "traceparent": f"00-{TRACE}-{PARENT}-01",
                },
            )
            assert sent.json()["promoted"]
            wait_until(
                lambda: any(TRACE in headers.get("traceparent", "") for _, headers, _ in events),
                "the event of the fit",
            )
            service.process.terminate()
            service.process.wait(30)
    promoted = [json.loads(body) for _, headers, body in events if "traceparent" in headers]
    headers = [headers["traceparent"] for _, headers, _ in events if "traceparent" in headers]
    of_fit = [event for event in promoted if TRACE in event["traceparent"]]
    assert {event["data"]["model"] for event in of_fit} == {"m"}
    ours = [header for header in headers if TRACE in header]
    assert all(header.endswith("-01") and PARENT not in header for header in ours)
    assert {path for path, _, _ in spans} == {"/v1/traces"}
    assert spans[0][1]["x-tenant"] == "mine"
    exported, resource = [], {}
    for _, _, body in spans:
        for group in ExportTraceServiceRequest.FromString(body).resource_spans:
            resource = {pair.key: pair.value.string_value for pair in group.resource.attributes}
            exported += [span for scope in group.scope_spans for span in scope.spans]
    assert resource["service.name"] == "trueprob"
    assert resource["deployment.environment"] == "test"
    names = {span.name for span in exported if span.trace_id.hex() == TRACE}
    assert names == {"POST /v1/models/{model}/calibration-sets", "fit"}


def test_a_webhook_continues_the_trace_without_opentelemetry(tmp_path: Path) -> None:
    store = open_store(f"sqlite:///{tmp_path / 'a'}", keep_events=True)
    sent = {"traced": f"00-{TRACE}-{PARENT}-00", "broken": f"00-{TRACE.upper()}-{PARENT}-00"}

    async def application(scope: Any, receive: Any, send: Any) -> None:
        with store.write() as transaction:
            transaction.events.add("alarm.raised", scope["path"][1:], {}, now=0.0)
        await send({"type": "http.response.start", "status": 204, "headers": []})
        await send({"type": "http.response.body", "body": b""})

    async def scenario() -> None:
        edge = Edge(
            application,
            origins=OriginPolicy(hosts=None, trusted_origins=()),
            keyring=Keyring((), everywhere=False),
            telemetry=Telemetry(version="1", commit="c"),
            max_body_bytes=100,
            max_upload_bytes=1000,
        )
        transport = httpx.ASGITransport(app=edge)  # type: ignore[arg-type]
        async with httpx.AsyncClient(transport=transport, base_url="http://localhost") as client:
            for name in ("traced", "broken", "plain"):
                headers = {"traceparent": sent[name]} if name in sent else {}
                await asyncio.create_task(client.get(f"/{name}", headers=headers))

    asyncio.run(scenario())
    with receiver() as (hook, events):
        webhook = Webhook(store, hook, ["whsec_" + "A" * 44], seconds=60, clock=lambda: 1.0)
        assert webhook.deliver() == 3
    store.close()
    found = {json.loads(body)["data"]["model"]: (headers, body) for _, headers, body in events}
    header = found["traced"][0]["traceparent"]
    assert header.startswith(f"00-{TRACE}-")
    assert header.endswith("-00")
    assert PARENT not in header
    assert json.loads(found["traced"][1])["traceparent"] == sent["traced"]
    for name in ("broken", "plain"):
        assert "traceparent" not in found[name][0]
        assert "traceparent" not in json.loads(found[name][1])


def test_a_header_below_another_has_the_trace_and_a_parent_of_its_own() -> None:
    first, second = (traceparent_below(f"01-{TRACE}-{PARENT}-ff-more") for _ in range(2))
    assert first != second
    for header in (first, second):
        version, trace, parent, flags = header.split("-")
        assert (version, trace, flags) == ("00", TRACE, "01")
        assert parent not in (PARENT, "0" * 16)
        assert len(parent) == 16


@pytest.mark.parametrize(
    ("variable", "value", "words"),
    [
        ("OTEL_TRACES_EXPORTER", "zipkin", "OTEL_TRACES_EXPORTER must be one of otlp, none"),
        ("OTEL_EXPORTER_OTLP_PROTOCOL", "grpc", "must be http/protobuf, got 'grpc'"),
        ("OTEL_EXPORTER_OTLP_TRACES_PROTOCOL", "http/json", "must be http/protobuf"),
    ],
)
def test_what_cannot_be_sent_is_refused_at_the_start(variable: str, value: str, words: str) -> None:
    with pytest.raises(InvalidSettings, match=words):
        require_otel({variable: value})
    require_otel({})
    require_otel({"OTEL_TRACES_EXPORTER": "none"})


def test_off_means_not_imported_and_on_without_the_extra_is_a_sentence(tmp_path: Path) -> None:
    code = """
import sys
from pathlib import Path
from trueprob_service.app import create_app
from trueprob_service.settings import Settings
create_app(Settings(state_dir=Path(sys.argv[1])))
assert not [name for name in sys.modules if name.startswith("opentelemetry.sdk")], "imported"
sys.modules["opentelemetry.sdk.trace"] = None
from trueprob_service.__main__ import main
sys.exit(main(["serve", "--port", "0", "--traces", "--state-dir", sys.argv[1]]))
"""
    ran = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path)], capture_output=True, text=True, cwd=ROOT
    )
    assert ran.returncode == 2, ran.stderr
    assert ran.stderr.splitlines()[-1] == (
        "trueprob-service: error: traces needs the packages of the extra otel: install "
        "trueprob[otel], or leave TRUEPROB_TRACES out"
    )
