"""A replica: the whole service in a child process, on sockets bound by its parent."""

from __future__ import annotations

import asyncio
import logging
import socket
import sys
import threading
import time
from functools import partial
from multiprocessing.connection import Connection
from typing import Final

from trueprob_service.errors import InvalidSettings
from trueprob_service.logs import configure_logging
from trueprob_service.server import AnnouncingServer, Drain, limited_connections
from trueprob_service.settings import Settings

__all__ = ["BEAT", "READY", "STOP", "run_replica"]

_LOG: Final = logging.getLogger(__name__)
READY: Final = "ready"  # what a replica sends its parent once it listens
BEAT: Final = "beat"  # and then every second, while its event loop turns
STOP: Final = "stop"  # what the parent sends before the SIGTERM to all replicas
_BEAT_SECONDS: Final = 1.0


def run_replica(
    settings: Settings,
    index: int,  # which replica this is, from 0
    shared: socket.socket,  # the service's port, shared by all replicas
    metrics: socket.socket,  # this replica's own metrics port
    lifeline: Connection,  # carries `READY` to the parent; closes when the parent ends
) -> None:
    """Serve until SIGTERM, or until the parent process has ended."""
    configure_logging(settings.log_format, replica=index)
    from trueprob_service.app import create_app  # not at the top: the parent imports this module

    drain, all_stop = Drain(), threading.Event()
    try:
        connections = limited_connections(settings)
        app = create_app(
            settings,
            metrics_port=metrics.getsockname()[1],
            drain=drain,
            connections=connections,
        )
        server = AnnouncingServer(
            app,
            settings,
            lambda _port: begin(),
            drain,
            alone=all_stop.is_set,
            connections=connections,
        )
    except InvalidSettings as error:
        _LOG.error("cannot start: %s", error)
        sys.exit(2)

    def begin() -> None:
        lifeline.send(READY)
        beat = partial(_beat, asyncio.get_running_loop(), lifeline)
        threading.Thread(target=beat, name="trueprob-heartbeat", daemon=True).start()

    def stop_with_the_parent() -> None:
        try:
            while lifeline.recv() != STOP:
                pass
            all_stop.set()
            lifeline.recv()
        except (EOFError, OSError):
            server.should_exit = True

    threading.Thread(target=stop_with_the_parent, name="trueprob-lifeline", daemon=True).start()
    try:
        server.run(sockets=[shared, metrics])
    except SystemExit:  # uvicorn's, when the start fails
        if server.failure is not None:
            _LOG.error("cannot start: %s", server.failure)
            sys.exit(2)
    sys.exit(0 if server.started else 1)


def _beat(loop: asyncio.AbstractEventLoop, lifeline: Connection) -> None:
    """Tell the parent every second that the event loop turns."""
    while True:
        turned = threading.Event()
        try:
            loop.call_soon_threadsafe(turned.set)
            turned.wait()
            lifeline.send(BEAT)
        except (OSError, RuntimeError):  # the parent or the loop has ended
            return
        time.sleep(_BEAT_SECONDS)
