"""Predictions, labels and what they say, as flows (see `trueprob.client.flow`)."""

from __future__ import annotations

import base64
import io
from collections.abc import Mapping, Sequence
from typing import Any, Final

import numpy as np
from numpy.typing import ArrayLike

from trueprob.client.answers import Calibration, LabelOutcome, LabelOutcomes, read
from trueprob.client.flow import JSON, Flow, Request, address, answered, to_json
from trueprob.client.prediction import NPZ, PartialPrediction, Prediction, document_of
from trueprob.errors import InvalidInput

__all__ = ["calibration", "label", "metrics", "predict", "predict_fields", "readiness"]

MAX_LABELS: Final = 100_000  # of one request; more are sent in several


def predict(
    model: str,
    *,
    logits: ArrayLike | None = None,
    probabilities: ArrayLike | None = None,
    log_probabilities: ArrayLike | None = None,
    images: Sequence[bytes] | None = None,
    version: int | None = None,
    receipts: bool = True,
    binary: bool = False,
) -> Flow[Prediction]:
    """Calibrated probabilities of exactly one of logits, probabilities, their logarithms, pictures.

    Parameters
    ----------
    model : str
    logits, probabilities, log_probabilities : array_like of shape (n, k), optional
    images : sequence of bytes, optional
        PNG, JPEG or WebP files.
    version : int, optional
        Default: the live one.
    receipts : bool
        Whether the answer carries prediction ids, which labels need.
    binary : bool
        Ask for the answer as an ``.npz``: the same numbers, quicker for many rows.
    """
    arrays = {
        "logits": logits,
        "probabilities": probabilities,
        "log_probabilities": log_probabilities,
    }
    params = {"version": version, "receipts": receipts}
    reply = yield from answered(_request(model, arrays, images, params, binary))
    return Prediction.of(document_of(reply))


def predict_fields(
    model: str,
    fields: Sequence[str] | None = None,
    *,
    top: int | None = None,
    logits: ArrayLike | None = None,
    probabilities: ArrayLike | None = None,
    log_probabilities: ArrayLike | None = None,
    images: Sequence[bytes] | None = None,
    version: int | None = None,
    binary: bool = False,
) -> Flow[PartialPrediction]:
    """A part of what `predict` gives, or more than that.

    Parameters
    ----------
    model : str
    fields : sequence of str, optional
        Of ``probabilities``, ``prediction``, ``class``, ``confidence``, ``temperature``,
        ``prediction_ids`` (asks for receipts), ``logit_gap``, ``logits`` and, beside `top`,
        ``top_indices``, ``top_classes``, ``top_probabilities``. Default: what `predict` has
        without receipts, `top` in place of the probabilities.
    top : int, optional
        How many of the likeliest classes.
    logits, probabilities, log_probabilities, images, version, binary
        As for `predict`.
    """
    arrays = {
        "logits": logits,
        "probabilities": probabilities,
        "log_probabilities": log_probabilities,
    }
    params: dict[str, Any] = {"version": version, "top": top}
    if fields is None:
        params["receipts"] = False
    else:
        params["return"] = ",".join(fields)
    reply = yield from answered(_request(model, arrays, images, params, binary))
    return PartialPrediction.of(reply)


def _request(
    model: str,
    arrays: Mapping[str, ArrayLike | None],
    images: Sequence[bytes] | None,
    params: Mapping[str, Any],
    binary: bool,
) -> Request:
    """One of arrays and pictures, as it is sent.

    Raises
    ------
    InvalidInput
        None of them was given, or several.
    """
    given = {name: values for name, values in arrays.items() if values is not None}
    if len(given) + (images is not None) != 1:
        raise InvalidInput(
            f"exactly one of {', '.join(arrays)} and images is needed, "
            f"got {len(given) + (images is not None)}",
            field="logits",
        )
    sent = dict(params)
    if images is not None:
        content = to_json({"images": [base64.b64encode(image).decode() for image in images]})
        headers: Mapping[str, str] = JSON
    else:
        ((name, values),) = given.items()
        sent["input"] = name
        content, headers = _npy(values), {"content-type": "application/x-npy"}
    headers = {**headers, "accept": NPZ if binary else "application/json"}
    path = address("v1", "models", model, "probabilities")
    return Request("POST", path, sent, headers, content, again=True)


def label(
    model: str, prediction_ids: Sequence[str], labels: Sequence[int | str] | ArrayLike
) -> Flow[LabelOutcomes]:
    """Send labels of earlier predictions; each counts once, however often it is sent.

    Parameters
    ----------
    model : str
    prediction_ids : sequence of str
    labels : sequence of int or str
        As many; class indices or class names.

    Raises
    ------
    ServiceProblem, ServiceUnreachable
        Of more than 100 000 labels, earlier requests may have been counted. All may be sent again.
    """
    texts = list(prediction_ids)
    values = labels.tolist() if isinstance(labels, np.ndarray) else list(labels)  # type: ignore[arg-type]
    if len(texts) != len(values):
        raise InvalidInput(
            f"labels must be as many as prediction_ids, {len(texts)}, got {len(values)}",
            field="labels",
        )
    total = LabelOutcomes(0, 0, 0, ())
    path = address("v1", "models", model, "labels")
    for start in range(0, max(len(texts), 1), MAX_LABELS):
        piece = slice(start, start + MAX_LABELS)
        content = to_json({"prediction_ids": texts[piece], "labels": values[piece]})
        reply = yield from answered(
            Request("POST", path, headers=JSON, content=content, again=True)
        )
        part = read(LabelOutcomes, reply.json())
        total = LabelOutcomes(
            total.accepted + part.accepted,
            total.duplicate + part.duplicate,
            total.rejected + part.rejected,
            (*total.outcomes, *(LabelOutcome(o.index + start, o.outcome) for o in part.outcomes)),
        )
    return total


def calibration(model: str, window: str = "24h") -> Flow[Calibration]:
    """What the labels of a window (hours or days: ``24h``, ``7d``) say about the live pair."""
    path = address("v1", "models", model, "calibration")
    reply = yield from answered(Request("GET", path, {"window": window}, again=True))
    return read(Calibration, reply.json())


def readiness() -> Flow[dict[str, Any]]:
    """What ``/v2/health/ready`` says."""
    reply = yield from answered(Request("GET", "/v2/health/ready"))
    document: dict[str, Any] = reply.json()
    return document


def metrics() -> Flow[str]:
    """The text that Prometheus reads."""
    reply = yield from answered(Request("GET", "/metrics", again=True))
    return reply.content.decode()


def _npy(values: ArrayLike) -> bytes:
    buffer = io.BytesIO()
    np.save(buffer, np.asarray(values), allow_pickle=False)
    return buffer.getvalue()
