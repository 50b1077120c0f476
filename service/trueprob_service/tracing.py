"""OpenTelemetry: a span for each request, each run of a network and each fit, sent by OTLP.

Everything wraps an object from outside, when the application is built with `TRUEPROB_TRACES`;
without it nothing here is imported. The ``traceparent`` that a request arrives with is replaced by
that of its span, so log lines, webhooks and fits continue the trace and know no OpenTelemetry.
The exporter, the sampler and the resource are those of the standard ``OTEL_`` variables.
"""

from __future__ import annotations

import os
from collections.abc import Awaitable, Callable, Mapping, MutableMapping
from typing import TYPE_CHECKING, Any, Final

import anyio.to_thread
import numpy as np
from numpy.typing import NDArray

from trueprob_service import __version__
from trueprob_service.control.fitting.process import JobRunner
from trueprob_service.control.fitting.worker import Job, JobResult
from trueprob_service.edge.access import access_to
from trueprob_service.errors import InvalidSettings
from trueprob_service.inference.deployment import Network, ServedVersion
from trueprob_service.inference.network.tensors import Tensors

if TYPE_CHECKING:
    from opentelemetry.context import Context
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.util.types import AttributeValue

__all__ = ["Tracing", "require_otel"]

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
Application = Callable[[Scope, Receive, Send], Awaitable[None]]

_TRACE_HEADERS: Final = (b"traceparent", b"tracestate")
_EXPORTERS: Final = ("otlp", "none")
_PROTOCOL: Final = "http/protobuf"


def require_otel(environ: Mapping[str, str] = os.environ) -> None:
    """Raise `InvalidSettings` unless spans can be made and sent as the variables say."""
    try:
        import opentelemetry.exporter.otlp.proto.http.trace_exporter
        import opentelemetry.sdk.trace  # noqa: F401 - an extra
    except ImportError:
        raise InvalidSettings(
            "traces needs the packages of the extra otel: install trueprob[otel], or leave "
            "TRUEPROB_TRACES out"
        ) from None
    exporter = environ.get("OTEL_TRACES_EXPORTER", "otlp").strip()
    if exporter not in _EXPORTERS:
        raise InvalidSettings(
            f"OTEL_TRACES_EXPORTER must be one of {', '.join(_EXPORTERS)}, got {exporter[:40]!r}"
        )
    for name in ("OTEL_EXPORTER_OTLP_TRACES_PROTOCOL", "OTEL_EXPORTER_OTLP_PROTOCOL"):
        protocol = environ.get(name, _PROTOCOL).strip()
        if protocol != _PROTOCOL:
            raise InvalidSettings(f"{name} must be {_PROTOCOL}, got {protocol[:40]!r}")


def _provider_of_environment() -> TracerProvider:
    """A provider with the exporter of the environment."""
    from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
    from opentelemetry.sdk.resources import Resource
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.sdk.trace.export import BatchSpanProcessor

    named = "OTEL_SERVICE_NAME" in os.environ or "service.name=" in os.environ.get(
        "OTEL_RESOURCE_ATTRIBUTES", ""
    )
    own = {"service.version": __version__, **({} if named else {"service.name": "trueprob"})}
    provider = TracerProvider(resource=Resource.create(own))
    if os.environ.get("OTEL_TRACES_EXPORTER", "otlp").strip() == "otlp":
        provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter()))
    return provider


class Tracing:
    """Makes spans with a provider; default: that of the environment."""

    def __init__(self, provider: TracerProvider | None = None) -> None:
        from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

        self._provider = provider or _provider_of_environment()
        self._tracer = self._provider.get_tracer("trueprob_service", __version__)
        self._w3c = TraceContextTextMapPropagator()

    def application(self, app: Application) -> Application:
        """The application with a server span around each request."""

        async def traced(scope: Scope, receive: Receive, send: Send) -> None:
            if scope["type"] == "http":
                await self._request(app, scope, receive, send)
            elif scope["type"] == "lifespan":
                await app(scope, receive, self._flushing(send))
            else:
                await app(scope, receive, send)

        return traced

    def networks(
        self, network_for: Callable[[ServedVersion], Network | None]
    ) -> Callable[[ServedVersion], Network | None]:
        """The factory of networks with a span around each run."""

        def traced(served: ServedVersion) -> Network | None:
            network = network_for(served)
            return None if network is None else _TracedNetwork(network, served, self._tracer)

        return traced

    def jobs(self, runner: Callable[[], JobRunner]) -> Callable[[], JobRunner]:
        """The factory of the runner of fits with a span around each, below the request's."""
        return lambda: _TracedJobs(runner(), self._tracer, self._below)

    def _below(self, traceparent: str) -> Context | None:
        return self._w3c.extract({"traceparent": traceparent}) if traceparent else None

    def _flushing(self, send: Send) -> Send:
        async def flushed(message: Message) -> None:
            if message["type"].startswith("lifespan.shutdown"):
                await anyio.to_thread.run_sync(self._provider.shutdown)
            await send(message)

        return flushed

    async def _request(self, app: Application, scope: Scope, receive: Receive, send: Send) -> None:
        from opentelemetry.trace import SpanKind, StatusCode

        # Several headers are one list by HTTP, which is no valid traceparent.
        carrier: dict[str, str] = {}
        for name, value in scope["headers"]:
            if name in _TRACE_HEADERS:
                key, text = name.decode(), value.decode("latin-1")
                carrier[key] = f"{carrier[key]},{text}" if key in carrier else text
        method, path, status = scope["method"], scope["path"], 0
        # The application may copy the scope; the state is the same object then.
        state: dict[str, Any] = scope.setdefault("state", {})

        async def send_and_see(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
            await send(message)

        with self._tracer.start_as_current_span(
            method,
            self._w3c.extract(carrier),
            SpanKind.SERVER,
            {
                "http.request.method": method,
                "url.path": path,
                "url.scheme": scope.get("scheme", "http"),
                "network.protocol.version": scope.get("http_version", "1.1"),
            },
        ) as span:
            mine: dict[str, str] = {}
            self._w3c.inject(mine)
            others = [pair for pair in scope["headers"] if pair[0] not in _TRACE_HEADERS]
            added = [(name.encode(), value.encode()) for name, value in mine.items()]
            scope["headers"] = [*others, *added]
            try:
                await app(scope, receive, send_and_see)
            finally:
                route = str(state.get("route", "unmatched"))
                span.update_name(f"{method} {route}")
                # 499: the client left before an answer began.
                found: dict[str, AttributeValue | None] = {
                    "http.route": route,
                    "http.response.status_code": status or 499,
                }
                found["trueprob.model"] = access_to(method, path).model
                found["trueprob.key_id"] = state.get("key_id")
                found["error.type"] = state.get("problem") or None
                span.set_attributes({k: v for k, v in found.items() if v is not None})
                if status >= 500:
                    span.set_status(StatusCode.ERROR)


class _TracedNetwork:
    """A network with a span around each run."""

    def __init__(self, network: Network, served: ServedVersion, tracer: Any) -> None:
        self._network = network
        self._attributes = {"trueprob.model": served.model, "trueprob.version": served.version}
        self._tracer = tracer

    @property
    def failure(self) -> str | None:
        return self._network.failure

    async def run(self, tensors: Tensors, /) -> NDArray[np.float32]:
        with self._tracer.start_as_current_span("network.run", attributes=self._attributes):
            return await self._network.run(tensors)

    def close(self) -> None:
        self._network.close()


class _TracedJobs:
    """A runner of fits with a span around each."""

    def __init__(
        self, runner: JobRunner, tracer: Any, below: Callable[[str], Context | None]
    ) -> None:
        self._runner = runner
        self._tracer = tracer
        self._below = below

    @property
    def progress(self) -> float:
        return self._runner.progress

    def run(self, job: Job) -> JobResult | None:
        from opentelemetry.trace import StatusCode

        attributes = {"trueprob.method": job.method, "trueprob.classes": len(job.class_names)}
        with self._tracer.start_as_current_span(
            "fit", self._below(job.traceparent), attributes=attributes
        ) as span:
            result = self._runner.run(job)
            if result is None:
                span.set_attribute("trueprob.outcome", "interrupted")
            elif result.error is not None:
                span.set_status(StatusCode.ERROR, result.error)
            else:
                outcome = "held" if result.held else "admitted" if result.admitted else "refused"
                span.set_attribute("trueprob.outcome", outcome)
            return result

    def cancel(self, job: Job) -> None:
        self._runner.cancel(job)

    def close(self) -> None:
        self._runner.close()
