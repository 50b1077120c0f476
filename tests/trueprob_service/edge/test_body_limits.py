"""A body over its route's limit is a 413 that says what to do."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.trueprob_service.application import application
from tests.trueprob_service.compressed import COMPRESS
from trueprob_service.edge.bodies import CONTROL_BYTES, LABELS_BYTES

pytestmark = pytest.mark.slow

LIMIT = 1 << 20
JSON = "application/json"
PREDICT = "/v1/models/digits/probabilities"
ROWS = "send rows as .npy"
PICTURES = "send fewer pictures per request"
TENSORS = "send tensors as binary data"
SHORTER = "send a shorter document"
ROUTES = [
    ("POST", PREDICT, JSON, LIMIT, ROWS),
    ("POST", PREDICT, JSON, LIMIT, "pictures as multipart/form-data"),
    ("POST", PREDICT, "application/x-npy", LIMIT, "send fewer rows per request"),
    ("POST", PREDICT, "image/png", LIMIT, PICTURES),
    ("POST", PREDICT, "multipart/form-data; boundary=b", LIMIT, PICTURES),
    ("POST", "/v2/models/digits/infer", JSON, LIMIT, TENSORS),
    ("POST", "/v2/models/digits/versions/1/infer", JSON, LIMIT, TENSORS),
    ("PUT", "/v1/models/mine", JSON, CONTROL_BYTES, SHORTER),
    ("POST", "/v1/models/digits/fits", JSON, CONTROL_BYTES, SHORTER),
    ("POST", "/v1/models/digits/rollback", JSON, CONTROL_BYTES, SHORTER),
    ("POST", "/v1/models/digits/labels", JSON, LIMIT, "send fewer labels per request"),
]


async def pieces(size: int) -> AsyncIterator[bytes]:
    for _ in range(0, size, 1 << 15):
        yield b" " * (1 << 15)


@pytest.mark.parametrize(("method", "path", "media_type", "limit", "remedy"), ROUTES)
def test_a_body_over_its_limit_is_told_the_remedy(
    tmp_path: Path, method: str, path: str, media_type: str, limit: int, remedy: str
) -> None:
    async def scenario() -> None:
        async with application(tmp_path, max_body_bytes=LIMIT) as client:
            headers = {"content-type": media_type}
            too_large, packed = b" " * (limit + 1), {**headers, "content-encoding": "gzip"}
            for answer in (
                await client.request(method, path, headers=headers, content=too_large),
                await client.request(method, path, headers=headers, content=pieces(limit + 1)),
                await client.request(
                    method, path, headers=packed, content=COMPRESS["gzip"](too_large)
                ),
            ):
                assert answer.status_code == 413, answer.text
                assert answer.json()["code"] == "body_too_large"
                assert str(limit) in answer.json()["detail"]
                assert remedy in answer.json()["detail"]
            fits = await client.request(method, path, headers=headers, content=b" " * limit)
            assert fits.status_code != 413

    asyncio.run(scenario())


def test_labels_have_a_limit_of_their_own(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with application(tmp_path) as client:
            path, headers = "/v1/models/digits/labels", {"content-type": JSON}
            answer = await client.post(path, headers=headers, content=b" " * (LABELS_BYTES + 1))
            assert answer.status_code == 413
            assert "send fewer labels per request" in answer.json()["detail"]
            answer = await client.post(PREDICT, headers=headers, content=b" " * (LABELS_BYTES + 1))
            assert answer.status_code == 400

    asyncio.run(scenario())


def test_uploads_keep_their_own_limit(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with application(tmp_path, max_upload_bytes=2 * LIMIT) as client:
            path = "/v1/models/digits/calibration-sets"
            headers = {"content-type": "application/x-npz"}
            answer = await client.post(path, headers=headers, content=bytes(2 * LIMIT + 1))
            assert answer.status_code == 413
            answer = await client.post(path, headers=headers, content=bytes(2 * LIMIT))
            assert answer.status_code in (400, 422)

    asyncio.run(scenario())
