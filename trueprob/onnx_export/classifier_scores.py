"""Finds the scores in an ONNX classifier: the output that holds them, its form, and what they are.

A classifier gives its scores as a tensor of shape (n, k), as ZipMap's list of dictionaries, as one
output for each class (skl2onnx with ``zipmap='columns'``), or, with two classes, as one score of
class 1 of shape (n, 1) or (n,). What the numbers are is read from the operator that makes them:
Softmax and its kin give probabilities, LogSoftmax gives their logarithms. Where no operator says
it, the caller must, or the output's name must not speak against logits.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Final

from trueprob.errors import InvalidInput
from trueprob.onnx_export.nodes import FLOAT, Nodes

__all__ = ["NUMBERS", "ClassifierScores", "scores_of_classifier"]

NUMBERS: Final = ("logits", "probabilities", "log_probabilities")
FLOATING: Final = (FLOAT, 10, 11, 16)  # float32, float16, float64, bfloat16
PASSING: Final = frozenset(
    ("Cast", "Clip", "Concat", "Flatten", "Identity", "Reshape", "Slice", "Squeeze", "Transpose")
) | {"Unsqueeze"}
POST_TRANSFORMS: Final = frozenset((b"SOFTMAX", b"SOFTMAX_ZERO", b"LOGISTIC", b"PROBIT"))
STANDARD: Final = ("", "ai.onnx", "ai.onnx.ml")


@dataclass(frozen=True)
class ClassifierScores:
    """Scores of a classifier as values of its graph."""

    values: tuple[str, ...]  # one tensor, or one for each class
    outputs: tuple[str, ...]  # outputs of the graph that hold them
    element: int  # type of their numbers, as onnx.TensorProto has it
    numbers: str  # one of NUMBERS
    one_score: bool  # of class 1, where there are two classes
    batch: str | int  # size of the first dimension, or its name

    def columns(self, nodes: Nodes) -> str:
        """Append what makes a tensor of shape (n, k) of them, and return its name."""
        if not self.one_score and len(self.values) == 1:
            return self.values[0]
        column = nodes.constant([-1, 1], "int64")
        parts = [nodes.add("Reshape", value, column) for value in self.values]
        if self.one_score and self.numbers == "probabilities":
            score = nodes.add("Cast", parts[0], to=FLOAT)
            parts = [nodes.add("Sub", nodes.constant([[1.0]]), score), score]
        elif self.one_score:
            zeros = nodes.add("ConstantOfShape", nodes.add("Shape", parts[0]))
            parts = [nodes.add("Cast", zeros, to=self.element), parts[0]]
        return nodes.add("Concat", *parts, axis=1)


def scores_of_classifier(
    model: Any, n_classes: int, *, output: str | None, numbers: str | None
) -> ClassifierScores:
    """Find the scores of k classes; InvalidInput if there are none, or if more may be meant.

    Without a name they are the output `logits`, or the only output that has their form.
    """
    graph = model.graph
    makers = {name: node for node in graph.node for name in node.output}
    if output is None:
        split = _one_output_a_class(graph, n_classes)
        if split:
            names = tuple(each.name for each in split)
            said = _numbers(makers, names[0], numbers, names[0])
            element = split[0].type.tensor_type.elem_type
            return ClassifierScores(names, names, element, said, False, _batch(split[0]))
    found = _named(graph, makers, output, n_classes)
    maker = makers.get(found.name)
    if maker is not None and maker.op_type == "ZipMap":
        said = _numbers(makers, maker.input[0], numbers, found.name)
        return ClassifierScores(
            (maker.input[0],), (found.name,), FLOAT, said, False, _batch(graph.input[0])
        )
    _require_form(found, n_classes)
    one = not _is_matrix(found, n_classes)
    said = _numbers(makers, found.name, numbers, found.name)
    element = found.type.tensor_type.elem_type
    return ClassifierScores((found.name,), (found.name,), element, said, one, _batch(found))


def _named(graph: Any, makers: dict[str, Any], name: str | None, n_classes: int) -> Any:
    outputs = {output.name: output for output in graph.output}
    if name is None and "logits" not in outputs:
        fitting = [each for each in graph.output if _may_hold(each, makers, n_classes)]
        if len(fitting) == 1:
            return fitting[0]
        if len(outputs) == 1:
            return graph.output[0]  # which is refused with what it is
    wanted = "logits" if name is None else name
    if wanted not in outputs:
        raise InvalidInput(
            f"model must have an output named {wanted}, got {', '.join(outputs)}"
            + ("" if name else ": say which holds the scores (--model-output, output=)"),
            field="output",
        )
    return outputs[wanted]


def _may_hold(output: Any, makers: dict[str, Any], n_classes: int) -> bool:
    maker = makers.get(output.name)
    if maker is not None and maker.op_type == "ZipMap":
        return True
    if output.type.tensor_type.elem_type not in FLOATING:
        return False
    return _is_matrix(output, n_classes) or _is_one_score(output, n_classes)


def _one_output_a_class(graph: Any, n_classes: int) -> list[Any]:
    """The outputs of shape (n,) if there is one for each class and no matrix of scores."""
    floats = [each for each in graph.output if each.type.tensor_type.elem_type in FLOATING]
    flat = [each for each in floats if (sides := _sides(each)) is not None and len(sides) == 1]
    return flat if len(flat) == len(floats) == n_classes else []


def _sides(output: Any) -> list[Any] | None:
    """Lengths of the dimensions, or their names, or ``?``; None if the rank is unknown."""
    kind = output.type.tensor_type
    if not kind.HasField("shape"):
        return None
    return [d.dim_value if d.HasField("dim_value") else d.dim_param or "?" for d in kind.shape.dim]


def _is_matrix(output: Any, n_classes: int) -> bool:
    sides = _sides(output)
    if sides is None:
        return True
    return len(sides) == 2 and (not isinstance(sides[1], int) or sides[1] == n_classes)


def _is_one_score(output: Any, n_classes: int) -> bool:
    sides = _sides(output)
    return n_classes == 2 and sides is not None and (len(sides) == 1 or sides[1:] == [1])


def _require_form(output: Any, n_classes: int) -> None:
    if output.type.tensor_type.elem_type not in FLOATING:
        raise InvalidInput(
            f"model output {output.name} must be floating-point numbers, and is not", field="model"
        )
    if not _is_matrix(output, n_classes) and not _is_one_score(output, n_classes):
        one = " or one score of class 1" if n_classes == 2 else ""
        got = ", ".join(map(str, _sides(output) or ()))
        raise InvalidInput(
            f"model output {output.name} must have shape (batch, {n_classes}){one}, got ({got})",
            field="model",
        )


def _batch(value: Any) -> str | int:
    dimensions = value.type.tensor_type.shape.dim
    if not dimensions:
        return "batch"
    first = dimensions[0]
    return int(first.dim_value) if first.HasField("dim_value") else first.dim_param or "batch"


def _numbers(makers: dict[str, Any], value: str, given: str | None, output: str) -> str:
    """What the numbers are, by the caller and the graph; InvalidInput if they contradict."""
    found = next(_said(makers, value), None)
    if given is not None and given not in NUMBERS:
        raise InvalidInput(
            f"numbers must be one of {', '.join(NUMBERS)}, got {given[:40]!r}", field="numbers"
        )
    if given is not None:
        if "probabilities" in (given, found) and found not in (None, given):
            raise InvalidInput(
                f"numbers (--input) must be {found}: that is what the graph makes for output "
                f"{output}, got {given}",
                field="numbers",
            )
        return given
    if found is None and "prob" in output.lower():
        raise InvalidInput(
            f"numbers (--input) must say what output {output} holds, since its name and the graph "
            f"do not settle it: one of {', '.join(NUMBERS)}",
            field="numbers",
        )
    return found or "logits"


def _said(makers: dict[str, Any], value: str) -> Iterator[str]:
    """What the operator that makes a value says about it, if it does."""
    maker = makers.get(value)
    for _ in makers:
        if maker is None or maker.op_type not in PASSING or maker.domain not in STANDARD:
            break
        maker = makers.get(maker.input[0])
    if maker is None or maker.domain not in STANDARD:
        return
    transforms = [each.s for each in maker.attribute if each.name == "post_transform"]
    if maker.op_type in ("Softmax", "Sigmoid", "Normalizer"):
        yield "probabilities"
    elif maker.op_type == "LogSoftmax" or (
        maker.op_type == "Log" and "probabilities" in _said(makers, maker.input[0])
    ):
        yield "log_probabilities"
    elif POST_TRANSFORMS.intersection(transforms):
        yield "probabilities"
