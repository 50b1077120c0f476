"""The body of a labels request. 100 000 labels are read without a model a label."""

from __future__ import annotations

from typing import Any

import orjson

from service.control.label_history import Label
from service.control.labels import MAX_LABELS
from service.errors import BadRequest, InvalidRequest

__all__ = ["read_labels"]


def read_labels(body: bytes) -> tuple[list[str], list[Label]]:
    """Prediction ids and their labels.

    Parameters
    ----------
    body : bytes
        ``{"prediction_ids": […], "labels": […]}``.

    Raises
    ------
    BadRequest
        It is not JSON.
    InvalidRequest
        A field is missing, of another type, too long, or not as long as the other.
    """
    try:
        document = orjson.loads(body)
    except orjson.JSONDecodeError as error:
        raise BadRequest(f"the body is not JSON: {error.msg} at character {error.pos}") from None
    if not isinstance(document, dict) or set(document) != {"prediction_ids", "labels"}:
        raise InvalidRequest("the body must be an object with prediction_ids and labels")
    ids, labels = _list(document, "prediction_ids"), _list(document, "labels")
    if len(ids) != len(labels):
        raise InvalidRequest(
            f"labels must be as many as prediction_ids, {len(ids)}, got {len(labels)}"
        )
    if len(ids) > MAX_LABELS:
        raise InvalidRequest(f"labels must be at most {MAX_LABELS}, got {len(labels)}")
    for index, value in enumerate(ids):
        if type(value) is not str:
            raise InvalidRequest(f"prediction_ids[{index}] must be a text, got {_kind(value)}")
    for index, value in enumerate(labels):
        # type, not isinstance: true is an int to Python and would pass for class 1.
        if type(value) is not int and type(value) is not str:
            raise InvalidRequest(
                f"labels[{index}] must be an integer (class index) or a text (class name), "
                f"got {_kind(value)}"
            )
    return ids, labels


def _list(document: dict[str, Any], name: str) -> list[Any]:
    values = document[name]
    if not isinstance(values, list):
        raise InvalidRequest(f"{name} must be a list, got {_kind(values)}")
    return values


def _kind(value: object) -> str:
    """What JSON calls the type of a value."""
    names = {bool: "a boolean", float: "a fraction", type(None): "null", dict: "an object"}
    return {int: "a number", str: "a text", list: "a list", **names}.get(type(value), "something")
