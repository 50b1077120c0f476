"""What an ONNX file says of its graph: the operator behind an output, files of weights, ZipMaps.

Read without the package onnx, which the service does not install. A file that is no ONNX has
nothing of this; who loads it says so. Format: onnx.proto of the ONNX project.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path, PurePosixPath
from typing import Final

from trueprob.arrays.files import is_lfs_pointer
from trueprob.errors import InvalidInput
from trueprob.onnx_export.protobuf import Fields, field_bytes, fields_of, texts

__all__ = ["last_operator", "weight_files", "with_zipmap_inputs"]

# Operators that leave the numbers as they are, or only cut them off at bounds.
KEEPING: Final = frozenset(
    ("Cast", "Clip", "Flatten", "Identity", "Reshape", "Squeeze", "Transpose", "Unsqueeze")
)
GRAPH, FUNCTIONS = 7, 25  # of ModelProto
NODE, INITIALIZER, OUTPUT, SPARSE = 1, 5, 12, 15  # of GraphProto
LOCATION, EXTERNAL_DATA = 14, 13  # of TensorProto
EXTERNAL: Final = 1  # the location of weights in another file
# A TypeProto: float32 with two dimensions of any length.
FLOAT_MATRIX: Final = field_bytes(
    1, b"\x08\x01" + field_bytes(2, field_bytes(1, b"") + field_bytes(1, b""))
)
UNREADABLE: Final = (ValueError, TypeError, IndexError, RecursionError)


def last_operator(content: bytes, output: str) -> str | None:
    """The operator whose numbers an output holds, such as ``Sigmoid``; None if it is not known.

    A regressor of ai.onnx.ml with the logistic function as its last step counts as ``Sigmoid``.
    """
    try:
        makers = {name: node for node in _nodes(content) for name in texts(node, 2)}
        node = makers.get(output)
        for _ in makers:
            if node is None or "".join(texts(node, 4)) not in KEEPING:
                break
            node = makers.get(texts(node, 1)[0])
        if node is None:
            return None
        for attribute in map(fields_of, node.get(5, ())):
            if texts(attribute, 1) == ["post_transform"] and texts(attribute, 4) == ["LOGISTIC"]:
                return "Sigmoid"
        return "".join(texts(node, 4)) or None
    except UNREADABLE:
        return None


def with_zipmap_inputs(content: bytes) -> bytes:
    """The file with the scores that go into each ZipMap as further outputs.

    ZipMap, which converters of scikit-learn append, turns rows of scores into dictionaries.
    """
    try:
        graphs = [fields_of(graph) for graph in fields_of(memoryview(content)).get(GRAPH, ())]
        nodes = [fields_of(node) for graph in graphs for node in graph.get(NODE, ())]
        listed = {
            name for graph in graphs for each in graph.get(OUTPUT, ())
            for name in texts(fields_of(each), 1)
        }  # fmt: skip
        scores = [texts(node, 1)[0] for node in nodes if texts(node, 4) == ["ZipMap"]]
    except UNREADABLE:
        return content
    added = (
        field_bytes(OUTPUT, field_bytes(1, name.encode()) + field_bytes(2, FLOAT_MATRIX))
        for name in scores
        if name not in listed
    )
    return content + b"".join(field_bytes(GRAPH, output) for output in added)


def weight_files(
    content: bytes | memoryview, folder: Path, *, strict: bool = False
) -> dict[str, Path]:
    """Files that hold weights of a network, by their path in it; empty if it holds all itself.

    Parameters
    ----------
    content : bytes or memoryview
        The ONNX file.
    folder : Path
        The folder that it lies in.
    strict : bool, default False
        Whether a file that cannot be read to its end is an error, rather than one without weights
        in other files.

    Returns
    -------
    dict of str to Path

    Raises
    ------
    InvalidInput
        A path leads out of the folder, or a file is missing, not a regular file, cut off or a
        pointer of Git LFS; with `strict`, the ONNX file itself cannot be read.
    """
    needed: dict[str, int] = {}
    try:
        for tensor in _tensors(fields_of(memoryview(content))):
            if not any(_is_external(each) for each in tensor.get(LOCATION, ())):
                continue
            entries = map(fields_of, tensor.get(EXTERNAL_DATA, ()))
            found = [(texts(each, 1)[-1:], (texts(each, 2) or [""])[-1]) for each in entries]
            numbers = {name[0]: value for name, value in found if name in (["offset"], ["length"])}
            end = sum(int(value or 0) for value in numbers.values())
            # Which of several counts is for the reader to say, so all must be allowed.
            for place in [value for name, value in found if name == ["location"]] or [""]:
                location = str(PurePosixPath(place))
                needed[location] = max(needed.get(location, 0), end)
    except UNREADABLE:
        if strict:
            raise InvalidInput(
                "the network cannot be read to its end, so the files that it needs are not known: "
                "save it again",
                field="model",
            ) from None
        return {}
    return {location: _checked(location, size, folder) for location, size in needed.items()}


def _is_external(location: object) -> bool:
    """Whether a value is `EXTERNAL`; onnxruntime takes the lower 32 bits of an enum."""
    return isinstance(location, int) and location & 0xFFFFFFFF == EXTERNAL


def _checked(location: str, size: int, folder: Path) -> Path:
    """The path of a file of weights that may be read."""
    what = f"the network's file of weights {location[:100]!r}"
    path = PurePosixPath(location)
    if (
        location == "."
        or "\\" in location
        or "\0" in location
        or path.is_absolute()
        or ".." in path.parts
    ):
        raise InvalidInput(
            f"{what} must be a relative path inside the folder of the network: save both into one "
            "folder",
            field="model",
        )
    file = folder / path
    if not file.resolve().is_relative_to(folder.resolve()):
        raise InvalidInput(
            f"{what} is a link that leads out of the folder of the network: put the file itself "
            "beside the network",
            field="model",
        )
    if not file.exists():
        raise InvalidInput(f"{what} is missing: put it beside the network", field="model")
    if not file.is_file():
        raise InvalidInput(f"{what} must be a regular file, and is not", field="model")
    with file.open("rb") as stream:
        if is_lfs_pointer(stream.read(100)):
            raise InvalidInput(
                f"{what} is a Git LFS pointer, not the weights: run `git lfs pull`", field="model"
            )
    if file.stat().st_size < size:
        raise InvalidInput(
            f"{what} is cut off: it has {file.stat().st_size} bytes, the network needs {size}",
            field="model",
        )
    return file


def _nodes(content: bytes) -> Iterator[Fields]:
    for graph in fields_of(memoryview(content)).get(GRAPH, ()):
        yield from map(fields_of, fields_of(graph).get(NODE, ()))


def _tensors(model: Fields) -> Iterator[Fields]:
    for graph in model.get(GRAPH, ()):
        yield from _tensors_of_graph(fields_of(graph))
    for function in map(fields_of, model.get(FUNCTIONS, ())):
        for node in function.get(7, ()):
            yield from _tensors_of_node(fields_of(node))
        for attribute in function.get(11, ()):  # defaults
            yield from _tensors_of_attribute(fields_of(attribute))


def _tensors_of_graph(graph: Fields) -> Iterator[Fields]:
    yield from map(fields_of, graph.get(INITIALIZER, ()))
    yield from _sparse(graph.get(SPARSE, ()))
    for node in graph.get(NODE, ()):
        yield from _tensors_of_node(fields_of(node))


def _tensors_of_node(node: Fields) -> Iterator[Fields]:
    for attribute in node.get(5, ()):
        yield from _tensors_of_attribute(fields_of(attribute))


def _tensors_of_attribute(attribute: Fields) -> Iterator[Fields]:
    yield from map(fields_of, (*_merged(attribute, 5), *attribute.get(10, ())))
    yield from _sparse((*_merged(attribute, 22), *attribute.get(23, ())))
    for graph in (*attribute.get(6, ()), *attribute.get(11, ())):
        yield from _tensors_of_graph(fields_of(graph))


def _sparse(tensors: Iterable[memoryview]) -> Iterator[Fields]:
    for each in map(fields_of, tensors):
        yield from map(fields_of, (*_merged(each, 1), *_merged(each, 2)))


def _merged(fields: Fields, number: int) -> list[memoryview]:
    """A field that holds one message; the parts of one that comes several times are one message."""
    parts = fields.get(number, [])
    return parts if len(parts) < 2 else [memoryview(b"".join(parts))]
