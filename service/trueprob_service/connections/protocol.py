"""uvicorn's protocol for HTTP/1.1 (httptools), held to the limits of `Connections`.

A connection is in one of these phases; `GuardedProtocol.check` looks about once a second.

- *head*: the request line and the headers. Their bytes and their time are limited.
- *body*: bytes a second, on average over each window. Time in which the service does not read
  does not count.
- *answer*: if the client does not read, bytes a second are limited in the same way.
- *idle*: the time until the next request is limited.

The event loop parses a few kilobytes of headers, chunks or pipelined requests at a time, and serves
others in between; a body of a declared length goes through as it is. Pipelined requests are parsed
as the ones before them are answered.

A refused client gets an answer if it is its turn, and may read it for a second: closing at once
would reset the connection while it sends, and it would never see why.
"""

from __future__ import annotations

import asyncio
import struct
import sys
from typing import Any, Final

import httptools
from uvicorn.protocols.http.flow_control import HIGH_WATER_LIMIT
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol, RequestResponseCycle

from trueprob_service.connections.limits import Connections

__all__ = ["GuardedProtocol"]

_HEAD_STEP: Final = 4096  # bytes of requests that are parsed at a time: some 200 tiny ones, 2 ms
_CHUNKS_STEP: Final = 16 << 10  # bytes of a chunked body: 3 000 chunks of one byte, 1 ms
_MAX_WAITING_BYTES: Final = 1 << 20  # of pipelined requests that are not parsed yet
_FRAMING_PER_BYTE: Final = 16  # chunks of one byte need 5
_LINGER_SECONDS: Final = 1.0
_LINGER_BYTES: Final = 1 << 20
_MAX_LINGERING: Final = 256  # more refused connections are reset


class GuardedProtocol(HttpToolsProtocol):
    """One connection. The limits are those of ``connections``, which all connections share."""

    # uvicorn says that both are never None; before the first request they are.
    cycle: RequestResponseCycle | None  # type: ignore[assignment]
    scope: Any

    def __init__(self, *arguments: Any, connections: Connections, **keywords: Any) -> None:
        super().__init__(*arguments, **keywords)
        self._connections = connections
        self._limits = connections.limits
        self._usual_app = self.app
        self._overloaded: Any = None  # the application while too many requests are answered
        self._since = 0.0  # when the head or the idle time began, or the answer ended
        self._head: object = None  # scope of the request whose head is incomplete
        self._head_bytes = 0  # of that head
        self._complete: RequestResponseCycle | None = None  # newest request that arrived wholly
        self._body_bytes = 0
        self._raw_bytes = 0  # of a chunked body with its framing
        self._length: tuple[RequestResponseCycle, int] | None = None  # a body's declared length
        self._rest: bytes | memoryview = b""  # received, and not parsed yet
        self._scheduled = False
        self._refused = False
        self._discarded = 0
        # A window over which a rate is measured: what is measured, from when on, from where on.
        self._window: tuple[object, float, int] | None = None

    # ----- Callbacks of the transport -----

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Count the connection, or refuse it."""
        super().connection_made(transport)
        self._since = self.loop.time()
        host = self.client[0] if self.client is not None else None
        reason = self._connections.opened(self, host, self.loop)
        if reason is not None:
            self._refuse(reason)

    def connection_lost(self, exc: Exception | None) -> None:
        """Forget the connection."""
        self._connections.closed(self)
        self._rest = b""
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Parse what fits into a turn of the event loop; nearly always, that is all."""
        if len(data) > _HEAD_STEP or self._head is not None or self.pipeline or self._rest:
            self._receive(data)
        elif self._refused:
            self._discard(len(data))
        else:
            cycle = self.cycle
            if cycle is not None and self._complete is not cycle:
                self._raw_bytes += len(data)
            self._feed(data)

    # ----- Callbacks of the parser -----

    def on_headers_complete(self) -> None:
        """Start the request, or the answer that too many are being answered."""
        if len(self.tasks) < self._limits.max_requests:
            self.app = self._usual_app
        else:
            if self._overloaded is None:
                self._overloaded = self._connections.overloaded(self._usual_app)
            self.app = self._overloaded
        super().on_headers_complete()
        self.headers = []  # trailers of a chunked body are no headers of the request
        self._body_bytes = self._raw_bytes = 0

    def on_body(self, body: bytes) -> None:
        """Pass a piece of the body on; as in uvicorn, but nothing is ever upgraded."""
        self._body_bytes += len(body)
        cycle = self.cycle
        if cycle is None or cycle.response_complete:
            return
        cycle.body += body
        if len(cycle.body) > HIGH_WATER_LIMIT:
            self.flow.pause_reading()
        cycle.message_event.set()

    def on_message_complete(self) -> None:
        """End the body; as in uvicorn."""
        cycle = self._complete = self.cycle
        if cycle is not None and not cycle.response_complete:
            cycle.more_body = False
            cycle.message_event.set()

    def on_response_complete(self) -> None:
        """Start the next pipelined request, or wait for one; `check` ends the waiting."""
        self.server_state.total_requests += 1
        if self.transport.is_closing():
            return
        self._since = self.loop.time()
        if self.pipeline:
            cycle, app = self.pipeline.pop()
            task = self.loop.create_task(cycle.run_asgi(app))
            task.add_done_callback(self.tasks.discard)
            self.tasks.add(task)
        if self.pipeline:
            return
        if self._rest:
            self._schedule()
        else:
            self.flow.resume_reading()

    # ----- Receiving, a step at a time -----

    def _receive(self, data: bytes | memoryview) -> None:
        """Parse the first step of what has arrived, and keep the rest for later."""
        if self._refused:
            self._discard(len(data))
            return
        if self._rest:
            self._rest = bytes(self._rest) + bytes(data)
        elif self.pipeline:
            self._rest = data
        else:
            self._parse(memoryview(data))
        if len(self._rest) > _MAX_WAITING_BYTES:
            self._refuse("header_bytes")

    def _parse(self, data: memoryview) -> None:
        stepped = False
        while data:
            cycle = self.cycle if self._head is None else None
            in_body = cycle is not None and self._complete is not cycle
            step = 0 if cycle is None or not in_body else self._body_left(cycle)
            if step == 0:  # a head, chunks, or between two requests
                if stepped or self.pipeline:
                    break
                stepped = True
                step = _CHUNKS_STEP if in_body else _HEAD_STEP
                if not in_body:
                    step = min(step, self._limits.max_header_bytes - self._head_bytes)
                    if step <= 0:
                        self._refuse("header_bytes")
                        return
            piece, data = data[:step], data[step:]
            if in_body:
                self._raw_bytes += len(piece)
            self._feed(piece)
            if self._refused or self.transport.is_closing():
                return
        if data:
            self._rest = data
            self.flow.pause_reading()
            if not self.pipeline:
                self._schedule()

    def _feed(self, data: bytes | memoryview) -> None:
        """Parse a piece, then see whether it ends inside a head."""
        before = self.cycle, self._complete
        try:
            self.parser.feed_data(data)
        except httptools.HttpParserUpgrade:
            # Nothing is upgraded: the request is answered as it is, and then the connection ends.
            if self.cycle is not None:
                self.cycle.keep_alive = False
        except httptools.HttpParserError:
            self._refuse("malformed")
            return
        cycle = self.cycle
        if self.scope is None or (cycle is not None and cycle.scope is self.scope):
            if self._head is not None:
                self._head, self._head_bytes = None, 0
            if cycle is not None and self._complete is not cycle:
                self._check_framing()
            return
        if self._head is not self.scope:
            # The time of a first request began with the connection.
            self._since = self._since if cycle is None else self.loop.time()
            self._head = self.scope
            # If the piece also ends another request, at most one step is not counted.
            self._head_bytes = len(data) if (cycle, self._complete) == before else 0
        else:
            self._head_bytes += len(data)

    def _check_framing(self) -> None:
        """Refuse a chunked body of extensions and trailers."""
        framing = self._raw_bytes - self._body_bytes
        if framing > self._limits.max_header_bytes + _FRAMING_PER_BYTE * self._body_bytes:
            self._refuse("header_bytes")

    def _body_left(self, cycle: RequestResponseCycle) -> int:
        """Bytes that are missing of a body of declared length; 0 for a chunked one."""
        if self._length is None or self._length[0] is not cycle:
            headers = dict(cycle.scope["headers"])
            declared = headers.get(b"content-length", b"")
            chunked = b"transfer-encoding" in headers or not declared.isdigit()
            self._length = cycle, 0 if chunked else int(declared)
        return max(0, self._length[1] - self._body_bytes)

    def _schedule(self) -> None:
        if not self._scheduled:
            self._scheduled = True
            self.loop.call_soon(self._continue)

    def _continue(self) -> None:
        """Parse the next step in a later turn of the event loop."""
        self._scheduled = False
        if self._refused or self.transport.is_closing() or self.pipeline:
            return
        data, self._rest = self._rest, b""
        self._parse(memoryview(data))
        cycle = self.cycle
        waits = cycle is not None and len(cycle.body) > HIGH_WATER_LIMIT
        if not (self._scheduled or self.pipeline or waits):
            self.flow.resume_reading()

    # ----- Refusing -----

    def _refuse(self, reason: str) -> None:
        """Answer if it is this request's turn, and end the connection."""
        if self._refused:
            return
        self._refused = True
        self._connections.refused[reason] += 1
        self._rest = b""
        self.pipeline.clear()
        cycle, answer = self.cycle, self._connections.answers.get(reason)
        if cycle is not None and cycle.scope is self.scope and self._complete is not cycle:
            # It is about the body of this request.
            if cycle.response_started:
                answer = None
            cycle.disconnected = True
            cycle.message_event.set()
        elif cycle is not None and not cycle.response_complete:
            # An earlier request is being answered: that is still sent.
            cycle.keep_alive = False
            self._linger()
            return
        if answer is None or self._connections.n_lingering >= _MAX_LINGERING:
            self.transport.abort()
            return
        self.transport.write(answer)
        if self.transport.can_write_eof():
            self.transport.write_eof()
        else:
            self.transport.close()
        self._linger()

    def _linger(self) -> None:
        self._since = self.loop.time()
        self._connections.linger(self)
        self.flow.resume_reading()

    def _discard(self, n: int) -> None:
        self._discarded += n
        if self._discarded > _LINGER_BYTES:
            self.transport.abort()

    # ----- What `Connections` asks and does -----

    def idle_since(self) -> float | None:
        """When the connection became idle; None while it is in use."""
        cycle = self.cycle
        if self._head is not None or self._refused or self._rest:
            return None
        if cycle is not None and not (cycle.response_complete and self._complete is cycle):
            return None
        return self._since

    def close_idle(self) -> None:
        """Close an idle connection."""
        if not self.transport.is_closing():
            self.transport.close()

    def check(self, now: float) -> None:
        """Close or refuse the connection if a time has passed or a rate is not met."""
        limits, cycle = self._limits, self.cycle
        if self.transport.get_write_buffer_size():
            self._check_reader(now)
            return
        if self._window is not None and self._window[0] == "answer":
            self._window = None
        if self._refused:
            answering = cycle is not None and not (cycle.response_complete or cycle.disconnected)
            if not answering and now - self._since >= _LINGER_SECONDS:
                self.transport.abort()
        elif self._rest:
            self._since = now  # the client waits for the service
        elif self._head is not None:
            if now - self._since >= limits.header_seconds:
                self._refuse("header_seconds")
        elif cycle is None:
            if now - self._since >= limits.header_seconds:
                self.close_idle()  # opened, and never used
        elif cycle.response_complete:
            # Idle, or the rest of a body that was answered before it had arrived.
            if now - self._since >= limits.keep_alive_seconds:
                self.close_idle()
        elif self._complete is not cycle:
            self._check_sender(now, cycle)

    def _check_sender(self, now: float, cycle: RequestResponseCycle) -> None:
        if cycle.waiting_for_100_continue or self.flow.read_paused:
            self._window = None  # the client waits for the service
        elif not self._window_is_met(now, cycle, self._body_bytes):
            self._refuse("body_rate")

    def _check_reader(self, now: float) -> None:
        # What waits to be sent shrinks as the client reads; only a larger answer makes it grow.
        in_kernel = _unacknowledged(self.transport)
        if in_kernel is None:
            return
        waiting = self.transport.get_write_buffer_size() + in_kernel
        if self._window is not None and self._window[0] == "answer" and -waiting < self._window[2]:
            self._window = None
        if not self._window_is_met(now, "answer", -waiting):
            self._connections.refused["answer_rate"] += 1
            self.transport.abort()

    def _window_is_met(self, now: float, what: object, n: int) -> bool:
        """Whether ``n``, which grows by bytes that came or went, grew fast enough."""
        if self._window is None or self._window[0] != what:
            self._window = what, now, n
            return True
        _, began, before = self._window
        if now - began < self._limits.body_grace_seconds:
            return True
        self._window = what, now, n
        return n - before >= self._limits.body_bytes_per_second * (now - began)


def _unacknowledged(transport: asyncio.Transport) -> int | None:
    """Bytes that the kernel has yet to send or waits to see acknowledged; None if it cannot say.

    Its buffer takes megabytes and new data only once a third is free: what waits in this process
    shrinks in rare, large steps, however steadily a client reads.
    """
    if not sys.platform.startswith("linux"):
        return None
    import fcntl
    import termios

    connected = transport.get_extra_info("socket")
    try:
        found = fcntl.ioctl(connected.fileno(), termios.TIOCOUTQ, bytes(4))
    except (AttributeError, OSError):
        return None
    n: int = struct.unpack("i", found)[0]
    return n
