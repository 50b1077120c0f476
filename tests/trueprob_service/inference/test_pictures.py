"""The ways to send pictures: alone, as JSON, as the parts of a form."""

import asyncio
import base64
import io
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.trueprob.pictures.made_pictures import saved, turned
from tests.trueprob_service.application import ROOT, application

PREDICT = "/v1/models/digits/probabilities"
SETS = "/v1/models/digits/calibration-sets"
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


@pytest.mark.parametrize(
    "media_type",
    ["image/jpg", "image/pjpeg", "image/x-png", "IMAGE/JPG", "image/jpeg; charset=binary",
     "image/jfif", "image/x-citrix-jpeg", "image/apng", "image/x-webp"],
)  # fmt: skip
def test_other_names_of_the_media_types_are_read(tmp_path: Path, media_type: str) -> None:
    async def scenario() -> None:
        async with application(tmp_path) as client:
            kind = {"content-type": media_type}
            answer = await client.post(PREDICT, content=SEVEN, headers=kind)
            assert answer.status_code == 200, answer.text
            assert answer.json()["class"] == ["7"]

    asyncio.run(scenario())


@pytest.mark.parametrize("media_type", ["image/gif", "image/svg+xml", "image/*", "image/"])
def test_media_types_of_other_pictures_are_refused(tmp_path: Path, media_type: str) -> None:
    async def scenario() -> None:
        async with application(tmp_path) as client:
            kind = {"content-type": media_type}
            answer = await client.post(PREDICT, content=SEVEN, headers=kind)
            assert answer.status_code == 415
            assert "image/png, image/jpeg, image/webp" in answer.json()["detail"]

    asyncio.run(scenario())


def test_a_seven_is_a_seven_however_it_is_stored(tmp_path: Path) -> None:
    """Turned, clear where it is white, in 16 bits, wrapped, as a data URL: one answer."""
    with Image.open(io.BytesIO(SEVEN)) as opened:
        seven = np.asarray(opened.convert("L"))
    ink = 255 - seven  # dark on light, drawn in black on nothing
    drawn = Image.merge("LA", (Image.new("L", (ink.shape[1], ink.shape[0])), Image.fromarray(ink)))
    light = saved(255 - ink)
    plain = [
        SEVEN,
        turned(np.rot90(seven), "PNG", 6),
        saved(seven.astype(np.uint16) * 257),
        saved(drawn),
        light,
    ]
    texts = [base64.b64encode(picture).decode() for picture in plain]
    texts[1] = "data:image/png;base64," + texts[1]
    texts[2] = base64.encodebytes(plain[2]).decode()
    texts[3] = base64.urlsafe_b64encode(plain[3]).decode().rstrip("=")

    async def scenario() -> None:
        async with application(tmp_path) as client:
            listed = await client.post(PREDICT, json={"images": texts})
            form = await client.post(PREDICT, files=[("image", picture) for picture in plain])
            for answer in (listed, form):
                assert answer.status_code == 200, answer.text
                rows = answer.json()["probabilities"]
                np.testing.assert_array_equal(rows[1:3], [rows[0]] * 2)
                np.testing.assert_array_equal(rows[3], rows[4])

    asyncio.run(scenario())


def test_a_bad_picture_is_named_by_its_index_in_the_whole_request(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with application(tmp_path, max_batch_rows=2, max_image_pixels=200_000) as client:
            float_tiff = saved(np.zeros((8, 8), np.float32), "TIFF")
            for picture, status, words in (
                (b"GIF89a", 400, "images[3] is not a PNG, JPEG or WebP picture"),
                (float_tiff, 400, "images[3] is not a PNG, JPEG or WebP picture"),
                (SEVEN[:60], 400, "images[3] is damaged or truncated"),
                (b"", 400, "images[3]: expected a PNG, JPEG or WebP picture, got no bytes"),
                (saved(np.zeros((500, 500), np.uint8)), 413, "images[3] is 500 × 500 = 250000 pix"),
                ("%", 422, "images[3] is not valid base64"),
            ):
                texts = [base64.b64encode(SEVEN).decode()] * 5
                bad = picture if isinstance(picture, str) else base64.b64encode(picture).decode()
                texts[3] = bad
                for path, body in (
                    (PREDICT, {"images": texts}),
                    (SETS, {"images": texts, "labels": [7] * 5}),
                ):
                    answer = await client.post(path, json=body)
                    assert answer.status_code == status, answer.text
                    assert words in answer.json()["detail"]

    asyncio.run(scenario())
