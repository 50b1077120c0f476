import contextlib
import io

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from tests.trueprob_service.inference.mutated import FUZZ
from trueprob_service.errors import BadRequest, InvalidRequest, ServiceError
from trueprob_service.inference.wire import npy


def saved(array: np.ndarray) -> bytes:
    stream = io.BytesIO()
    np.save(stream, array)
    return stream.getvalue()


@given(
    hnp.arrays(
        st.sampled_from([np.float16, np.float32, np.float64, np.int32, np.uint8]),
        hnp.array_shapes(min_dims=1, max_dims=3, min_side=0),
        elements=st.integers(0, 200),
    ),
    st.booleans(),
)
def test_what_numpy_saves_is_read(array: np.ndarray, fortran: bool) -> None:
    written = np.asfortranarray(array) if fortran else array
    read = npy.decode(saved(written), name="logits")
    assert read.dtype == array.dtype
    np.testing.assert_array_equal(read, array)


@given(hnp.arrays(np.float32, (3, 4), elements=st.floats(-5, 5, width=32)))
def test_what_we_write_numpy_loads(array: np.ndarray) -> None:
    loaded = np.load(io.BytesIO(npy.encode(array.T)), allow_pickle=False)
    np.testing.assert_array_equal(loaded, array.T)


@FUZZ
@given(st.binary(max_size=200) | st.binary(max_size=80).map(lambda b: saved(np.ones(3))[:90] + b))
def test_any_bytes_decode_or_are_refused_in_words(body: bytes) -> None:
    with contextlib.suppress(ServiceError):
        array = npy.decode(body, name="logits")
        np.testing.assert_array_equal(array, np.load(io.BytesIO(body), allow_pickle=False))


def header(text: str) -> bytes:
    padded = text.encode() + b" " * (-(len(text) + 11) % 64) + b"\n"
    return b"\x93NUMPY\x01\x00" + len(padded).to_bytes(2, "little") + padded


@pytest.mark.parametrize("text", ["'''", "{", "(" * 90, "\\", "{'descr': '<f4'}", "1"])
def test_a_header_that_python_cannot_read_is_refused(text: str) -> None:
    with pytest.raises(BadRequest, match=r"not an \.npy array"):
        npy.decode(header(text), name="logits")


def test_a_lying_header_allocates_nothing() -> None:
    body = header("{'descr': '<f4', 'fortran_order': False, 'shape': (1000000000, 1000), }") + b"x"
    with pytest.raises(BadRequest, match="logits: the header says shape"):
        npy.decode(body, name="logits")


@pytest.mark.parametrize("cut", [1, 5, 100])
def test_a_truncated_body_is_refused(cut: int) -> None:
    with pytest.raises(BadRequest):
        npy.decode(saved(np.ones((4, 10), np.float32))[:-cut], name="logits")


def test_trailing_bytes_are_refused() -> None:
    with pytest.raises(BadRequest, match="161 bytes follow"):
        npy.decode(saved(np.ones((4, 10), np.float32)) + b"x", name="logits")


def test_pickles_are_refused_unread() -> None:
    stream = io.BytesIO()
    np.save(stream, np.array([{"a": 1}], dtype=object), allow_pickle=True)
    with pytest.raises(InvalidRequest, match="expected numbers, got dtype object"):
        npy.decode(stream.getvalue(), name="logits")


@pytest.mark.parametrize("array", [np.array(["a"]), np.array([True]), np.array([1j])])
def test_elements_that_are_no_numbers_are_refused(array: np.ndarray) -> None:
    with pytest.raises(InvalidRequest, match="logits: expected numbers"):
        npy.decode(saved(array), name="logits")


def test_an_empty_body_is_refused() -> None:
    with pytest.raises(BadRequest, match="empty body"):
        npy.decode(b"", name="logits")
