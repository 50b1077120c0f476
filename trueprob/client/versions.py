"""Uploading a network, as a flow (see `trueprob.client.flow`)."""

from __future__ import annotations

import json
import secrets
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from trueprob.client.answers import UploadedVersion, read
from trueprob.client.flow import Flow, Request, address, answered
from trueprob.client.rows_body import Rows, rows_body
from trueprob.errors import InvalidInput

__all__ = ["add_version"]

PATIENCE_SECONDS: Final = 600.0  # the network is loaded and run, and a calibrator may be fitted


def add_version(
    model: str,
    network: Path | bytes,
    *,
    class_names: Sequence[str] | None = None,
    calibration: Rows | None = None,
    **options: str,
) -> Flow[UploadedVersion]:
    """Upload a classifier in ONNX as a model's next version; it is not live but the first is.

    Parameters
    ----------
    model : str
    network : Path or bytes
        A ``model.onnx`` that holds its weights.
    class_names : sequence of str, optional
        In index order; default: the indices.
    calibration : optional
        As the rows of `upload`, but no ``.csv`` and no encoded pictures.
    **options : str
        What the graph does not say, as the flags of ``trueprob-service register`` with
        underscores: ``layout``, ``mean``, ``std``, ``method``, ...
    """
    parts = {name: value.encode() for name, value in options.items()}
    parts["model"] = network.read_bytes() if isinstance(network, Path) else network
    if class_names is not None:
        parts["class_names"] = json.dumps(list(class_names)).encode()
    if calibration is not None:
        content, kind = rows_body(calibration)
        if kind != "application/x-npz":
            raise InvalidInput("calibration must be arrays or an .npz file", field="calibration")
        parts["calibration"] = content.read_bytes() if isinstance(content, Path) else content
    body, headers = _form(parts)
    path = address("v1", "models", model, "versions")
    # Not again: a second one would be a second version.
    request = Request("POST", path, {}, headers, body, wait_seconds=PATIENCE_SECONDS)
    return read(UploadedVersion, (yield from answered(request)).json())


def _form(parts: dict[str, bytes]) -> tuple[bytes, dict[str, str]]:
    boundary = secrets.token_hex(16)
    pieces = []
    for name, content in parts.items():
        head = f'--{boundary}\r\nContent-Disposition: form-data; name="{name}"\r\n\r\n'
        pieces += [head.encode(), content, b"\r\n"]
    pieces.append(f"--{boundary}--\r\n".encode())
    return b"".join(pieces), {"content-type": f"multipart/form-data; boundary={boundary}"}
