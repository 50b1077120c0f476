"""Compressed bodies: the same answer as without, refused in words when damaged, never a bomb."""

import asyncio
import json
import os
import tracemalloc
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.trueprob_service.application import ROOT, application
from tests.trueprob_service.compressed import COMPRESS, zstd
from trueprob_service.edge.bodies import (
    CODINGS,
    PIECE_BYTES,
    BodyLimit,
    Inflater,
    coding_of,
    inflated,
)
from trueprob_service.errors import BadRequest, BodyTooLarge, UnsupportedEncoding

pytestmark = pytest.mark.slow

LIMIT = 1 << 20
PREDICT = "/v1/models/digits/probabilities"
JSON = {"content-type": "application/json"}


def inflate(coding: str, *chunks: bytes, limit: int = LIMIT) -> bytes:
    inflater = Inflater(coding, limit=limit)
    pieces = [piece for chunk in chunks for piece in inflater.feed(chunk)]
    inflater.finish()
    assert max(map(len, pieces), default=0) <= PIECE_BYTES
    return b"".join(pieces)


@pytest.mark.parametrize("coding", CODINGS)
def test_a_body_may_come_in_any_pieces_and_several_members(coding: str) -> None:
    random = os.urandom(200_000)
    members = [b"", b"a" * 600_000, random, b"end"]
    body = b"".join(COMPRESS[coding](member) for member in members)
    whole = b"".join(members)
    assert inflate(coding, body) == whole
    for size in (1, 7, 4096):
        chunks = [body[start : start + size] for start in range(0, len(body), size)]
        assert inflate(coding, *chunks) == whole


@pytest.mark.parametrize("coding", CODINGS)
def test_the_limit_is_exact(coding: str) -> None:
    assert len(inflate(coding, COMPRESS[coding](bytes(LIMIT)))) == LIMIT
    with pytest.raises(BodyTooLarge, match="inflates to more than 1048576 bytes"):
        inflate(coding, COMPRESS[coding](bytes(LIMIT + 1)))


@pytest.mark.parametrize("coding", CODINGS)
def test_a_bomb_costs_the_limit_and_little_more(coding: str) -> None:
    bomb = COMPRESS[coding](bytes(64 * LIMIT))
    read = 0

    async def receive() -> dict[str, Any]:
        return {"type": "http.request", "body": bomb, "more_body": False}

    async def scenario() -> None:
        nonlocal read
        kept = []
        reading = inflated(receive, coding, BodyLimit(LIMIT))
        while True:
            kept.append((await reading())["body"])
            read += len(kept[-1])

    tracemalloc.start()
    try:
        with pytest.raises(BodyTooLarge):
            asyncio.run(scenario())
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert read <= LIMIT
    # The interpreter's own doubling of an output buffer is the second piece.
    assert peak < LIMIT + 4 * PIECE_BYTES + len(bomb)


@pytest.mark.parametrize("coding", CODINGS)
def test_what_is_truncated_or_corrupt_is_refused(coding: str) -> None:
    whole = COMPRESS[coding](b"some text that is compressed" * 20)
    for body in (b"", whole[:-1], whole[:5], whole + whole[:9]):
        with pytest.raises(BadRequest, match=coding):
            inflate(coding, body)
    for body in (b"plain text, not compressed", whole + b"trailing bytes that are no member"):
        with pytest.raises(BadRequest, match=f"not a {coding} stream, or a corrupt one"):
            inflate(coding, body)


def test_a_flipped_bit_is_found_by_the_checksum() -> None:
    body = bytearray(COMPRESS["gzip"](b"some text"))
    body[-8] ^= 1
    with pytest.raises(BadRequest, match="corrupt"):
        inflate("gzip", bytes(body))


def test_a_zstd_frame_that_asks_for_a_large_window_is_refused() -> None:
    def frame(window_log: int) -> bytes:
        writer = zstd.ZstdCompressor(options={zstd.CompressionParameter.window_log: window_log})
        return writer.compress(b"few") + writer.flush()

    assert inflate("zstd", frame(23)) == b"few"
    with pytest.raises(BadRequest, match="not a zstd stream"):
        inflate("zstd", frame(24))


def test_members_are_counted() -> None:
    with pytest.raises(BadRequest, match="more than 10000 gzip members"):
        inflate("gzip", COMPRESS["gzip"](b"") * 10_001)


@pytest.mark.parametrize(
    ("header", "coding"),
    [("", None), ("identity", None), (" GZip ", "gzip"), ("x-gzip", "gzip"), ("zstd", "zstd")],
)
def test_the_header_names_the_coding(header: str, coding: str | None) -> None:
    assert coding_of(header) == coding


@pytest.mark.parametrize("header", ["br", "gzip, zstd", "compress", "identity, gzip"])
def test_another_coding_is_refused(header: str) -> None:
    with pytest.raises(UnsupportedEncoding, match="expected one of gzip, deflate, zstd"):
        coding_of(header)


def test_every_route_takes_compressed_bodies(tmp_path: Path) -> None:
    rows = np.random.default_rng(0).normal(size=(3, 10)).round(3).tolist()
    predict = json.dumps({"logits": rows}).encode()
    upload = (ROOT / "examples/digits_drifted.npz").read_bytes()

    async def slowly(body: bytes) -> AsyncIterator[bytes]:
        for start in range(0, len(body), 11):
            yield body[start : start + 11]

    async def scenario() -> None:
        async with application(tmp_path) as client:
            plain = (await client.post(PREDICT, content=predict, headers=JSON)).json()
            for coding in CODINGS:
                headers = {**JSON, "content-encoding": coding}
                for content in (COMPRESS[coding](predict), slowly(COMPRESS[coding](predict))):
                    answer = await client.post(PREDICT, content=content, headers=headers)
                    assert answer.json()["probabilities"] == plain["probabilities"]
                ids = {"prediction_ids": answer.json()["prediction_ids"], "labels": [0, 1, 2]}
                labels = COMPRESS[coding](json.dumps(ids).encode())
                counted = await client.post(
                    "/v1/models/digits/labels", content=labels, headers=headers
                )
                assert counted.json()["accepted"] == 3, counted.text
                stored = await client.post(
                    "/v1/models/digits/calibration-sets?promote=never",
                    content=COMPRESS[coding](upload),
                    headers={"content-type": "application/x-npz", "content-encoding": coding},
                )
                assert stored.status_code == 202, stored.text

    asyncio.run(scenario())


def test_a_bomb_and_an_unknown_coding_are_told_over_http(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with application(tmp_path, max_body_bytes=LIMIT) as client:
            bomb = COMPRESS["zstd"](bytes(64 * LIMIT))
            headers = {**JSON, "content-encoding": "zstd"}
            for path in (PREDICT, "/v1/models/digits/labels"):
                answer = await client.post(path, content=bomb, headers=headers)
                assert answer.status_code == 413
                assert "inflates to more than" in answer.json()["detail"]
            twice = [("content-encoding", "br"), ("content-encoding", "gzip")]
            assert (await client.post(PREDICT, content=bomb, headers=twice)).status_code == 415
            headers["content-encoding"] = "br"
            answer = await client.post(PREDICT, content=bomb, headers=headers)
            assert (answer.status_code, answer.json()["code"]) == (415, "unsupported_encoding")
            assert answer.headers["accept-encoding"] == "gzip, deflate, zstd"

    asyncio.run(scenario())


def test_bodies_that_inflate_share_what_a_process_may_hold(tmp_path: Path) -> None:
    """Eight times the limit of a body: nine clients hold one each, and wait before their ends."""

    async def scenario() -> None:
        async with application(tmp_path, max_body_bytes=LIMIT) as client:
            go_on = asyncio.Event()
            body = COMPRESS["gzip"](b" " * LIMIT)

            async def all_but_the_end() -> AsyncIterator[bytes]:
                yield body[:-8]
                await go_on.wait()
                yield body[-8:]

            headers = {**JSON, "content-encoding": "gzip"}
            waiting = [
                asyncio.create_task(
                    client.post(PREDICT, content=all_but_the_end(), headers=headers)
                )
                for _ in range(9)
            ]
            done, _ = await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
            refused = [task.result() for task in done]
            assert [answer.status_code for answer in refused] == [503]
            assert refused[0].headers["retry-after"] == "1"
            assert refused[0].json()["code"] == "overloaded"
            go_on.set()
            answers = await asyncio.gather(*waiting)
            assert sorted(answer.status_code for answer in answers) == [400] * 8 + [503]
            again = await client.post(PREDICT, content=body, headers=headers)
            assert again.status_code == 400  # all was given back

    asyncio.run(scenario())
