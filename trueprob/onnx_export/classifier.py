"""Reads the ONNX classifier to which a calibrator is appended, and checks that both match."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

from trueprob.arrays.files import is_lfs_pointer
from trueprob.errors import InvalidInput
from trueprob.onnx_export.graph_content import weight_files
from trueprob.onnx_export.nodes import FLOAT

__all__ = ["load_classifier", "opset_of", "output_to_calibrate", "resolve_name_clashes"]

FLOATING: Final = (FLOAT, 10, 11, 16)  # float32, float16, float64, bfloat16
OLDEST_OPSET: Final = 13  # since then axes are inputs, and all operators used here exist


def load_classifier(model: str | os.PathLike[str] | bytes) -> Any:
    """Load a copy of the model; InvalidInput if it is not valid ONNX or too old."""
    import onnx
    from google.protobuf.message import DecodeError

    content = model if isinstance(model, bytes) else Path(model).read_bytes()
    if is_lfs_pointer(content):
        raise InvalidInput(
            "model is a Git LFS pointer, not the file itself: run `git lfs pull`", field="model"
        )
    if not isinstance(model, bytes):
        weight_files(content, Path(model).parent)  # says which file is missing
    try:
        if isinstance(model, bytes):
            loaded = onnx.load_model_from_string(model)
        else:
            loaded = onnx.load_model(os.fspath(model))
        _use_default_domain(loaded)
        onnx.checker.check_model(loaded)
    except DecodeError:
        raise InvalidInput("model must be an ONNX file, and is not", field="model") from None
    except onnx.checker.ValidationError as error:
        reason = str(error).strip().splitlines()[0]
        raise InvalidInput(f"model is not valid ONNX: {reason}", field="model") from None
    if opset_of(loaded) < OLDEST_OPSET:
        raise InvalidInput(
            f"model must have opset {OLDEST_OPSET} or later, got {opset_of(loaded)}: "
            "export it again, or convert it with onnx.version_converter",
            field="model",
        )
    return loaded


def _use_default_domain(model: Any) -> None:
    """Import the default domain, which a graph of classical models alone may do without."""
    default = ("", "ai.onnx")
    if not any(o.domain in default for o in model.opset_import) and not any(
        node.domain in default for node in model.graph.node
    ):
        model.opset_import.add(domain="", version=OLDEST_OPSET)


def opset_of(model: Any) -> int:
    """Opset of the default domain; 0 if there is none."""
    return next((o.version for o in model.opset_import if o.domain in ("", "ai.onnx")), 0)


def output_to_calibrate(model: Any, name: str | None, n_classes: int) -> Any:
    """The output of this name; without a name `logits`, or the only output.

    Raises InvalidInput if it is missing or does not hold k numbers per row.
    """
    outputs = {output.name: output for output in model.graph.output}
    wanted = "logits" if name is None else name
    if name is None and len(outputs) == 1:
        wanted = next(iter(outputs))
    if wanted not in outputs:
        raise InvalidInput(
            f"model must have an output named {wanted}, got {', '.join(outputs)}", field="output"
        )
    _require_classes(outputs[wanted], n_classes)
    return outputs[wanted]


def resolve_name_clashes(graph: Any, output: Any, added: Sequence[str]) -> None:
    """Rename the output to calibrate if it has the name of an output to be added.

    Exported scikit-learn classifiers call their output `probabilities`, as the calibrator does.
    Raises InvalidInput if another value of the graph has such a name, or if the graph has a
    calibrator already.
    """
    if output.name in added and output.name != "logits":
        _rename(graph, output.name, "uncalibrated_output")
    used = {name for node in graph.node for name in (*node.input, *node.output)}
    used |= {value.name for value in (*graph.input, *graph.output, *graph.initializer)}
    if any(name.startswith("trueprob_") for name in used):
        raise InvalidInput(
            "model has a calibrator already: export from the original network", field="model"
        )
    for name in added:
        if name in used and name != output.name:
            raise InvalidInput(
                f"model has a value named {name} already, and the export adds an output of that "
                "name: rename the value",
                field="model",
            )


def _rename(graph: Any, old: str, new: str) -> None:
    for node in graph.node:
        for names in (node.input, node.output):
            for index, name in enumerate(names):
                if name == old:
                    names[index] = new
        for attribute in node.attribute:  # branches and loop bodies see the values outside
            for inner in (attribute.g, *attribute.graphs):
                _rename(inner, old, new)
    for value in (*graph.output, *graph.value_info):
        if value.name == old:
            value.name = new


def _require_classes(logits: Any, k: int) -> None:
    kind = logits.type.tensor_type
    if kind.elem_type not in FLOATING:
        raise InvalidInput(
            f"model output {logits.name} must be floating-point numbers, and is not", field="model"
        )
    if not kind.HasField("shape"):
        return
    shape = [d.dim_value if d.HasField("dim_value") else d.dim_param or "?" for d in kind.shape.dim]
    if len(shape) != 2 or (isinstance(shape[1], int) and shape[1] != k):
        got = ", ".join(str(length) for length in shape)
        raise InvalidInput(
            f"model output {logits.name} must have shape (batch, {k}), got ({got})", field="model"
        )
