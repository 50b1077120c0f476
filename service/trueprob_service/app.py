"""Builds the application: routes, pages, error handlers, and the middleware around them."""

from __future__ import annotations

import gzip
import html
import os
import re
import time
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager
from dataclasses import replace
from functools import partial
from importlib import resources
from typing import TYPE_CHECKING, Any, Final

from anyio import CapacityLimiter, to_thread
from fastapi import FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.openapi.docs import get_swagger_ui_html
from starlette.concurrency import run_in_threadpool
from starlette.exceptions import HTTPException
from starlette.middleware.cors import CORSMiddleware
from starlette.responses import HTMLResponse, PlainTextResponse
from starlette.routing import Match, Mount
from starlette.staticfiles import StaticFiles

from trueprob.errors import TrueprobError
from trueprob.repository.model_version import MODEL, ModelVersion
from trueprob_service import __version__, errors, prediction_routes
from trueprob_service.connections.limits import Connections
from trueprob_service.control import api as control_api
from trueprob_service.control.fitting.process import FitProcess, JobRunner
from trueprob_service.control.fitting.worker import serve
from trueprob_service.control.plane import ControlPlane
from trueprob_service.control.poll import Poll
from trueprob_service.edge.access import access_to
from trueprob_service.edge.auth import Keyring, OriginPolicy, Tokens
from trueprob_service.edge.keys import ApiKey, KeyFile, hangup_calls
from trueprob_service.edge.methods import ROUTED, asked_method, not_allowed
from trueprob_service.edge.middleware import Application, Edge
from trueprob_service.edge.problems import problem_for
from trueprob_service.edge.throttle import Rate
from trueprob_service.inference.asgi import HotRoutes
from trueprob_service.inference.body import BodyReader, JsonBodies
from trueprob_service.inference.deployment import Network, ServedVersion
from trueprob_service.inference.deployments import DeploymentLookup, Deployments
from trueprob_service.inference.network.batcher import Batcher
from trueprob_service.inference.network.cores import usable_cores
from trueprob_service.inference.network.onnx_model import OnnxModel
from trueprob_service.inspection.inspector import Inspector
from trueprob_service.inspection.verdicts import Verdicts
from trueprob_service.inspection.worker import TryNetwork
from trueprob_service.metrics.telemetry import Registry, Telemetry
from trueprob_service.openapi_document import complete
from trueprob_service.server import Drain, MetricsPort
from trueprob_service.settings import Settings

if TYPE_CHECKING:
    from trueprob_service.tracing import Tracing

__all__ = ["create_app"]

_KEY_FILE_SECONDS: Final = 2.0  # between two looks at the file of the keys
_GZIP: Final = re.compile(r"\bgzip\b(?!\s*;\s*q=0(\.0*)?\s*(,|$))")
_SCRAPES: Final = 4  # answered at the same time
_DESCRIPTION = """\
Calibrated probabilities for classifiers, and live evidence that they stay calibrated.

Send logits (or pictures, for models with a network here) and get calibrated probabilities. Upload a
calibration set, and the service fits a calibrator, judges it and promotes it. Send labels later, by
`prediction_id`, and the service reports whether the probabilities are still calibrated.
Errors are RFC 9457 problem documents."""


def create_app(
    settings: Settings,
    *,
    registry: Registry | None = None,  # where metrics are registered; default: a new one
    clock: Callable[[], float] = time.time,  # seconds since 1970 UTC
    # Builds the network of a version; default: onnxruntime, as the settings say.
    model_factory: Callable[[ServedVersion], Network | None] | None = None,
    verdicts: Verdicts | None = None,  # on networks; default: those of the state folder
    commit: str | None = None,  # for `build_info`; default: SOURCE_COMMIT of the environment
    metrics_port: int | None = None,  # port that serves only `/metrics`, if there is one
    drain: Drain | None = None,  # whether the server is about to stop
    connections: Connections | None = None,  # of the server, to be counted in the metrics
    tracing: Tracing | None = None,  # makes spans; default: as the settings say
) -> Application:
    """The ASGI application. Its lifespan opens the database and loads the models.

    Raises `InvalidSettings` if the file of the API keys cannot be used.
    """
    telemetry = Telemetry(
        version=__version__,
        commit=commit if commit is not None else os.environ.get("SOURCE_COMMIT", "unknown"),
        detail=settings.metrics_detail,
        registry=registry,
    )
    if connections is not None:
        telemetry.export_connections(connections.figures)
    inspector = Inspector(
        memory=settings.inspect_memory,
        seconds=settings.inspect_seconds,
        verdicts=verdicts or Verdicts(settings.state_dir / "inspections"),
        count=telemetry.count_inspection,
    )
    network_for = model_factory or partial(_open_network, settings, telemetry, inspector)
    job_runner: Callable[[], JobRunner] = partial(
        FitProcess, partial(serve, log_format=settings.log_format)
    )
    if tracing is None and settings.traces:
        from trueprob_service.tracing import Tracing, require_otel  # an extra

        require_otel()
        tracing = Tracing()
    if tracing is not None:
        network_for, job_runner = tracing.networks(network_for), tracing.jobs(job_runner)
    deployments = Deployments(
        network_for=network_for,
        meters_for=telemetry.meters_for,
        on_remove=telemetry.remove_live_pair,
    )
    plane = ControlPlane(
        settings,
        deployments=deployments,
        clock=clock,
        count_label=telemetry.count_labels,
        count_delivery=telemetry.count_delivery,
        job_runner=job_runner,
    )
    telemetry.export_statistics(plane.label_statistics, tolerance=settings.alarm_tolerance)
    telemetry.export_memory(plane.memory_figures)
    telemetry.export_health(lambda: plane.faults, lambda: plane.unavailable)
    scrapes = CapacityLimiter(_SCRAPES)
    json_bodies = JsonBodies()
    rate = Rate.parse(settings.rate_limit) if settings.rate_limit else None
    keyring = Keyring(
        None,
        everywhere=settings.require_key_everywhere,
        tokens=_tokens(settings, rate, clock),
        clock=clock,
    )
    key_file = _key_file(settings, rate, keyring, telemetry, plane)
    started = False

    @asynccontextmanager
    async def lifespan(_app: FastAPI) -> AsyncIterator[None]:
        nonlocal started
        try:
            await run_in_threadpool(plane.start)
        except BaseException:
            inspector.close()
            raise
        plane.services.audit.start(lambda: keyring.last_used)
        if key_file is not None:
            await run_in_threadpool(plane.services.audit.keys_changed, key_file.digest, {})
        started = True
        try:
            with _watched(key_file):
                yield
        finally:
            started = False
            await run_in_threadpool(inspector.close)  # others may wait for it
            await run_in_threadpool(plane.services.audit.close)
            await run_in_threadpool(json_bodies.close)
            await run_in_threadpool(plane.close)
            await run_in_threadpool(deployments.close)

    def readiness() -> tuple[bool, dict[str, Any]]:
        document = {"ready": started, **(plane.ready() if started else {})}
        if key_file is not None and key_file.problem is not None:
            document["keys"] = f"{key_file.problem}; the keys from before stay valid"
        if started and drain is not None and drain.started:
            document |= {"ready": False, "status": "draining"}
        return document["ready"], document

    async def audit_refusal(method: str, path: str, status: int, why: str) -> None:
        if started and access_to(method, path).action is not None:
            await run_in_threadpool(plane.services.audit.refused, method, path, status, why)

    api = _Api(
        keyring,
        title="Trueprob",
        version=__version__,
        description=_DESCRIPTION,
        lifespan=lifespan,
        docs_url=None,
        redoc_url=None,
        swagger_ui_oauth2_redirect_url=None,
    )
    _add_error_handlers(api)
    _add_pages(api)
    api.include_router(control_api.create_router(lambda: plane.services))

    @api.get(
        "/metrics",
        tags=["monitoring"],
        summary="Metrics for Prometheus",
        response_class=PlainTextResponse,
    )
    async def metrics(request: Request) -> Response:
        """The metrics of docs/metrics.md, in Prometheus' text format; gzip if that is accepted."""
        # Not in the threads of the control routes, which may all wait for the database.
        text = await to_thread.run_sync(telemetry.exposition, limiter=scrapes)
        headers = {"vary": "accept-encoding"}
        if _GZIP.search(request.headers.get("accept-encoding", "")):
            text, headers = gzip.compress(text, 1), {**headers, "content-encoding": "gzip"}
        return Response(text, media_type=telemetry.content_type, headers=headers)

    api.include_router(prediction_routes.create_router())
    hot = HotRoutes(
        api,
        methods_of=partial(_methods_of, api),
        deployments=DeploymentLookup(deployments, plane.sync),
        receipts=lambda: plane.receipts,
        readiness=readiness,
        bodies=BodyReader(
            json_bodies,
            max_pixels=settings.max_image_pixels,
            max_images=settings.queue_rows,
            max_bytes=settings.max_body_bytes,
        ),
        identified=plane.identified,
    )
    edge: Application = Edge(
        hot if metrics_port is None else MetricsPort(hot, metrics_port),
        origins=OriginPolicy(hosts=settings.answered_hosts, trusted_origins=settings.cors_origins),
        keyring=keyring,
        telemetry=telemetry,
        max_body_bytes=settings.max_body_bytes,
        max_upload_bytes=settings.max_upload_bytes,
        root_path=settings.root_path,
        on_refused=audit_refusal,
        access_log=settings.access_log,
    )
    if tracing is not None:
        edge = tracing.application(edge)
    return _with_cors(edge, settings.cors_origins) if settings.cors_origins else edge


class _Api(FastAPI):
    """FastAPI with keys and common errors in the OpenAPI document."""

    def __init__(self, keyring: Keyring, **options: Any) -> None:
        super().__init__(**options)
        self._keyring = keyring
        self._described: dict[str, Any] | None = None

    def openapi(self) -> dict[str, Any]:
        """The document, made at the first call."""
        document = super().openapi()
        if document is not self._described:  # FastAPI keeps it
            complete(document, self._needs_key)
            self._described = document
        return document

    def _needs_key(self, method: str, path: str) -> bool:
        try:
            self._keyring.admit(method, path, ())
        except errors.Unauthenticated:
            return True
        return False


def _tokens(settings: Settings, rate: Rate | None, clock: Callable[[], float]) -> Tokens | None:
    """Verifies bearer tokens, if an issuer is set."""
    if not settings.oidc_issuer:
        return None
    from trueprob_service.edge.oidc import OidcOptions, OidcTokens  # an extra

    options = OidcOptions(
        issuer=settings.oidc_issuer,
        audience=settings.oidc_audience,
        jwks_url=settings.oidc_jwks_url,
        algorithms=settings.oidc_algorithms,
        scopes_claim=settings.oidc_scopes_claim,
        models_claim=settings.oidc_models_claim,
        leeway_seconds=settings.oidc_leeway_seconds,
        rate=rate,
    )
    return OidcTokens(options, clock=clock)


def _key_file(
    settings: Settings,
    rate: Rate | None,  # of keys that have none of their own
    keyring: Keyring,
    telemetry: Telemetry,
    plane: ControlPlane,
) -> KeyFile | None:
    """Reads the keys into the keyring, now and whenever the file changes."""

    def use(keys: tuple[ApiKey, ...]) -> None:
        keyring.replace([replace(key, rate=key.rate or rate) for key in keys])

    def record(changes: Mapping[str, list[str]]) -> None:
        plane.services.audit.keys_changed(file.digest, changes)

    if settings.api_keys_file is None:
        return None
    file = KeyFile(
        settings.api_keys_file, use=use, damaged=telemetry.mark_keys_damaged, changed=record
    )
    return file


@contextmanager
def _watched(key_file: KeyFile | None) -> Iterator[None]:
    """Context in which the key file is read again when it changes and on SIGHUP."""
    if key_file is None:
        yield
        return
    poll = Poll(
        key_file.refresh,
        what="reading api_keys_file",
        seconds=_KEY_FILE_SECONDS,
        name="trueprob-keys",
    )
    poll.start()
    try:
        with hangup_calls(poll.once):
            yield
    finally:
        poll.close()


def _with_cors(app: Application, origins: tuple[str, ...]) -> Application:
    """Answer preflights, and let pages of these origins read every answer, errors included."""
    return CORSMiddleware(
        app,
        allow_origins=origins,
        allow_methods=("GET", "HEAD", "POST", "PUT", "DELETE"),
        allow_headers=(
            "authorization",
            "content-encoding",
            "content-type",
            "if-match",
            "prefer",
            "x-prediction-id",
            "x-request-id",
        ),
        expose_headers=("etag", "location", "preference-applied", "retry-after", "x-request-id"),
    )


def _methods_of(api: FastAPI, path: str) -> tuple[str, ...]:
    """Methods of the routes that have this path."""
    return tuple(
        method
        for method in ROUTED
        if any(
            route.matches({"type": "http", "method": method, "path": path, "headers": []})[0]
            is Match.FULL
            # What is mounted are files.
            and (method == "GET" or not isinstance(route, Mount))
            for route in api.routes
        )
    )


def _open_network(
    settings: Settings, telemetry: Telemetry, inspector: Inspector, served: ServedVersion
) -> Network | None:
    """Inspect, load and warm the network of a version; None for one without ``model.onnx``."""
    manifest, accepted = served.manifest, served.inputs
    if manifest is None or accepted is None:
        return None
    version = ModelVersion(
        served.model,
        served.version,
        settings.model_repository / served.model / str(served.version),
        manifest,
    )
    inspector.check(
        TryNetwork(
            version.path / MODEL,
            inputs=accepted.specs,
            output_name=manifest.output_name,
            output_kind=manifest.output_kind,
            n_classes=served.n_classes,
            max_batch_rows=settings.max_batch_rows,
        ),
        digests=version.network_digests,
        providers=settings.execution_providers,
    )
    open_model = partial(
        OnnxModel,
        version.path / MODEL,
        inputs=accepted.specs,
        output_name=manifest.output_name,
        n_classes=served.n_classes,
        output_kind=manifest.output_kind,
        providers=settings.execution_providers,
        max_batch_rows=settings.max_batch_rows,
        # Each replica takes its share of the cores.
        threads=max(1, usable_cores() // settings.replicas),
    )
    loaded = False

    def load() -> OnnxModel:
        nonlocal loaded
        if loaded:
            version.verify(references=False)  # what is loaded again is what was inspected
        model = open_model()
        loaded = True
        telemetry.name_provider(served.model, served.version, model.provider)
        return model

    return Batcher(
        load,
        max_batch_rows=settings.max_batch_rows,
        queue_rows=settings.queue_rows,
        observe=partial(telemetry.observe_batch, served.model),
        deadline_seconds=settings.network_deadline_seconds,
        name=f"{served.model}/{served.version}",
    )


def _add_error_handlers(api: FastAPI) -> None:
    async def answer(request: Request, error: Exception) -> Response:
        problem = problem_for(error)
        request.scope.setdefault("state", {})["problem"] = problem.code
        return Response(problem.body, problem.status, headers=problem.headers)

    async def answer_disk(request: Request, error: Exception) -> Response:
        if problem_for(error).status == 500:
            raise error  # no error of a disk: logged like any other
        return await answer(request, error)

    async def answer_validation(request: Request, error: Exception) -> Response:
        assert isinstance(error, RequestValidationError)  # noqa: S101 - what it is registered for
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"] if part not in ("body", "query"))
        # "json_invalid" could not be parsed; anything else was parsed and has a wrong value.
        kind = errors.BadRequest if first["type"] == "json_invalid" else errors.InvalidRequest
        message = f"{where or 'body'}: {first['msg']}"
        return await answer(request, kind(message))

    async def answer_http(request: Request, error: Exception) -> Response:
        assert isinstance(error, HTTPException)  # noqa: S101 - what it is registered for
        kinds: dict[int, type[errors.ServiceError]] = {
            400: errors.BadRequest,
            404: errors.NotFound,
        }
        if error.status_code == 405:
            # A mount has added its own path to root_path.
            root_path = request.scope.get("app_root_path", request.scope.get("root_path", ""))
            path = request.scope["path"].removeprefix(root_path)
            return await answer(request, not_allowed(request.scope, path, _methods_of(api, path)))
        kind = kinds.get(error.status_code, errors.ServiceError)
        asked = asked_method(request.scope)
        return await answer(request, kind(f"{asked} {request.url.path}: {error.detail}"))

    api.add_exception_handler(errors.ServiceError, answer)
    api.add_exception_handler(TrueprobError, answer)
    api.add_exception_handler(RequestValidationError, answer_validation)
    api.add_exception_handler(HTTPException, answer_http)
    api.add_exception_handler(OSError, answer_disk)
    # Starlette sends this answer, then raises the error again; the edge logs it.
    api.add_exception_handler(Exception, answer)


def _add_pages(api: FastAPI) -> None:
    """Add `/` and `/docs`. Their files come from here, so they work without internet access."""
    assets = resources.files("fastapi_swagger") / "resources"
    api.mount("/docs/assets", StaticFiles(directory=str(assets)), name="docs-assets")

    @api.get("/docs", include_in_schema=False)
    def docs() -> HTMLResponse:
        return get_swagger_ui_html(
            openapi_url="openapi.json",
            title="Trueprob API",
            swagger_js_url="docs/assets/swagger-ui-bundle.js",
            swagger_css_url="docs/assets/swagger-ui.css",
            swagger_favicon_url="docs/assets/favicon-32x32.png",
        )

    web = resources.files("trueprob_service") / "web"
    api.mount("/page", StaticFiles(directory=str(web)), name="page")

    @api.get("/", include_in_schema=False)
    def home(request: Request) -> HTMLResponse:
        policy = "default-src 'self'; img-src 'self' data:; frame-ancestors 'none'"
        page = (web / "index.html").read_text("utf-8")
        if root_path := request.scope.get("root_path", ""):
            # Some proxies serve the page without a slash at its end.
            base = f'<head>\n  <base href="{html.escape(root_path)}/">'
            page = page.replace("<head>", base, 1)
        return HTMLResponse(page, headers={"content-security-policy": policy})
