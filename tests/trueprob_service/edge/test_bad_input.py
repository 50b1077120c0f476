"""What clients get wrong: each gets its status and a sentence, and the service goes on."""

import asyncio
import gzip
import io
import json
import struct
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest

from tests.trueprob_service.application import ROOT, application

PREDICT = "/v1/models/digits/probabilities"
UPLOAD = "/v1/models/digits/calibration-sets"
LABELS = "/v1/models/digits/labels"
JSON = {"content-type": "application/json"}
NPY = {"content-type": "application/x-npy"}
NPZ = {"content-type": "application/x-npz", "prefer": "wait=30"}
PNG = {"content-type": "image/png"}
ROW = [0.0] * 10


def body(**fields: Any) -> bytes:
    return json.dumps(fields).encode()


def npy(array: np.ndarray) -> bytes:
    stream = io.BytesIO()
    np.save(stream, array)
    return stream.getvalue()


def npz(**arrays: Any) -> bytes:
    stream = io.BytesIO()
    np.savez(stream, **arrays)
    return stream.getvalue()


def huge_png() -> bytes:
    def chunk(kind: bytes, data: bytes) -> bytes:
        return (
            struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
        )

    header = struct.pack(">IIBBBBB", 10_000, 10_000, 8, 0, 0, 0, 0)
    rows = zlib.compress(bytes(10_001) * 10_000, 9)
    return (
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", rows) + chunk(b"IEND", b"")
    )


def zip_bomb() -> bytes:
    import zipfile

    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("logits.npy", npy(np.zeros((200_000, 10), np.float32)))
        archive.writestr("labels.npy", npy(np.zeros(200_000, np.int64)))
    return stream.getvalue()


GOOD = np.random.default_rng(0).normal(size=(60, 10)).astype(np.float32)
ZEROS = np.zeros(60, np.int64)
NAN = GOOD.copy()
NAN[7, 3] = np.nan
BAD = [
    # what, path, headers, body, status, words of the detail
    ("NaN in JSON", PREDICT, JSON, b'{"logits": [[NaN,0,0,0,0,0,0,0,0,0]]}', 400, "logits"),
    ("NaN in npy", PREDICT, NPY, npy(NAN), 422, "logits must be finite"),
    ("1e999", PREDICT, JSON, b'{"logits": [[1e999,0,0,0,0,0,0,0,0,0]]}', (400, 422), "logits"),
    ("overflows float32", PREDICT, JSON, body(logits=[[1e39, *ROW[1:]]]), 422, "logits"),
    ("null", PREDICT, JSON, body(logits=[[None, *ROW[1:]]]), 422, "null at logits[0][0]"),
    ("a string", PREDICT, JSON, body(logits=[["1", *ROW[1:]]]), 422, "str at logits[0][0]"),
    ("ragged", PREDICT, JSON, body(logits=[ROW, ROW[:9]]), 422, "logits is ragged"),
    ("wrong k", PREDICT, JSON, body(logits=[ROW[:9]]), 422, "logits must have shape (n, 10)"),
    ("wrong k in npy", PREDICT, NPY, npy(GOOD[:, :9]), 422, "logits must have shape (n, 10)"),
    ("one dimension", PREDICT, NPY, npy(GOOD[0]), 422, "logits must have shape (n, 10)"),
    ("sums", PREDICT, JSON, body(probabilities=[[0.2] * 10]), 422, "probabilities"),
    ("empty body", PREDICT, JSON, b"", 400, "logits"),
    ("empty npy", PREDICT, NPY, b"", 400, "logits"),
    ("empty picture", PREDICT, PNG, b"", 400, "images[0]"),
    ("no columns", PREDICT, JSON, body(logits=[[]]), 422, "logits must have shape (n, 10)"),
    ("no rows of 9", PREDICT, NPY, npy(GOOD[:0, :9]), 422, "logits must have shape (n, 10)"),
    ("no rows of 1", PREDICT, NPY, npy(GOOD[:0, :1]), 422, "logits must have shape (n, 10)"),
    ("truncated", PREDICT, NPY, npy(GOOD)[:-5], 400, "logits: the header says"),
    ("pickle", PREDICT, NPY, npy(GOOD).replace(b"'<f4'", b"'|O' "), 422, "logits"),
    ("100 megapixels", PREDICT, PNG, huge_png(), 413, "images[0] is 10000 × 10000"),
    ("no picture", PREDICT, PNG, b"plain text", 400, "images[0] is not a PNG"),
    ("media type", PREDICT, {"content-type": "text/csv"}, b"1,2", 415, "Content-Type text/csv"),
    ("encoding", PREDICT, {**JSON, "content-encoding": "br"}, b"{}", 415, "Content-Encoding br"),
    ("not gzip", PREDICT, {**JSON, "content-encoding": "gzip"}, b"{}", 400, "not a gzip stream"),
    ("not zstd", UPLOAD, {**NPZ, "content-encoding": "zstd"}, b"{}", 400, "not a zstd"),
    ("cut gzip", LABELS, {**JSON, "content-encoding": "gzip"}, gzip.compress(b"{}")[:-1], 400,
     "truncated gzip"),
    ("accept", PREDICT, {**JSON, "accept": "text/html"}, body(logits=[ROW]), 406, "text/html"),
    ("parameter", PREDICT + "?versoin=1", JSON, body(logits=[ROW]), 422, "'versoin'"),
    ("version", PREDICT + "?version=x", JSON, body(logits=[ROW]), 422, "version"),
    ("no version", PREDICT + "?version=9", JSON, body(logits=[ROW]), 404, "no version 9"),
    ("no model", "/v1/models/none/probabilities", JSON, body(logits=[ROW]), 404, "'none'"),
    ("text as npz", UPLOAD, NPZ, b"logits,labels\n1,2\n", 422, ".npz"),
    ("empty upload", UPLOAD, NPZ, b"", 400, "the body is empty"),
    ("zip bomb", UPLOAD, NPZ, zip_bomb(), (413, 422), "bytes"),
    ("NaN uploaded", UPLOAD, NPZ, npz(logits=NAN, labels=ZEROS), 422, "logits must be finite"),
    ("label 10 of 10", UPLOAD, NPZ, npz(logits=GOOD, labels=ZEROS + 10), 422, "labels"),
    ("k uploaded", UPLOAD, NPZ, npz(logits=GOOD[:, :9], labels=ZEROS), 422, "logits"),
    ("lengths", UPLOAD, NPZ, npz(logits=GOOD, labels=ZEROS[:5]), 422, "labels must have shape"),
    ("no labels", UPLOAD, NPZ, npz(logits=GOOD), 422, "labels"),
    ("few rows", UPLOAD, NPZ, npz(logits=GOOD[:9], labels=ZEROS[:9]), 422, "50"),
    ("method", UPLOAD + "?method=magic", NPZ, npz(logits=GOOD, labels=ZEROS), 422, "method"),
    ("upload type", UPLOAD, {"content-type": "text/html"}, b"1,2", 415, "text/html"),
    ("label text", LABELS, JSON, body(prediction_ids=["x"], labels=[1.5]), 422, "labels"),
    ("label bool", LABELS, JSON, body(prediction_ids=["x"], labels=[True]), 422, "labels"),
    ("labels missing", LABELS, JSON, body(prediction_ids=["x"]), 422, "labels"),
    ("uneven", LABELS, JSON, body(prediction_ids=["x"], labels=[1, 2]), 422, "labels"),
    ("labels not JSON", LABELS, JSON, b"{", 400, "JSON"),
    ("no such route", "/v1/nothing", JSON, b"{}", 404, "/v1/nothing"),
    ("dots", "/v1/models/..%2f..%2fetc/probabilities", JSON, body(logits=[ROW]), 404, ""),
]  # fmt: skip


def check(answer: httpx.Response, status: int | tuple[int, ...], words: str) -> None:
    expected = status if isinstance(status, tuple) else (status,)
    assert answer.status_code in expected, answer.text
    assert answer.headers["content-type"] == "application/problem+json"
    problem = answer.json()
    assert set(problem) == {"type", "title", "status", "detail", "code", "error"}
    assert problem["status"] == answer.status_code
    assert problem["detail"] == problem["error"]
    assert words in problem["detail"], problem["detail"]
    assert "Traceback" not in problem["detail"]


def test_every_bad_request_gets_its_status_and_a_sentence(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with application(tmp_path, max_upload_bytes=4_000_000) as client:
            for what, path, headers, content, status, words in BAD:
                answer = await client.post(path, headers=headers, content=content)
                try:
                    check(answer, status, words)
                except AssertionError as failure:
                    raise AssertionError(f"{what}: {failure}") from None
            # None of it left a trace, and the service goes on.
            assert (await client.get(UPLOAD)).json()["items"] == []
            assert (await client.get("/v1/models/digits/fits")).json()["items"] == []
            good = await client.post(PREDICT, headers=JSON, content=body(logits=[ROW]))
            assert good.status_code == 200

    asyncio.run(scenario())


def test_a_label_of_ten_for_ten_classes_is_refused_by_name(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with application(tmp_path) as client:
            answer = await client.post(PREDICT, headers=JSON, content=body(logits=[ROW, ROW]))
            ids = answer.json()["prediction_ids"]
            wrong = body(prediction_ids=ids, labels=[10, 10])
            check(await client.post(LABELS, headers=JSON, content=wrong), 422, "labels[0]")
            mixed = body(prediction_ids=ids, labels=[10, 3])
            counted = (await client.post(LABELS, headers=JSON, content=mixed)).json()
            assert counted["accepted"] == 1
            assert counted["outcomes"] == [{"index": 0, "outcome": "unknown_class"}]

    asyncio.run(scenario())


def test_a_body_over_its_limit_is_refused_declared_or_not(tmp_path: Path) -> None:
    async def chunks() -> Any:
        for _ in range(64):
            yield bytes(1024)

    async def scenario() -> None:
        async with application(tmp_path, max_body_bytes=10_000, max_upload_bytes=20_000) as client:
            for path, headers in ((PREDICT, NPY), (UPLOAD, NPZ), (LABELS, JSON)):
                declared = await client.post(path, headers=headers, content=bytes(64 * 1024))
                check(declared, 413, "at most")
                streamed = await client.post(path, headers=headers, content=chunks())
                check(streamed, 413, "bytes")
            lying: Mapping[str, str] = {**NPY, "content-length": "5"}
            assert (await client.post(PREDICT, headers=lying, content=chunks())).is_error
            assert (await client.get("/v2/health/live")).status_code == 200

    asyncio.run(scenario())


@pytest.mark.parametrize("method", ["GET", "DELETE", "PUT"])
def test_the_wrong_method_is_405(method: str, tmp_path: Path) -> None:
    async def scenario() -> None:
        async with application(tmp_path) as client:
            check(await client.request(method, PREDICT), 405, method)
            check(await client.request("DELETE", LABELS), 405, "DELETE")

    asyncio.run(scenario())


def test_the_demo_repository_is_what_these_tests_run_on() -> None:
    assert (ROOT / "models/digits/1/model.onnx").is_file()
