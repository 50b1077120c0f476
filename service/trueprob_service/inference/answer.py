"""Calibrated probabilities of a request, and the fields of an answer by name.

JSON and ``.npz`` answers have the same fields; arrays stay arrays until they are written.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from types import MappingProxyType
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from trueprob_service.inference.deployment import Deployment
from trueprob_service.receipts.receipt import Receipts, Stamp, input_digests

__all__ = [
    "FIELDS",
    "JSON_FIELDS",
    "NPZ_FIELDS",
    "TOP_FIELDS",
    "Answer",
    "answer_fields",
    "compute",
    "default_fields",
    "likeliest",
]

TOP_FIELDS: Final = ("top_indices", "top_classes", "top_probabilities")
# Field → function that reads it from an answer, except `prediction_ids` and `TOP_FIELDS`.
_READERS: Final[Mapping[str, Callable[[Answer], Any]]] = MappingProxyType(
    {
        "model": lambda answer: answer.deployment.served.model,
        "version": lambda answer: answer.deployment.served.version,
        "calibrator": lambda answer: answer.deployment.calibrator_id,
        "revision": lambda answer: answer.deployment.revision,
        "probabilities": lambda answer: answer.probabilities,
        "prediction": lambda answer: answer.prediction,
        "class": lambda answer: _names(answer, answer.prediction.tolist()),
        "confidence": lambda answer: answer.confidence,
        # float32 is written in its shortest form: 0.93, not 0.9300000071525574.
        "temperature": lambda answer: (
            None if answer.temperature is None else answer.temperature.astype(np.float32)
        ),
        "log_odds": lambda answer: answer.log_odds,
        "p1": lambda answer: np.ascontiguousarray(answer.probabilities[:, 1]),
        "logit_gap": lambda answer: answer.logit_gap,
        "logits": lambda answer: answer.logits,
    }
)
FIELDS: Final = (*_READERS, "prediction_ids", *TOP_FIELDS)
JSON_FIELDS: Final = (
    "model", "version", "calibrator", "revision", "probabilities", "prediction", "class",
    "confidence", "temperature", "log_odds", "prediction_ids",
)  # fmt: skip
NPZ_FIELDS: Final = (*JSON_FIELDS[:-1], "logit_gap", "prediction_ids")


@dataclass(frozen=True)
class Answer:
    """Calibrated probabilities of one request, with the logits and the deployment used."""

    deployment: Deployment
    logits: NDArray[np.float32]
    probabilities: NDArray[np.float32]
    prediction: NDArray[np.int64]
    confidence: NDArray[np.float32]  # receipts carry the same number as a float64
    temperature: NDArray[np.float64] | None
    logit_gap: NDArray[np.float32]  # nats
    log_odds: NDArray[np.float64] | None  # nats; of `smart-binary` only

    def prediction_ids(self, receipts: Receipts, stamp: Stamp | None = None) -> list[str]:
        """One signed receipt per row; the deployment must be live."""
        served, revision = self.deployment.served, self.deployment.revision
        if revision is None:
            raise ValueError("a version that is not live issues no receipts")
        if not len(self.prediction):
            return []
        candidate, predecessor = (
            None if shadow is None else shadow.answer(self.logits)
            for shadow in (self.deployment.candidate, self.deployment.predecessor)
        )
        return receipts.issue(
            model=served.model_digest,
            version=served.version,
            revision=revision,
            class_list=served.class_list_digest,
            prediction=self.prediction,
            confidence=self.confidence.astype(np.float64),
            group=input_digests(self.logits),
            candidate=candidate,
            predecessor=predecessor,
            stamp=stamp,
        )


def compute(deployment: Deployment, logits: NDArray[np.float32]) -> Answer:
    """Calibrate checked logits of shape (n, k), or no rows at all."""
    if not len(logits):  # calibrators take one row at least: no rows of its answer
        one = compute(deployment, np.zeros((1, logits.shape[1]), np.float32))
        arrays: dict[str, Any] = {
            name: value[:0] for name, value in vars(one).items() if isinstance(value, np.ndarray)
        }
        return replace(one, **arrays)
    calibrated = deployment.calibrator.calibrated(logits)
    return Answer(
        deployment=deployment,
        logits=logits,
        probabilities=calibrated.probabilities,
        prediction=calibrated.prediction,
        confidence=calibrated.confidence,
        temperature=calibrated.temperature,
        logit_gap=calibrated.logit_gap,
        log_odds=calibrated.log_odds,
    )


def default_fields(fields: tuple[str, ...], top: int | None) -> tuple[str, ...]:
    """`fields`, with `TOP_FIELDS` in place of ``probabilities`` if `top` is given."""
    if top is None:
        return fields
    start = fields.index("probabilities")
    return (*fields[:start], *TOP_FIELDS, *fields[start + 1 :])


def answer_fields(
    answer: Answer, names: Sequence[str], *, top: int | None, prediction_ids: list[str] | None
) -> dict[str, Any]:
    """The named fields of an answer, in that order.

    ``prediction_ids`` and `TOP_FIELDS` are left out if their argument is None, and ``log_odds`` if
    the calibrator has none.
    """
    special: dict[str, Any] = {}
    if prediction_ids is not None:
        special["prediction_ids"] = prediction_ids
    if top is not None:
        indices, probabilities = likeliest(answer.probabilities, answer.prediction, top)
        classes = [_names(answer, row) for row in indices.tolist()]
        special |= dict(zip(TOP_FIELDS, (indices, classes, probabilities), strict=True))
    fields = {}
    for name in names:
        if name == "log_odds" and answer.log_odds is None:
            continue
        if (read := _READERS.get(name)) is not None:
            fields[name] = read(answer)
        elif name in special:
            fields[name] = special[name]
    return fields


def likeliest(
    probabilities: NDArray[np.float32], prediction: NDArray[np.int64], m: int
) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
    """Indices and probabilities of the m likeliest classes of each row, both of shape (n, m).

    The prediction comes first; of other ties, the lower index. Each probability and its class are
    packed into one integer, so no two keys are equal and a partial sort is exact.
    """
    n, k = probabilities.shape
    reversed_classes = np.arange(k - 1, -1, -1, dtype=np.uint64)
    # Non-negative floats sort like their bits.
    bits: NDArray[Any] = np.ascontiguousarray(probabilities).view(np.uint32)
    keys = (bits.astype(np.uint64) << np.uint64(32)) | reversed_classes
    keys[np.arange(n), prediction] |= np.uint64(0xFFFFFFFF << 32)
    if m < k:
        keys = np.partition(keys, k - m, axis=1)[:, k - m :]
    keys = np.sort(keys, axis=1)[:, ::-1]
    indices = k - 1 - (keys & np.uint64(0xFFFFFFFF)).astype(np.int64)
    return indices, np.take_along_axis(probabilities, indices, axis=1)


def _names(answer: Answer, indices: list[int]) -> list[str]:
    names = answer.deployment.served.class_names
    return [names[index] for index in indices]
