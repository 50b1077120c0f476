"""The ways to send pictures: alone, as JSON, as the parts of a form."""

import asyncio
import base64
import io
from pathlib import Path

import numpy as np
from PIL import Image

from tests.trueprob_service.application import ROOT, application

PREDICT = "/v1/models/digits/probabilities"
SEVEN = (ROOT / "examples/seven.png").read_bytes()


def webp(picture: bytes) -> bytes:
    stream = io.BytesIO()
    with Image.open(io.BytesIO(picture)) as image:
        image.save(stream, "WEBP", lossless=True)
    return stream.getvalue()


def test_every_way_gives_the_same_answer(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with application(tmp_path) as client:
            alone = await client.post(PREDICT, content=SEVEN, headers={"content-type": "image/png"})
            lossless = await client.post(
                PREDICT, content=webp(SEVEN), headers={"content-type": "image/webp"}
            )
            texts = [base64.b64encode(picture).decode() for picture in (SEVEN, webp(SEVEN))]
            listed = await client.post(PREDICT, json={"images": texts})
            form = await client.post(
                PREDICT,
                files=[("image", ("a.png", SEVEN)), ("image", ("b.webp", webp(SEVEN)))],
            )
            expected = alone.json()["probabilities"][0]
            assert alone.json()["class"] == ["7"]
            for answer, n in ((lossless, 1), (listed, 2), (form, 2)):
                assert answer.status_code == 200, answer.text
                rows = answer.json()["probabilities"]
                assert len(rows) == n
                np.testing.assert_allclose(rows, [expected] * n, rtol=1e-5)
                assert len(answer.json()["prediction_ids"]) == n

    asyncio.run(scenario())


def test_more_pictures_than_may_ever_wait_are_refused_before_they_are_decoded(
    tmp_path: Path,
) -> None:
    async def scenario() -> None:
        async with application(tmp_path, queue_rows=2) as client:
            form = await client.post(PREDICT, files=[("image", b"no picture")] * 3)
            listed = await client.post(PREDICT, json={"images": ["bm8="] * 3})
            for answer, words in (
                (form, "more than 2 parts"),
                (listed, "images must be at most 2"),
            ):
                assert answer.status_code == 413
                assert words in answer.json()["detail"]
            damaged = await client.post(PREDICT, files=[("image", SEVEN), ("image", SEVEN[:60])])
            assert damaged.status_code == 400
            assert "images[1]" in damaged.json()["detail"]

    asyncio.run(scenario())
