"""The fields of an answer by name, for JSON and ``.npz`` alike; arrays stay arrays."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType
from typing import Any, Final

import numpy as np

from trueprob_service.inference.answer import Answer
from trueprob_service.inference.likeliest import likeliest

__all__ = ["FIELDS", "IN_JSON", "IN_NPZ", "TOP_FIELDS", "answer_fields", "default_fields"]

_SIMPLE: Final[Mapping[str, Callable[[Answer], Any]]] = MappingProxyType(
    {
        "model": lambda answer: answer.deployment.served.model,
        "version": lambda answer: answer.deployment.served.version,
        "calibrator": lambda answer: answer.deployment.calibrator_id,
        "revision": lambda answer: answer.deployment.revision,
        "probabilities": lambda answer: answer.probabilities,
        "prediction": lambda answer: answer.prediction,
        "class": lambda answer: _names(answer, answer.prediction.tolist()),
        "confidence": lambda answer: answer.confidence,
        # float32 prints as the shortest text that names it: 0.93, not 0.9300000071525574.
        "temperature": lambda answer: (
            None if answer.temperature is None else answer.temperature.astype(np.float32)
        ),
        "logit_gap": lambda answer: answer.logit_gap,
        "logits": lambda answer: answer.logits,
    }
)
TOP_FIELDS: Final = ("top_indices", "top_classes", "top_probabilities")
FIELDS: Final = (*_SIMPLE, "prediction_ids", *TOP_FIELDS)
IN_JSON: Final = (
    "model", "version", "calibrator", "revision", "probabilities", "prediction", "class",
    "confidence", "temperature", "prediction_ids",
)  # fmt: skip
IN_NPZ: Final = (*IN_JSON[:-1], "logit_gap", "prediction_ids")


def default_fields(fields: tuple[str, ...], top: int | None) -> tuple[str, ...]:
    """`fields`, with the likeliest classes in place of the full rows where they are asked for."""
    if top is None:
        return fields
    start = fields.index("probabilities")
    return (*fields[:start], *TOP_FIELDS, *fields[start + 1 :])


def answer_fields(
    answer: Answer, names: Sequence[str], *, top: int | None, prediction_ids: list[str] | None
) -> dict[str, Any]:
    """The named fields of an answer."""
    special: dict[str, Any] = {}
    if prediction_ids is not None:
        special["prediction_ids"] = prediction_ids
    if top is not None:
        indices, probabilities = likeliest(answer.probabilities, answer.prediction, top)
        classes = [_names(answer, row) for row in indices.tolist()]
        special |= dict(zip(TOP_FIELDS, (indices, classes, probabilities), strict=True))
    fields = {}
    for name in names:
        if (read := _SIMPLE.get(name)) is not None:
            fields[name] = read(answer)
        elif name in special:
            fields[name] = special[name]
    return fields


def _names(answer: Answer, indices: list[int]) -> list[str]:
    names = answer.deployment.served.class_names
    return [names[index] for index in indices]
