import contextlib
import json
import struct
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.trueprob_service.inference.mutated import FUZZ
from trueprob_service.errors import BadRequest, InvalidRequest, ServiceError
from trueprob_service.inference.wire import oip
from trueprob_service.inference.wire.oip_tensors import DATATYPES, OipOutput, from_raw

# Datatype → struct's letter, for a decoder that takes one number at a time.
LETTERS = {
    "FP16": "e", "FP32": "f", "FP64": "d", "UINT8": "B", "UINT16": "H", "UINT32": "I",
    "UINT64": "Q", "INT8": "b", "INT16": "h", "INT32": "i", "INT64": "q", "BOOL": "?",
    "BF16": "f",
}  # fmt: skip


def packed(datatype: str, number: Any) -> bytes:
    written = struct.pack("<" + LETTERS[datatype], number)
    return written[2:] if datatype == "BF16" else written


def unpacked(datatype: str, written: bytes) -> Any:
    whole = b"\0\0" + written if datatype == "BF16" else written
    return struct.unpack("<" + LETTERS[datatype], whole)[0]


def numbers_of(datatype: str) -> st.SearchStrategy[Any]:
    if datatype == "BF16":
        return st.floats(width=32, allow_nan=False, allow_infinity=False)
    if datatype.startswith("FP"):
        return st.floats(width=int(datatype[2:]), allow_nan=False, allow_infinity=False)  # type: ignore[arg-type]  # 16, 32 or 64
    if datatype == "BOOL":
        return st.booleans()
    bits = int(datatype.removeprefix("U").removeprefix("INT"))
    low, high = (0, 2**bits - 1) if datatype[0] == "U" else (-(2 ** (bits - 1)), 2 ** (bits - 1))
    return st.integers(low, high - (datatype[0] != "U"))


@st.composite
def tensors(draw: st.DrawFn) -> dict[str, Any]:
    datatype = draw(st.sampled_from(DATATYPES))
    shape = [draw(st.integers(0, 3)), *draw(st.lists(st.integers(1, 3), max_size=3))]
    count = int(np.prod(shape))
    numbers = draw(st.lists(numbers_of(datatype), min_size=count, max_size=count))
    form = draw(
        st.sampled_from(
            ("binary",) if datatype in ("FP16", "BF16") else ("binary", "flat", "nested")
        )
    )
    return {"datatype": datatype, "shape": shape, "numbers": numbers, "form": form}


def nested(flat: list[Any], shape: list[int]) -> list[Any]:
    if len(shape) == 1 or not flat:
        return flat
    step = len(flat) // shape[0]
    return [nested(flat[i : i + step], shape[1:]) for i in range(0, len(flat), step)]


def written(chosen: list[dict[str, Any]], *, space: str = "") -> tuple[bytes, int | None]:
    """The body that a client would send, and the header length when one is needed."""
    inputs, parts = [], []
    for i, tensor in enumerate(chosen):
        item = {"name": f"x{i}", "shape": tensor["shape"], "datatype": tensor["datatype"]}
        if tensor["form"] == "binary":
            parts.append(b"".join(packed(tensor["datatype"], v) for v in tensor["numbers"]))
            item["parameters"] = {"binary_data_size": len(parts[-1])}
        elif tensor["form"] == "flat":
            item["data"] = tensor["numbers"]
        else:
            item["data"] = nested(tensor["numbers"], tensor["shape"])
        inputs.append(item)
    head = (json.dumps({"inputs": inputs}) + space).encode()
    return head + b"".join(parts), len(head) if parts else None


def one_number_at_a_time(body: bytes, header_length: int | None) -> list[np.ndarray]:
    """A second reading of the specification: no view, no array module, no shortcut."""
    head = body if header_length is None else body[:header_length]
    rest = b"" if header_length is None else body[header_length:]
    arrays = []
    for item in json.loads(head)["inputs"]:
        datatype, numbers = item["datatype"], []
        if "data" in item:
            waiting = [item["data"]]
            while waiting:
                value = waiting.pop(0)
                if isinstance(value, list):
                    waiting = [*value, *waiting]
                else:
                    # Through the wire's own format, as binary data would come.
                    number = float(value) if datatype.startswith("FP") else value
                    numbers.append(unpacked(datatype, packed(datatype, number)))
        else:
            width = len(packed(datatype, 0))
            for _ in range(item["parameters"]["binary_data_size"] // width):
                numbers.append(unpacked(datatype, rest[:width]))
                rest = rest[width:]
        result = np.empty(item["shape"], np.dtype(LETTERS[datatype]))
        for index, number in zip(np.ndindex(*item["shape"]), numbers, strict=True):
            result[index] = number
        arrays.append(result)
    assert not rest
    return arrays


@pytest.mark.slow
@FUZZ
@given(st.lists(tensors(), min_size=1, max_size=3), st.sampled_from(["", " ", "  ", "   "]))
def test_requests_decode_to_what_a_slow_decoder_reads(
    chosen: list[dict[str, Any]], space: str
) -> None:
    body, header_length = written(chosen, space=space)
    request = oip.decode(body, header_length)
    expected = one_number_at_a_time(body, header_length)
    for tensor, sent, reference in zip(request.inputs, chosen, expected, strict=True):
        assert tensor.datatype == sent["datatype"]
        assert tensor.values.dtype == reference.dtype
        np.testing.assert_array_equal(tensor.values, reference)


def test_a_binary_tensor_on_its_own_boundary_is_not_copied() -> None:
    sent = {"datatype": "FP32", "shape": [2, 3], "numbers": [0.5] * 6, "form": "binary"}
    aligned = []
    for spaces in range(4):
        body, header_length = written([sent], space=" " * spaces)
        (tensor,) = oip.decode(body, header_length).inputs
        assert tensor.values.flags.aligned
        aligned.append(np.shares_memory(tensor.values, np.frombuffer(body, np.uint8)))
    assert aligned.count(True) == 1


@pytest.mark.slow
@FUZZ
@given(st.lists(tensors(), min_size=1, max_size=2), st.data())
def test_a_damaged_request_decodes_or_is_refused_in_words(
    chosen: list[dict[str, Any]], data: st.DataObject
) -> None:
    body, header_length = written(chosen)
    changed = bytearray(body)
    for _ in range(data.draw(st.integers(1, 4))):
        place = data.draw(st.integers(0, len(changed) - 1))
        changed[place : place + data.draw(st.integers(0, 2))] = data.draw(st.binary(max_size=2))
        changed = changed or bytearray(b"{")
    lengths = st.none() | st.integers(1, len(body) + 5) | st.just(header_length)
    with contextlib.suppress(ServiceError):
        oip.decode(bytes(changed), data.draw(lengths))


@FUZZ
@given(st.binary(max_size=60), st.none() | st.integers(1, 70))
def test_any_bytes_are_refused_in_words(body: bytes, header_length: int | None) -> None:
    with contextlib.suppress(ServiceError):
        oip.decode(body, header_length)


def item(**fields: Any) -> dict[str, Any]:
    return {"name": "logits", "shape": [1, 2], "datatype": "FP32", "data": [1, 2], **fields}


def binary(size: object = 8, **fields: Any) -> dict[str, Any]:
    entry = item(parameters={"binary_data_size": size}, **fields)
    del entry["data"]
    return entry


HUGE = 2**63
REFUSED = [
    # the document, bytes behind it, the error and its words
    ([], b"", InvalidRequest, "expected a JSON object with inputs"),
    ({}, b"", InvalidRequest, "inputs must be a list of objects"),
    ({"inputs": [3]}, b"", InvalidRequest, "inputs must be a list of objects"),
    ({"inputs": [item()], "id": 3}, b"", InvalidRequest, "id must be a string"),
    ({"inputs": [item()], "parameters": []}, b"", InvalidRequest, "parameters of the request"),
    ({"inputs": [item()], "parameters": {"binary_data_output": 1}}, b"", InvalidRequest,
     "binary_data_output must be true or false"),
    ({"inputs": [item()], "outputs": {}}, b"", InvalidRequest, "outputs must be a list"),
    ({"inputs": [item()], "outputs": [{}]}, b"", InvalidRequest, r"outputs\[0\].name must be"),
    ({"inputs": [item()], "outputs": [{"name": "a"}] * 2}, b"", InvalidRequest, "requested twice"),
    ({"inputs": [item()], "outputs": [{"name": "a", "parameters": {"classification": 3}}]}, b"",
     InvalidRequest, "classification, an extension that is not offered"),
    ({"inputs": [item(parameters={"shared_memory_region": "a"})]}, b"", InvalidRequest,
     "shared_memory_region, an extension"),
    ({"inputs": [item(name=None)]}, b"", InvalidRequest, r"inputs\[0\].name must be a string"),
    ({"inputs": [item(datatype="FP31")]}, b"", InvalidRequest, "FP64, .* got 'FP31'"),
    ({"inputs": [item(datatype="BYTES")]}, b"", InvalidRequest, "got 'BYTES'"),
    ({"inputs": [item(datatype="FP16")]}, b"", InvalidRequest, "as binary data only"),
    ({"inputs": [item(datatype="BF16")]}, b"", InvalidRequest, "as binary data only"),
    ({"inputs": [item(shape=[])]}, b"", InvalidRequest, "shape must be a list of 1 to 8"),
    ({"inputs": [item(shape=[1] * 9)]}, b"", InvalidRequest, "shape must be a list of 1 to 8"),
    ({"inputs": [item(shape=[-1, 2])]}, b"", InvalidRequest, "positive integers"),
    ({"inputs": [item(shape=[2, 0], data=[])]}, b"", InvalidRequest, "the first may be 0"),
    ({"inputs": [item(shape=[0, 2], data=[1])]}, b"", InvalidRequest, "data has 1 numbers"),
    ({"inputs": [item(shape=[1, 2], data=[])]}, b"", InvalidRequest, "data has 0 numbers"),
    ({"inputs": [binary(2, shape=[0, 2])]}, b"", InvalidRequest, "is 2, but FP32 of shape"),
    ({"inputs": [item(shape=[True, 2])]}, b"", InvalidRequest, "positive integers"),
    ({"inputs": [item(shape=[1.0, 2])]}, b"", InvalidRequest, "positive integers"),
    ({"inputs": [item(shape=[HUGE, HUGE, 2])]}, b"", InvalidRequest, "data has 2 numbers"),
    ({"inputs": [item(data=[1])]}, b"", InvalidRequest, "data has 1 numbers, but shape"),
    ({"inputs": [item(data=[[1, 2, 3]])]}, b"", InvalidRequest, "not nested as shape"),
    ({"inputs": [item(data=[[1], [2]])]}, b"", InvalidRequest, "not nested .* at axis 0"),
    ({"inputs": [item(data=[[1, [2]]])]}, b"", InvalidRequest, "must hold numbers only"),
    ({"inputs": [item(data=[1, [2]])]}, b"", InvalidRequest, "must hold numbers only"),
    ({"inputs": [item(data=[[1, 2], 3], shape=[2, 2])]}, b"", InvalidRequest, "at axis 1"),
    ({"inputs": [item(data=[1, True])]}, b"", InvalidRequest, "numbers only, got bool"),
    ({"inputs": [item(data=[1, None])]}, b"", InvalidRequest, "numbers only"),
    ({"inputs": [item(data=["1", "2"])]}, b"", InvalidRequest, "numbers only"),
    ({"inputs": [item(data=None)]}, b"", InvalidRequest, "must have data"),
    ({"inputs": [item(data="12")]}, b"", InvalidRequest, "must have data"),
    ({"inputs": [item(data=[1, 2.5], datatype="UINT8")]}, b"", InvalidRequest, "integers only"),
    ({"inputs": [item(data=[1, 256], datatype="UINT8")]}, b"", InvalidRequest, "cannot hold"),
    ({"inputs": [item(data=[1, -1], datatype="UINT64")]}, b"", InvalidRequest, "cannot hold"),
    ({"inputs": [item(parameters={"binary_data_size": 8})]}, bytes(8), InvalidRequest,
     "both data and binary_data_size"),
    ({"inputs": [binary("8")]}, bytes(8), InvalidRequest, "whole number of bytes"),
    ({"inputs": [binary(-8)]}, bytes(8), InvalidRequest, "whole number of bytes"),
    ({"inputs": [binary(True)]}, bytes(8), InvalidRequest, "whole number of bytes"),
    ({"inputs": [binary(4)]}, bytes(8), InvalidRequest, "has 8 bytes"),
    ({"inputs": [binary(0, shape=[2**32, 2**32])]}, b"", InvalidRequest, "has 7378697629483820"),
    ({"inputs": [binary(HUGE, shape=[2**61])]}, bytes(8), BadRequest, "8 are left in the body"),
    ({"inputs": [binary(8)]}, bytes(7), BadRequest, "7 are left in the body"),
    ({"inputs": [binary(8), binary(8)]}, bytes(8), BadRequest, r"inputs\[1\] has 8 bytes"),
    ({"inputs": [binary(8)]}, bytes(9), BadRequest, "1 bytes follow the last tensor"),
    ({"inputs": [item()]}, bytes(1), BadRequest, "1 bytes follow the last tensor"),
]  # fmt: skip


@pytest.mark.parametrize(("document", "rest", "error", "words"), REFUSED)
def test_what_is_wrong_is_said(
    document: Any, rest: bytes, error: type[ServiceError], words: str
) -> None:
    head = json.dumps(document).encode()
    with pytest.raises(error, match=words):
        oip.decode(head + rest, len(head))


@pytest.mark.parametrize(
    ("body", "header_length", "words"),
    [
        (b"", None, "not JSON in its first 0 bytes"),
        (b"{}", 3, "header-content-length is 3, but the body has 2 bytes"),
        (b'{"inputs": [{"name": NaN}]}', None, "not JSON"),
        (b"[" * 5000, None, "not JSON"),
        (json.dumps({"inputs": [binary(8)]}).encode() + bytes(8), None, "not JSON"),
        (json.dumps({"inputs": [binary(8)]}).encode(), None, "expected the header"),
    ],
)
def test_what_is_no_request_is_said(body: bytes, header_length: int | None, words: str) -> None:
    with pytest.raises(BadRequest, match=words):
        oip.decode(body, header_length)


@pytest.mark.parametrize("size", [1, 39, 41])
def test_a_raw_body_is_whole_rows(size: int) -> None:
    with pytest.raises(BadRequest, match="rows of 40 bytes"):
        from_raw(bytes(size), name="logits", datatype="FP32", row_shape=(10,))
    tensor = from_raw(bytes(80), name="logits", datatype="FP32", row_shape=(10,))
    assert tensor.values.shape == (2, 10)
    empty = from_raw(b"", name="logits", datatype="FP32", row_shape=(10,))
    assert empty.values.shape == (0, 10)


def test_a_response_mixes_json_and_bytes_in_order() -> None:
    matrix = np.arange(6, dtype=np.float32).reshape(2, 3).T  # not contiguous on purpose
    outputs = [
        OipOutput("a", "FP32", matrix, binary=True),
        OipOutput("b", "FP32", matrix, binary=False),
        OipOutput("ids", "BYTES", ["é", ""], binary=True),
        OipOutput("more", "BYTES", ["é"], binary=False),
    ]
    body, header_length = oip.encode({"id": "7"}, outputs)
    assert header_length is not None
    a, b, ids, more = json.loads(body[:header_length])["outputs"]
    assert body[header_length:] == matrix.tobytes() + b"\2\0\0\0\xc3\xa9\0\0\0\0"
    assert [each["parameters"]["binary_data_size"] for each in (a, ids)] == [24, 10]
    assert (b["shape"], b["data"]) == ([3, 2], [0, 3, 1, 4, 2, 5])
    assert (more["shape"], more["data"]) == ([1], ["é"])
    assert oip.encode({"id": "7"}, outputs[1:2])[1] is None


def test_a_large_json_tensor_is_written_whole() -> None:
    values = np.arange(140_000, dtype=np.float32).reshape(-1, 7) / 8
    body, _ = oip.encode({"id": "7"}, [OipOutput("a", "FP32", values, binary=False)])
    assert json.loads(body)["outputs"][0]["data"] == values.ravel().tolist()
