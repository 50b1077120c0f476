"""The port of a replica's own metrics: requests to the shared port reach any replica.

One server listens on both sockets; which of them a request came by is in its scope.
"""

from __future__ import annotations

import re
from typing import Final

from trueprob_service.edge.middleware import Application, Receive, Scope, Send
from trueprob_service.errors import NotFound

__all__ = ["MetricsPort"]

# Health too: it is this replica's own, where the shared port's is that of whoever answers.
_PATHS: Final = re.compile(r"^/(metrics|v2/health/(live|ready))$")


class MetricsPort:
    """Answers ``/metrics`` on one port only, and little else there."""

    def __init__(self, app: Application, port: int) -> None:
        self._app = app
        self._port = port

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Hand on what belongs to the port that it came by."""
        if scope["type"] == "http":
            path: str = scope["path"]
            own = scope["server"] is not None and scope["server"][1] == self._port
            if own and not _PATHS.match(path):
                raise NotFound("this port has /metrics and /v2/health only")
            if not own and path == "/metrics":
                raise NotFound(
                    "each replica has /metrics on a port of its own, "
                    "listed in the file of the setting metrics_targets_file"
                )
        await self._app(scope, receive, send)
