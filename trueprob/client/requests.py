"""Builds requests: paths, headers and bodies. Pure functions, without any input or output."""

from __future__ import annotations

import base64
import io
import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Final
from urllib.parse import quote

import numpy as np
from numpy.typing import ArrayLike

from trueprob.arrays.array_types import plain_array
from trueprob.arrays.calibration_set import CalibrationSet
from trueprob.client.transport import HttpRequest
from trueprob.errors import InvalidInput

__all__ = [
    "NPZ",
    "CalibrationRows",
    "ClassLabels",
    "get",
    "if_match",
    "json_request",
    "label_requests",
    "model_path",
    "prediction_request",
    "row_label_requests",
    "rows_request",
]

CalibrationRows = CalibrationSet | Mapping[str, ArrayLike] | Path | bytes
ClassLabels = Sequence[int | str] | ArrayLike
JSON: Final = "application/json"
NPY: Final = "application/x-npy"
NPZ: Final = "application/x-npz"
CSV: Final = "text/csv"
MAX_LABELS: Final = 100_000  # in one request; more are sent in several requests
MAX_VALUES: Final = 1_000_000  # in one request: about 20 MB of JSON; the service takes 64 MiB
LONGEST_WAIT_SECONDS: Final = 60.0  # the service's limit of Prefer: wait


def model_path(model: str, *segments: str | int) -> str:
    """The path of a model, or of a resource of it; each segment is escaped."""
    escaped = (quote(str(segment), safe=":") for segment in (model, *segments))
    return "/v1/models/" + "/".join(escaped)


def get(
    path: str, params: Mapping[str, Any] | None = None, *, accept: str | None = None
) -> HttpRequest:
    """A GET request."""
    headers = {} if accept is None else {"accept": accept}
    return HttpRequest("GET", path, params or {}, headers, retry=True)


def json_request(
    method: str,
    path: str,
    document: Mapping[str, Any],
    *,
    params: Mapping[str, Any] | None = None,
    headers: Mapping[str, str] | None = None,
    retry: bool = False,
    wait_seconds: float = 0.0,
) -> HttpRequest:
    """A request with a JSON body, without the members that are None."""
    given = {name: value for name, value in document.items() if value is not None}
    return HttpRequest(
        method,
        path,
        params or {},
        {"content-type": JSON, **(headers or {}), **_prefer(wait_seconds)},
        json.dumps(given, allow_nan=False).encode(),
        retry,
        wait_seconds,
    )


def rows_request(
    path: str, rows: CalibrationRows, params: Mapping[str, Any], *, wait_seconds: float = 0.0
) -> HttpRequest:
    """An upload of rows, as ``.npz``, ``.csv`` or, for encoded images, JSON."""
    content, media_type = _encoded_rows(rows)
    headers = {"content-type": media_type, **_prefer(wait_seconds)}
    return HttpRequest("POST", path, params, headers, content, True, wait_seconds)


def if_match(revision: int) -> dict[str, str]:
    """The If-Match header, which names the live revision that a decision is based on."""
    return {"if-match": f'"{revision}"'}


def prediction_request(
    model: str,
    # Numbers by what they are, `images` (files) and `inputs` (arrays by name); None: not given.
    choices: Mapping[str, Any],
    params: Mapping[str, Any],
    *,
    binary: bool,
    ids: Sequence[str | int] | None = None,  # of the rows
) -> HttpRequest:
    """A prediction: one array as ``.npy`` or ``.npz``; images, or several arrays, as JSON."""
    given = {name: values for name, values in choices.items() if values is not None}
    if len(given) != 1:
        raise InvalidInput(
            f"exactly one of {', '.join(choices)} is needed, got "
            f"{', '.join(given) if given else 'none'}",
            field="logits",
        )
    ((name, values),) = given.items()
    path = model_path(model, "probabilities")
    if name == "images":
        document: dict[str, Any] = {"images": _base64(values)}
        empty = not len(values)
    elif name == "inputs":
        arrays = {key: plain_array(value, f"inputs.{key}") for key, value in values.items()}
        document = {"inputs": {key: array.tolist() for key, array in arrays.items()}}
        empty = all(array.size == 0 for array in arrays.values())
    else:
        array = plain_array(values, name)
        document, empty = {}, array.size == 0
    # JSON has no shape of an answer without rows.
    accept = {"accept": NPZ if binary or empty else JSON}
    if document:
        document["ids"] = None if ids is None else list(ids)
        return json_request("POST", path, document, params=params, headers=accept, retry=True)
    buffer = io.BytesIO()
    if ids is not None:
        named: dict[str, Any] = {name: array, "ids": np.array([str(each) for each in ids], np.str_)}
        np.savez(buffer, allow_pickle=False, **named)
        headers = {"content-type": NPZ, **accept}
        return HttpRequest("POST", path, params, headers, buffer.getvalue(), True)
    np.save(buffer, array, allow_pickle=False)
    headers = {"content-type": NPY, **accept}
    return HttpRequest("POST", path, {**params, "input": name}, headers, buffer.getvalue(), True)


def label_requests(
    model: str,
    given: Sequence[str | int],
    labels: ClassLabels,
    *,
    name: str = "prediction_ids",  # what is given: prediction_ids or ids
    wait_seconds: float | None = None,  # for ids that are not there yet; None: the service's limit
) -> Iterator[tuple[int, HttpRequest]]:
    """Labels by ids: (index of the first label, request) for each request needed."""
    ids, values = list(given), _listed(labels)
    if len(ids) != len(values):
        raise InvalidInput(
            f"labels must be as many as {name}, {len(ids)}, got {len(values)}", field="labels"
        )
    path, params = model_path(model, "labels"), {"wait": wait_seconds}
    for start in range(0, max(len(ids), 1), MAX_LABELS):
        sent = slice(start, start + MAX_LABELS)
        document = {name: ids[sent], "labels": values[sent]}
        yield start, json_request("POST", path, document, params=params, retry=True)


def row_label_requests(
    model: str,
    ids: Sequence[str],
    logits: ArrayLike,
    labels: ClassLabels,
    groups: ClassLabels | None,
    version: int | None,
) -> Iterator[tuple[int, HttpRequest]]:
    """Labels with logits: (index of the first label, request) for each request needed."""
    matrix = plain_array(logits, "logits").astype(np.float64)
    masked = np.isneginf(matrix)
    columns: dict[str, list[Any]] = {"id": list(ids), "label": _listed(labels)}
    if groups is not None:
        columns["group"] = _listed(groups)
    n = len(matrix) if matrix.ndim else 0
    for name, values in columns.items():
        if matrix.ndim != 2 or len(values) != n:
            raise InvalidInput(
                f"logits must have shape ({len(values)}, k), one row for each {name}, "
                f"got {matrix.shape}",
                field="logits",
            )
    path = model_path(model, "labels")
    step = max(1, min(MAX_LABELS, MAX_VALUES // max(matrix.shape[1], 1)))
    for start in range(0, max(n, 1), step):
        rows = [
            {**{name: columns[name][index] for name in columns}, "logits": matrix[index].tolist()}
            for index in range(start, min(start + step, n))
        ]
        document: dict[str, Any] = {"rows": rows}
        if masked[start : start + step].any():
            document["masked"] = True  # JSON has no minus infinity
            for row, cells in zip(rows, masked[start : start + step], strict=True):
                row["logits"] = [
                    None if cell else value
                    for cell, value in zip(cells, row["logits"], strict=True)
                ]
        yield start, json_request("POST", path, document, params={"version": version}, retry=True)


def _encoded_rows(rows: CalibrationRows) -> tuple[bytes | Path, str]:
    if isinstance(rows, bytes):
        return rows, NPZ
    if isinstance(rows, Path):
        return rows, CSV if rows.suffix.lower() == ".csv" else NPZ
    buffer = io.BytesIO()
    if isinstance(rows, CalibrationSet):
        rows.save(buffer)
        return buffer.getvalue(), NPZ
    images: Any = rows.get("images", ())
    if len(images) and isinstance(images[0], bytes):
        document = {name: _listed(values) for name, values in rows.items() if name != "images"}
        document["images"] = _base64(images)
        return json.dumps(document, allow_nan=False).encode(), JSON
    arrays: dict[str, Any] = {name: plain_array(values, name) for name, values in rows.items()}
    for name, array in arrays.items():
        if array.dtype.hasobject:
            raise InvalidInput(
                f"{name} must hold only numbers or only texts, got objects", field=name
            )
    np.savez(buffer, allow_pickle=False, **arrays)
    return buffer.getvalue(), NPZ


def _base64(images: Sequence[bytes]) -> list[str]:
    return [base64.b64encode(image).decode() for image in images]


def _listed(values: ClassLabels) -> list[Any]:
    if isinstance(values, Sequence):
        return [value.item() if isinstance(value, np.generic) else value for value in values]
    listed: list[Any] = np.atleast_1d(plain_array(values, "labels")).tolist()
    return listed


def _prefer(wait_seconds: float) -> dict[str, str]:
    if wait_seconds <= 0:
        return {}
    return {"prefer": f"wait={min(wait_seconds, LONGEST_WAIT_SECONDS):.0f}"}
