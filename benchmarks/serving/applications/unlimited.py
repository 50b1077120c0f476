"""The service on uvicorn's own protocol, without limits of connections."""

from __future__ import annotations

import sys

from trueprob_service import server
from trueprob_service.__main__ import main

if __name__ == "__main__":
    server._http_protocol = lambda _connections: "httptools"
    sys.exit(main())
