"""What a network takes and gives: read from the graph, found out by running it, or asked for.

A network of rank 4 whose numbers are bytes or floats takes pictures; any other takes rows of its
own tensor. The output is the one of shape (rows, classes). Whether it holds logits or
probabilities is seen on a probe: probabilities lie in [0, 1] and sum to one, and of two outputs
the one whose softmax the other is holds the logits. Nothing is guessed beyond that.
"""

from __future__ import annotations

import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from trueprob.repository.manifest import OUTPUT_KINDS, InputSpec
from trueprob_service.errors import ModelUnavailable
from trueprob_service.inference.network.input import NetworkInput
from trueprob_service.inference.network.onnx_model import open_session
from trueprob_service.inference.network.session import Session
from trueprob_service.register.options import Ask, Unusable, Wishes
from trueprob_service.register.pictures import picture_spec

__all__ = ["Network", "inspect", "inspect_content"]


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
# Half precision sums a thousand probabilities to within this of one.
_SUM_TOLERANCE: Final = 1e-3


@dataclass(frozen=True)
class Network:
    """A network as a manifest describes it."""

    input: InputSpec
    output_name: str
    output_kind: str
    n_classes: int


def inspect(session: Session, wishes: Wishes, ask: Ask) -> Network:
    """Find out what a network takes and gives.

    Raises `Unusable`: it is no classifier that can be served, or a wish contradicts it.
    """
    spec = _input(session, wishes, ask)
    found = _probe(session, spec)
    output = _output(found, wishes, ask)
    return Network(spec, output, _kind(output, found[output], wishes), found[output].shape[1])


def _input(session: Session, wishes: Wishes, ask: Ask) -> InputSpec:
    nodes = session.get_inputs()
    if len(nodes) != 1:
        raise Unusable(
            f"the network has {len(nodes)} inputs ({', '.join(n.name for n in nodes)}), one can be "
            "fed here: run it elsewhere, declare the model over HTTP and send its logits"
        )
    node = nodes[0]
    dtype = _DTYPES.get(node.type)
    if dtype is None:
        raise Unusable(f"input {node.name!r} is {node.type}, expected {', '.join(_DTYPES)}")
    shape: list[Any] = list(node.shape)
    if len(shape) < 2:
        raise Unusable(f"input {node.name!r} has shape {shape}, expected rows in its first side")
    shape[0] = shape[0] if isinstance(shape[0], int) else "batch"
    if len(shape) == 4 and dtype in _PICTURES:
        return picture_spec(node.name, dtype, shape, wishes, ask)
    said = [f"--{f}" for f in ("layout", "mode", "resize", "crop", "scale", "mean", "std")
            if getattr(wishes, f) is not None]  # fmt: skip
    if said:
        raise Unusable(f"{said[0]} is for pictures, input {node.name!r} is {dtype} of {shape}")
    if not all(isinstance(side, int) for side in shape[1:]):
        raise Unusable(
            f"input {node.name!r} has shape {shape}: export it with fixed sides after the first"
        )
    return InputSpec(node.name, dtype, tuple(shape), "rows")


def _probe(session: Session, spec: InputSpec) -> Mapping[str, NDArray[Any]]:
    """Outputs that could be a classifier's, on made-up rows."""
    taken, rng = NetworkInput.of(spec), np.random.default_rng(0)
    n = spec.shape[0] if isinstance(spec.shape[0], int) else _PROBE_ROWS
    if taken.pictures is not None:
        rows: NDArray[Any] = rng.integers(0, 256, (n, *taken.pictures.shape), np.uint8)
    elif taken.dtype.startswith("float"):
        rows = rng.normal(size=(n, *taken.row_shape)).astype(taken.dtype)
    else:
        rows = rng.integers(0, 2, (n, *taken.row_shape)).astype(taken.dtype)
    names = [node.name for node in session.get_outputs()]
    try:
        results = session.run(names, {spec.name: taken.tensor(rows)})
    except Exception as error:  # noqa: BLE001 - onnxruntime has no root for its own
        raise Unusable(f"the network fails on {n} rows: {str(error).splitlines()[0]}") from None
    found = {
        name: result
        for name, result in zip(names, results, strict=True)
        if isinstance(result, np.ndarray)
        and result.dtype.kind == "f"
        and result.ndim == 2
        and result.shape[0] == n
        and result.shape[1] >= 2
    }
    if not found:
        shapes = ", ".join(f"{a} {_shape(r)}" for a, r in zip(names, results, strict=True))
        raise Unusable(
            f"no output has shape ({n}, classes) with at least 2 classes, there is {shapes}; "
            "regression, multi-label and detection networks cannot be served, and scikit-learn's "
            "need zipmap=False when they are converted"
        )
    return found


def _shape(result: object) -> str:
    return str(result.shape) if isinstance(result, np.ndarray) else type(result).__name__


def _output(found: Mapping[str, NDArray[Any]], wishes: Wishes, ask: Ask) -> str:
    if wishes.output is not None:
        return _one_of("--output", wishes.output, tuple(found))
    candidates = [
        name
        for name, result in found.items()
        if wishes.n_classes is None or result.shape[1] == wishes.n_classes
    ]
    if not candidates:
        widths = ", ".join(f"{name} {result.shape[1]}" for name, result in found.items())
        raise Unusable(f"--class-names has {wishes.n_classes} names, the network gives {widths}")
    if len(candidates) == 1:
        return candidates[0]
    for name in candidates:
        others = [found[other] for other in candidates if other != name]
        if all(_is_softmax_of(other, found[name]) for other in others):
            return name
    if "logits" in candidates:
        return "logits"
    unknown = f"the network has several outputs of rows: {', '.join(candidates)}"
    return _one_of("--output", ask("--output", unknown), tuple(candidates))


def _kind(name: str, result: NDArray[Any], wishes: Wishes) -> str:
    if not np.isfinite(result).all():
        raise Unusable(f"output {name!r} is not finite on a probe of random rows")
    if wishes.output_kind is not None:
        kind = _one_of("--output-kind", wishes.output_kind, OUTPUT_KINDS)
        if kind == "probabilities" and not _are_probabilities(result):
            raise Unusable(
                f"--output-kind says probabilities, rows of output {name!r} do not sum to one"
            )
        return kind
    if _are_probabilities(result):
        return "probabilities"
    if result.min() >= 0 and result.max() <= 1:
        raise Unusable(
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


def _one_of(flag: str, value: str, known: Sequence[str]) -> str:
    if value not in known:
        raise Unusable(f"{flag} must be one of {', '.join(known)}, got {value!r}")
    return value


def inspect_content(content: bytes, wishes: Wishes, ask: Ask) -> Network:
    """Look at a network in a folder by itself, as it will lie in the repository."""
    with tempfile.TemporaryDirectory() as folder:
        alone = Path(folder) / "model.onnx"
        alone.write_bytes(content)
        try:
            session = open_session(alone)
        except ModelUnavailable as error:
            if "external data" in str(error.__cause__).lower():
                raise Unusable(
                    "the network keeps its weights in a second file: save it as one file "
                    "(torch.onnx.export with external_data=False)"
                ) from None
            raise
        return inspect(session, wishes, ask)
