"""Reads the body of an upload into named arrays: ``.npz``, JSON, ``.csv`` and forms.

The names of a table's columns become the array ``class_names``, which the other formats may have
too. `trueprob.CalibrationSet` checks shapes and values, and matches classes by name.
"""

from __future__ import annotations

import math
from collections.abc import Container, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final

import numpy as np
import orjson
from numpy.typing import NDArray

from trueprob.arrays.files import UNNAMED, ArrayHeader, read_array_headers, read_arrays
from trueprob.arrays.logits import n_sums_off
from trueprob.errors import InvalidInput
from trueprob.tables import ColumnChoice, read_csv
from trueprob.tables.columns import UNSPECIFIED
from trueprob_service.control.form_parts import FormPart, form_parts
from trueprob_service.edge.bodies import TEXT_SHARE
from trueprob_service.edge.json_blocks import loads_with_infinity
from trueprob_service.errors import BadRequest, BodyTooLarge, InvalidRequest, UnsupportedMediaType
from trueprob_service.inference.wire.images import pictures_from_base64
from trueprob_service.inference.wire.json_arrays import named_arrays, nested

__all__ = [
    "CSV_TYPES",
    "FORM_TYPES",
    "JSON_TYPES",
    "NPZ_TYPES",
    "Upload",
    "bytes_in_memory",
    "check_media_type",
    "conversions",
    "read_upload",
]

NPZ_TYPES: Final = ("application/x-npz", "application/octet-stream", "application/zip")
JSON_TYPES: Final = ("application/json",)
CSV_TYPES: Final = ("text/csv",)
FORM_TYPES: Final = ("multipart/form-data",)
_TYPES: Final = (*NPZ_TYPES, *JSON_TYPES, *CSV_TYPES, *FORM_TYPES)
_MATRICES: Final = ("logits", "probabilities", "log_probabilities")
_ONE_SCORE: Final = {
    "logits": "log P(class 1) − log P(class 0)",
    "probabilities": "P(class 1)",
    "log_probabilities": "log P(class 1)",
}
_VECTORS: Final = ("labels", "weights", "groups", "class_names")
_VECTOR_KINDS: Final[Mapping[str, tuple[set[type], str]]] = {
    "weights": ({int, float}, "numbers"),
    "class_names": ({str}, "texts"),
}
_FIELDS: Final = (*_MATRICES, "images", "rows", "inputs", *_VECTORS)
_PICTURE: Final = "image"
_MASKED: Final = "masked"
_NPY: Final = b"\x93NUMPY"
# Memory per byte, as measured on the shortest numbers and on common ones.
_JSON_TIMES: Final = 17
_CSV_TIMES: Final = 9
_FORM_TIMES: Final = 5
_NARROW: Final = {"logits": (UNNAMED,)}
_TEXT_BYTES: Final = 160  # of a text in a list, its UTF-8 and its hash


@dataclass(frozen=True)
class Upload:
    """The contents of a body."""

    arrays: dict[str, NDArray[Any]]
    pictures: list[bytes] | None = None  # encoded pictures, in place of an array of numbers
    inputs: dict[str, NDArray[Any]] | None = None  # of the network, by name, in place of those
    notes: tuple[str, ...] = ()  # a sentence for each thing that was found out about a table


def check_media_type(media_type: str) -> None:
    """Raise `UnsupportedMediaType` for a type that `read_upload` cannot read."""
    if media_type not in _TYPES:
        raise UnsupportedMediaType(
            f"Content-Type must be {', '.join(_TYPES)}, got {media_type or 'none'}"
        )


def bytes_in_memory(
    path: Path,
    content_type: str,  # checked by `check_media_type`
    *,
    max_bytes: int,  # limit of the arrays of an archive
    n_classes: int,  # of the version that the rows belong to
) -> int:
    """About the most memory that reading an uploaded file takes.

    Raises `InvalidInput` for an archive whose headers show that it cannot be used, or that its
    arrays would be larger than the limit.
    """
    media_type = content_type.partition(";")[0].strip().lower()
    if media_type not in NPZ_TYPES:
        times = {JSON_TYPES[0]: _JSON_TIMES, CSV_TYPES[0]: _CSV_TIMES}.get(media_type, _FORM_TIMES)
        return times * path.stat().st_size
    headers = read_array_headers(path, max_bytes=max_bytes)
    _check_shapes(n_classes, {name: header.shape for name, header in headers.items()})
    stored = sum(_stored_bytes(name, header) for name, header in headers.items())
    if stored > max_bytes:
        raise InvalidInput(
            f"the arrays must take at most {max_bytes} bytes in memory, with numbers of float32 "
            f"and labels of int64, got {stored}",
            field="file",
        )
    return stored + sum(header.nbytes for name, header in headers.items() if name != "logits")


def _stored_bytes(name: str, header: ArrayHeader) -> int:
    """Bytes of an array as a set has it; texts are Python's for a while."""
    numbers = math.prod(header.shape)
    if name in _MATRICES:
        return 4 * numbers * (2 if header.shape[1:] in ((), (1,)) else 1)
    if name not in _VECTORS:
        return header.nbytes
    return header.nbytes + _TEXT_BYTES * numbers if header.dtype.kind in "US" else 8 * numbers


def read_upload(
    path: Path,
    content_type: str,  # checked by `check_media_type`
    *,
    max_bytes: int,  # limit of the inflated size of an archive
) -> Upload:
    """Read an uploaded file, whose `bytes_in_memory` are known."""
    media_type = content_type.partition(";")[0].strip().lower()
    if media_type in NPZ_TYPES:
        return Upload(_required(read_arrays(path, max_bytes=max_bytes, narrow=("logits",))))
    if media_type in CSV_TYPES:
        return _table(path)
    if media_type in FORM_TYPES:
        return _form(form_parts(path, content_type), max_bytes)
    return _document(_json(path.read_bytes(), "the body"))


def conversions(arrays: Mapping[str, NDArray[Any]]) -> tuple[str, ...]:
    """A sentence for each way in which valid numbers are not taken as they were sent."""
    notes = []
    for name in set(_MATRICES) & set(arrays):
        values = arrays[name]
        if values.ndim == 1 or values.shape[1] == 1:
            notes.append(f"{name}: one number per row is read as {_ONE_SCORE[name]}")
        elif name == "probabilities" and (off := n_sums_off(values)):
            notes.append(
                f"probabilities: {off} of {len(values)} rows do not sum to 1 within 1e-3, because "
                "of rounding, and are normalised"
            )
    return tuple(notes)


def _required(arrays: Mapping[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
    if UNNAMED in arrays and "labels" not in arrays:
        raise InvalidRequest(
            "an .npy file has no labels: send an .npz, or a form with the parts logits and labels"
        )
    return dict(arrays)


def _check_shapes(n_classes: int, shapes: Mapping[str, tuple[int, ...]]) -> None:
    """Refuse arrays that do not fit one another or the version, before they are inflated.

    What is left, and columns with names, is for `CalibrationSet.from_arrays`.
    """
    for name in (*_MATRICES, "images"):
        if not (shape := shapes.get(name)):
            continue
        one_score = n_classes == 2 and shape[1:] in ((), (1,))
        named = "class_names" in shapes or name == "images"
        if not named and shape[1:] != (n_classes,) and not one_score:
            raise InvalidInput(f"{name} must have shape (n, {n_classes}), got {shape}", field=name)
        for vector in ("labels", "weights", "groups"):
            given = shapes.get(vector, shape[:1])
            if given[:1] != shape[:1]:
                raise InvalidInput(
                    f"{vector} must have shape ({shape[0]},), got {given}", field=vector
                )


def _document(document: object) -> Upload:
    if not isinstance(document, Mapping):
        raise InvalidRequest(
            f"the body must be an object with labels and one of {', '.join(_MATRICES)}, images, "
            "rows and inputs"
        )
    unknown = sorted(set(document) - {*_FIELDS, _MASKED})
    if unknown:
        raise InvalidRequest(f"unknown field {unknown[0]!r}; expected {', '.join(_FIELDS)}")
    upload, nulls = Upload({}), _flag(document.get(_MASKED, False), document)
    for name, values in document.items():
        if values is not None and name != _MASKED:
            upload = _with_field(upload, name, values, nulls=nulls)
    return upload


def _flag(value: object, names: Container[str]) -> bool:
    """The value of ``masked``: whether a null in the logits masks a class."""
    if not isinstance(value, bool):
        raise InvalidRequest(f"masked must be true or false, got {type(value).__name__}")
    if value and "logits" not in names:
        raise InvalidRequest("masked is for logits, and there are none")
    return value


def _with_field(upload: Upload, name: str, values: object, *, nulls: bool) -> Upload:
    if name == "images":
        return replace(upload, pictures=pictures_from_base64(values))
    if name == "inputs":
        return replace(upload, inputs=named_arrays(values))
    if name == "rows":
        return replace(upload, arrays={**upload.arrays, name: nested(values, name)})
    array = (
        _matrix(name, values, nulls=nulls and name == "logits")
        if name in _MATRICES
        else _vector(name, values)
    )
    return replace(upload, arrays={**upload.arrays, name: array})


def _form(parts: Sequence[FormPart], max_bytes: int) -> Upload:
    """One part for each array (``.npy`` or JSON), and one part ``image`` for each picture."""
    pictures = [part.content for part in parts if part.name == _PICTURE]
    upload = Upload({}, pictures or None)
    flags = [part for part in parts if part.name == _MASKED]
    if len(flags) > 1:
        raise InvalidRequest(f"part {_MASKED!r} is given twice")
    names = [part.name for part in parts]
    nulls = any(_flag(_json(part.content, "part masked"), names) for part in flags)
    seen: set[str] = set()
    for part in parts:
        if part.name in (_PICTURE, _MASKED):
            continue
        if part.name not in _FIELDS:
            raise InvalidRequest(
                f"unknown part {part.name[:40]!r}; expected {', '.join((*_FIELDS, _PICTURE))}"
            )
        if part.name in seen or (part.name == "images" and pictures):
            raise InvalidRequest(f"part {part.name!r} is given twice")
        seen.add(part.name)
        if part.content.startswith(_NPY):
            array = read_arrays(
                part.content, max_bytes=max_bytes, name=part.name, narrow=_NARROW.get(part.name, ())
            )[UNNAMED]
            upload = replace(upload, arrays={**upload.arrays, part.name: array})
        else:
            if len(part.content) > max_bytes // TEXT_SHARE:
                raise BodyTooLarge(
                    f"part {part.name!r} must have at most {max_bytes // TEXT_SHARE} bytes as "
                    f"JSON, got {len(part.content)}: send it as .npy"
                )
            values = _json(part.content, f"part {part.name}")
            upload = _with_field(upload, part.name, values, nulls=nulls)
    return upload


def _table(path: Path) -> Upload:
    rows = read_csv(path, choice=ColumnChoice(options=False))
    if rows.class_names is None:  # by order it could be the score of the model's other class
        raise InvalidRequest(
            "a lone column of scores must be named prob_1 or score, for class 1, or the labels "
            "must be the names of both classes"
        )
    arrays: dict[str, Any] = {**rows.arrays, "class_names": np.array(rows.class_names)}
    if UNSPECIFIED in arrays:
        arrays["logits"] = arrays.pop(UNSPECIFIED)
    return Upload(arrays, notes=rows.notes)


def _json(text: bytes, what: str) -> object:
    try:
        return orjson.loads(text)
    except orjson.JSONDecodeError as error:
        try:
            return loads_with_infinity(text)
        except ValueError:
            message = f"{what} is not JSON: {error.msg} at character {error.pos}"
            raise BadRequest(message) from None


def _matrix(name: str, values: object, *, nulls: bool) -> NDArray[np.float64]:
    if not isinstance(values, list) or not values:
        raise InvalidRequest(f"{name} must be a non-empty list of rows")
    allowed = {float, int, type(None)} if nulls else {float, int}
    if allowed.issuperset(map(type, values)):
        values = [[value] for value in values]  # scores of class 1
    for index, row in enumerate(values):
        if not isinstance(row, list) or len(row) != len(values[0]):
            length = f"{len(values[0])} numbers" if isinstance(values[0], list) else "numbers"
            raise InvalidRequest(f"{name}[{index}] must be a list of {length}")
        # bool is an int to NumPy; text and null would become objects.
        if not allowed.issuperset(map(type, row)):
            null = name == "logits" and None in row
            remedy = ': null masks a class only with "masked": true' if null else ""
            raise InvalidRequest(f"{name}[{index}] must hold numbers only{remedy}")
    try:
        array = np.asarray(values, np.float64)
    except OverflowError:
        raise InvalidRequest(f"{name} must hold numbers within the range of float64") from None
    if nulls:
        array[np.isnan(array)] = -np.inf  # NaN is no JSON, so these were null
    return array


def _vector(name: str, values: object) -> NDArray[Any]:
    kinds = set(map(type, values)) if isinstance(values, list) else set()
    allowed, what = _VECTOR_KINDS.get(name, ({int, str}, "integers or texts"))
    if not kinds or not kinds <= allowed:
        raise InvalidRequest(f"{name} must be a non-empty list of {what}")
    mixed = {int, str} <= kinds
    try:
        return np.asarray(values, object if mixed else np.float64 if name == "weights" else None)
    except OverflowError:
        raise InvalidRequest(f"{name} must hold numbers within the range of int64") from None
