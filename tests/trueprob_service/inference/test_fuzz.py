"""Any bytes: a decoder gives what a slow, obvious one gives, or refuses with a 4xx."""

import asyncio
import base64
import contextlib
import io
import json
import re
import zlib
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from PIL import Image, ImageOps

from tests.trueprob_service.compressed import COMPRESS, DECOMPRESS
from tests.trueprob_service.inference.mutated import FUZZ, mutated
from trueprob.calibrators import IdentityCalibrator
from trueprob.pictures.preprocessing import Preprocessing
from trueprob_service.edge.bodies import CODINGS, Inflater
from trueprob_service.edge.problems import problem_for
from trueprob_service.inference.body import BodyReader, JsonBodies
from trueprob_service.inference.deployment import Deployment, ServedVersion
from trueprob_service.inference.network.input import NetworkInput
from trueprob_service.inference.request import PredictionOptions
from trueprob_service.inference.wire import images, json_rows, npy
from trueprob_service.inference.wire.json_rows import MIN_BYTES, simd_rows

pytestmark = pytest.mark.slow


@contextlib.contextmanager
def refusals() -> Iterator[None]:
    """Errors for which a client gets a 4xx are fine; all others go through."""
    try:
        yield
    except Exception as error:
        status = problem_for(error).status
        if not 400 <= status < 500:
            raise


numbers = st.floats(allow_nan=False) | st.integers(-(2**70), 2**70) | st.booleans() | st.none()
elements = numbers | st.lists(numbers, max_size=2) | st.text(max_size=3)
matrices = st.integers(0, 4).flatmap(
    lambda k: st.lists(
        st.lists(numbers, min_size=k, max_size=k) | st.lists(elements, min_size=k, max_size=k),
        max_size=4,
    )
)
pictures = st.lists(st.binary(max_size=9).map(lambda data: base64.b64encode(data).decode()))
documents = st.dictionaries(
    st.sampled_from([*json_rows.INPUTS, "other"]),
    matrices | pictures | numbers | st.text(max_size=5),
    max_size=2,
)
json_bodies = mutated(documents.map(lambda document: json.dumps(document).encode()))


@FUZZ
@given(json_bodies | st.binary(max_size=60))
def test_json(body: bytes) -> None:
    with refusals():
        name, values = json_rows.decode(body)
        ((expected_name, expected),) = json.loads(body).items()
        assert name == expected_name
        if name == "images":
            assert values == [
                base64.b64decode(
                    "".join(text.split()).rstrip("=") + "==", "-_" if set(text) & {*"-_"} else None
                )
                for text in expected
            ]
        else:
            assert isinstance(values, np.ndarray)
            one_per_row = not expected or not isinstance(expected[0], list)
            listed = [[number] for number in expected] if one_per_row else expected
            assert values.ndim == (1 if one_per_row else 2)
            rows = np.array([[float(number) for number in row] for row in listed], np.float64)
            np.testing.assert_array_equal(values.astype(np.float64).reshape(rows.shape), rows)
            assert not any(isinstance(number, bool) for row in listed for number in row)


@FUZZ
@given(json_bodies | st.binary(max_size=60))
def test_what_is_read_without_lists_is_read_the_same(body: bytes) -> None:
    assume(len(body) < MIN_BYTES)  # `json_rows` reads lists then
    found = simd_rows(body, json_rows.ARRAYS)
    if found is not None:
        name, values = json_rows.decode(body)
        assert found[0] == name
        assert isinstance(values, np.ndarray)
        assert found[1].shape == values.shape
        assert found[1].tobytes() == values.astype(np.float64).tobytes()


def saved(array: np.ndarray) -> bytes:
    stream = io.BytesIO()
    np.save(stream, array, allow_pickle=True)
    return stream.getvalue()


arrays = hnp.arrays(
    st.sampled_from(["<f2", "<f4", ">f8", "<i8", "u1", "?", "O", "<c8"]),
    hnp.array_shapes(min_dims=0, max_dims=3, min_side=0, max_side=4),
    elements=st.just(0),
)


# NumPy reads headers of Python 2 and says so.
@pytest.mark.filterwarnings("ignore:Reading .*Python 2:UserWarning")
@FUZZ
@given(mutated(arrays.map(saved)) | st.binary(max_size=60))
def test_npy(body: bytes) -> None:
    with refusals():
        array = npy.decode(body, name="logits")
        np.testing.assert_array_equal(array, np.load(io.BytesIO(body), allow_pickle=False))


def drawn(form: str, mode: str) -> bytes:
    pixels = np.random.default_rng(0).integers(0, 256, (6, 9, 4), np.uint8)
    stream = io.BytesIO()
    Image.fromarray(pixels, "RGBA").convert(mode).save(stream, form)
    return stream.getvalue()


files = [
    drawn(form, mode)
    for form, mode in [("PNG", "RGBA"), ("PNG", "P"), ("PNG", "1"), ("JPEG", "L"), ("JPEG", "CMYK"),
                       ("WEBP", "RGB"), ("GIF", "P"), ("BMP", "RGB"), ("TIFF", "L")]
]  # fmt: skip


@st.composite
def pngs_with_right_checksums(draw: st.DrawFn) -> bytes:
    """A changed header that the checksum does not give away."""
    header = bytearray(drawn("PNG", "L")[:33])
    for _ in range(draw(st.integers(1, 3))):
        header[draw(st.integers(16, 28))] = draw(st.integers(0, 255))
    header[29:33] = zlib.crc32(header[12:29]).to_bytes(4, "big")
    return bytes(header) + drawn("PNG", "L")[33:]


# Pillow warns of palettes and the like; a service that logs it has not failed.
@pytest.mark.filterwarnings("ignore::UserWarning:PIL")
@FUZZ
@given(mutated(st.sampled_from(files)) | pngs_with_right_checksums())
def test_images(body: bytes) -> None:
    with refusals():
        network_input = NetworkInput("uint8", (5, 7, 3), Preprocessing("RGB", 5, 7))
        batch = network_input.decode([body], max_pixels=10_000)
        with Image.open(io.BytesIO(body), formats=["PNG", "JPEG", "WEBP"]) as image:
            upright = ImageOps.exif_transpose(image)
        if upright.mode == "I;16":
            upright = Image.fromarray((np.asarray(upright) >> 8).astype(np.uint8))
        expected = Image.new("RGBA", upright.size, "white")
        expected.alpha_composite(upright.convert("RGBA"))
        expected = expected.convert("RGB").resize((7, 5), Image.Resampling.BILINEAR)
        np.testing.assert_allclose(batch[0], np.asarray(expected), atol=1)


def form(parts: list[bytes]) -> bytes:
    head = b'--XX\r\nContent-Disposition: form-data; name="image"\r\n\r\n'
    return b"".join(head + part + b"\r\n" for part in parts) + b"--XX--\r\n"


def parts_of(body: bytes) -> list[bytes]:
    """What follows the first empty line after a delimiter, up to the next one."""
    delimiter = re.compile(rb"\r\n--XX(--|[ \t]*\r\n)")
    start = body.index(b"-") if body[:1] in (b"\r", b"\n") else 0  # a preamble
    rest, parts = b"\r\n" + body[start:], []
    found = delimiter.match(rest)
    while found is not None and found[1] != b"--":
        rest = (b"\r\n" + rest[found.end() :]).partition(b"\r\n\r\n")[2]
        found = delimiter.search(rest)
        assert found is not None
        parts.append(rest[: found.start()])
    return parts


contents = st.binary(max_size=20) | st.sampled_from([b"--XX", b"\r\n--X", b"\r\n\r\n", b"\r\n-"])


@FUZZ
@given(mutated(st.lists(contents, max_size=4).map(form)))
def test_multipart(body: bytes) -> None:
    with refusals():
        found = images.pictures_from_multipart(
            body, "multipart/form-data; boundary=XX", max_parts=5
        )
        assert found == parts_of(body)


@pytest.mark.parametrize("coding", CODINGS)
@FUZZ
@given(st.data())
def test_encodings(coding: str, data: st.DataObject) -> None:
    texts = st.lists(st.binary(max_size=40) | st.just(bytes(5000)), min_size=1, max_size=3)
    bodies = texts.map(lambda several: b"".join(map(COMPRESS[coding], several)))
    body = data.draw(mutated(bodies))
    size = data.draw(st.integers(1, 64))
    with refusals():
        inflater = Inflater(coding, limit=20_000)
        chunks = [body[start : start + size] for start in range(0, len(body), size)]
        inflated = b"".join(piece for chunk in chunks for piece in inflater.feed(chunk))
        inflater.finish()
        assert len(inflated) <= 20_000
        assert inflated == DECOMPRESS[coding](body)


MEDIA_TYPES = [
    "application/json", "application/x-npy", "image/png", "image/webp", "text/csv",
    "multipart/form-data; boundary=XX", "",
]  # fmt: skip
reader = BodyReader(JsonBodies(), max_pixels=10_000, max_images=4)
declared = Deployment(
    ServedVersion("m", 1, ("a", "b", "c")), IdentityCalibrator(3), "identity-0", 1, None, None  # type: ignore[arg-type]
)  # fmt: skip
values = st.text(max_size=12) | st.sampled_from(["true", "logits", "probabilities", "3", "*/*"])


@pytest.mark.filterwarnings("ignore:Reading .*Python 2:UserWarning")
@FUZZ
@given(
    st.sampled_from(MEDIA_TYPES) | st.text(st.characters(max_codepoint=255), max_size=20),
    values.map(lambda text: text.encode()),
    st.lists(st.tuples(st.sampled_from(["version", "input", "return", "top", "x"]), values)),
    json_bodies | mutated(arrays.map(saved)) | st.binary(max_size=40),
)
def test_whole_requests(
    media_type: str, accept: bytes, query: list[tuple[str, str]], body: bytes
) -> None:
    scope: dict[str, Any] = {
        "headers": [(b"content-type", media_type.encode("latin-1")), (b"accept", accept)],
        "query_string": "&".join(f"{name}={value}" for name, value in query).encode(),
    }
    with refusals():
        request = PredictionOptions.from_scope(scope)
        logits = asyncio.run(reader.logits(request, body, declared)).logits
        assert logits.dtype == np.float32
        assert logits.shape[1:] == (3,)
        assert (np.isfinite(logits) | np.isneginf(logits)).all()
        assert np.isfinite(logits).any(axis=1).all()  # a mask leaves a class
