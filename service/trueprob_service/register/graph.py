"""Finds the inputs and the output of an ONNX classifier: from the graph, a test run, or the user.

`inputs` describes the inputs. The output is the one of shape (rows, classes), or of one number per
row for two classes. A test run on random rows shows whether several columns are logits or
probabilities: probabilities lie in [0, 1] and sum to one, and if one output is the softmax of
another, the other holds the logits. One number per row is P(class 1) if the graph ends in a
sigmoid, and else what the user says. Nothing else is guessed. Class names are read from the graph
if it has them.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from trueprob.onnx_export.class_names import class_names_of_graph
from trueprob.onnx_export.graph_content import last_operator
from trueprob.repository.manifest import OUTPUT_KINDS, InputSpec
from trueprob_service.errors import NetworkRefused
from trueprob_service.inference.network.input import NetworkInput
from trueprob_service.inference.network.onnx_model import (
    LENGTHS,
    NOT_REPEATABLE,
    agree,
)
from trueprob_service.inference.network.session import Session
from trueprob_service.inference.network.tensors import TensorSpec
from trueprob_service.register.inputs import input_specs
from trueprob_service.register.options import CannotRegister, Prompt, RegisterOptions

__all__ = ["InspectedGraph", "inspect", "inspect_file"]

_PROBE_ROWS: Final = 8
# A thousand probabilities in half precision sum to one within this.
_SUM_TOLERANCE: Final = 1e-3
# What one number per row is by its name, or by the operator that gives it.
_LOGIT: Final = re.compile("logits?|log_odds", re.IGNORECASE)
_SAID: Final = {"Sigmoid": "probabilities", "Softmax": "one"}


@dataclass(frozen=True)
class InspectedGraph:
    """Inputs and output of a network, as its manifest will describe them."""

    inputs: tuple[InputSpec, ...]
    output_name: str
    output_kind: str  # `logits` or `probabilities`
    n_classes: int
    one_score: bool = False  # whether the output has one number per row, of class 1
    class_names: tuple[str, ...] | None = None  # None if the graph has none


def inspect(
    session: Session,
    options: RegisterOptions,
    ask: Prompt,
    content: bytes = b"",  # the ONNX file; without it, nothing is known of its operators
) -> InspectedGraph:
    """Find the inputs and the output of a network by running it on the CPU.

    Raises `CannotRegister` if it is not a classifier that can be served, or contradicts an option.
    """
    specs = input_specs(session, options, ask)
    outputs = _run_on_random_rows(session, specs, options)
    name = _output(outputs, options, ask)
    scores = outputs[name]
    if scores.ndim == 1 or scores.shape[1] == 1:
        said = _SAID.get(last_operator(content, name) or "")
        others = (outputs[other] for other in outputs if other != name)
        if said is None and (
            any(_is_softmax_of(other, scores) for other in others) or _LOGIT.fullmatch(name)
        ):
            said = "logits"
        kind = _kind_of_one_score(name, scores, said, options, ask)
        return InspectedGraph(specs, name, kind, 2, one_score=True)
    return InspectedGraph(specs, name, _kind(name, scores, options), scores.shape[1])


def inspect_file(
    path: Path,
    options: RegisterOptions,
    ask: Prompt,
    session: Session,  # of this file
) -> InspectedGraph:
    """`inspect` for a file, with the class names of its graph."""
    content = path.read_bytes()
    graph = inspect(session, options, ask, content)
    names = class_names_of_graph(content, graph.output_name, graph.n_classes)
    return replace(graph, class_names=names)


def _run_on_random_rows(
    session: Session, specs: Sequence[InputSpec], options: RegisterOptions
) -> Mapping[str, NDArray[Any]]:
    """The outputs of a test run that have the shape of a classifier's, by name."""
    first = specs[0].shape[0]
    n = first if isinstance(first, int) else _PROBE_ROWS
    names = [node.name for node in session.get_outputs()]
    results = _run(session, specs, names, n)
    matrices = {
        name: result
        for name, result in zip(names, results, strict=True)
        if _has_row_scores(result, n)
    }
    outputs = {
        name: result
        for name, result in matrices.items()
        if (result.ndim == 2 and result.shape[1] >= 2) or name == options.output
    }
    one_score = {name: result for name, result in matrices.items() if name not in outputs}
    if not outputs or (
        options.n_classes == 2 and all(result.shape[-1] != 2 for result in outputs.values())
    ):
        outputs |= one_score
    if not outputs:
        shapes = ", ".join(f"{a} {_shape(r)}" for a, r in zip(names, results, strict=True))
        raise CannotRegister(
            f"no output has shape ({n}, classes) with at least 2 classes, or ({n}, 1) or ({n},) "
            f"for two, there is {shapes}; regression, multi-label and detection networks cannot "
            "be served"
        )
    return outputs


def _has_row_scores(result: object, n: int) -> bool:
    """Whether an output has numbers for each of n rows."""
    return (
        isinstance(result, np.ndarray)
        and result.dtype.kind == "f"
        and result.ndim in (1, 2)
        and result.shape[0] == n
        and result.size > 0
    )


def _run(
    session: Session, specs: Sequence[InputSpec], names: list[str], n: int
) -> list[NDArray[Any]]:
    """Results of a network on random rows, or on zeros if it cannot take those."""
    failures = []
    for length in LENGTHS:
        for feed in _feeds(specs, n, length):
            try:
                results = session.run(names, feed)
                again = session.run(names, feed)
            except NetworkRefused:
                raise
            except Exception as error:  # noqa: BLE001 - onnxruntime has no base class for its errors
                failures.append(str(error).splitlines()[0])
                continue
            for first, second in zip(results, again, strict=True):
                numbers = isinstance(first, np.ndarray) and first.dtype.kind == "f"
                if numbers and not (first.shape == second.shape and agree(first, second)):
                    raise CannotRegister(NOT_REPEATABLE)
            return results
        if not (lengths := {s for spec in specs for s in spec.shape[1:] if isinstance(s, str)}):
            break
    free = f" (it leaves {', '.join(sorted(lengths))} open, and runs none of {LENGTHS})"
    raise CannotRegister(f"the network fails on {n} rows{free if lengths else ''}: {failures[0]}")


def _feeds(specs: Sequence[InputSpec], n: int, length: int) -> list[dict[str, NDArray[Any]]]:
    rng = np.random.default_rng(0)
    if specs[0].preprocessing:
        pictures = NetworkInput.from_manifest(specs[0])
        assert pictures.pictures is not None  # noqa: S101 - only pictures are preprocessed
        rows = rng.integers(0, 256, (n, *pictures.pictures.shape), np.uint8)
        return [{specs[0].name: pictures.tensor(rows)}]
    tensors = [TensorSpec(spec.name, spec.dtype, spec.shape[1:]) for spec in specs]
    return [
        {each.name: each.random(rng, n, length) for each in tensors},
        {each.name: each.example(n, length) for each in tensors},
    ]


def _shape(result: object) -> str:
    return str(result.shape) if isinstance(result, np.ndarray) else type(result).__name__


def _n_classes(result: NDArray[Any]) -> int:
    return 2 if result.ndim == 1 else max(2, result.shape[1])


def _output(outputs: Mapping[str, NDArray[Any]], options: RegisterOptions, ask: Prompt) -> str:
    if options.output is not None:
        return _one_of("--output", options.output, tuple(outputs))
    candidates = [
        name
        for name, result in outputs.items()
        if options.n_classes is None or _n_classes(result) == options.n_classes
    ]
    if not candidates:
        widths = ", ".join(f"{name} {_n_classes(result)}" for name, result in outputs.items())
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
    columns = [outputs[name] for name in candidates]
    if all(_is_one_score(column) for column in columns) and _are_probabilities(
        np.concatenate([column.reshape(-1, 1) for column in columns], axis=1)
    ):
        raise CannotRegister(
            f"the network has one output for each class ({', '.join(candidates)}): export the "
            "matrix of scores (skl2onnx: zipmap=False)"
        )
    unknown = f"the network has several outputs of rows: {', '.join(candidates)}"
    return _one_of("--output", ask("--output", unknown), tuple(candidates))


def _kind(name: str, result: NDArray[Any], options: RegisterOptions) -> str:
    masked = np.isneginf(result)
    usable = (np.isfinite(result) | masked).all(axis=1) & ~masked.all(axis=1)
    if not usable.all():
        row = int(np.argmin(usable))
        kind = "masks all classes, by minus infinity," if masked[row].all() else "is not finite"
        raise CannotRegister(f"output {name!r} {kind} on random rows, such as row {row}")
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


def _kind_of_one_score(
    name: str,
    result: NDArray[Any],
    said: str | None,  # the kind that the graph says, `one` for the Softmax of one number
    options: RegisterOptions,
    ask: Prompt,
) -> str:
    if not np.isfinite(result).all():
        raise CannotRegister(f"output {name!r} is not finite on random rows")
    if said == "one":
        raise CannotRegister(
            f"output {name!r} is the Softmax of one number per row, which is always 1: export the "
            "number before it, or use Sigmoid"
        )
    value = options.output_kind or said
    if value is None:
        unknown = (
            f"output {name!r} has one number per row, and the graph does not end in a Sigmoid: it "
            "may be P(class 1) of two classes (probabilities) or its logit (logits); a regression "
            "cannot be served"
        )
        value = ask("--output-kind", unknown)
    kind = _one_of("--output-kind", value, OUTPUT_KINDS)
    if said == "probabilities" and kind != said:
        raise CannotRegister(
            f"--output-kind says {kind}, output {name!r} is the Sigmoid of a logit: P(class 1)"
        )
    if kind == "probabilities" and not (result.min() >= 0 and result.max() <= 1):
        raise CannotRegister(
            f"--output-kind says probabilities, numbers of output {name!r} lie outside [0, 1]"
        )
    return kind


def _are_probabilities(result: NDArray[Any]) -> bool:
    if _is_one_score(result):
        return False
    sums = result.astype(np.float64).sum(axis=1)
    return bool(result.min() >= 0 and np.allclose(sums, 1.0, rtol=0.0, atol=_SUM_TOLERANCE))


def _is_one_score(result: NDArray[Any]) -> bool:
    return result.ndim == 1 or result.shape[1] == 1


def _is_softmax_of(result: NDArray[Any], logits: NDArray[Any]) -> bool:
    """Whether an output holds the probabilities of another; of one number per row, the sigmoid."""
    if _is_one_score(result) and _is_one_score(logits):
        z = logits.astype(np.float64).ravel()
        sigmoid = 0.5 * (1 + np.tanh(z / 2))
        return not np.allclose(result, logits) and np.allclose(
            result.ravel(), sigmoid, rtol=0.0, atol=1e-3
        )
    if result.shape != logits.shape or _are_probabilities(logits):
        return False
    powers = np.exp(logits.astype(np.float64) - logits.max(axis=1, keepdims=True))
    return np.allclose(result, powers / powers.sum(axis=1, keepdims=True), rtol=0.0, atol=1e-3)


def _one_of(flag: str, value: str, allowed: Sequence[str]) -> str:
    if value not in allowed:
        raise CannotRegister(f"{flag} must be one of {', '.join(allowed)}, got {value!r}")
    return value
