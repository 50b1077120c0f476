"""Bodies of the Open Inference Protocol v2: a JSON object, then the bytes of its binary tensors.

A tensor is JSON numbers (nested or flat) or raw little-endian bytes after the JSON, in the order of
``inputs``; one body may mix the two. The formats are those of the protocol's inference_rest.md and
of Triton's binary tensor data extension. The names of tensors are interpreted in
`trueprob_service.inference.open_inference.routes`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

import orjson

from trueprob_service.edge.json_blocks import BLOCK_BYTES
from trueprob_service.errors import BadRequest, InvalidRequest
from trueprob_service.inference.wire import json_rows
from trueprob_service.inference.wire.oip_tensors import (
    OipInput,
    OipOutput,
    from_binary,
    from_json,
    request_in_blocks,
    simd_request,
    text_field,
)

__all__ = ["HEADER_LENGTH", "OipRequest", "OutputChoice", "decode", "encode"]

HEADER_LENGTH: Final = "inference-header-content-length"
# Extensions of other servers; an answer that ignored them would be wrong.
_UNSUPPORTED: Final = ("shared_memory_region", "classification")


@dataclass(frozen=True)
class OutputChoice:
    """An output that the client requests by name, as bytes or as JSON."""

    name: str
    binary: bool


@dataclass(frozen=True)
class OipRequest:
    """An inference request, its tensors as arrays."""

    id: str | None  # repeated in the answer
    inputs: tuple[OipInput, ...]
    outputs: tuple[OutputChoice, ...] = ()  # empty: the default outputs
    binary_output: bool = False  # for outputs that do not set `binary_data`
    remember_id: bool = False  # whether `id` is the caller's own id of the rows


def decode(
    body: bytes,  # after Content-Encoding was undone
    header_length: int | None,  # of the JSON at the start; None: the whole body is JSON
    *,
    block_bytes: int = BLOCK_BYTES,
) -> OipRequest:
    """Read an inference request.

    Raises `BadRequest` if its first part is not JSON or the number of bytes does not fit lengths
    and shapes, and `InvalidRequest` if a field is missing or has an unusable value.
    """
    length = len(body) if header_length is None else header_length
    if length > len(body):
        raise BadRequest(f"{HEADER_LENGTH} is {length}, but the body has {len(body)} bytes")
    head = body[:length]
    parsed: dict[str, Any] | None = None
    if length > block_bytes:
        parsed = request_in_blocks(head, block_bytes=block_bytes)
    elif length >= json_rows.MIN_BYTES:
        parsed = simd_request(head)
    try:
        document = orjson.loads(head) if parsed is None else parsed
    except orjson.JSONDecodeError as error:
        raise BadRequest(
            f"the request is not JSON in its first {length} bytes: {error.msg} at byte {error.pos}"
        ) from None
    if not isinstance(document, dict):
        raise InvalidRequest("expected a JSON object with inputs")
    items = _objects(document, "inputs")
    # `array` reads true as 1; a request without these words has no booleans.
    may_hold_bools = any(isinstance(item.get("data"), list) for item in items) and (
        b"true" in head or b"false" in head
    )
    inputs, start = [], length
    for i, item in enumerate(items):
        where = f"inputs[{i}]"
        size = _parameters(item, where).get("binary_data_size")
        if size is None:
            tensor = from_json(item, where, may_hold_bools=may_hold_bools)
        else:
            if header_length is None:
                raise BadRequest(f"{where} has binary data: expected the header {HEADER_LENGTH}")
            tensor, start = from_binary(item, where, size, body, start)
        inputs.append(tensor)
    if start != len(body):
        raise BadRequest(f"{len(body) - start} bytes follow the last tensor, expected none")
    parameters = _parameters(document, "the request")
    binary_output = _flag(parameters, "binary_data_output", False)
    remember_id = _flag(parameters, "remember_id", False)
    outputs = _outputs(document, binary_output)
    request_id = document.get("id")
    if request_id is not None and not isinstance(request_id, str):
        raise InvalidRequest("id must be a string")
    if remember_id and not request_id:
        raise InvalidRequest("remember_id needs an id of the request")
    return OipRequest(request_id, tuple(inputs), outputs, binary_output, remember_id)


def encode(document: dict[str, Any], outputs: Sequence[OipOutput]) -> tuple[bytes, int | None]:
    """Write a response: its body, and the length of the JSON part if binary tensors follow."""
    entries, parts = [], []
    for output in outputs:
        entry, part = output.to_wire()
        entries.append(entry)
        if part is not None:
            parts.append(part)
    # One by one, because `json_rows.encode` writes large arrays some rows at a time.
    listed = b",".join(map(json_rows.encode, entries))
    head = orjson.dumps(document)[:-1] + b',"outputs":[' + listed + b"]}"
    return b"".join((head, *parts)), len(head) if parts else None


def _objects(document: dict[str, Any], name: str) -> list[dict[str, Any]]:
    items = document.get(name)
    if not isinstance(items, list) or not all(isinstance(item, dict) for item in items):
        raise InvalidRequest(f"{name} must be a list of objects")
    return items


def _parameters(item: dict[str, Any], where: str) -> dict[str, Any]:
    parameters = item.get("parameters")
    if parameters is None:
        return {}
    if not isinstance(parameters, dict):
        raise InvalidRequest(f"parameters of {where} must be an object")
    for name in _UNSUPPORTED:
        if name in parameters:
            raise InvalidRequest(f"{where} asks for {name}, an extension that is not offered here")
    return parameters


def _flag(parameters: dict[str, Any], name: str, default: bool) -> bool:
    value = parameters.get(name, default)
    if not isinstance(value, bool):
        raise InvalidRequest(f"{name} must be true or false")
    return value


def _outputs(document: dict[str, Any], binary: bool) -> tuple[OutputChoice, ...]:
    if document.get("outputs") is None:
        return ()
    outputs: dict[str, OutputChoice] = {}
    for i, item in enumerate(_objects(document, "outputs")):
        name = text_field(item, "name", f"outputs[{i}]")
        if name in outputs:
            raise InvalidRequest(f"outputs[{i}]: {name[:40]!r} is requested twice")
        parameters = _parameters(item, f"outputs[{i}]")
        outputs[name] = OutputChoice(name, _flag(parameters, "binary_data", binary))
    return tuple(outputs.values())
