"""``python -m benchmarks.serving.attackers KIND PORT SECONDS KEY``: one hostile client.

Its connections come from 127.0.0.2, so that limits by address do not meet the honest clients on
127.0.0.1.
"""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Awaitable, Callable
from typing import Final

IDLE, SLOW, FLOODS = 2_000, 500, 4  # connections
HEADER_BYTES: Final = 32_000_000  # of one endless header
PREDICT: Final = b"POST /v1/models/logits10/probabilities HTTP/1.1\r\nHost: 127.0.0.1\r\n"
Stream = tuple[asyncio.StreamReader, asyncio.StreamWriter]


async def connect(port: int) -> Stream:
    return await asyncio.open_connection("127.0.0.1", port, local_addr=("127.0.0.2", 0))


async def held(port: int, first: bytes, more: bytes) -> None:
    """One connection that is held for ever, with a few bytes a second if `more` is not empty."""
    while True:
        try:
            reader, writer = await connect(port)
            writer.write(first)
            while not reader.at_eof():
                await asyncio.sleep(1)
                writer.write(more)
                await writer.drain()
                if reader._buffer:  # type: ignore[attr-defined]  # refused: the answer is there
                    break
        except OSError:
            pass
        else:
            writer.close()
        await asyncio.sleep(1)


async def flood(port: int, first: bytes, piece: bytes, size: int) -> None:
    """Sends one request of that size again and again, until it is cut off each time."""
    while True:
        try:
            _, writer = await connect(port)
            writer.write(first)
            for _ in range(size // len(piece)):
                writer.write(piece)
                await writer.drain()
            writer.close()
        except OSError:
            await asyncio.sleep(0.01)


async def requests(port: int, request: bytes) -> None:
    """Sends the next request when the last was answered."""
    while True:
        try:
            reader, writer = await connect(port)
            while True:
                writer.write(request)
                head = (await reader.readuntil(b"\r\n\r\n")).lower()
                length = head.partition(b"content-length: ")[2].partition(b"\r\n")[0]
                await reader.readexactly(int(length or 0))
        except (OSError, asyncio.IncompleteReadError):
            await asyncio.sleep(0.01)


def _post(key: str, body: bytes, n: int) -> bytes:
    lines = b"Authorization: Bearer %s\r\nContent-Type: application/json\r\n" % key.encode()
    return PREDICT + lines + b"Content-Length: %d\r\n\r\n" % n + body


ROWS: Final = b'{"logits": [[0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1.0]]}'
# Kind → number of connections, and what each of them does at a port, with a valid key.
KINDS: Final[dict[str, tuple[int, Callable[[int, str], Awaitable[None]]]]] = {
    "idle connections": (IDLE, lambda port, _key: held(port, b"", b"")),
    "slow headers": (SLOW, lambda port, _key: held(port, PREDICT, b"X-A: b\r\n")),
    "slow bodies": (SLOW, lambda port, key: held(port, _post(key, b"", 1_000_000), b" ")),
    "endless headers": (
        FLOODS,
        lambda port, _key: flood(port, PREDICT + b"X: ", b"a" * 65_536, HEADER_BYTES),
    ),
    "many headers": (
        FLOODS,
        lambda port, _key: flood(port, PREDICT, b"a: b\r\n" * 10_000, HEADER_BYTES),
    ),
    "pipelined requests": (
        FLOODS,
        lambda port, _key: flood(port, b"", b"GET / HTTP/1.1\r\n\r\n" * 3_000, HEADER_BYTES),
    ),
    "wrong keys": (FLOODS, lambda port, _key: requests(port, _post("x" * 40, ROWS, len(ROWS)))),
}


async def attack(kind: str, port: int, seconds: float, key: str) -> None:
    """Run one kind for a time."""
    n, client = KINDS[kind]
    tasks = [asyncio.ensure_future(client(port, key)) for _ in range(n)]
    print("started", flush=True)
    await asyncio.wait(tasks, timeout=seconds)
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)


if __name__ == "__main__":
    import resource

    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    asyncio.run(attack(sys.argv[1], int(sys.argv[2]), float(sys.argv[3]), sys.argv[4]))
