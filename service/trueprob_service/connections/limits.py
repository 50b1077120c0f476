"""The limits of connections, the answers to refused ones, and what connections share.

`Connections` counts connections, in all and by address, and looks at each of them about once a
second: nothing is timed while a request is served. If no more connections are allowed, the ones
that have been idle for longest are closed first.

An address is an IPv4 address or an IPv6 network of 64 bits, which is what one customer gets.
Trusted proxies are not counted by address: behind one all clients have its address.
"""

from __future__ import annotations

import asyncio
import ipaddress
import logging
from collections import Counter, deque
from collections.abc import Awaitable, Callable, Mapping, MutableMapping
from dataclasses import dataclass
from http import HTTPStatus
from typing import Any, Final, Protocol

from trueprob_service.edge.problems import Problem

__all__ = ["REASONS", "ConnectionLimits", "Connections", "Guarded", "usable_connections"]

_LOG: Final = logging.getLogger(__name__)
Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]
Application = Callable[[Scope, Receive, Send], Awaitable[None]]

# Reason of a refusal → status of the answer; None where no answer can be sent.
REASONS: Final[Mapping[str, int | None]] = {
    "header_bytes": 431,
    "header_seconds": 408,
    "body_rate": 408,
    "answer_rate": None,
    "malformed": 400,
    "connections": 503,
    "connections_of_address": 429,
    "requests": 503,
}
_RETRY_SECONDS: Final = {"connections": 5, "connections_of_address": 5, "requests": 1}
# Answered however many requests run: what restarts, drains and watches the service.
_ALWAYS_ANSWERED: Final = ("/v2/health/live", "/v2/health/ready", "/metrics")
# Files that a process has open besides connections: database, models, pipes, libraries.
_OTHER_FILES: Final = 256
_LONGEST_SWEEP_SECONDS: Final = 1.0
_SEARCH_SECONDS: Final = 0.1  # between two searches for idle connections
_SURELY_IDLE_SECONDS: Final = 1.0  # so that a client that is about to send is not the one cut off


@dataclass(frozen=True)
class ConnectionLimits:
    """The numbers; their defaults are those of the settings. Sizes in bytes, times in seconds."""

    max_header_bytes: int = 32 << 10
    header_seconds: float = 10.0
    body_bytes_per_second: int = 256
    body_grace_seconds: float = 10.0
    keep_alive_seconds: float = 75.0
    max_connections: int = 4096
    max_connections_per_address: int = 1024
    max_requests: int = 1024

    def sentence(self, reason: str) -> str:
        """What a refused client is told: the limit, and what to do."""
        return {
            "header_bytes": "the request line and the headers must have at most "
            f"{self.max_header_bytes} bytes together: send fewer or shorter headers",
            "header_seconds": "the request line and the headers must arrive within "
            f"{self.header_seconds:g} s: send the request again",
            "body_rate": f"a body must arrive with at least {self.body_bytes_per_second} bytes a "
            f"second, on average over {self.body_grace_seconds:g} s: send it again, faster or in "
            "smaller parts",
            "answer_rate": "the answer was not read",
            "malformed": "the bytes are not a request of HTTP/1.1",
            "connections": f"{self.max_connections} connections are open, the limit: try again "
            "later",
            "connections_of_address": f"{self.max_connections_per_address} connections of this "
            "address are open, the limit: close some or reuse them",
            "requests": f"{self.max_requests} requests are being answered, the limit: try again "
            "later",
        }[reason]


class Guarded(Protocol):
    """A connection, as far as `Connections` knows it."""

    def idle_since(self) -> float | None:
        """When it became idle; None while it is in use."""

    def check(self, now: float) -> None:
        """Close or refuse the connection if a time has passed or a rate is not met."""

    def close_idle(self) -> None:
        """Close an idle connection."""


class Connections:
    """Everything that the connections of a process share; used on the event loop only."""

    def __init__(
        self,
        limits: ConnectionLimits,
        *,
        is_proxy: Callable[[str | None], bool] = lambda _host: False,
    ) -> None:
        self.limits = limits
        self.refused: Counter[str] = Counter(dict.fromkeys(REASONS, 0))
        self.answers = {
            reason: _answer(status, reason, limits)
            for reason, status in REASONS.items()
            if status is not None
        }
        self._is_proxy = is_proxy
        self._open: dict[Guarded, str | None] = {}  # with the address that each counts for
        self._of_address: Counter[str] = Counter()
        self._lingering: set[Guarded] = set()
        self._idle: deque[Guarded] = deque()
        self._searched_at = 0.0
        self._sweeping = False
        shortest = min(limits.header_seconds, limits.body_grace_seconds, limits.keep_alive_seconds)
        self._sweep_seconds = min(_LONGEST_SWEEP_SECONDS, shortest / 4)

    @property
    def n_open(self) -> int:
        """Number of connections that count towards the limit."""
        return len(self._open)

    @property
    def n_lingering(self) -> int:
        """Number of refused connections whose clients may still read the answer."""
        return len(self._lingering)

    def figures(self) -> tuple[Mapping[str, int], ...]:
        """Numbers of connections by state, and of refusals by reason, for the metrics."""
        return {"open": self.n_open, "refused": self.n_lingering}, self.refused

    def opened(
        self, connection: Guarded, host: str | None, loop: asyncio.AbstractEventLoop
    ) -> str | None:
        """Count a new connection; the reason for which it has to be refused, or None."""
        if not self._sweeping:
            self._sweeping = True
            loop.call_later(self._sweep_seconds, self._sweep, loop)
        address = None if self._is_proxy(host) else _address(host)
        if (
            address is not None
            and self._of_address[address] >= self.limits.max_connections_per_address
        ):
            return "connections_of_address"
        if len(self._open) >= self.limits.max_connections and not self._close_one(loop.time()):
            return "connections"
        self._open[connection] = address
        if address is not None:
            self._of_address[address] += 1
        return None

    def closed(self, connection: Guarded) -> None:
        """Count a connection no more."""
        self._lingering.discard(connection)
        if connection not in self._open:
            return
        address = self._open.pop(connection)
        if address is not None:
            self._of_address[address] -= 1
            if not self._of_address[address]:
                del self._of_address[address]

    def linger(self, connection: Guarded) -> None:
        """Keep looking at a refused connection, which no longer counts, until it has ended."""
        self.closed(connection)
        self._lingering.add(connection)

    def overloaded(self, app: Application) -> Application:
        """The application in place of ``app`` while too many requests are being answered."""
        problem = _problem(503, "requests", self.limits)
        headers = [(name.encode(), value.encode()) for name, value in problem.headers.items()]
        headers.append((b"content-length", b"%d" % len(problem.body)))

        async def answer(scope: Scope, receive: Receive, send: Send) -> None:
            if scope["path"].endswith(_ALWAYS_ANSWERED):
                await app(scope, receive, send)
                return
            self.refused["requests"] += 1
            await send({"type": "http.response.start", "status": 503, "headers": headers})
            await send({"type": "http.response.body", "body": problem.body})

        return answer

    def _sweep(self, loop: asyncio.AbstractEventLoop) -> None:
        now = loop.time()
        for connection in (*self._open, *self._lingering):
            connection.check(now)
        self._sweeping = bool(self._open or self._lingering)
        if self._sweeping:
            loop.call_later(self._sweep_seconds, self._sweep, loop)

    def _close_one(self, now: float) -> bool:
        """Close the connection that has been idle for longest; False if all are in use."""
        if not self._idle and now - self._searched_at >= _SEARCH_SECONDS:
            self._searched_at = now
            latest = now - _SURELY_IDLE_SECONDS
            idle = [(since, each) for each in self._open
                    if (since := each.idle_since()) is not None and since <= latest]  # fmt: skip
            self._idle.extend(each for _, each in sorted(idle, key=lambda pair: pair[0]))
        while self._idle:
            connection = self._idle.popleft()
            since = connection.idle_since() if connection in self._open else None
            if since is not None and since <= now - _SURELY_IDLE_SECONDS:
                connection.close_idle()
                self.linger(connection)  # it ends once its transport is closed
                return True
        return False


def usable_connections(wanted: int) -> int:
    """The limit of connections that this process can have: each of them is an open file.

    Raises the soft limit of open files if need be, as far as the hard limit allows.
    """
    try:
        import resource
    except ImportError:  # Windows has no such limit
        return wanted
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    needed = wanted + _OTHER_FILES
    if soft == resource.RLIM_INFINITY or soft >= needed:
        return wanted
    raised = needed if hard == resource.RLIM_INFINITY else min(needed, hard)
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (raised, hard))
    except (OSError, ValueError):  # macOS has another limit, which this call does not name
        raised = soft
    usable = max(raised - _OTHER_FILES, raised // 2)
    if usable < wanted:
        _LOG.warning(
            "max_connections is %d, but this process may open %d files: %d connections are "
            "allowed; raise the limit of open files (ulimit -n)",
            wanted,
            raised,
            usable,
        )
    return min(usable, wanted)


def _address(host: str | None) -> str | None:
    """What connections are counted by: an IPv4 address or a /64 of IPv6; None for other sockets."""
    if host is None:
        return None
    try:
        ip = ipaddress.ip_address(host.partition("%")[0])
    except ValueError:
        return None
    if isinstance(ip, ipaddress.IPv4Address):
        return host
    if ip.ipv4_mapped is not None:
        return str(ip.ipv4_mapped)
    return str(ipaddress.ip_network((ip, 64), strict=False))


def _problem(status: int, reason: str, limits: ConnectionLimits) -> Problem:
    retry = _RETRY_SECONDS.get(reason)
    headers = {} if retry is None else {"retry-after": str(retry)}
    return Problem(status, f"limit_{reason}", limits.sentence(reason), headers)


def _answer(status: int, reason: str, limits: ConnectionLimits) -> bytes:
    """A whole answer, after which the connection is closed."""
    problem = _problem(status, reason, limits)
    lines = [f"HTTP/1.1 {status} {HTTPStatus(status).phrase}"]
    lines += [f"{name}: {value}" for name, value in problem.headers.items()]
    lines += [f"content-length: {len(problem.body)}", "connection: close", "", ""]
    return "\r\n".join(lines).encode() + problem.body
