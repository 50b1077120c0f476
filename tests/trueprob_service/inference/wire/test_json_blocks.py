"""JSON parsed in blocks is what it is when it is parsed at once, wherever the boundaries fall."""

import json
from itertools import chain
from typing import Any

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from tests.trueprob_service.inference.mutated import FUZZ, mutated
from trueprob_service.control.labels.body import read_document
from trueprob_service.edge.json_blocks import elements_in_blocks, numbers_in_blocks
from trueprob_service.errors import ServiceError
from trueprob_service.inference.wire import json_rows, oip
from trueprob_service.inference.wire.json_rows import matrix_in_blocks, numbers
from trueprob_service.inference.wire.oip_tensors import request_in_blocks

pytestmark = pytest.mark.slow

WHOLE = 1 << 30
block_bytes = st.integers(1, 12) | st.integers(13, 200)
spaces = st.text(" \t\n\r", max_size=2)
numerals = (
    st.floats(allow_nan=False, allow_infinity=False).map(json.dumps)
    | st.integers(-9, 9).map(str)
    | st.integers(-(2**65), 2**65).map(str)
    | st.sampled_from(["1e5", "-2.5E-3", "1E+2", "-0", "-0.0", "1e-999", "9007199254740993"])
)
odd = st.sampled_from(
    ["NaN", "1e999", '"2"', '"],["', "null", "true", "[3]", "[]", "{}", '{"a":[1]}', "", "01", "-"]
)


@st.composite
def listed(draw: st.DrawFn, items: st.SearchStrategy[str], min_size: int, max_size: int) -> str:
    """A list's text with space anywhere in it."""
    texts = draw(st.lists(items, min_size=min_size, max_size=max_size))
    padded = (draw(spaces) + text + draw(spaces) for text in texts)
    return "[" + ",".join(padded) + "]"


@st.composite
def rows(draw: st.DrawFn, element: st.SearchStrategy[str], *, ragged: bool) -> str:
    k = draw(st.integers(0, 4))
    return draw(listed(listed(element, 0 if ragged else k, k), 1, 8))


values = rows(numerals, ragged=False) | rows(numerals | odd, ragged=True) | odd


@st.composite
def prediction_bodies(draw: st.DrawFn) -> bytes:
    names = st.sampled_from(
        ['"logits"', '"probabilities"', '"images"', '"other"', '"l\\u006fgits"']
    )
    fields = draw(st.lists(names, min_size=1, max_size=1) | st.lists(names, max_size=2))
    members = (
        draw(spaces) + name + draw(spaces) + ":" + draw(spaces) + draw(values) + draw(spaces)
        for name in fields
    )
    end = draw(spaces | st.sampled_from([" x", "]", "}", "\ufeff"]))
    return (draw(spaces) + "{" + ",".join(members) + "}" + end).encode()


def prediction(body: bytes, size: int) -> object:
    try:
        name, found = json_rows.decode(body, block_bytes=size)
    except ServiceError as error:
        return type(error), error.detail
    if isinstance(found, list):
        return name, found
    # The fast reader gives float64 for whole numbers too: it is the numbers that count.
    with np.errstate(over="ignore"):
        as_logits = found.astype(np.float32)
    return name, found.shape, found.astype(np.float64).tobytes(), as_logits.tobytes()


@FUZZ
@given(prediction_bodies() | mutated(prediction_bodies()), block_bytes)
def test_a_prediction_body_in_blocks_is_what_it_is_at_once(body: bytes, size: int) -> None:
    assert prediction(body, size) == prediction(body, WHOLE)


@FUZZ
@given(rows(numerals, ragged=False), block_bytes)
def test_plain_rows_need_no_parsing_at_once(text: str, size: int) -> None:
    parsed = np.asarray(json.loads(text), np.float64)
    assume(parsed.ndim == 2 and parsed.size > 0 and np.abs(parsed).max() < 2**53)
    found = matrix_in_blocks(text.encode(), 1, block_bytes=size)
    assert found is not None
    assert found[1] == len(text)
    np.testing.assert_array_equal(found[0], parsed)


DATATYPES = ["FP32", "FP64", "INT8", "INT64", "UINT8", "UINT64", "FP16", "BYTES"]


@st.composite
def inference_requests(draw: st.DrawFn) -> bytes:
    def tensor() -> str:
        nested, flat = rows(numerals, ragged=False), listed(numerals | odd, 0, 6)
        data = draw(nested | listed(numerals, 1, 6) | flat | values)
        try:
            shape = list(np.shape(json.loads(data)))
        except ValueError:
            shape = [1]
        shape = draw(st.just(shape) | st.lists(st.integers(1, 3), max_size=2))
        datatype = draw(st.sampled_from(DATATYPES))
        fields = [
            f'"name": {json.dumps(draw(st.sampled_from(["logits", "[", "data"])))}',
            f'"shape": {shape}',
            f'"datatype": "{datatype}"',
            f'"data"{draw(spaces)}:{draw(spaces)}{data}',
        ]
        more = ['"data": [1, 2]', '"a\\"data": [1, 2]', '"parameters": {"data": [1]}', '"x": true']
        fields += draw(st.just([]) | st.lists(st.sampled_from(more), max_size=2))
        return "{" + ",".join(draw(st.permutations(fields))) + "}"

    inputs = ",".join(tensor() for _ in range(draw(st.integers(1, 2))))
    fields = [f'"inputs": [{inputs}]', *draw(st.just([]) | st.just(['"outputs": [{"name": "a"}]']))]
    return ("{" + ",".join(draw(st.permutations(fields))) + "}" + draw(spaces)).encode()


def inference(body: bytes, size: int) -> object:
    try:
        request = oip.decode(body, None, block_bytes=size)
    except ServiceError as error:
        return type(error), error.detail
    tensors = [(t.name, t.values.dtype, t.values.shape, t.values.tobytes()) for t in request.inputs]
    return request.id, request.outputs, request.binary_output, tensors


@FUZZ
@given(inference_requests() | mutated(inference_requests()), block_bytes)
def test_an_inference_request_in_blocks_is_what_it_is_at_once(body: bytes, size: int) -> None:
    assert inference(body, size) == inference(body, WHOLE)


def request_of(data: str, **more: object) -> bytes:
    tensor = json.dumps({"name": "x", "shape": [2, 2], "datatype": "FP32", **more})
    return ('{"inputs":[' + tensor[:-1] + f', "data": {data}}}]}}').encode()


@pytest.mark.parametrize("data", ["[1, -2, 3.5, 4e2]", "[[1, -2], [3.5, 4e2]]"])
@pytest.mark.parametrize("size", [1, 3, 8, 100])
def test_tensors_of_numbers_become_arrays(data: str, size: int) -> None:
    read = request_in_blocks(request_of(data), block_bytes=size)
    assert read is not None
    np.testing.assert_array_equal(read["inputs"][0]["data"], [1, -2, 3.5, 400])


def test_integers_that_fit_become_arrays_and_others_lists() -> None:
    for datatype, data, is_array in (
        ("UINT8", "[0, 255, 1, 2]", True),
        ("UINT8", "[0, 256, 1, 2]", False),
        ("INT64", f"[{2**63 - 1}, {-(2**63)}, 1, 2]", True),
        ("UINT64", f"[{2**64 - 1}, 0, 1, 2]", False),
        ("INT8", "[1.5, 0, 1, 2]", False),
    ):
        read = request_in_blocks(request_of(data, datatype=datatype), block_bytes=4)
        assert read is not None
        assert isinstance(read["inputs"][0]["data"], np.ndarray) is is_array
        assert list(read["inputs"][0]["data"]) == json.loads(data)


def test_a_request_with_many_lists_is_parsed_at_once() -> None:
    assert request_in_blocks(b'{"inputs": [' + b'{"data": [[1]]},' * 8 + b"{}]}") is not None
    assert request_in_blocks(b'{"inputs": [' + b'{"data": [[1]]},' * 9 + b"{}]}") is None


labelled = st.fixed_dictionaries(
    {"label": st.integers(-1, 3) | st.text(max_size=3)},
    optional={
        "id": st.sampled_from(["a", "},{", "}]}", "[", '"', "\\"]),
        "logits": st.lists(st.floats(allow_nan=False, allow_infinity=False), max_size=3),
        "group": st.none() | st.integers() | st.just({"a": {}}),
    },
)


def document(body: bytes, size: int) -> object:
    try:
        return repr(read_document(body, block_bytes=size))
    except ServiceError as error:
        return type(error), error.detail


@st.composite
def label_bodies(draw: st.DrawFn) -> bytes:
    found = draw(st.lists(labelled, max_size=6) | st.lists(st.integers() | labelled, max_size=3))
    separators = draw(st.sampled_from([(",", ":"), (", ", " : "), ("\n,", ":")]))
    more: dict[str, Any] = draw(st.just({}) | st.just({"labels": [1]}))
    return json.dumps({"rows": found, **more}, separators=separators).encode() + b"\n"


@FUZZ
@given(label_bodies() | mutated(label_bodies()), block_bytes)
def test_labelled_rows_in_blocks_are_what_they_are_at_once(body: bytes, size: int) -> None:
    assert document(body, size) == document(body, WHOLE)


def parsed(block: bytes) -> list[Any] | None:
    try:
        found: list[Any] = json.loads(block)
    except ValueError:
        return None
    return found


@pytest.mark.parametrize("size", [1, 5, 9, 16, 100])
def test_no_block_is_longer_than_it_may_be_unless_one_element_is(size: int) -> None:
    text = b"[" + b" [1,2], [3,44] , [5,6],[7,8]]"
    blocks, _ = elements_in_blocks(text, 1, b"]", parsed, block_bytes=size)
    flat, _ = numbers_in_blocks(b"[1, 22,333 ,4]", 1, parsed, block_bytes=size)
    assert blocks is not None
    assert flat is not None
    assert list(chain.from_iterable(blocks)) == [[1, 2], [3, 44], [5, 6], [7, 8]]
    assert list(chain.from_iterable(flat)) == [1, 22, 333, 4]
    if size < 9:
        assert [len(block) for block in blocks] == [1, 1, 1, 1]


@pytest.mark.parametrize(
    "text",
    [b"", b"1", b"1,]", b"1,,2]", b",1]", b"]", b" ]", b"1 2]", b"[1]]", b'"a"]', b"true]"],
)
@pytest.mark.parametrize("size", [1, 2, 3, 50])
def test_what_is_no_list_of_numbers_is_none(text: bytes, size: int) -> None:
    assert numbers_in_blocks(text, 0, numbers, block_bytes=size)[0] is None
    assert matrix_in_blocks(text, 0, block_bytes=size) is None or text == b"[1]]"
