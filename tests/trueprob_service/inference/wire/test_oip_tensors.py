"""Requests read without lists: the same tensors, the same words when they are refused."""

import json

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from tests.trueprob_service.inference.mutated import FUZZ, mutated
from trueprob_service.errors import ServiceError
from trueprob_service.inference.wire import oip
from trueprob_service.inference.wire.json_rows import MIN_BYTES
from trueprob_service.inference.wire.oip_tensors import simd_request

numbers = st.floats(allow_nan=False, allow_infinity=False) | st.integers(-(2**64), 2**64)
data = st.lists(numbers | st.booleans() | st.lists(numbers, max_size=2), max_size=4)
inputs = st.fixed_dictionaries(
    {"name": st.text(max_size=3), "shape": st.lists(st.integers(1, 2), max_size=2)},
    optional={
        "datatype": st.sampled_from(["FP32", "FP64", "FP16", "INT64", "UINT8", "BYTES"]),
        "data": data | st.text(max_size=2),
        "parameters": st.just({"binary_data_size": 4}) | st.just({"list": [1]}),
    },
)
requests = st.fixed_dictionaries(
    {"inputs": st.lists(inputs, max_size=2)},
    optional={"id": st.text(max_size=3), "outputs": st.just([{"name": "logits"}])},
)


def outcome(body: bytes) -> object:
    try:
        request = oip.decode(body, None)
    except ServiceError as error:
        return type(error), error.detail
    tensors = [(t.name, t.values.dtype, t.values.shape, t.values.tobytes()) for t in request.inputs]
    return request.id, request.outputs, request.binary_output, tensors


@pytest.mark.slow
@FUZZ
@given(mutated(requests.map(lambda request: json.dumps(request).encode())))
def test_what_is_read_without_lists_is_read_the_same(body: bytes) -> None:
    assume(len(body) < MIN_BYTES)  # lists are read then
    if simd_request(body) is not None:
        long = body + b" " * MIN_BYTES
        assert simd_request(long) is not None
        assert outcome(long) == outcome(body)


def body_of(values: object, datatype: str = "FP32", **more: object) -> bytes:
    tensor = {"name": "logits", "shape": [2, 2], "datatype": datatype, "data": values, **more}
    return json.dumps({"inputs": [tensor]}).encode()


@pytest.mark.parametrize("datatype", ["FP32", "FP64"])
def test_flat_numbers_make_no_lists(datatype: str) -> None:
    read = simd_request(body_of([1, -0.5, 2**53 + 1, 1e300], datatype))
    assert read is not None
    assert isinstance(read["inputs"][0]["data"], np.ndarray)


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"[]",
        b"{}",
        body_of([[1, 2], [3, 4]]),
        body_of([1, [2], 3, 4]),
        body_of([[1]]),
        body_of([1, True, 3, 4]),
        body_of([1, None, 3, 4]),
        body_of([1, "2", 3, 4]),
        body_of([1, 2, 3, 4], parameters={"of[them]": 1}),
        body_of([1, 2, 3, 4]).replace(b'"name"', b'"data": [5], "name"'),
        body_of([1, 2, 3, 4]).replace(b'{"inputs"', b'{"inputs": [], "inputs"'),
        body_of([1, 2, 3, 4]).replace(b"4]", b"1e999]"),
        b"\xef\xbb\xbf" + body_of([1, 2, 3, 4]),
    ],
)
def test_what_is_not_plain_is_left_to_the_slow_reader(body: bytes) -> None:
    assert simd_request(body) is None
