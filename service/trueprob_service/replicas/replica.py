"""A replica: the whole service in a child process, on sockets bound by its parent."""

from __future__ import annotations

import logging
import socket
import sys
import threading
from multiprocessing.connection import Connection
from typing import Final

from trueprob_service.server import AnnouncingServer
from trueprob_service.settings import Settings

__all__ = ["READY", "run_replica"]

READY: Final = "ready"  # what a replica sends its parent once it listens


def run_replica(
    settings: Settings,
    index: int,  # which replica this is, from 0
    shared: socket.socket,  # the service's port, shared by all replicas
    metrics: socket.socket,  # this replica's own metrics port
    lifeline: Connection,  # carries `READY` to the parent; closes when the parent ends
) -> None:
    """Serve until SIGTERM, or until the parent process has ended."""
    logging.basicConfig(
        level=logging.INFO,
        format=f"%(asctime)s %(levelname)s replica {index} %(name)s: %(message)s",
    )
    logging.getLogger("alembic").setLevel(logging.WARNING)
    from trueprob_service.app import create_app  # not at the top: the parent imports this module

    app = create_app(settings, metrics_port=metrics.getsockname()[1])
    server = AnnouncingServer(app, settings, lambda _port: lifeline.send(READY))

    def stop_with_the_parent() -> None:
        try:
            lifeline.recv()
        except (EOFError, OSError):
            server.should_exit = True

    threading.Thread(target=stop_with_the_parent, name="trueprob-lifeline", daemon=True).start()
    server.run(sockets=[shared, metrics])
    sys.exit(0 if server.started else 1)
