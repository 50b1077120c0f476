"""The sockets that the parent binds once, so that a replica that is restarted finds them again.

They do not listen yet: until the first replica does, a connection is refused, as it is by a
service that has not started. From then on connections wait in the kernel's queue for whichever
replica accepts first; one that dies takes none of those with it.
"""

from __future__ import annotations

import socket
from dataclasses import dataclass

from trueprob_service.settings import Settings

__all__ = ["CannotListen", "Listening", "bind"]


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
