"""From a deployment and logits to everything that an answer can say.

The fields of an answer by name, for JSON and ``.npz`` alike; arrays stay arrays.

The m likeliest classes of each row.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from trueprob_service.inference.deployment import Deployment
from trueprob_service.receipts.receipt import Receipts, input_digests

__all__ = [
    "FIELDS",
    "IN_JSON",
    "IN_NPZ",
    "TOP_FIELDS",
    "Answer",
    "answer_fields",
    "compute",
    "default_fields",
    "likeliest",
]


def likeliest(
    probabilities: NDArray[np.float32], prediction: NDArray[np.int64], m: int
) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
    """Classes by descending probability.

    The prediction comes first, of other ties the lower index. Each probability and its class are
    packed into one integer, so no two are equal and a selection without a full sort is exact.
    """
    n, k = probabilities.shape
    from_behind = np.arange(k - 1, -1, -1, dtype=np.uint64)
    # The bits of floats that are not negative have the order of the floats.
    bits: NDArray[Any] = np.ascontiguousarray(probabilities).view(np.uint32)
    keys = (bits.astype(np.uint64) << np.uint64(32)) | from_behind
    keys[np.arange(n), prediction] |= np.uint64(0xFFFFFFFF << 32)
    if m < k:
        keys = np.partition(keys, k - m, axis=1)[:, k - m :]
    keys = np.sort(keys, axis=1)[:, ::-1]
    indices = k - 1 - (keys & np.uint64(0xFFFFFFFF)).astype(np.int64)
    return indices, np.take_along_axis(probabilities, indices, axis=1)


@dataclass(frozen=True)
class Answer:
    """Calibrated probabilities of one request, and what they were computed with."""

    deployment: Deployment
    logits: NDArray[np.float32]
    probabilities: NDArray[np.float32]
    prediction: NDArray[np.int64]
    # the probability of the prediction; a receipt carries the same number as a float64
    confidence: NDArray[np.float32]
    temperature: NDArray[np.float64] | None
    logit_gap: NDArray[np.float32]  # nats

    def prediction_ids(self, receipts: Receipts) -> list[str]:
        """A signed receipt a row; only of a deployment that is live."""
        served, revision = self.deployment.served, self.deployment.revision
        shadow = self.deployment.shadow
        if revision is None:
            raise ValueError("a version that is not live gives no receipts")
        return receipts.issue(
            model=served.model_digest,
            version=served.version,
            revision=revision,
            class_list=served.class_list_digest,
            prediction=self.prediction,
            confidence=self.confidence.astype(np.float64),
            group=input_digests(self.logits),
            shadow=None if shadow is None else shadow.answer(self.logits),
        )


def compute(deployment: Deployment, logits: NDArray[np.float32]) -> Answer:
    """Calibrate logits."""
    found = deployment.calibrator.calibrated(logits)
    return Answer(
        deployment=deployment,
        logits=logits,
        probabilities=found.probabilities,
        prediction=found.prediction,
        confidence=found.confidence,
        temperature=found.temperature,
        logit_gap=found.logit_gap,
    )


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
