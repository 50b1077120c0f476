"""Reads the body of an upload into named arrays: ``.npz``, JSON, ``.csv`` and forms.

The class names of the model order the columns of a table. `trueprob.CalibrationSet` checks shapes,
classes and values.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final

import numpy as np
import orjson
from numpy.typing import NDArray

from trueprob.arrays.files import UNNAMED, read_arrays
from trueprob.tables import Rows, read_csv
from trueprob.tables.columns import UNSPECIFIED
from trueprob_service.control.form_parts import FormPart, form_parts
from trueprob_service.errors import BadRequest, InvalidRequest, UnsupportedMediaType
from trueprob_service.inference.wire.images import pictures_from_base64

__all__ = [
    "CSV_TYPES",
    "FORM_TYPES",
    "JSON_TYPES",
    "NPZ_TYPES",
    "Upload",
    "check_media_type",
    "read_upload",
]

NPZ_TYPES: Final = ("application/x-npz", "application/octet-stream", "application/zip")
JSON_TYPES: Final = ("application/json",)
CSV_TYPES: Final = ("text/csv",)
FORM_TYPES: Final = ("multipart/form-data",)
_TYPES: Final = (*NPZ_TYPES, *JSON_TYPES, *CSV_TYPES, *FORM_TYPES)
_MATRICES: Final = ("logits", "probabilities", "log_probabilities")
_VECTORS: Final = ("labels", "weights", "groups")
_FIELDS: Final = (*_MATRICES, "images", *_VECTORS)
_PICTURE: Final = "image"
_NPY: Final = b"\x93NUMPY"


@dataclass(frozen=True)
class Upload:
    """The contents of a body."""

    arrays: dict[str, NDArray[Any]]
    pictures: list[bytes] | None = None  # encoded pictures, in place of an array of numbers


def check_media_type(media_type: str) -> None:
    """Raise `UnsupportedMediaType` for a type that `read_upload` cannot read."""
    if media_type not in _TYPES:
        raise UnsupportedMediaType(
            f"Content-Type must be {', '.join(_TYPES)}, got {media_type or 'none'}"
        )


def read_upload(
    path: Path,
    content_type: str,  # checked by `check_media_type`
    class_names: Sequence[str],
    *,
    max_bytes: int,  # limit of the inflated size of an archive
) -> Upload:
    """Read an uploaded file."""
    media_type = content_type.partition(";")[0].strip().lower()
    if media_type in NPZ_TYPES:
        return Upload(_required(read_arrays(path, max_bytes=max_bytes)))
    if media_type in CSV_TYPES:
        return Upload(_in_order(read_csv(path), class_names))
    if media_type in FORM_TYPES:
        return _form(form_parts(path, content_type), max_bytes)
    return _document(_json(path.read_bytes(), "the body"))


def _required(arrays: Mapping[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
    if UNNAMED in arrays and "labels" not in arrays:
        raise InvalidRequest(
            "an .npy file has no labels: send an .npz, or a form with the parts logits and labels"
        )
    return dict(arrays)


def _document(document: object) -> Upload:
    if not isinstance(document, Mapping):
        raise InvalidRequest(
            f"the body must be an object with labels and one of {', '.join(_MATRICES)} and images"
        )
    unknown = sorted(set(document) - set(_FIELDS))
    if unknown:
        raise InvalidRequest(f"unknown field {unknown[0]!r}; expected {', '.join(_FIELDS)}")
    upload = Upload({})
    for name, values in document.items():
        if values is not None:
            upload = _with_field(upload, name, values)
    return upload


def _with_field(upload: Upload, name: str, values: object) -> Upload:
    if name == "images":
        return replace(upload, pictures=pictures_from_base64(values))
    array = _matrix(name, values) if name in _MATRICES else _vector(name, values)
    return replace(upload, arrays={**upload.arrays, name: array})


def _form(parts: Sequence[FormPart], max_bytes: int) -> Upload:
    """One part for each array (``.npy`` or JSON), and one part ``image`` for each picture."""
    pictures = [part.content for part in parts if part.name == _PICTURE]
    upload = Upload({}, pictures or None)
    seen: set[str] = set()
    for part in parts:
        if part.name == _PICTURE:
            continue
        if part.name not in _FIELDS:
            raise InvalidRequest(
                f"unknown part {part.name[:40]!r}; expected {', '.join((*_FIELDS, _PICTURE))}"
            )
        if part.name in seen or (part.name == "images" and pictures):
            raise InvalidRequest(f"part {part.name!r} is given twice")
        seen.add(part.name)
        if part.content.startswith(_NPY):
            array = read_arrays(part.content, max_bytes=max_bytes, name=part.name)[UNNAMED]
            upload = replace(upload, arrays={**upload.arrays, part.name: array})
        else:
            upload = _with_field(upload, part.name, _json(part.content, f"part {part.name}"))
    return upload


def _in_order(rows: Rows, class_names: Sequence[str]) -> dict[str, NDArray[Any]]:
    """The arrays of a table, with the columns in the order of the model's classes."""
    arrays: dict[str, Any] = dict(rows.arrays)
    if UNSPECIFIED in arrays:
        arrays["logits"] = arrays.pop(UNSPECIFIED)
    given, k = rows.class_names or (), len(class_names)
    labels: list[int | str] = arrays.get("labels", [])
    if given == tuple(str(index) for index in range(k)):
        # The table names its columns by index, so its labels are indices too.
        classes = set(class_names)
        labels = [
            int(v) if isinstance(v, str) and v not in classes and v in given else v for v in labels
        ]
    elif sorted(given) != sorted(class_names):
        raise InvalidRequest(
            f"the columns must be the {k} classes of the model, by name or as 0 to {k - 1}, "
            f"got {len(given)} that begin with {''.join(given[:1])[:40]!r}"
        )
    else:
        numbers = next(name for name in _MATRICES if name in arrays)
        places = [given.index(name) for name in class_names]
        arrays[numbers] = np.asarray(arrays[numbers])[:, places]
        # An integer is an index of the table's own columns.
        labels = [given[v] if isinstance(v, int) and 0 <= v < k else v for v in labels]
    return arrays if not labels else {**arrays, "labels": np.asarray(labels, object)}


def _json(text: bytes, what: str) -> object:
    try:
        return orjson.loads(text)
    except orjson.JSONDecodeError as error:
        raise BadRequest(f"{what} is not JSON: {error.msg} at character {error.pos}") from None


def _matrix(name: str, values: object) -> NDArray[np.float64]:
    if not isinstance(values, list) or not values:
        raise InvalidRequest(f"{name} must be a non-empty list of rows")
    for index, row in enumerate(values):
        if not isinstance(row, list) or len(row) != len(values[0]):
            length = f"{len(values[0])} numbers" if isinstance(values[0], list) else "numbers"
            raise InvalidRequest(f"{name}[{index}] must be a list of {length}")
        # bool is an int to NumPy; text and null would become objects.
        if not {float, int}.issuperset(map(type, row)):
            raise InvalidRequest(f"{name}[{index}] must hold numbers only")
    try:
        return np.asarray(values, np.float64)
    except OverflowError:
        raise InvalidRequest(f"{name} must hold numbers within the range of float64") from None


def _vector(name: str, values: object) -> NDArray[Any]:
    kinds = set(map(type, values)) if isinstance(values, list) else set()
    allowed = {int, float} if name == "weights" else {int, str}
    if not kinds or not kinds <= allowed:
        what = "numbers" if name == "weights" else "integers or texts"
        raise InvalidRequest(f"{name} must be a non-empty list of {what}")
    mixed = {int, str} <= kinds
    try:
        return np.asarray(values, object if mixed else np.float64 if name == "weights" else None)
    except OverflowError:
        raise InvalidRequest(f"{name} must hold numbers within the range of int64") from None
