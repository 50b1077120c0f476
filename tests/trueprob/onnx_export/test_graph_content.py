"""Files that a network needs are found however the ONNX file is written."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import onnx
import pytest
from onnx import AttributeProto, TensorProto, helper

from trueprob.errors import InvalidInput
from trueprob.onnx_export.graph_content import weight_files
from trueprob.onnx_export.protobuf import field_bytes

INITIALIZER, GRAPH, FUNCTIONS, NODE = 5, 7, 25, 1
PLACE = "../secret.bin"


def entries(*pairs: tuple[str, str]) -> bytes:
    return b"".join(
        field_bytes(13, field_bytes(1, key.encode()) + field_bytes(2, text.encode()))
        for key, text in pairs
    )


def number(field: int, *varint: int) -> bytes:
    return bytes((field << 3, *varint))


def in_graph(tensor: bytes) -> bytes:
    return field_bytes(GRAPH, field_bytes(INITIALIZER, tensor))


def of_attribute(attribute: bytes) -> bytes:
    return field_bytes(GRAPH, field_bytes(NODE, field_bytes(5, attribute)))


EXTERNAL = number(14, 1) + entries(("location", PLACE))
WAYS: dict[str, Callable[[], bytes]] = {
    "plainly": lambda: in_graph(EXTERNAL),
    "the last of two locations counts": lambda: in_graph(number(14, 0) + EXTERNAL),
    "an enum is cut to 32 bits": lambda: in_graph(
        number(14, 0x81, 0x80, 0x80, 0x80, 0x10) + entries(("location", PLACE))
    ),
    "a field of another type is none": lambda: in_graph(EXTERNAL + field_bytes(14, b"x")),
    "two entries": lambda: in_graph(
        number(14, 1) + entries(("location", "near.bin"), ("location", PLACE))
    ),
    "two entries the other way round": lambda: in_graph(
        number(14, 1) + entries(("location", PLACE), ("location", "near.bin"))
    ),
    "a message in two parts": lambda: of_attribute(
        field_bytes(5, number(14, 1)) + field_bytes(5, entries(("location", PLACE)))
    ),
    "a sparse one in two parts": lambda: of_attribute(
        field_bytes(22, field_bytes(1, number(14, 1)))
        + field_bytes(22, field_bytes(1, entries(("location", PLACE))))
    ),
    "a default of a function": lambda: field_bytes(
        FUNCTIONS, field_bytes(11, field_bytes(5, EXTERNAL))
    ),
    "a list of tensors": lambda: of_attribute(field_bytes(10, EXTERNAL)),
}


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("strict", [False, True])
def test_a_file_is_found_however_it_is_named(tmp_path: Path, way: str, strict: bool) -> None:
    (tmp_path / "near.bin").write_bytes(b"")
    with pytest.raises(InvalidInput, match="must be a relative path inside the folder"):
        weight_files(WAYS[way](), tmp_path, strict=strict)


def test_the_ways_are_those_that_onnx_reads() -> None:
    """What the tests write is what the package onnx takes for a reference."""
    for way in ("the last of two locations counts", "an enum is cut to 32 bits"):
        [tensor] = onnx.ModelProto.FromString(WAYS[way]()).graph.initializer
        assert tensor.data_location == TensorProto.EXTERNAL, way
    model = onnx.ModelProto.FromString(WAYS["a message in two parts"]())
    attribute: AttributeProto = model.graph.node[0].attribute[0]
    assert attribute.t.data_location == TensorProto.EXTERNAL
    assert [each.value for each in attribute.t.external_data] == [PLACE]


@pytest.mark.parametrize(
    "damage",
    [
        lambda content: content + b"\x0b\x0c",  # a group: parsers skip it
        lambda content: content + field_bytes(GRAPH, b"\xff"),
        lambda content: in_graph(number(14, 1) + entries(("location", "a"), ("offset", "x"))),
        lambda content: in_graph(number(14, 1) + field_bytes(13, field_bytes(1, b"\xff"))),
    ],
)
def test_what_cannot_be_read_to_its_end_is_an_error_if_that_matters(
    tmp_path: Path, damage: Callable[[bytes], bytes]
) -> None:
    content = damage(in_graph(EXTERNAL))
    assert weight_files(content, tmp_path) == {}
    with pytest.raises(InvalidInput, match="cannot be read to its end"):
        weight_files(content, tmp_path, strict=True)


def test_sizes_are_those_that_the_network_needs(tmp_path: Path) -> None:
    (tmp_path / "w.bin").write_bytes(bytes(20))
    tensor = TensorProto(data_location=TensorProto.EXTERNAL)
    for key, text in (("location", "w.bin"), ("offset", "12"), ("length", "8")):
        tensor.external_data.add(key=key, value=text)
    graph = helper.make_graph([], "g", [], [], [tensor])
    content = helper.make_model(graph).SerializeToString()
    assert weight_files(content, tmp_path, strict=True) == {"w.bin": tmp_path / "w.bin"}
    (tmp_path / "w.bin").write_bytes(bytes(19))
    with pytest.raises(InvalidInput, match="is cut off: it has 19 bytes, the network needs 20"):
        weight_files(content, tmp_path)
