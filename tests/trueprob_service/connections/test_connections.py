"""Limits of connections, over real sockets: each refusal, and that honest clients see none."""

from __future__ import annotations

import asyncio
import json
import socket
import threading
import time
from collections.abc import Callable, Iterator, MutableMapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any

import httpx
import pytest

from trueprob_service.connections.limits import REASONS, ConnectionLimits, Connections, _address
from trueprob_service.server import AnnouncingServer, limited_connections
from trueprob_service.settings import Settings

pytestmark = pytest.mark.slow  # most wait for a limit of time

GET = b"GET /x HTTP/1.1\r\nHost: h\r\n\r\n"
LARGE = 8 << 20


@dataclass
class Served:
    port: int
    connections: Connections
    release: asyncio.Event
    loop: asyncio.AbstractEventLoop
    running: list[str]  # paths of the requests that have begun

    def connect(self, sent: bytes = b"", *, buffer: int | None = None) -> socket.socket:
        new = socket.socket()
        if buffer is not None:
            new.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, buffer)
        new.settimeout(20)
        new.connect(("127.0.0.1", self.port))
        new.sendall(sent)
        return new

    def let_go(self) -> None:
        self.loop.call_soon_threadsafe(self.release.set)

    def until(self, condition: Callable[[], bool]) -> None:
        end = time.monotonic() + 20
        while not condition():
            assert time.monotonic() < end, "waited in vain"
            time.sleep(0.005)

    def refused(self) -> dict[str, int]:
        return {reason: n for reason, n in self.connections.refused.items() if n}


@contextmanager
def serving(*, is_proxy: bool = False, **limits: Any) -> Iterator[Served]:
    """A server with a small application, in a thread of this process."""
    values = {"body_grace_seconds": 0.4, "keep_alive_seconds": 30.0, **limits}
    settings = Settings(port=0, trusted_proxies="127.0.0.1" if is_proxy else "192.0.2.1", **values)
    connections = limited_connections(settings)
    release, listening = asyncio.Event(), threading.Event()
    running: list[str] = []
    found: list[Any] = []

    async def app(
        scope: MutableMapping[str, Any], receive: Callable[[], Any], send: Callable[..., Any]
    ) -> None:
        if scope["type"] == "lifespan":
            found.append(asyncio.get_running_loop())
            while (message := await receive())["type"] != "lifespan.shutdown":
                await send({"type": f"{message['type']}.complete"})
            await send({"type": "lifespan.shutdown.complete"})
            return
        path = scope["path"]
        running.append(path)
        n, more = 0, path != "/early"
        while more:
            message = await receive()
            if message["type"] == "http.disconnect":
                running.append("gone")
                return
            n += len(message["body"])
            more = message["more_body"]
        if path == "/wait":
            await release.wait()
        body = b"x" * LARGE if path == "/large" else b"%d" % n
        if path == "/trailers":
            body = json.dumps([[k.decode(), v.decode()] for k, v in scope["headers"]]).encode()
        headers = [(b"content-length", b"%d" % len(body))]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.body", "body": body})

    def announce(port: int) -> None:
        found.append(port)
        listening.set()

    server = AnnouncingServer(app, settings, announce, connections=connections)
    thread = threading.Thread(target=server.run)
    thread.start()
    try:
        assert listening.wait(20)
        yield Served(found[1], connections, release, found[0], running)
    finally:
        if found:
            found[0].call_soon_threadsafe(release.set)
        server.force_exit = server.should_exit = True
        thread.join(20)
        assert not thread.is_alive()


def answer_of(client: socket.socket) -> httpx.Response:
    """The one answer that comes, after which the server closes."""
    data = b""
    while piece := client.recv(1 << 16):
        data += piece
    head, _, body = data.partition(b"\r\n\r\n")
    lines = head.decode().split("\r\n")
    pairs = [tuple(line.split(": ", 1)) for line in lines[1:]]
    return httpx.Response(int(lines[0].split()[1]), headers=pairs, content=body)  # type: ignore[arg-type]


def read_answer(client: socket.socket) -> bytes:
    """The body of an answer with a length, on a connection that stays open."""
    data = b""
    while b"\r\n\r\n" not in data:
        data += client.recv(1)
    length = int(data.lower().partition(b"content-length: ")[2].partition(b"\r\n")[0])
    body = b""
    while len(body) < length:
        body += client.recv(length - len(body))
    return body


def is_problem(answer: httpx.Response, reason: str, *words: str) -> bool:
    assert answer.status_code == REASONS[reason]
    assert answer.headers["connection"] == "close"
    assert answer.headers["content-type"] == "application/problem+json"
    problem = answer.json()
    assert (problem["status"], problem["code"]) == (REASONS[reason], f"limit_{reason}")
    return all(word in problem["detail"] for word in words)


def is_cut_off(client: socket.socket, piece: bytes, *, times: int, pause: float = 0.0) -> bool:
    """Whether the server closes while a client sends a piece again and again."""
    try:
        for _ in range(times):
            client.sendall(piece)
            time.sleep(pause)
    except OSError:
        return True
    return False


def head_of(n: int, *, pieces: int = 1) -> list[bytes]:
    """A request whose first line and headers have n bytes together."""
    start, end = b"GET /x HTTP/1.1\r\nHost: h\r\nX: ", b"\r\n\r\n"
    whole = start + b"a" * (n - len(start) - len(end)) + end
    size = -(-n // pieces)
    return [whole[i : i + size] for i in range(0, n, size)]


# ----- Headers -----


@pytest.mark.parametrize("pieces", [1, 3, 40])
def test_headers_up_to_the_limit_are_read_and_one_byte_more_is_refused(pieces: int) -> None:
    with serving() as served:
        for n in (32 << 10, (32 << 10) + 1):
            with served.connect() as client:
                for piece in head_of(n, pieces=pieces):
                    client.sendall(piece)
                if n <= 32 << 10:
                    assert read_answer(client) == b"0"
                else:
                    assert is_problem(answer_of(client), "header_bytes", "32768 bytes")
        assert served.refused() == {"header_bytes": 1}


@pytest.mark.parametrize(
    "start",
    [
        b"GET /x HTTP/1.1\r\nHost: h\r\nX: ",  # one header without an end
        b"GET /x HTTP/1.1\r\nHost: h\r\n",  # its name
        b"GET /",  # a path without an end
    ],
)
def test_a_header_without_an_end_is_refused_before_it_is_kept(start: bytes) -> None:
    with serving() as served, served.connect(start) as client:
        assert is_cut_off(client, b"a" * (1 << 19), times=64)
        served.until(lambda: served.connections.n_open == 0)
        assert served.refused() == {"header_bytes": 1}


def test_many_small_headers_count_together() -> None:
    with serving() as served:
        lines = b"".join(b"x%d: y\r\n" % i for i in range(6_000))
        with served.connect(b"GET /x HTTP/1.1\r\n" + lines) as client:
            assert is_problem(answer_of(client), "header_bytes")
        assert served.running == []


def test_trailers_and_chunk_extensions_count_and_are_no_headers() -> None:
    start = b"POST /trailers HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n"
    with serving() as served:
        with served.connect(start + b"3\r\nabc\r\n0\r\nAuthorization: Bearer x\r\n\r\n") as client:
            assert "authorization" not in dict(json.loads(read_answer(client)))
        flood = b"".join(b"x%d: y\r\n" % i for i in range(20_000))
        for body in (b"0\r\n" + flood, b"3;" + b"e" * 200_000):
            with served.connect(start + body) as client:
                assert is_problem(answer_of(client), "header_bytes")
        assert served.refused() == {"header_bytes": 2}


# ----- Times -----


def test_slow_headers_are_answered_with_408_and_slow_first_bytes_closed() -> None:
    with serving(header_seconds=0.4) as served:
        with served.connect() as never, served.connect(b"GET /x HTT") as slow:
            for byte in (b"P", b"/", b"1"):
                time.sleep(0.05)
                slow.sendall(byte)
            assert is_problem(answer_of(slow), "header_seconds", "0.4 s")
            assert never.recv(1) == b""  # browsers connect in advance: no answer to no request
        assert served.refused() == {"header_seconds": 1}


def test_slow_headers_of_a_second_request_are_refused_too() -> None:
    with serving(header_seconds=0.4) as served, served.connect(GET) as client:
        assert read_answer(client) == b"0"
        client.sendall(b"GET /x HTTP/1.1\r\nA: b\r\n")
        assert is_problem(answer_of(client), "header_seconds")


def test_an_idle_connection_is_closed_and_empty_lines_do_not_keep_it_open() -> None:
    with serving(keep_alive_seconds=0.4, header_seconds=0.4) as served:
        for first in (GET, b"\r\n"):
            with served.connect(first) as client:
                assert is_cut_off(client, b"\r\n", times=400, pause=0.05)
        assert served.refused() == {}


@pytest.mark.parametrize("framing", ["Content-Length: 100000", "Transfer-Encoding: chunked"])
def test_a_slow_body_is_cut_and_its_request_ends(framing: str) -> None:
    head = f"POST /x HTTP/1.1\r\n{framing}\r\n\r\n".encode()
    with serving() as served, served.connect(head) as client:
        stop = threading.Event()

        def trickle() -> None:
            while not stop.wait(0.05):
                try:
                    client.sendall(b"1\r\nx\r\n" if b"chunked" in head else b"x")
                except OSError:
                    return

        thread = threading.Thread(target=trickle)
        thread.start()
        try:
            assert is_problem(answer_of(client), "body_rate", "256 bytes a second", "0.4 s")
        finally:
            stop.set()
            thread.join()
        served.until(lambda: served.running == ["/x", "gone"])
        assert served.refused() == {"body_rate": 1}


def test_a_fast_start_earns_no_pause() -> None:
    head = b"POST /x HTTP/1.1\r\nContent-Length: 9000000\r\n\r\n"
    with serving() as served, served.connect(head + b"x" * 5_000_000) as client:
        assert is_problem(answer_of(client), "body_rate")


def test_a_body_that_is_fast_enough_may_take_long() -> None:
    head = b"POST /x HTTP/1.1\r\nContent-Length: 2000\r\n\r\n"
    with serving(body_bytes_per_second=100) as served, served.connect(head) as client:
        for _ in range(20):
            time.sleep(0.1)
            client.sendall(b"x" * 100)
        assert read_answer(client) == b"2000"


def test_no_rate_is_asked_for_with_0() -> None:
    head = b"POST /x HTTP/1.1\r\nContent-Length: 2\r\n\r\n"
    limits = {"body_bytes_per_second": 0, "body_grace_seconds": 0.1}
    with serving(**limits) as served, served.connect(head) as client:
        time.sleep(0.5)
        client.sendall(b"xx")
        assert read_answer(client) == b"2"


def test_time_in_which_the_service_does_not_ask_for_the_body_does_not_count() -> None:
    head = b"POST /wait HTTP/1.1\r\nContent-Length: 1\r\n\r\nx"
    with serving(header_seconds=0.3, keep_alive_seconds=0.3) as served:
        with served.connect(head) as client:
            served.until(lambda: served.running == ["/wait"])
            time.sleep(1.2)
            served.let_go()
            assert read_answer(client) == b"1"
        assert served.refused() == {}


def test_an_answer_that_is_not_read_is_given_up() -> None:
    request = b"GET /large HTTP/1.1\r\nHost: h\r\n\r\n"
    with serving() as served, served.connect(request, buffer=4096):
        served.until(lambda: served.refused() == {"answer_rate": 1})
        served.until(lambda: served.connections.n_open == 0)


def test_an_answer_may_be_read_slowly() -> None:
    with serving(body_bytes_per_second=1000) as served:
        request = b"GET /large HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n"
        with served.connect(request, buffer=4096) as client:
            n, started = 0, time.monotonic()
            while piece := client.recv(1 << 18):
                n += len(piece)
                if time.monotonic() - started < 1.2:
                    time.sleep(0.02)
        assert n > LARGE
        assert served.refused() == {}


def test_the_rest_of_a_body_that_is_answered_already_has_an_end() -> None:
    head = b"POST /early HTTP/1.1\r\nContent-Length: 1000000\r\n\r\n"
    with serving(keep_alive_seconds=0.4) as served, served.connect(head) as client:
        assert read_answer(client) == b"0"
        assert is_cut_off(client, b"x", times=400, pause=0.05)


# ----- Numbers -----


def test_connections_of_one_address_are_limited_unless_it_is_a_proxy() -> None:
    for is_proxy in (False, True):
        with serving(max_connections_per_address=3, is_proxy=is_proxy) as served, ExitStack() as on:
            kept = [on.enter_context(served.connect(GET)) for _ in range(4)]
            for client in kept[:3]:
                assert read_answer(client) == b"0"
            if is_proxy:
                assert read_answer(kept[3]) == b"0"
                continue
            answer = answer_of(kept[3])
            assert is_problem(answer, "connections_of_address", "3 connections of this address")
            assert answer.headers["retry-after"] == "5"
            kept[0].close()
            served.until(lambda: served.connections.n_open == 2)
            with served.connect(GET) as again:
                assert read_answer(again) == b"0"


def test_the_longest_idle_connection_makes_room_and_a_busy_one_does_not() -> None:
    wait = b"GET /wait HTTP/1.1\r\nHost: h\r\n\r\n"
    with serving(max_connections=2) as served:
        with served.connect(GET) as idle, served.connect(wait) as busy:
            assert read_answer(idle) == b"0"
            served.until(lambda: "/wait" in served.running)
            time.sleep(1.3)  # idle for more than a second
            with served.connect(wait) as new:
                assert idle.recv(1) == b""
                served.until(lambda: served.running.count("/wait") == 2)
                with served.connect(GET) as refused:
                    answer = answer_of(refused)
                    assert is_problem(answer, "connections", "2 connections are open")
                    assert answer.headers["retry-after"] == "5"
                served.let_go()
                assert (read_answer(busy), read_answer(new)) == (b"0", b"0")
        assert served.refused() == {"connections": 1}


def test_requests_in_flight_are_limited_and_health_is_answered() -> None:
    with serving(max_requests=2) as served, ExitStack() as open_:
        for _ in range(2):
            open_.enter_context(served.connect(b"GET /wait HTTP/1.1\r\nHost: h\r\n\r\n"))
        served.until(lambda: len(served.running) == 2)
        url = f"http://127.0.0.1:{served.port}"
        answer = httpx.post(f"{url}/x", content=b"abc")
        assert answer.status_code == 503
        assert answer.headers["retry-after"] == "1"
        assert answer.json()["code"] == "limit_requests"
        for path in ("/v2/health/live", "/v2/health/ready", "/metrics", "/prefix/v2/health/ready"):
            assert httpx.get(url + path).status_code == 200
        served.let_go()
        served.until(lambda: httpx.get(f"{url}/x").status_code == 200)


def test_many_refused_connections_are_reset_and_leave_nothing_behind() -> None:
    with serving(max_connections_per_address=1) as served, ExitStack() as open_:
        first = open_.enter_context(served.connect(GET))
        assert read_answer(first) == b"0"
        for _ in range(400):
            open_.enter_context(served.connect())
        served.until(lambda: served.connections.refused["connections_of_address"] == 400)
        assert served.connections.n_open == 1
        served.until(lambda: served.connections.n_lingering == 0)
        first.sendall(GET)
        assert read_answer(first) == b"0"


@pytest.mark.parametrize(
    ("host", "address"),
    [
        ("192.0.2.7", "192.0.2.7"),
        ("::ffff:192.0.2.7", "192.0.2.7"),
        ("2001:db8::1", "2001:db8::/64"),
        ("2001:db8::ffff:1", "2001:db8::/64"),
        ("2001:db8:0:1::1", "2001:db8:0:1::/64"),
        ("fe80::1%eth0", "fe80::/64"),
        (None, None),
        ("/run/socket", None),
    ],
)
def test_what_counts_as_one_address(host: str | None, address: str | None) -> None:
    assert _address(host) == address


# ----- Pipelining, chunks, malformed bytes -----


def test_pipelined_requests_are_answered_in_order_a_few_at_a_time() -> None:
    n = 4_000
    with serving() as served, served.connect() as client:
        sender = threading.Thread(target=client.sendall, args=(GET * n,))
        sender.start()
        data, count = b"", 0
        while count < n:
            data = data[-20:] + client.recv(1 << 20)
            count += data[20:].count(b"HTTP/1.1 200") if count else data.count(b"HTTP/1.1 200")
        sender.join()
        assert len(served.running) == n
        assert served.refused() == {}


def test_a_body_and_requests_behind_it_arrive_whole() -> None:
    for length in (10, 5_000, 300_000):
        post = b"POST /x HTTP/1.1\r\nContent-Length: %d\r\n\r\n" % length + b"x" * length
        with serving() as served, served.connect((post + GET) * 3) as client:
            read = [read_answer(client) for _ in range(6)]
            assert read == [b"%d" % length, b"0"] * 3


@pytest.mark.parametrize("size", [1, 100, 70_000])
def test_chunked_bodies_of_any_chunk_arrive_whole(size: int) -> None:
    n = 50 if size > 1000 else 60_000
    chunks = (b"%x\r\n" % size + b"x" * size + b"\r\n") * n + b"0\r\n\r\n"
    head = b"POST /x HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n"
    with serving() as served, served.connect(head + chunks + GET) as client:
        assert read_answer(client) == b"%d" % (size * n)
        assert read_answer(client) == b"0"


@pytest.mark.parametrize(
    "sent",
    [
        b"\x16\x03\x01\x02\x00\x01\x00",  # TLS on a plain port
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
        b"GET /x HTTP/1.1\nHost h\n\n",
        b"POST /x HTTP/1.1\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n",
        b"CONNECT example.com:443 HTTP/1.1\r\n\r\n",
        b"POST /x HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
    ],
)
def test_malformed_bytes_are_a_problem_document(sent: bytes) -> None:
    with serving() as served, served.connect(sent) as client:
        assert is_problem(answer_of(client), "malformed")
        assert served.refused() == {"malformed": 1}


def test_an_earlier_request_is_answered_before_the_connection_ends() -> None:
    wait = b"GET /wait HTTP/1.1\r\nHost: h\r\n\r\n"
    for behind in (b"nonsense\r\n\r\n", b"GET /" + b"a" * 40_000):
        with serving() as served, served.connect(wait + behind) as client:
            served.until(lambda: bool(served.refused()))
            assert served.running == ["/wait"]
            served.let_go()
            assert answer_of(client).status_code == 200


def test_an_upgrade_is_not_made_and_the_request_is_answered() -> None:
    sent = (
        b"GET /x HTTP/1.1\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
        b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: x\r\n\r\n"
    )
    with serving() as served, served.connect(sent) as client:
        answer = answer_of(client)
        assert (answer.status_code, answer.content) == (200, b"0")
        assert served.refused() == {}


def test_the_defaults_are_those_of_the_settings() -> None:
    settings = Settings()
    for name, value in vars(ConnectionLimits()).items():
        assert getattr(settings, name) == value
