"""Parses and validates the body of a labels request: labels with some kind of ids, or rows.

Plain loops check up to 100 000 labels; a pydantic model for each would be too slow. Rows are
validated as a whole before any of them is stored.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from typing import Any, Final

import numpy as np
import orjson
from numpy.typing import NDArray

from trueprob_service.edge.json_blocks import elements_in_blocks, loads_with_infinity
from trueprob_service.errors import BadRequest, InvalidRequest
from trueprob_service.receipts.identified import checked_ids
from trueprob_service.receipts.receipt import digest64

__all__ = [
    "Label",
    "ParsedRows",
    "read_document",
    "read_labels",
    "read_labels_by_id",
    "read_rows",
]

Label = int | str  # class index or class name

MAX_LABELS: Final = 100_000  # of one request
# Longer bodies with rows are parsed in blocks of this size, some 2 ms each.
ROW_BLOCK_BYTES: Final = 1 << 18
_SPACE: Final = rb"[ \t\n\r]*"
_ROWS: Final = re.compile(_SPACE.join((b"", rb"\{", b'"rows"', b":", rb"\[")))
_CLOSING: Final = re.compile(_SPACE.join((b"", rb"\}", b"")))
_FIELDS: Final = (
    {"prediction_ids", "labels"},
    {"ids", "labels"},
    {"labels"},
    {"rows"},
    {"rows", "masked"},
)
_LABEL_FIELDS: Final = {"id", "label"}
_ROW_FIELDS: Final = frozenset({"id", "logits", "label", "group"})
_REQUIRED: Final = ("id", "logits", "label")
_ID_CHARACTERS: Final = 200
# NumPy converts this many numbers at a time, which holds the interpreter lock a few milliseconds.
_NUMBERS_AT_ONCE: Final = 1 << 16


@dataclass(frozen=True)
class ParsedRows:
    """The rows of a request, not yet resolved to classes."""

    ids: Sequence[str]
    logits: NDArray[np.float32]
    labels: Sequence[Label]  # class indices or class names
    groups: Sequence[int | None]  # signed 64-bit digests


def read_document(body: bytes, *, block_bytes: int = ROW_BLOCK_BYTES) -> dict[str, Any]:
    """Parse a body that names predictions by ``prediction_ids`` or ``ids``, or has ``rows``.

    With rows there may be ``"masked": true``: a null in their logits masks a class, as -Infinity
    always does.

    Raises `BadRequest` for a body that is not JSON, `InvalidRequest` for other fields.
    """
    if len(body) > block_bytes and (rows := _rows_in_blocks(body, block_bytes)) is not None:
        return {"rows": rows}
    try:
        document = orjson.loads(body)
    except orjson.JSONDecodeError as error:
        try:
            document = loads_with_infinity(body)
        except ValueError:
            message = f"the body is not JSON: {error.msg} at character {error.pos}"
            raise BadRequest(message) from None
    if isinstance(document, dict) and set(document) in _FIELDS:
        if type(document.get("masked", False)) is not bool:
            raise InvalidRequest(
                f"masked must be true or false, got {_json_type(document['masked'])}"
            )
        return document
    raise InvalidRequest(
        "the body must be an object with prediction_ids and labels, with ids and labels, with "
        'labels of the form {"id": …, "label": …}, or with rows'
    )


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
    """Prediction ids and their labels; raises `InvalidRequest` for wrong types or lengths."""
    ids, labels = _columns(document, "prediction_ids")
    for index, value in enumerate(ids):
        if type(value) is not str:
            raise InvalidRequest(f"prediction_ids[{index}] must be a text, got {_json_type(value)}")
    return ids, labels


def read_labels_by_id(document: Mapping[str, Any]) -> tuple[list[str], list[Label]]:
    """The caller's ids and their labels, from two lists or from one of pairs; raises likewise."""
    if "ids" in document:
        ids, labels = _columns(document, "ids")
        return checked_ids(ids), labels
    pairs = _list_of(document, "labels")
    if len(pairs) > MAX_LABELS:
        raise InvalidRequest(f"labels must be at most {MAX_LABELS}, got {len(pairs)}")
    for index, pair in enumerate(pairs):
        if not isinstance(pair, dict) or pair.keys() != _LABEL_FIELDS:
            got = ", ".join(pair) if isinstance(pair, dict) else _json_type(pair)
            raise InvalidRequest(
                f"labels[{index}] must be an object with id and label, got {got[:80] or 'nothing'}"
            )
        _check_label(pair["label"], f"labels[{index}].label")
    return checked_ids([pair["id"] for pair in pairs], "labels[{}].id"), [
        pair["label"] for pair in pairs
    ]


def _columns(document: Mapping[str, Any], name: str) -> tuple[list[Any], list[Label]]:
    """Ids of any kind and as many labels; only the labels are checked."""
    ids, labels = _list_of(document, name), _list_of(document, "labels")
    if len(ids) != len(labels):
        raise InvalidRequest(f"labels must be as many as {name}, {len(ids)}, got {len(labels)}")
    if len(ids) > MAX_LABELS:
        raise InvalidRequest(f"labels must be at most {MAX_LABELS}, got {len(labels)}")
    for index, value in enumerate(labels):
        _check_label(value, f"labels[{index}]")
    return ids, labels


def _check_label(value: object, name: str) -> None:
    """Raise `InvalidRequest` for a label that is neither a class index nor a class name."""
    # type, not isinstance: true is an int to Python and would pass for class 1.
    if type(value) is not int and type(value) is not str:
        raise InvalidRequest(
            f"{name} must be an integer (class index) or a text (class name), "
            f"got {_json_type(value)}"
        )


def _list_of(document: Mapping[str, Any], name: str) -> list[Any]:
    """A field that must be a list."""
    values = document[name]
    if not isinstance(values, list):
        raise InvalidRequest(f"{name} must be a list, got {_json_type(values)}")
    return values


def _json_type(value: object) -> str:
    """The JSON name of a value's type."""
    names = {bool: "a boolean", float: "a fraction", type(None): "null", dict: "an object"}
    return {int: "a number", str: "a text", list: "a list", **names}.get(type(value), "something")


def read_rows(document: Mapping[str, Any], *, n_classes: int) -> ParsedRows:
    """The rows of a request; an `InvalidRequest` names the row and the field."""
    rows = _list_of(document, "rows")
    if len(rows) > MAX_LABELS:
        raise InvalidRequest(f"rows must be at most {MAX_LABELS}, got {len(rows)}")
    for index, row in enumerate(rows):
        _check_row(row, f"rows[{index}]", n_classes)
    return ParsedRows(
        ids=[row["id"] for row in rows],
        logits=_matrix(
            [_logits(row["logits"], n_classes) for row in rows],
            n_classes,
            nulls=document.get("masked", False),
        ),
        labels=[row["label"] for row in rows],
        groups=[_digest(row.get("group")) for row in rows],
    )


def _check_row(row: object, name: str, n_classes: int) -> None:
    if not isinstance(row, dict):
        raise InvalidRequest(
            f"{name} must be an object with id, logits and label, got {_json_type(row)}"
        )
    if unknown := sorted(row.keys() - _ROW_FIELDS):
        raise InvalidRequest(
            f"{name} has an unknown field {unknown[0][:40]!r}, expected id, logits, label or group"
        )
    if missing := [field for field in _REQUIRED if field not in row]:
        raise InvalidRequest(f"{name}.{missing[0]} is missing")
    row_id = row["id"]
    if not (type(row_id) is str and 0 < len(row_id) <= _ID_CHARACTERS):
        got = f"{len(row_id)} characters" if type(row_id) is str else _json_type(row_id)
        raise InvalidRequest(f"{name}.id must be a text of 1 to {_ID_CHARACTERS}, got {got}")
    _check_label(row["label"], f"{name}.label")
    if "group" in row and type(row["group"]) not in (int, str):
        raise InvalidRequest(
            f"{name}.group must be an integer or a text, got {_json_type(row['group'])}"
        )
    logits = row["logits"]
    if n_classes == 2 and isinstance(logits, list) and len(logits) == 1:
        if type(logits[0]) not in (int, float):
            raise InvalidRequest(f"{name}.logits[0] must be a number, got {_json_type(logits[0])}")
        return
    if n_classes == 2 and type(logits) in (int, float):
        return
    if not isinstance(logits, list):
        raise InvalidRequest(f"{name}.logits must be a list of numbers, got {_json_type(logits)}")
    if len(logits) != n_classes:
        one = " or one, the logit of class 1" if n_classes == 2 else ""
        raise InvalidRequest(f"{name}.logits must have {n_classes} numbers{one}, got {len(logits)}")


def _logits(values: Any, n_classes: int) -> list[Any]:
    """A number for each class; one number is the logit of class 1 of two, as in `as_logits`."""
    if not isinstance(values, list):
        return [0.0, values]
    return values if len(values) == n_classes else [0.0, *values]


def _matrix(rows: list[list[Any]], n_classes: int, *, nulls: bool) -> NDArray[np.float32]:
    step = max(1, _NUMBERS_AT_ONCE // n_classes)
    blocks = [rows[start : start + step] for start in range(0, len(rows), step)]
    # NumPy would convert true to 1, null to NaN, and a text of digits to its number.
    allowed = {int, float, type(None)} if nulls else {int, float}
    for block in blocks:
        if not set(map(type, chain.from_iterable(block))) <= allowed:
            raise InvalidRequest(_first_other(rows, allowed))
    matrix = np.empty((len(rows), n_classes), np.float32)
    usable = np.empty(len(rows), np.bool_)
    with np.errstate(over="ignore"):
        for i, block in enumerate(blocks):
            part = slice(i * step, i * step + len(block))
            try:
                given = np.array(block, np.float64)
            except OverflowError:  # an integer beyond float64
                given = np.array([[float(str(value)) for value in row] for row in block])
            masked = np.isneginf(given) | np.isnan(given)  # NaN is no JSON, so it was null
            matrix[part] = np.where(masked, -np.inf, given)
            usable[part] = (np.isfinite(matrix[part]) | masked).all(axis=1)
            usable[part] &= ~masked.all(axis=1)
    if not usable.all():
        index = int(np.argmin(usable))
        raise InvalidRequest(
            f"rows[{index}].logits must be finite in float32, or minus infinity for masked classes "
            "but one"
        )
    return matrix


def _first_other(rows: list[list[Any]], allowed: set[type]) -> str:
    for index, row in enumerate(rows):
        for column, value in enumerate(row):
            if type(value) not in allowed:
                remedy = ', which masks a class only with "masked": true' if value is None else ""
                return (
                    f"rows[{index}].logits[{column}] must be a number, got {_json_type(value)}"
                    f"{remedy}"
                )
    raise LookupError("every element is a number")


def _digest(group: int | str | None) -> int | None:
    """Digest of a group; the integer 1 and the text "1" are different groups."""
    if group is None:
        return None
    return int.from_bytes(digest64(f"{type(group).__name__} {group}"), signed=True)
