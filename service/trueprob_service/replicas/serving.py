"""``trueprob-service --replicas N``: bind, list for Prometheus, supervise."""

from __future__ import annotations

import sys
from pathlib import Path

from trueprob_service.replicas.listening import CannotListen, bind
from trueprob_service.replicas.replica import run_replica
from trueprob_service.replicas.supervisor import CrashLoop, Supervisor
from trueprob_service.replicas.targets import TargetsFile, targets
from trueprob_service.server import quickstart, server_url
from trueprob_service.settings import Settings

__all__ = ["serve_replicas"]


def serve_replicas(settings: Settings) -> int:
    """Serve with as many processes as the settings say, until SIGINT or SIGTERM.

    Returns: 0 after a clean stop; 1 when a replica did not start, did not stay up or had to be
    killed at the end; 2 when an address or the file for Prometheus cannot be had.
    """
    try:
        listening = bind(settings)
    except CannotListen as error:
        return _failed(str(error), code=2)
    file = TargetsFile(settings.resolved_metrics_targets_file)
    url = server_url(settings, listening.port)
    supervisor = Supervisor(
        settings.replicas,
        target=run_replica,
        arguments=lambda i: (settings, i, listening.service, listening.metrics[i]),
        on_ready=lambda: print(quickstart(url, Path("examples")), flush=True),
        on_stop=listening.close,
    )
    try:
        try:
            file.write(targets(settings, listening.metrics_ports))
        except OSError as error:
            return _failed(f"metrics_targets_file cannot be written: {error.strerror}", code=2)
        clean = supervisor.run()
    except CrashLoop as error:
        return _failed(f"{error}; the log above says more", code=1)
    finally:
        listening.close()
        file.remove()
    print("Stopped; what was acknowledged is kept.", file=sys.stderr)
    return 0 if clean else 1


def _failed(sentence: str, *, code: int) -> int:
    print(f"trueprob-service: error: {sentence}", file=sys.stderr)
    return code
