"""Small ONNX files that declare large things; input ``x`` (n, 4), output ``logits`` (n, 3).

Each network computes ``x @ matrix + extra``, and ``extra`` is what costs.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import onnx
from onnx import GraphProto, NodeProto, TensorProto, helper, numpy_helper

from trueprob.repository.manifest import InputSpec, Manifest

FLOATS = 2_684_354_560  # 10 GiB of float32
ENDLESS = 1 << 40  # turns of a loop
MATRIX = np.random.default_rng(7).normal(size=(4, 3)).astype(np.float32)

node, value = helper.make_node, helper.make_tensor_value_info


def content(
    nodes: Sequence[NodeProto] = (),  # that compute `extra`, one number
    initializers: Sequence[TensorProto] = (),
    *,
    sparse: Sequence[object] = (),
    constants: dict[str, object] | None = None,
) -> bytes:
    """A network; without nodes a good one."""
    if not nodes:
        constants = {**(constants or {}), "extra": np.float32(0)}
    arrays = {"matrix": MATRIX, **(constants or {})}
    graph = helper.make_graph(
        [
            *nodes,
            node("MatMul", ["x", "matrix"], ["product"]),
            node("Add", ["product", "extra"], ["logits"]),
        ],
        "bomb",
        [value("x", TensorProto.FLOAT, ["n", 4])],
        [value("logits", TensorProto.FLOAT, ["n", 3])],
        [*(numpy_helper.from_array(np.asarray(a), name) for name, a in arrays.items()),
         *initializers],
        sparse_initializer=list(sparse),
    )  # fmt: skip
    imports = [helper.make_opsetid("", 17)]
    return helper.make_model(graph, opset_imports=imports, ir_version=8).SerializeToString()


def largest(name: str) -> NodeProto:
    return node("ReduceMax", [name], ["extra"], keepdims=0)


def constant_of_shape() -> bytes:
    one = numpy_helper.from_array(np.ones(1, np.float32))
    nodes = [node("ConstantOfShape", ["shape"], ["large"], value=one), largest("large")]
    return content(nodes, constants={"shape": np.array([FLOATS])})


def in_a_branch() -> bytes:
    """The same, in the branches of branches."""

    def branch(depth: int) -> GraphProto:
        name = f"large{depth}"
        if depth == 0:
            inside = [node("Expand", ["one", "shape"], ["many"]),
                      node("ReduceMax", ["many"], [name], keepdims=0)]  # fmt: skip
        else:
            within = branch(depth - 1)
            inside = [node("If", ["yes"], [name], then_branch=within, else_branch=within)]
        return helper.make_graph(inside, "branch", [], [value(name, TensorProto.FLOAT, [])])

    nested = branch(3)
    nodes = [
        node("ReduceMax", ["x"], ["most"], keepdims=0),
        node("Equal", ["most", "most"], ["yes"]),
        node("If", ["yes"], ["extra"], then_branch=nested, else_branch=nested),
    ]
    return content(nodes, constants={"one": np.ones(1, np.float32), "shape": np.array([FLOATS])})


def tiles_of(n: int) -> bytes:
    nodes = [node("Tile", ["one", "times"], ["large"]), largest("large")]
    return content(nodes, constants={"one": np.ones(1, np.float32), "times": np.array([n])})


def tiles() -> bytes:
    """As many as onnxruntime takes: it knows a limit of this operator."""
    return tiles_of(FLOATS // 3)


def dimensions_without_data() -> bytes:
    tensor = TensorProto(name="large", data_type=TensorProto.FLOAT, dims=[FLOATS])
    return content([largest("large")], [tensor])


def sparse_of_large_dimensions() -> bytes:
    tensor = helper.make_sparse_tensor(
        helper.make_tensor("large", TensorProto.FLOAT, [1], [1.0]),
        helper.make_tensor("at", TensorProto.INT64, [1], [0]),
        [FLOATS],
    )
    return content([largest("large")], sparse=[tensor])


def grows_with_rows() -> bytes:
    """A gigabyte for each row."""
    nodes = [
        node("Shape", ["x"], ["rows"], start=0, end=1),
        node("Mul", ["rows", "each"], ["shape"]),
        node("Expand", ["one", "shape"], ["large"]),
        largest("large"),
    ]
    constants = {"each": np.array([FLOATS // 10]), "one": np.ones(1, np.float32)}
    return content(nodes, constants=constants)


def loop(*trips: NodeProto, **constants: object) -> bytes:
    """A loop; the nodes compute its number of turns, ``trips``."""
    body = helper.make_graph(
        [node("Identity", ["go_on"], ["go_on_out"]), node("Sin", ["sum"], ["sum_out"])],
        "body",
        [value("turn", TensorProto.INT64, []), value("go_on", TensorProto.BOOL, []),
         value("sum", TensorProto.FLOAT, [])],
        [value("go_on_out", TensorProto.BOOL, []), value("sum_out", TensorProto.FLOAT, [])],
    )  # fmt: skip
    nodes = [*trips, node("Loop", ["trips", "yes", "zero"], ["extra"], body=body)]
    constants = {"yes": np.array(True), "zero": np.float32(0), **constants}
    return content(nodes, constants=constants)


def endless_loop() -> bytes:
    return loop(trips=np.array(ENDLESS))


def endless_for_many_rows() -> bytes:
    """Turns that are few for 32 rows, and without end for more."""
    return loop(
        node("Shape", ["x"], ["rows"], start=0, end=1),
        node("Div", ["rows", "many"], ["whole"]),
        node("Mul", ["whole", "turns"], ["turns_of_rows"]),
        node("Squeeze", ["turns_of_rows"], ["trips"]),
        many=np.array([33]),
        turns=np.array([ENDLESS]),
    )


def endless_for_large_numbers() -> bytes:
    return loop(
        node("ReduceMax", ["x"], ["most"], keepdims=0),
        node("Div", ["most", "thousand"], ["thousands"]),
        node("Cast", ["thousands"], ["whole"], to=TensorProto.INT64),
        node("Mul", ["whole", "turns"], ["trips"]),
        thousand=np.float32(1000),
        turns=np.array(ENDLESS),
    )


def endless_for_one_number() -> bytes:
    """What no inspection can find: all is well but for the number 42."""
    return loop(
        node("ReduceMax", ["x"], ["most"], keepdims=0),
        node("Equal", ["most", "number"], ["found"]),
        node("Cast", ["found"], ["one"], to=TensorProto.INT64),
        node("Mul", ["one", "turns"], ["trips"]),
        number=np.float32(42),
        turns=np.array(ENDLESS),
    )


MEMORY: dict[str, Callable[[], bytes]] = {
    each.__name__: each
    for each in (
        constant_of_shape, in_a_branch, tiles, grows_with_rows,
    )
}  # fmt: skip
# What onnxruntime itself refuses to load; older versions may take the memory.
NOT_LOADED: dict[str, Callable[[], bytes]] = {
    each.__name__: each for each in (dimensions_without_data, sparse_of_large_dimensions)
}
TIME: dict[str, Callable[[], bytes]] = {
    each.__name__: each for each in (endless_loop, endless_for_many_rows, endless_for_large_numbers)
}


def external(location: str, n: int = 12, **entries: str) -> bytes:
    """A network whose matrix lies in another file, with more floats than it needs if n is large."""
    model = onnx.load_model_from_string(content())
    tensor = next(each for each in model.graph.initializer if each.name == "matrix")
    if n != MATRIX.size:
        extra = next(each for each in model.graph.initializer if each.name == "extra")
        extra.CopyFrom(TensorProto(name="many", data_type=TensorProto.FLOAT, dims=[n]))
        model.graph.node.append(largest("many"))
        model.graph.node.insert(0, model.graph.node.pop())
        tensor = extra
    tensor.ClearField("raw_data")
    tensor.data_location = TensorProto.EXTERNAL
    for key, text in {"location": location, **entries}.items():
        tensor.external_data.add(key=key, value=text)
    return model.SerializeToString()


def manifest(name: str) -> Manifest:
    """Of a version with one of these networks."""
    rows = InputSpec("x", "float32", ("batch", 4), "rows")
    return Manifest(name, 1, 3, ("a", "b", "c"), rows)


def hole(path: Path, size: int) -> Path:
    """A file that takes no space."""
    with path.open("wb") as stream:
        stream.truncate(size)
    return path


def large_network(path: Path, side: int, dtype: np.dtype) -> Path:
    """An honest network whose square matrix lies in the file ``weights.bin``."""
    inner = TensorProto(
        name="inner",
        data_type=helper.np_dtype_to_tensor_dtype(dtype),
        dims=[side, side],
        data_location=TensorProto.EXTERNAL,
    )
    inner.external_data.add(key="location", value="weights.bin")
    rng = np.random.default_rng(0)
    with (path.parent / "weights.bin").open("wb") as stream:
        for _ in range(side):
            stream.write(rng.integers(-3, 4, side).astype(dtype).tobytes())
    ends = {
        "first": np.full((4, side), 0.01, np.float32),
        "last": np.full((side, 3), 0.01, np.float32),
    }
    graph = helper.make_graph(
        [
            node("MatMul", ["x", "first"], ["wide"]),
            node("Cast", ["inner"], ["weights"], to=TensorProto.FLOAT),
            node("MatMul", ["wide", "weights"], ["deep"]),
            node("MatMul", ["deep", "last"], ["logits"]),
        ],
        "large",
        [value("x", TensorProto.FLOAT, ["n", 4])],
        [value("logits", TensorProto.FLOAT, ["n", 3])],
        [inner, *(numpy_helper.from_array(array, name) for name, array in ends.items())],
    )
    imports = [helper.make_opsetid("", 17)]
    model = helper.make_model(graph, opset_imports=imports, ir_version=8)
    path.write_bytes(model.SerializeToString())
    return path
