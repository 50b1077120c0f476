"""Reads the ONNX classifier to which a calibrator is appended, and makes room for new outputs."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

from trueprob.arrays.files import is_lfs_pointer
from trueprob.errors import InvalidInput
from trueprob.onnx_export.graph_content import weight_files

__all__ = ["load_classifier", "make_room", "opset_of"]

OLDEST_OPSET: Final = 13  # since then axes are inputs, and all operators used here exist
OLDEST_IR_VERSION: Final = 7  # of the same ONNX release
DEFAULT_DOMAIN: Final = ("", "ai.onnx")


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
    return _with_recent_opset(loaded)


def _with_recent_opset(model: Any) -> Any:
    """The model, its default domain converted if it is too old; InvalidInput if it cannot be."""
    import onnx

    opset = opset_of(model)
    if opset >= OLDEST_OPSET:
        return model
    others = [each for each in model.opset_import if each.domain not in DEFAULT_DOMAIN]
    try:
        model = onnx.version_converter.convert_version(model, OLDEST_OPSET)
    except Exception as error:  # noqa: BLE001 - the converter has no error class of its own
        raise InvalidInput(
            f"model must have opset {OLDEST_OPSET} or later, got {opset}, and cannot be "
            f"converted ({str(error).strip().splitlines()[0][:200]}): export it again",
            field="model",
        ) from None
    kept = {each.domain for each in model.opset_import}
    model.opset_import.extend(each for each in others if each.domain not in kept)
    model.ir_version = max(model.ir_version, OLDEST_IR_VERSION)
    return model


def _use_default_domain(model: Any) -> None:
    """Import the default domain, which a graph of classical models alone may do without."""
    if opset_of(model) == 0 and not any(n.domain in DEFAULT_DOMAIN for n in model.graph.node):
        model.opset_import.add(domain="", version=OLDEST_OPSET)
        model.ir_version = max(model.ir_version, OLDEST_IR_VERSION)


def opset_of(model: Any) -> int:
    """Opset of the default domain; 0 if there is none."""
    versions = (o.version for o in model.opset_import if o.domain in DEFAULT_DOMAIN)
    return next(versions, 0)


def make_room(graph: Any, scores: Sequence[str], added: Sequence[str]) -> tuple[str, ...]:
    """Rename values of the graph that have the name of an output to be added.

    Exported scikit-learn classifiers call their scores `probabilities`, as the calibrator does.
    Returns the names of the scores. Raises InvalidInput if an input, or an output that is kept, has
    such a name, or if the graph has a calibrator already.
    """
    inner = {name for node in graph.node for name in (*node.input, *node.output)}
    inner |= {tensor.name for tensor in graph.initializer}
    if any(name.startswith("trueprob_") for name in inner):
        raise InvalidInput(
            "model has a calibrator already: export from the original network", field="model"
        )
    seen = {value.name for value in (*graph.input, *graph.output)}
    for name in added:
        if name in seen:
            raise InvalidInput(
                f"model has a value named {name} already, and the export adds an output of that "
                "name: rename the value",
                field="model",
            )
        if name in inner:
            _rename(graph, name, f"uncalibrated_{name}")
    return tuple(f"uncalibrated_{name}" if name in added else name for name in scores)


def _rename(graph: Any, old: str, new: str) -> None:
    for node in graph.node:
        for names in (node.input, node.output):
            for index, name in enumerate(names):
                if name == old:
                    names[index] = new
        for attribute in node.attribute:  # branches and loop bodies see the values outside
            for inner in (attribute.g, *attribute.graphs):
                _rename(inner, old, new)
    for value in (*graph.output, *graph.value_info, *graph.initializer):
        if value.name == old:
            value.name = new
