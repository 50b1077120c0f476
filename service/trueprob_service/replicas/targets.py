"""The file in which Prometheus finds the replicas (``file_sd_configs``)."""

from __future__ import annotations

import json
import os
import socket
from collections.abc import Sequence
from pathlib import Path

from trueprob_service.settings import Settings

__all__ = ["TargetsFile", "targets"]


def targets(settings: Settings, ports: Sequence[int]) -> list[dict[str, object]]:
    """One target group a replica, with its index as the label ``replica``."""
    host = settings.host
    if host in ("0.0.0.0", "::"):  # noqa: S104
        # No address to connect to. In a container this is the name that its network resolves.
        host = socket.gethostname()
    where = f"[{host}]" if ":" in host else host
    scheme = {"__scheme__": "https"} if settings.tls_cert is not None else {}
    return [
        {"targets": [f"{where}:{port}"], "labels": {"replica": str(index), **scheme}}
        for index, port in enumerate(ports)
    ]


class TargetsFile:
    """Written whole or not at all, removed when the service ends."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._written = ""

    def write(self, groups: Sequence[dict[str, object]]) -> None:
        """Put these target groups in place of whatever is there."""
        text = json.dumps(groups, indent=2) + "\n"
        self._path.parent.mkdir(parents=True, exist_ok=True)
        part = self._path.with_name(f".{self._path.name}.{os.getpid()}.part")
        part.write_text(text, "utf-8")
        part.replace(self._path)
        self._written = text

    def remove(self) -> None:
        """Let Prometheus forget the targets; a file that another service wrote since stays."""
        if self._path.is_file() and self._path.read_text("utf-8") == self._written:
            self._path.unlink()
