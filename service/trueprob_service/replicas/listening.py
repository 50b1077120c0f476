"""Sockets that the parent binds for all replicas, and the file that lists their metrics ports.

A restarted replica gets the same sockets again. The parent does not listen on them: connections are
refused until the first replica listens. From then on they wait in the kernel's queue until any
replica accepts them, so none is lost when a replica dies. Prometheus reads the file by
``file_sd_configs``.
"""

from __future__ import annotations

import json
import os
import socket
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from trueprob_service.settings import Settings

__all__ = ["CannotListen", "Listening", "TargetsFile", "bind", "refuse_taken_port", "targets"]


def targets(settings: Settings, ports: Sequence[int]) -> list[dict[str, object]]:
    """One target group for each metrics port, with the replica's index as the label ``replica``."""
    host = settings.host
    if host in ("0.0.0.0", "::"):  # noqa: S104
        # No client can connect to a wildcard address. In a container the host name resolves.
        host = socket.gethostname()
    where = f"[{host}]" if ":" in host else host
    scheme = {"__scheme__": "https"} if settings.tls_cert is not None else {}
    return [
        {"targets": [f"{where}:{port}"], "labels": {"replica": str(index), **scheme}}
        for index, port in enumerate(ports)
    ]


class TargetsFile:
    """The file of the target groups: replaced atomically, removed when the service stops."""

    def __init__(
        self,
        path: Path,
        *,
        public: bool,  # whether Prometheus reads it as another user
    ) -> None:
        self._path = path
        self._public = public
        self._written = ""

    def write(self, groups: Sequence[dict[str, object]]) -> None:
        """Replace the content of the file."""
        text = json.dumps(groups, indent=2) + "\n"
        self._path.parent.mkdir(parents=True, exist_ok=True)
        part = self._path.with_name(f".{self._path.name}.{os.getpid()}.part")
        part.write_text(text, "utf-8")
        part.chmod(0o644 if self._public else 0o600)
        part.replace(self._path)
        self._written = text

    def remove(self) -> None:
        """Delete the file, unless another service has written it in the meantime."""
        if self._path.is_file() and self._path.read_text("utf-8") == self._written:
            self._path.unlink()


class CannotListen(OSError):
    """An address cannot be bound. The message is one line for the terminal."""


@dataclass(frozen=True)
class Listening:
    """Bound sockets of the service."""

    service: socket.socket  # shared by all replicas
    metrics: tuple[socket.socket, ...]  # one for each replica

    @property
    def port(self) -> int:
        """The service's port."""
        return port_of(self.service)

    @property
    def metrics_ports(self) -> tuple[int, ...]:
        """The metrics port of each replica."""
        return tuple(port_of(each) for each in self.metrics)

    def close(self) -> None:
        """Close all sockets in this process."""
        for each in (self.service, *self.metrics):
            each.close()


def bind(settings: Settings) -> Listening:
    """Bind the service's port and a metrics port for each replica, or raise `CannotListen`."""
    bound = [_bound(settings.host, settings.port, "port")]
    try:
        for index in range(settings.replicas):
            port = settings.metrics_port + index if settings.metrics_port else 0
            bound.append(_bound(settings.host, port, "metrics_port"))
    except OSError:
        for each in bound:
            each.close()
        raise
    return Listening(bound[0], tuple(bound[1:]))


def refuse_taken_port(settings: Settings) -> None:
    """Raise `CannotListen` if the address cannot be bound; binds nothing."""
    _bound(settings.host, settings.port, "port").close()


def port_of(bound: socket.socket) -> int:
    """The port that a socket is bound to."""
    port: int = bound.getsockname()[1]
    return port


def _bound(host: str, port: int, setting: str) -> socket.socket:
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(
            host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
        new = socket.socket(family, kind, protocol)
    except OSError as error:
        raise CannotListen(f"host {host} cannot be used: {error.strerror}") from None
    try:
        # The port can be bound again while connections of an earlier process linger.
        new.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        new.bind(address)
    except OSError as error:
        new.close()
        reason = error.strerror
        raise CannotListen(f"{setting}: cannot listen on {host} port {port}: {reason}") from None
    return new
