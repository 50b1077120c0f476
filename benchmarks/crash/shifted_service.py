"""``python -m benchmarks.crash.shifted_service SECONDS [flags]``: a service with a wrong clock."""

from __future__ import annotations

import os
import sys
import time

from trueprob_service.app import create_app
from trueprob_service.server import serve
from trueprob_service.settings_reading import load_settings


def main() -> int:
    shift_seconds = float(sys.argv[1])
    settings, _ = load_settings(sys.argv[2:], os.environ)
    return serve(create_app(settings, clock=lambda: time.time() + shift_seconds), settings)


if __name__ == "__main__":
    sys.exit(main())
