"""From the bytes of an upload to named arrays: ``.npz`` and JSON.

Nothing here knows a model: shapes, classes and values are checked by `trueprob.CalibrationSet`.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import numpy as np
import orjson
from numpy.typing import NDArray

from service.errors import BadRequest, InvalidRequest, UnsupportedMediaType
from trueprob.calibration_set import read_arrays

__all__ = ["JSON_TYPES", "NPZ_TYPES", "check_media_type", "read_upload"]

NPZ_TYPES: Final = ("application/x-npz", "application/octet-stream", "application/zip")
JSON_TYPES: Final = ("application/json",)
_MATRICES: Final = ("logits", "probabilities", "log_probabilities")
_VECTORS: Final = ("labels", "weights", "groups")


def check_media_type(media_type: str) -> None:
    """Refuse what cannot be read before any of it is received.

    Raises
    ------
    UnsupportedMediaType
    """
    if media_type not in (*NPZ_TYPES, *JSON_TYPES):
        raise UnsupportedMediaType(
            f"Content-Type must be {', '.join((*NPZ_TYPES, *JSON_TYPES))}, "
            f"got {media_type or 'none'}"
        )


def read_upload(path: Path, media_type: str, *, max_bytes: int) -> dict[str, NDArray[Any]]:
    """Named arrays of an uploaded file.

    Parameters
    ----------
    path : Path
    media_type : str
        One of `NPZ_TYPES` or `JSON_TYPES`.
    max_bytes : int
        Limit of what an archive inflates to.

    Raises
    ------
    InvalidInput, InvalidRequest, BadRequest
    """
    if media_type in NPZ_TYPES:
        return read_arrays(path, max_bytes=max_bytes)
    try:
        document = orjson.loads(path.read_bytes())
    except orjson.JSONDecodeError as error:
        raise BadRequest(f"the body is not JSON: {error.msg} at character {error.pos}") from None
    return _arrays(document)


def _arrays(document: object) -> dict[str, NDArray[Any]]:
    if not isinstance(document, Mapping):
        raise InvalidRequest(
            "the body must be an object with labels and one of logits, "
            "probabilities and log_probabilities"
        )
    unknown = sorted(set(document) - {*_MATRICES, *_VECTORS})
    if unknown:
        raise InvalidRequest(
            f"unknown field {unknown[0]!r}; expected {', '.join((*_MATRICES, *_VECTORS))}"
        )
    arrays: dict[str, NDArray[Any]] = {}
    for name, values in document.items():
        if values is not None:
            arrays[name] = _matrix(name, values) if name in _MATRICES else _vector(name, values)
    return arrays


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
