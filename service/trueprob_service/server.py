"""Run the application on uvicorn and say where it is."""

from __future__ import annotations

import gc
import socket
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import uvicorn

from trueprob_service.settings import Settings

if TYPE_CHECKING:
    from trueprob_service.edge.middleware import Application

__all__ = ["GRACE_SECONDS", "AnnouncingServer", "quickstart", "serve", "server_url"]

# How long requests that are being answered when the service is told to end may take.
GRACE_SECONDS: Final = 20
# How long a thread that answers a large request may keep the loop from the interpreter; Python's
# own 5 ms were what small requests beside large ones waited for, over and over.
SWITCH_SECONDS: Final = 0.0005


class AnnouncingServer(uvicorn.Server):
    """A server that reports its port once it listens (port 0 is known only then)."""

    def __init__(
        self, app: Application, settings: Settings, announce: Callable[[int], None]
    ) -> None:
        tls: dict[str, Any] = {}
        if settings.tls_cert is not None:
            tls = {"ssl_certfile": settings.tls_cert, "ssl_keyfile": settings.tls_key}
        # "auto", uvicorn's default, is uvloop and httptools where they are installed.
        config = uvicorn.Config(
            app,
            host=settings.host,
            port=settings.port,
            forwarded_allow_ips=settings.trusted_proxies,
            log_config=None,
            access_log=False,
            server_header=False,
            timeout_graceful_shutdown=GRACE_SECONDS,
            **tls,
        )
        super().__init__(config)
        self._announce = announce

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Begin to listen, then say so."""
        sys.setswitchinterval(SWITCH_SECONDS)
        await super().startup(sockets)
        if self.started:
            # What is loaded by now stays: the collector need not walk through it over and over.
            gc.collect()
            gc.freeze()
            listening = [sock for server in self.servers for sock in server.sockets]
            self._announce(listening[0].getsockname()[1])


def serve(app: Application, settings: Settings) -> int:
    """Serve until SIGINT or SIGTERM.

    Returns: 0 after a clean stop, 1 when the service could not start.
    """

    def announce(port: int) -> None:
        print(quickstart(server_url(settings, port), Path("examples")), flush=True)

    server = AnnouncingServer(app, settings, announce)
    try:
        server.run()
    except KeyboardInterrupt:
        # uvicorn stops cleanly on SIGINT and then raises it again.
        print("Stopped; what was acknowledged is kept.", file=sys.stderr)
    return 0 if server.started else 1


def server_url(settings: Settings, port: int) -> str:
    """Where somebody on this machine reaches a service that listens on a port."""
    scheme = "https" if settings.tls_cert is not None else "http"
    host = "127.0.0.1" if settings.host in ("0.0.0.0", "::") else settings.host  # noqa: S104
    return f"{scheme}://[{host}]:{port}" if ":" in host else f"{scheme}://{host}:{port}"


def quickstart(url: str, examples: Path) -> str:
    """What is printed when the service listens."""
    lines = [f"Trueprob listens on {url} (documentation: {url}/docs)"]
    files = [examples / name for name in
             ("digits_logits.json", "seven.png", "digits_calibration.npz")]  # fmt: skip
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
