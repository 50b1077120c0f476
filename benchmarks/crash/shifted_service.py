"""``python -m benchmarks.crash.shifted_service SECONDS [flags]``: a service with a wrong clock."""

from __future__ import annotations

import os
import sys
import time

from trueprob_service.app import create_app
from trueprob_service.server import Drain, limited_connections, serve
from trueprob_service.settings import load_settings


def main() -> int:
    shift_seconds = float(sys.argv[1])
    settings, _ = load_settings(sys.argv[2:], os.environ)
    app = create_app(settings, clock=lambda: time.time() + shift_seconds)
    return serve(app, settings, Drain(), limited_connections(settings))


if __name__ == "__main__":
    sys.exit(main())
