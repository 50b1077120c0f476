"""The sockets that the parent binds once, so that a replica that is restarted finds them again.

They do not listen yet: until the first replica does, a connection is refused, as it is by a
service that has not started. From then on connections wait in the kernel's queue for whichever
replica accepts first; one that dies takes none of those with it.

The file in which Prometheus finds the replicas (``file_sd_configs``).
"""

from __future__ import annotations

import json
import os
import socket
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from trueprob_service.settings import Settings

__all__ = ["CannotListen", "Listening", "TargetsFile", "bind", "targets"]


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


class CannotListen(OSError):
    """An address cannot be bound; the message is one line for the terminal."""


@dataclass(frozen=True)
class Listening:
    """Bound sockets."""

    service: socket.socket  # that every replica answers on
    metrics: tuple[socket.socket, ...]  # one for each replica

    @property
    def port(self) -> int:
        """That of the service."""
        return port_of(self.service)

    @property
    def metrics_ports(self) -> tuple[int, ...]:
        """That of each replica's metrics."""
        return tuple(port_of(each) for each in self.metrics)

    def close(self) -> None:
        """Let the addresses go."""
        for each in (self.service, *self.metrics):
            each.close()


def bind(settings: Settings) -> Listening:
    """Bind what the settings name.

    Raises `CannotListen`: an address is taken or is not this machine's.
    """
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
        # As every server does: a port whose last connections linger can be bound again.
        new.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        new.bind(address)
    except OSError as error:
        new.close()
        reason = error.strerror
        raise CannotListen(f"{setting}: cannot listen on {host} port {port}: {reason}") from None
    return new
