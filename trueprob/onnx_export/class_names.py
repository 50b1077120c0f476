"""Class names that an ONNX graph carries, read from the bytes of the file.

Places, in the order in which they are looked at:

* the metadata ``class_names``: a JSON list of texts, or texts separated by commas;
* a classifier of ai.onnx.ml or ZipMap that leads to an output (``classlabels_strings``,
  ``classlabels_int64s``): that of the scores if it is one, else all;
* outputs that pick labels from a constant (ArrayFeatureExtractor, or Gather of texts), as converted
  scikit-learn classifiers have one.

The few fields needed are read without the package onnx, which the service does not install.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Final

import numpy as np

from trueprob.arrays.class_names import as_class_names, require_order, shown
from trueprob.errors import InvalidInput
from trueprob.onnx_export.protobuf import Fields, fields_of, integers, texts

__all__ = ["METADATA", "class_names_of_graph"]

METADATA: Final = "class_names"
# Operators between a classifier and the output of its labels or scores.
PASSING: Final = frozenset(
    ("Cast", "Flatten", "Identity", "Log", "LogSoftmax", "Normalizer", "Reshape", "Softmax")
) | {"Squeeze", "Unsqueeze"}
INT32, INT64, STRING = 6, 7, 8  # of TensorProto
LABELS: Final = ("classlabels_strings", "classlabels_int64s", "classlabels_ints")


def class_names_of_graph(
    content: bytes,
    scores: str,  # name of the output
    n_classes: int,
) -> tuple[str, ...] | None:
    """The class names in an ONNX file; None if it has none, or cannot be read.

    Raises InvalidInput that shows the names if they are not those of k classes, or if two places
    contradict one another.
    """
    try:
        found = list(_names(content, scores))
    except (ValueError, TypeError, IndexError):  # not ONNX: who loads it says so
        return None
    names: tuple[str, ...] | None = None
    for place, given in found:
        if len(given) != n_classes:
            raise InvalidInput(
                f"{place} of the graph names {len(given)} classes ({shown(given)}), its scores "
                f"have {n_classes} columns",
                field="model",
            )
        checked = as_class_names(given, n_classes=n_classes, name=f"{place} of the graph")
        if names is None:
            names = checked
        else:
            require_order(checked, names, name=f"{place} of the graph")
    return names


@dataclass
class _Node:
    operator: str
    inputs: list[str]
    labels: list[str] = field(default_factory=list)


def _names(content: bytes, scores: str) -> Iterator[tuple[str, list[str]]]:
    model = fields_of(memoryview(content))
    for each in model.get(14, ()):
        entry = fields_of(each)
        if texts(entry, 1) == [METADATA]:
            yield f"metadata {METADATA}", _listed("".join(texts(entry, 2)))
    graph = fields_of(model[7][0]) if 7 in model else {}
    makers: dict[str, _Node] = {}
    for each in graph.get(1, ()):
        node = fields_of(each)
        made = _Node("".join(texts(node, 4)), texts(node, 1))
        for given in map(fields_of, node.get(5, ())):
            if "".join(texts(given, 1)) in LABELS:
                made.labels = texts(given, 9) or list(map(str, integers(given, 8)))
        makers |= dict.fromkeys(texts(node, 2), made)
    constants: dict[str, Fields] = {}
    for each in graph.get(5, ()):
        tensor = fields_of(each)
        constants |= dict.fromkeys(texts(tensor, 8), tensor)
    by_output: dict[str, list[str]] = {}
    for each in graph.get(12, ()):
        name = "".join(texts(fields_of(each), 1))
        maker = makers.get(name)
        for _ in makers:
            if maker is not None and not maker.labels and maker.operator in PASSING:
                maker = makers.get(maker.inputs[0])
        if maker is not None and (labels := maker.labels or _picked(maker, constants)):
            by_output[name] = labels
    if scores in by_output:
        by_output = {scores: by_output[scores]}
    for name, labels in by_output.items():
        yield f"output {name!r}", labels


def _listed(text: str) -> list[str]:
    try:
        listed = json.loads(text)
    except ValueError:
        listed = None
    if isinstance(listed, list) and all(isinstance(name, str) for name in listed):
        return listed
    return [part.strip() for part in text.split(",")]


def _picked(maker: _Node, constants: dict[str, Fields]) -> list[str]:
    """The texts or integers that a node picks from; none if it picks from something else."""
    if maker.operator not in ("ArrayFeatureExtractor", "Gather"):
        return []
    tensor = constants.get(maker.inputs[0], {})
    kind = tensor.get(2, [0])[0]
    if kind == STRING:
        return texts(tensor, 6)
    if kind not in (INT32, INT64) or maker.operator == "Gather":
        return []
    if 9 in tensor:
        raw = np.frombuffer(tensor[9][0], "<i8" if kind == INT64 else "<i4")
        return list(map(str, raw.tolist()))
    return list(map(str, integers(tensor, 7 if kind == INT64 else 5)))
