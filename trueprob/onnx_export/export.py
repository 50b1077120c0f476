"""Export a network and its calibrator as one ONNX file, for any ONNX runtime.

The outputs are the same for every kind of calibrator, but for `log_odds`:

    probabilities (n, k) float32    what `Calibrator.predict_proba` gives
    prediction    (n,)   int64      what `Calibrator.prediction` gives
    temperature   (n,)   float32    what `Calibrator.temperature` gives; NaN where that is None
    logits        (n, k)            as the network gives them, whatever the method
    log_odds      (n,)   float64    what `Calibrator.log_odds` gives; only where that is not None

The metadata ``class_names`` of the file lists the classes, if the calibrator or the network names
them. Minus infinity masks a class here too. A graph cannot refuse input: other logits that are not
finite, and a row in which every class is masked, give probabilities that are not finite.
"""

from __future__ import annotations

import json
import os
from dataclasses import replace
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, Final

from trueprob.arrays.class_names import require_order
from trueprob.arrays.logits import PROBABILITY_FLOOR, ZERO_CELL
from trueprob.calibrators import Calibrator, SmartBinaryCalibrator
from trueprob.errors import InvalidInput
from trueprob.onnx_export.class_names import METADATA, class_names_of_graph
from trueprob.onnx_export.classifier import load_classifier, make_room, opset_of
from trueprob.onnx_export.classifier_scores import ClassifierScores, scores_of_classifier
from trueprob.onnx_export.head import add_calibrator
from trueprob.onnx_export.nodes import DOUBLE, FLOAT, INT64, TOO_LARGE, Nodes
from trueprob.onnx_export.stages import require_expressible

__all__ = ["OUTPUTS", "fused_onnx", "head_onnx"]

OUTPUTS: Final = ("probabilities", "prediction", "temperature", "logits")
LOG_ODDS: Final = "log_odds"  # an output of `smart-binary` only
HEAD_OPSET: Final = 20  # of `head_onnx`, with the ir_version of the same ONNX release
HEAD_IR_VERSION: Final = 10


def fused_onnx(
    model: str | os.PathLike[str] | bytes,
    calibrator: Calibrator,
    *,
    output: str | None = None,
    numbers: str | None = None,
) -> bytes:
    """Append a calibrator to an ONNX classifier.

    Parameters
    ----------
    model : path or bytes
        An ONNX classifier whose scores have shape (batch, k), or come from ZipMap, or as one output
        for each class; with two classes also one score of class 1. An opset of the default domain
        below 13 is converted.
    calibrator : Calibrator
        Of a kind in `EXPRESSIBLE`.
    output : str, optional
        Name of the output to calibrate; default `logits`, or the only output that can hold scores.
    numbers : {"logits", "probabilities", "log_probabilities"}, optional
        What that output holds; default: what the operator that makes it says, else logits. Of
        probabilities the logarithm is taken, at least log 1e-12 as everywhere in this library; the
        output `logits` is then that logarithm. Zeros get what the calibrator learnt about them, if
        it did.

    Returns
    -------
    bytes
        An ONNX file, the same for the same arguments. Opset (from 13), ir_version, inputs, batch
        dimension and further outputs are the model's; the output that was calibrated is not among
        them.

    Raises
    ------
    InvalidInput
        The file is not ONNX, its opset is too old to convert, the output is missing, several may
        be meant, it has another number of classes, the graph contradicts `numbers`, the calibrator
        cannot be expressed in ONNX, or both name their classes and the names or their order differ.
    """
    require_expressible(calibrator)  # refuses a calibrator before the file is read
    base = load_classifier(model)
    scores = scores_of_classifier(base, calibrator.n_classes, output=output, numbers=numbers)
    content = model if isinstance(model, bytes) else Path(model).read_bytes()
    names = class_names_of_graph(content, scores.outputs[0], calibrator.n_classes)
    if names is not None and calibrator.class_names is not None:
        require_order(names, calibrator.class_names, name="classes of the model")
    _append_head(base.graph, opset_of(base), scores, calibrator)
    return _finished(base, calibrator, calibrator.class_names or names)


def head_onnx(calibrator: Calibrator) -> bytes:
    """Export a calibrator alone, as a graph from `logits` to the other outputs.

    Use it for ensembles and for networks that are served separately.

    Parameters
    ----------
    calibrator : Calibrator
        Of a kind in `EXPRESSIBLE`.

    Returns
    -------
    bytes
        An ONNX file.

    Raises
    ------
    InvalidInput
        The calibrator cannot be expressed in ONNX.
    """
    from onnx import helper

    logits = helper.make_tensor_value_info("logits", FLOAT, ["batch", calibrator.n_classes])
    graph = helper.make_graph([], "trueprob", [logits], [])
    model = helper.make_model(
        graph,
        opset_imports=[helper.make_opsetid("", HEAD_OPSET)],
        ir_version=HEAD_IR_VERSION,
        producer_name="trueprob",
    )
    scores = ClassifierScores(("logits",), (), FLOAT, "logits", False, "batch")
    _append_head(model.graph, HEAD_OPSET, scores, calibrator)
    return _finished(model, calibrator, calibrator.class_names)


def _append_head(graph: Any, opset: int, scores: ClassifierScores, calibrator: Calibrator) -> None:
    from onnx import helper

    alone = not scores.outputs  # the logits are an input of the graph
    if not alone:
        others = [output for output in graph.output if output.name not in scores.outputs]
        del graph.output[:]
        graph.output.extend(others)
        # A dictionary for each row would say the scores of the network beside calibrated ones.
        dropped = [
            node for node in graph.node if {*node.output} & {*scores.outputs} - {*scores.values}
        ]
        for node in dropped:
            graph.node.remove(node)
        added = (*OUTPUTS, LOG_ODDS) if _has_log_odds(calibrator) else OUTPUTS
        scores = replace(scores, values=make_room(graph, scores.values, added))
    nodes = Nodes(graph, opset)
    given = scores.columns(nodes)
    logits = given if scores.element == FLOAT else nodes.add("Cast", given, to=FLOAT)
    element = FLOAT
    if scores.numbers == "logits":
        element = scores.element  # the output `logits` has the network's own type
    elif scores.numbers == "probabilities":
        floor, one = nodes.constant(PROBABILITY_FLOOR), nodes.constant(1.0)
        positive = nodes.add("Log", nodes.add("Clip", logits, floor, one))
        # A runtime's logarithm may end in another bit, and a zero cell is known by its value.
        zero = nodes.add("LessOrEqual", logits, floor)
        given = logits = nodes.add("Where", zero, nodes.constant(ZERO_CELL), positive)
    else:
        floor, zero = nodes.constant(ZERO_CELL), nodes.constant(0.0)
        given = logits = nodes.add("Clip", logits, floor, zero)
    add_calibrator(nodes, logits, calibrator)
    batch, k = scores.batch, calibrator.n_classes
    outputs = {"probabilities": (FLOAT, [batch, k]), "prediction": (INT64, [batch])}
    outputs["temperature"] = (FLOAT, [batch])
    if not alone:
        nodes.add("Identity", given, output="logits")
        outputs["logits"] = (element, [batch, k])
    if _has_log_odds(calibrator):
        outputs[LOG_ODDS] = (DOUBLE, [batch])
    kept = list(graph.output)
    del graph.output[:]
    for name, (kind, shape) in outputs.items():
        graph.output.append(helper.make_tensor_value_info(name, kind, shape))
    graph.output.extend(kept)


def _has_log_odds(calibrator: Calibrator) -> bool:
    return calibrator.kind == SmartBinaryCalibrator.kind


def _finished(model: Any, calibrator: Calibrator, class_names: tuple[str, ...] | None) -> bytes:
    import onnx
    from google.protobuf.message import EncodeError

    try:
        release = version("trueprob")
    except PackageNotFoundError:  # run from a source tree
        release = "0.0.0"
    properties = {
        "trueprob.calibrator_id": calibrator.id,
        "trueprob.calibrator_kind": calibrator.kind,
        "trueprob.version": release,
        "trueprob.onnx_version": onnx.__version__,
    }
    if class_names is not None:
        properties[METADATA] = json.dumps(class_names, ensure_ascii=False)
    others = [entry for entry in model.metadata_props if entry.key not in properties]
    del model.metadata_props[:]
    model.metadata_props.extend(others)
    for key, value in properties.items():
        entry = model.metadata_props.add()
        entry.key, entry.value = key, value
    try:
        onnx.checker.check_model(model)
        content: bytes = model.SerializeToString(deterministic=True)
    except (EncodeError, ValueError):
        raise InvalidInput(TOO_LARGE, field="model") from None
    return content
