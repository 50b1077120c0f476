"""Answers of predictions: arrays, and what they were computed with; from JSON or an ``.npz``."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from trueprob.array_files import read_arrays
from trueprob.client.flow import Reply

__all__ = ["NPZ", "PartialPrediction", "Prediction", "document_of"]

NPZ: Final = "application/x-npz"


@dataclass(frozen=True, eq=False)
class Prediction:
    """Calibrated probabilities, and what they were computed with.

    Attributes
    ----------
    model, version, calibrator : str, int, str
    revision : int or None
        None for a version that is not live.
    probabilities : ndarray of shape (n, k), float32
    prediction : ndarray of shape (n,), int64
    classes : tuple of str
        The name of each prediction.
    confidence : ndarray of shape (n,), float64
    temperature : ndarray of shape (n,), float64, or None
    prediction_ids : tuple of str or None
        For `Client.label`.
    """

    model: str
    version: int
    calibrator: str
    revision: int | None
    probabilities: NDArray[np.float32]
    prediction: NDArray[np.int64]
    classes: tuple[str, ...]
    confidence: NDArray[np.float64]
    temperature: NDArray[np.float64] | None
    prediction_ids: tuple[str, ...] | None

    @classmethod
    def of(cls, document: Mapping[str, Any]) -> Prediction:
        """From what an answer holds (`document_of`)."""
        temperature, ids = document.get("temperature"), document.get("prediction_ids")
        return cls(
            model=document["model"],
            version=document["version"],
            calibrator=document["calibrator"],
            revision=document.get("revision"),
            probabilities=np.asarray(document["probabilities"], np.float32),
            prediction=np.asarray(document["prediction"], np.int64),
            classes=tuple(document["class"]),
            confidence=_float32(document["confidence"]),
            temperature=None if temperature is None else _float32(temperature),
            prediction_ids=None if ids is None else tuple(ids),
        )


@dataclass(frozen=True, eq=False)
class PartialPrediction:
    """What was asked for of a prediction; the rest is None.

    Attributes
    ----------
    version, calibrator : int, str
        Always there.
    revision : int or None
        None for a version that is not live.
    probabilities : ndarray of shape (n, k), float32
    prediction : ndarray of shape (n,), int64
    classes : tuple of str
        The name of each prediction.
    confidence, temperature, logit_gap : ndarray of shape (n,), float64
    logits : ndarray of shape (n, k), float32
    prediction_ids : tuple of str
    top_indices : ndarray of shape (n, m), int64
        The likeliest classes, the prediction first.
    top_classes : tuple of tuple of str
    top_probabilities : ndarray of shape (n, m), float32
    """

    version: int
    calibrator: str
    revision: int | None
    probabilities: NDArray[np.float32] | None = None
    prediction: NDArray[np.int64] | None = None
    classes: tuple[str, ...] | None = None
    confidence: NDArray[np.float64] | None = None
    temperature: NDArray[np.float64] | None = None
    logit_gap: NDArray[np.float64] | None = None
    logits: NDArray[np.float32] | None = None
    prediction_ids: tuple[str, ...] | None = None
    top_indices: NDArray[np.int64] | None = None
    top_classes: tuple[tuple[str, ...], ...] | None = None
    top_probabilities: NDArray[np.float32] | None = None

    @classmethod
    def of(cls, reply: Reply) -> PartialPrediction:
        """From an answer and its headers."""
        document = document_of(reply)
        revision = reply.headers.get("trueprob-revision")
        values: dict[str, Any] = {}
        for name, value in document.items():
            if value is not None and name in _READ:
                values["classes" if name == "class" else name] = _READ[name](value)
        return cls(
            version=int(reply.headers["trueprob-version"]),
            calibrator=reply.headers["trueprob-calibrator"],
            revision=None if revision is None else int(revision),
            **values,
        )


def document_of(reply: Reply) -> dict[str, Any]:
    """The fields of an answer: of JSON as they are, of an ``.npz`` arrays, numbers and texts."""
    if reply.headers.get("content-type", "") != NPZ:
        document: dict[str, Any] = reply.json()
        return document
    arrays = read_arrays(reply.content, name="the answer")
    return {
        name: array.item()
        if array.ndim == 0
        else array.tolist()
        if array.dtype.kind == "U"
        else array
        for name, array in arrays.items()
    }


def _float32(values: Any) -> NDArray[np.float64]:
    """Numbers that were written as the shortest text of a float32: exactly that float32."""
    return np.asarray(values, np.float32).astype(np.float64)


def _matrix(values: Any) -> NDArray[np.float32]:
    return np.asarray(values, np.float32)


def _integers(values: Any) -> NDArray[np.int64]:
    return np.asarray(values, np.int64)


def _rows_of_names(values: Any) -> tuple[tuple[str, ...], ...]:
    return tuple(map(tuple, values))


_READ: Final[Mapping[str, Callable[[Any], Any]]] = {
    "probabilities": _matrix,
    "prediction": _integers,
    "class": tuple,
    "confidence": _float32,
    "temperature": _float32,
    "logit_gap": _float32,
    "logits": _matrix,
    "prediction_ids": tuple,
    "top_indices": _integers,
    "top_classes": _rows_of_names,
    "top_probabilities": _matrix,
}
