"""The body of a labels request. 100 000 labels are read without a model a label."""

from __future__ import annotations

import re
from collections.abc import Mapping
from itertools import chain
from typing import Any, Final

import orjson

from trueprob_service.control.labels.by_receipt import MAX_LABELS
from trueprob_service.control.labels.judging import Label
from trueprob_service.edge.json_blocks import elements_in_blocks
from trueprob_service.errors import BadRequest, InvalidRequest

__all__ = ["check_label", "kind", "list_of", "read_document", "read_labels"]

# As objects, rows take the parser four times as long as plain numbers do: some 2 ms.
ROW_BLOCK_BYTES: Final = 1 << 18
_SPACE: Final = rb"[ \t\n\r]*"
_ROWS: Final = re.compile(_SPACE.join((b"", rb"\{", b'"rows"', b":", rb"\[")))
_CLOSING: Final = re.compile(_SPACE.join((b"", rb"\}", b"")))


def read_document(body: bytes, *, block_bytes: int = ROW_BLOCK_BYTES) -> dict[str, Any]:
    """The object in a body: either labels of prediction ids, or rows.

    Raises `BadRequest`: it is not JSON. Raises `InvalidRequest`: it is not an object with these
    fields.
    """
    if len(body) > block_bytes and (rows := _rows_in_blocks(body, block_bytes)) is not None:
        return {"rows": rows}
    try:
        document = orjson.loads(body)
    except orjson.JSONDecodeError as error:
        raise BadRequest(f"the body is not JSON: {error.msg} at character {error.pos}") from None
    if isinstance(document, dict) and set(document) in ({"prediction_ids", "labels"}, {"rows"}):
        return document
    raise InvalidRequest("the body must be an object with prediction_ids and labels, or with rows")


def _rows_in_blocks(body: bytes, block_bytes: int) -> list[Any] | None:
    opening = _ROWS.match(body)
    if opening is None:
        return None
    blocks, stop = elements_in_blocks(body, opening.end(), b"}", _loads, block_bytes=block_bytes)
    if blocks is None or not _CLOSING.fullmatch(body, stop):
        return None
    return list(chain.from_iterable(blocks))


def _loads(block: bytes) -> list[Any] | None:
    try:
        read: list[Any] = orjson.loads(block)
    except orjson.JSONDecodeError:
        return None
    return read


def read_labels(document: Mapping[str, Any]) -> tuple[list[str], list[Label]]:
    """Prediction ids and their labels.

    Raises `InvalidRequest`: a field is of another type, too long, or not as long as the other.
    """
    ids, labels = list_of(document, "prediction_ids"), list_of(document, "labels")
    if len(ids) != len(labels):
        raise InvalidRequest(
            f"labels must be as many as prediction_ids, {len(ids)}, got {len(labels)}"
        )
    if len(ids) > MAX_LABELS:
        raise InvalidRequest(f"labels must be at most {MAX_LABELS}, got {len(labels)}")
    for index, value in enumerate(ids):
        if type(value) is not str:
            raise InvalidRequest(f"prediction_ids[{index}] must be a text, got {kind(value)}")
    for index, value in enumerate(labels):
        check_label(value, f"labels[{index}]")
    return ids, labels


def check_label(value: object, name: str) -> None:
    """Refuse what is neither a class index nor a class name."""
    # type, not isinstance: true is an int to Python and would pass for class 1.
    if type(value) is not int and type(value) is not str:
        raise InvalidRequest(
            f"{name} must be an integer (class index) or a text (class name), got {kind(value)}"
        )


def list_of(document: Mapping[str, Any], name: str) -> list[Any]:
    """The list under a name."""
    values = document[name]
    if not isinstance(values, list):
        raise InvalidRequest(f"{name} must be a list, got {kind(values)}")
    return values


def kind(value: object) -> str:
    """What JSON calls the type of a value."""
    names = {bool: "a boolean", float: "a fraction", type(None): "null", dict: "an object"}
    return {int: "a number", str: "a text", list: "a list", **names}.get(type(value), "something")
