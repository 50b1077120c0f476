"""Runs the application on uvicorn, with limits of connections, and prints where it listens.

SIGTERM begins a drain: readiness says so, every answer closes its connection, and after
``drain_seconds`` the server stops as uvicorn does. So a client that keeps its connection never
sends a request into one that is being closed.

`MetricsPort` separates the two ports of a replica. One server listens on both sockets: requests to
the shared port reach any replica, those to the metrics port reach this one.
"""

from __future__ import annotations

import gc
import logging
import re
import signal
import socket
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Any, Final

import uvicorn
from uvicorn.lifespan.on import LifespanOn

from trueprob.errors import TrueprobError
from trueprob_service.errors import InvalidSettings, NotFound, ServiceError
from trueprob_service.settings import Settings

if TYPE_CHECKING:  # the parent of replicas imports this module and loads none of the service
    from trueprob_service.connections.limits import Connections
    from trueprob_service.edge.middleware import Application, Receive, Scope, Send

__all__ = [
    "GRACE_SECONDS",
    "AnnouncingServer",
    "Drain",
    "MetricsPort",
    "limited_connections",
    "quickstart",
    "serve",
    "server_url",
]

_LOG: Final = logging.getLogger(__name__)
GRACE_SECONDS: Final = 15  # how long running requests may take after the drain
_SAME_REQUEST_SECONDS: Final = 1.0
_CLOSE: Final = (b"connection", b"close")
# How long a thread that answers a large request may hold the interpreter while the event loop
# waits. With Python's default of 5 ms, small requests waited for several such turns.
SWITCH_SECONDS: Final = 0.0005
# Health too: on the shared port any replica may answer, here only this one.
_METRICS_PORT_PATHS: Final = re.compile(r"^/(metrics|v2/health/(live|ready))$")


class MetricsPort:
    """Serves ``/metrics`` on the metrics port only; that port serves only metrics and health."""

    def __init__(self, app: Application, port: int) -> None:
        self._app = app
        self._port = port

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the request on, or raise `NotFound` if it came by the wrong port."""
        if scope["type"] == "http":
            path: str = scope["path"]
            own = scope["server"] is not None and scope["server"][1] == self._port
            if own and not _METRICS_PORT_PATHS.match(path):
                raise NotFound("this port has /metrics and /v2/health only")
            if not own and path == "/metrics":
                raise NotFound(
                    "each replica has /metrics on a port of its own, "
                    "listed in the file of the setting metrics_targets_file"
                )
        await self._app(scope, receive, send)


class Drain:
    """Whether the server is about to stop; readiness reads it."""

    started = False


class _Lifespan(LifespanOn):
    """Keeps the sentence of a start that failed, in place of the traceback in the log."""

    failure: str | None = None

    async def send(self, message: Any) -> None:
        error = sys.exc_info()[1]
        if message["type"] == "lifespan.startup.failed" and isinstance(
            error, ServiceError | TrueprobError | InvalidSettings | OSError
        ):
            self.failure = str(error)
            message = {**message, "message": ""}
        await super().send(message)


class AnnouncingServer(uvicorn.Server):
    """A uvicorn server that calls ``announce`` with its port once it listens, and drains.

    With port 0 the port is known only then.
    """

    def __init__(
        self,
        app: Application,
        settings: Settings,
        announce: Callable[[int], None],
        drain: Drain | None = None,
        *,
        # Whether other processes take new connections of the port while this one drains.
        alone: Callable[[], bool] = lambda: True,
        connections: Connections | None = None,
    ) -> None:
        tls: dict[str, Any] = {}
        if settings.tls_cert is not None:
            tls = {"ssl_certfile": settings.tls_cert, "ssl_keyfile": settings.tls_key}
        # By default uvicorn uses uvloop where it is installed.
        config = uvicorn.Config(
            app,
            http=_http_protocol(connections or limited_connections(settings)),
            ws="none",
            host=settings.host,
            port=settings.port,
            forwarded_allow_ips=settings.trusted_proxies,
            log_config=None,
            access_log=False,
            server_header=False,
            timeout_graceful_shutdown=GRACE_SECONDS,
            **tls,
        )
        try:
            config.load()
        except OSError as error:  # ssl.SSLError too
            raise InvalidSettings(f"tls_cert, tls_key: cannot be used: {error}") from None
        config.lifespan_class = _Lifespan
        super().__init__(config)
        self._announce = announce
        self._drain = Drain() if drain is None else drain
        self._drain_seconds = settings.drain_seconds
        self._drain_until = 0.0
        self._alone = alone

    @property
    def failure(self) -> str | None:
        """Why the application could not start, in one sentence; None for another reason."""
        lifespan = getattr(self, "lifespan", None)
        return lifespan.failure if isinstance(lifespan, _Lifespan) else None

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """Drain after the first SIGTERM; stop after SIGINT and a second signal."""
        now = time.monotonic()
        if sig != signal.SIGTERM:
            super().handle_exit(sig, frame)
        elif self._drain.started:
            # A stop command may send SIGTERM to the process and to its group: one request.
            if now >= self._drain_until - self._drain_seconds + _SAME_REQUEST_SECONDS:
                self.should_exit = True
        elif not self.started or self._drain_seconds <= 0:
            self.should_exit = True
        else:
            self._drain_until = now + self._drain_seconds
            self._drain.started = True
            self._close_connections()
            _LOG.info("draining for %g s", self._drain_seconds)

    async def on_tick(self, counter: int) -> bool:
        """Called every 0.1 s; whether to stop."""
        stop = await super().on_tick(counter)
        if not self._drain.started:
            return stop
        self._close_connections()  # uvicorn has just made the headers anew
        if not self._alone():
            for server in self.servers:
                server.close()
        return stop or time.monotonic() >= self._drain_until

    def _close_connections(self) -> None:
        if _CLOSE not in self.server_state.default_headers:
            self.server_state.default_headers = [*self.server_state.default_headers, _CLOSE]

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Begin to listen, then announce the port."""
        sys.setswitchinterval(SWITCH_SECONDS)
        await super().startup(sockets)
        if self.started:
            # What is loaded now is never freed, so the garbage collector can skip it.
            gc.collect()
            gc.freeze()
            listening = [sock for server in self.servers for sock in server.sockets]
            self._announce(listening[0].getsockname()[1])


def limited_connections(settings: Settings) -> Connections:
    """What the connections of this process share, with the limits of the settings."""
    from uvicorn.middleware.proxy_headers import ProxyHeadersMiddleware

    from trueprob_service.connections.limits import (
        ConnectionLimits,
        Connections,
        usable_connections,
    )

    names = ConnectionLimits.__dataclass_fields__
    limits = ConnectionLimits(
        **{
            **{name: getattr(settings, name) for name in names},
            "max_connections": usable_connections(settings.max_connections),
        }
    )

    async def nothing(*_: object) -> None:
        """Stands for an application: only the middleware's list of proxies is used."""

    proxies = ProxyHeadersMiddleware(nothing, settings.trusted_proxies).trusted_hosts
    return Connections(limits, is_proxy=proxies.__contains__)


def _http_protocol(connections: Connections) -> Any:
    """The protocol class of uvicorn's; without httptools (Windows) its own, without our limits."""
    try:
        from trueprob_service.connections.protocol import GuardedProtocol
    except ImportError:
        return "auto"
    return partial(GuardedProtocol, connections=connections)


def serve(
    app: Application, settings: Settings, drain: Drain, connections: Connections | None = None
) -> int:
    """Serve until SIGINT or SIGTERM; exit code 0 after a stop.

    If the service could not start: 2 when one sentence says why, else 1.
    """

    def announce(port: int) -> None:
        print(quickstart(server_url(settings, port), Path("examples")), flush=True)

    server = AnnouncingServer(app, settings, announce, drain, connections=connections)
    try:
        server.run()
    except SystemExit:  # uvicorn's, when the start fails
        if server.failure is None:
            return 1
        print(f"trueprob-service: error: {server.failure}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        # uvicorn stops cleanly on SIGINT and then raises it again.
        print("Stopped; what was acknowledged is kept.", file=sys.stderr)
    return 0 if server.started else 1


def server_url(settings: Settings, port: int) -> str:
    """URL at which clients on this machine reach the service."""
    scheme = "https" if settings.tls_cert is not None else "http"
    host = "127.0.0.1" if settings.host in ("0.0.0.0", "::") else settings.host  # noqa: S104
    return f"{scheme}://[{host}]:{port}" if ":" in host else f"{scheme}://{host}:{port}"


def quickstart(url: str, examples: Path) -> str:
    """The text printed once the service listens, with commands to try if the examples are there."""
    lines = [f"Trueprob listens on {url} (documentation: {url}/docs)"]
    files = [examples / name for name in
             ("digits_logits.json", "seven.png", "digits_drifted.npz")]  # fmt: skip
    if all(file.is_file() for file in files):
        logits, picture, upload = (file.as_posix() for file in files)
        lines.append("Try, in another terminal:")
        model = f"{url}/v1/models/digits"
        for route, media_type, more, file in (
            ("probabilities", "application/json", "", logits),
            ("probabilities", "image/png", "", picture),
            ("calibration-sets", "application/x-npz", "-H 'Prefer: wait=30' ", upload),
        ):
            header = f"-H 'Content-Type: {media_type}' {more}"
            lines.append(f"  curl -s {model}/{route} {header}--data-binary @{file}")
    return "\n".join(lines)
