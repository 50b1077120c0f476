"""Finds the input and output of an ONNX classifier: from the graph, a test run, or the user.

An input of rank 4 with bytes or floats takes pictures; any other input takes rows of its tensor.
The output is the one of shape (rows, classes). A test run on random rows shows whether it holds
logits or probabilities: probabilities lie in [0, 1] and sum to one, and if one output is the
softmax of another, the other holds the logits. Nothing else is guessed. Class names are read from
the graph if it has them.
"""

from __future__ import annotations

import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from trueprob.onnx_export.class_names import class_names_of_graph
from trueprob.repository.manifest import OUTPUT_KINDS, InputSpec
from trueprob_service.errors import ModelUnavailable
from trueprob_service.inference.network.input import NetworkInput
from trueprob_service.inference.network.onnx_model import open_session
from trueprob_service.inference.network.session import Session
from trueprob_service.register.options import CannotRegister, Prompt, RegisterOptions
from trueprob_service.register.pictures import picture_spec

__all__ = ["InspectedGraph", "inspect", "inspect_content"]

_DTYPES: Final = {
    "tensor(uint8)": "uint8",
    "tensor(float)": "float32",
    "tensor(float16)": "float16",
    "tensor(double)": "float64",
    "tensor(int32)": "int32",
    "tensor(int64)": "int64",
}
_PICTURES: Final = ("uint8", "float32", "float16", "float64")
_PROBE_ROWS: Final = 8
# A thousand probabilities in half precision sum to one within this.
_SUM_TOLERANCE: Final = 1e-3


@dataclass(frozen=True)
class InspectedGraph:
    """Input and output of a network, as its manifest will describe them."""

    input: InputSpec
    output_name: str
    output_kind: str  # `logits` or `probabilities`
    n_classes: int
    class_names: tuple[str, ...] | None = None  # None if the graph has none


def inspect(session: Session, options: RegisterOptions, ask: Prompt) -> InspectedGraph:
    """Find the input and output of a network by running it on the CPU.

    Raises `CannotRegister` if it is not a classifier that can be served, or contradicts an option.
    """
    spec = _input(session, options, ask)
    outputs = _run_on_random_rows(session, spec)
    name = _output(outputs, options, ask)
    kind = _kind(name, outputs[name], options)
    return InspectedGraph(spec, name, kind, outputs[name].shape[1])


def inspect_content(content: bytes, options: RegisterOptions, ask: Prompt) -> InspectedGraph:
    """`inspect` for the content of a file, written to an empty folder as in the repository."""
    with tempfile.TemporaryDirectory() as folder:
        alone = Path(folder) / "model.onnx"
        alone.write_bytes(content)
        try:
            session = open_session(alone)
        except ModelUnavailable as error:
            if "external data" in str(error.__cause__).lower():
                raise CannotRegister(
                    "the network keeps its weights in a second file: save it as one file "
                    "(torch.onnx.export with external_data=False)"
                ) from None
            raise
        graph = inspect(session, options, ask)
    names = class_names_of_graph(content, graph.output_name, graph.n_classes)
    return replace(graph, class_names=names)


def _input(session: Session, options: RegisterOptions, ask: Prompt) -> InputSpec:
    nodes = session.get_inputs()
    if len(nodes) != 1:
        raise CannotRegister(
            f"the network has {len(nodes)} inputs ({', '.join(n.name for n in nodes)}), expected "
            "one: run the network elsewhere, declare the model over HTTP and send its logits"
        )
    node = nodes[0]
    dtype = _DTYPES.get(node.type)
    if dtype is None:
        raise CannotRegister(f"input {node.name!r} is {node.type}, expected {', '.join(_DTYPES)}")
    shape: list[Any] = list(node.shape)
    if len(shape) < 2:
        raise CannotRegister(
            f"input {node.name!r} has shape {shape}, expected rows in its first dimension"
        )
    shape[0] = shape[0] if isinstance(shape[0], int) else "batch"
    if len(shape) == 4 and dtype in _PICTURES:
        return picture_spec(node.name, dtype, shape, options, ask)
    picture_flags = [f"--{f}" for f in ("layout", "mode", "resize", "crop", "background",
            "scale", "mean", "std") if getattr(options, f) is not None]  # fmt: skip
    if picture_flags:
        raise CannotRegister(
            f"{picture_flags[0]} is for pictures, input {node.name!r} is {dtype} of {shape}"
        )
    if not all(isinstance(side, int) for side in shape[1:]):
        raise CannotRegister(
            f"input {node.name!r} has shape {shape}: export it with fixed dimensions "
            "after the first"
        )
    return InputSpec(node.name, dtype, tuple(shape), "rows")


def _run_on_random_rows(session: Session, spec: InputSpec) -> Mapping[str, NDArray[Any]]:
    """The outputs of a test run that have the shape of a classifier's, by name."""
    network_input, rng = NetworkInput.from_manifest(spec), np.random.default_rng(0)
    n = spec.shape[0] if isinstance(spec.shape[0], int) else _PROBE_ROWS
    if network_input.pictures is not None:
        rows: NDArray[Any] = rng.integers(0, 256, (n, *network_input.pictures.shape), np.uint8)
    elif network_input.dtype.startswith("float"):
        rows = rng.normal(size=(n, *network_input.row_shape)).astype(network_input.dtype)
    else:
        rows = rng.integers(0, 2, (n, *network_input.row_shape)).astype(network_input.dtype)
    names = [node.name for node in session.get_outputs()]
    try:
        results = session.run(names, {spec.name: network_input.tensor(rows)})
    except Exception as error:  # noqa: BLE001 - onnxruntime has no base class for its errors
        raise CannotRegister(
            f"the network fails on {n} rows: {str(error).splitlines()[0]}"
        ) from None
    outputs = {
        name: result
        for name, result in zip(names, results, strict=True)
        if isinstance(result, np.ndarray)
        and result.dtype.kind == "f"
        and result.ndim == 2
        and result.shape[0] == n
        and result.shape[1] >= 2
    }
    if not outputs:
        shapes = ", ".join(f"{a} {_shape(r)}" for a, r in zip(names, results, strict=True))
        raise CannotRegister(
            f"no output has shape ({n}, classes) with at least 2 classes, there is {shapes}; "
            "regression, multi-label and detection networks cannot be served, and scikit-learn's "
            "need zipmap=False when they are converted"
        )
    return outputs


def _shape(result: object) -> str:
    return str(result.shape) if isinstance(result, np.ndarray) else type(result).__name__


def _output(outputs: Mapping[str, NDArray[Any]], options: RegisterOptions, ask: Prompt) -> str:
    if options.output is not None:
        return _one_of("--output", options.output, tuple(outputs))
    candidates = [
        name
        for name, result in outputs.items()
        if options.n_classes is None or result.shape[1] == options.n_classes
    ]
    if not candidates:
        widths = ", ".join(f"{name} {result.shape[1]}" for name, result in outputs.items())
        raise CannotRegister(
            f"--class-names has {options.n_classes} names, the network gives {widths}"
        )
    if len(candidates) == 1:
        return candidates[0]
    for name in candidates:
        others = [outputs[other] for other in candidates if other != name]
        if all(_is_softmax_of(other, outputs[name]) for other in others):
            return name
    if "logits" in candidates:
        return "logits"
    unknown = f"the network has several outputs of rows: {', '.join(candidates)}"
    return _one_of("--output", ask("--output", unknown), tuple(candidates))


def _kind(name: str, result: NDArray[Any], options: RegisterOptions) -> str:
    if not np.isfinite(result).all():
        raise CannotRegister(f"output {name!r} is not finite on random rows")
    if options.output_kind is not None:
        kind = _one_of("--output-kind", options.output_kind, OUTPUT_KINDS)
        if kind == "probabilities" and not _are_probabilities(result):
            raise CannotRegister(
                f"--output-kind says probabilities, rows of output {name!r} do not sum to one"
            )
        return kind
    if _are_probabilities(result):
        return "probabilities"
    if result.min() >= 0 and result.max() <= 1:
        raise CannotRegister(
            f"rows of output {name!r} lie in [0, 1] and do not sum to one: multi-label networks "
            "cannot be served; if these are logits, say --output-kind logits"
        )
    return "logits"


def _are_probabilities(result: NDArray[Any]) -> bool:
    sums = result.astype(np.float64).sum(axis=1)
    return bool(result.min() >= 0 and np.allclose(sums, 1.0, rtol=0.0, atol=_SUM_TOLERANCE))


def _is_softmax_of(result: NDArray[Any], logits: NDArray[Any]) -> bool:
    if result.shape != logits.shape or _are_probabilities(logits):
        return False
    powers = np.exp(logits.astype(np.float64) - logits.max(axis=1, keepdims=True))
    return np.allclose(result, powers / powers.sum(axis=1, keepdims=True), rtol=0.0, atol=1e-3)


def _one_of(flag: str, value: str, allowed: Sequence[str]) -> str:
    if value not in allowed:
        raise CannotRegister(f"{flag} must be one of {', '.join(allowed)}, got {value!r}")
    return value
