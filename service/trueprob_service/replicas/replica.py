"""What a replica executes: the whole service on sockets that its parent has bound."""

from __future__ import annotations

import logging
import socket
import sys
import threading
from multiprocessing.connection import Connection

from trueprob_service.server import AnnouncingServer
from trueprob_service.settings import Settings

__all__ = ["READY", "run_replica"]

# What a replica tells its parent once it listens.
READY = "ready"


def run_replica(
    settings: Settings,
    index: int,  # which replica this is, from 0
    shared: socket.socket,  # bound by the parent; the second is this replica's own
    metrics: socket.socket,  # bound by the parent; the second is this replica's own
    lifeline: Connection,
) -> None:
    """Serve until the parent says so by SIGTERM, or is gone."""
    logging.basicConfig(
        level=logging.INFO,
        format=f"%(asctime)s %(levelname)s replica {index} %(name)s: %(message)s",
    )
    logging.getLogger("alembic").setLevel(logging.WARNING)
    from trueprob_service.app import create_app  # here, so that the parent does not load it

    app = create_app(settings, metrics_port=metrics.getsockname()[1])
    server = AnnouncingServer(app, settings, lambda _port: lifeline.send(READY))

    def follow_the_parent() -> None:
        try:
            lifeline.recv()
        except (EOFError, OSError):
            server.should_exit = True

    threading.Thread(target=follow_the_parent, name="trueprob-lifeline", daemon=True).start()
    server.run(sockets=[shared, metrics])
    sys.exit(0 if server.started else 1)
