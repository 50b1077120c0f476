"""Receives the body of a prediction request and turns it into logits.

- `read_body` receives the bytes; `trueprob_service.edge.middleware` has limited their number.
- `JsonBodies` parses small JSON on the event loop and large JSON in one thread, with `json_rows`
  (predictions) or `oip` (Open Inference Protocol). Both parse a large body in blocks, so that the
  event loop can run in between.
- `BodyReader` decodes a body of any media type, and checks numbers or runs pictures through the
  network. If the client disconnects while its pictures wait, their work is cancelled; an ASGI
  server reports a disconnect only through ``receive``.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Coroutine, Iterable, MutableMapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, Final, NamedTuple, TypeVar

import numpy as np
from numpy.typing import NDArray
from starlette.requests import ClientDisconnect

from trueprob.arrays.logits import (
    as_logits,
    logits_from_log_probabilities,
    logits_from_probabilities,
    n_sums_off,
)
from trueprob_service.errors import (
    BadRequest,
    BodyTooLarge,
    InvalidRequest,
    ModelUnavailable,
    Overloaded,
    UnsupportedMediaType,
)
from trueprob_service.inference.deployment import Deployment
from trueprob_service.inference.network.inputs import NetworkInputs
from trueprob_service.inference.network.tensors import Tensors
from trueprob_service.inference.request import PredictionOptions
from trueprob_service.inference.wire import images, json_ids, json_rows, npy, oip

__all__ = [
    "INLINE_ARRAY_ELEMENTS",
    "INLINE_BYTES",
    "INLINE_ELEMENTS",
    "BodyReader",
    "JsonBodies",
    "ReadRows",
    "Receive",
    "check_refusal",
    "read_body",
    "read_whole",
    "rows_of_numbers",
    "run_network",
]

Decoded = TypeVar("Decoded")
Result = TypeVar("Result")
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]

INLINE_BYTES: Final = 1 << 18  # half a millisecond as an array, 4 ms as lists
_MAX_IN_PROGRESS: Final = 16  # large bodies being parsed or waiting, all in memory
# Above this many elements the work takes about a millisecond and is worth a thread.
INLINE_ELEMENTS: Final = 20_000
# A binary answer needs no text: 0.45 ms for 256 × 1000, 2 ms if there are few classes.
INLINE_ARRAY_ELEMENTS: Final = 1 << 18
# Logits are only checked, 0.2 µs per thousand; a thread takes 50 µs to start.
_INLINE_CHECK: Final = 1_000_000
_CHECKS: Final = {
    "logits": as_logits,
    "probabilities": logits_from_probabilities,
    "log_probabilities": logits_from_log_probabilities,
}


class ReadRows(NamedTuple):
    """Checked logits of a request, and the form in which they came."""

    logits: NDArray[np.float32]  # (n, k)
    is_json: bool
    is_images: bool = False
    # (n,) or (n, 1) for one score of class 1 per row, else None
    one_score: tuple[int, ...] | None = None
    normalised: bool = False  # whether probabilities did not sum to 1 within 1e-3
    ids: list[str] | None = None  # of the caller, beside the rows


async def read_body(
    request: PredictionOptions, headers: Iterable[tuple[bytes, bytes]], receive: Receive
) -> bytes | memoryview:
    """Receive the body of a prediction; a large ``.npy`` body goes into one preallocated buffer."""
    if request.media_type == npy.MEDIA_TYPE:
        declared = dict(headers).get(b"content-length", b"")
        if declared.isdigit() and int(declared) > npy.SHARED_BYTES:
            return await _read_sized(receive, int(declared))
    return await read_whole(receive)


async def read_whole(receive: Receive) -> bytes:
    """Receive the whole body."""
    chunks = []
    while True:
        message = await receive()
        if message["type"] == "http.disconnect":
            raise ClientDisconnect
        chunks.append(message.get("body", b""))
        if not message.get("more_body", False):
            return chunks[0] if len(chunks) == 1 else b"".join(chunks)


async def _read_sized(receive: Receive, size: int) -> memoryview:
    """Receive a body of a declared size into one preallocated buffer.

    Joining the pieces at the end would stop the event loop for one long copy.
    """
    body = np.empty(size, np.uint8).data
    filled = 0
    while True:
        message = await receive()
        if message["type"] == "http.disconnect":
            raise ClientDisconnect
        piece = message.get("body", b"")
        if len(piece) > size - filled:
            raise BadRequest(f"the body is longer than its Content-Length of {size} bytes")
        body[filled : filled + len(piece)] = piece
        filled += len(piece)
        if not message.get("more_body", False):
            return body[:filled]


class JsonBodies:
    """Parses JSON bodies without blocking other requests.

    One thread is enough for the large ones: parsers hold the interpreter's lock, so two would only
    take turns. Both methods raise `Overloaded` if too many large bodies are in progress.
    """

    def __init__(self) -> None:
        self._thread = ThreadPoolExecutor(1, "trueprob-json")
        self._in_progress = 0

    async def decode(
        self, body: bytes
    ) -> tuple[str, NDArray[Any] | list[bytes] | dict[str, NDArray[Any]]]:
        """Read a prediction body with `json_rows.decode`."""
        if len(body) <= INLINE_BYTES:
            return json_rows.decode(body)
        return await self._in_thread(lambda: json_rows.decode(body))

    async def without_ids(self, body: bytes) -> tuple[list[str] | None, bytes]:
        """Read the ids of a prediction body with `json_ids.without_ids`."""
        if len(body) <= INLINE_BYTES:
            return json_ids.without_ids(body)
        return await self._in_thread(lambda: json_ids.without_ids(body))

    async def decode_inference(self, body: bytes, header_length: int | None) -> oip.OipRequest:
        """Read an inference request with `oip.decode`; only the size of its JSON part matters."""
        if (len(body) if header_length is None else header_length) <= INLINE_BYTES:
            return oip.decode(body, header_length)
        return await self._in_thread(lambda: oip.decode(body, header_length))

    def close(self) -> None:
        """Stop the thread after the waiting bodies are parsed."""
        self._thread.shutdown()

    async def _in_thread(self, decode: Callable[[], Decoded]) -> Decoded:
        if self._in_progress >= _MAX_IN_PROGRESS:
            raise Overloaded(
                f"{_MAX_IN_PROGRESS} large JSON bodies are being parsed or wait to be parsed"
            )
        self._in_progress += 1
        try:
            return await asyncio.get_running_loop().run_in_executor(self._thread, decode)
        finally:
            self._in_progress -= 1


@dataclass(frozen=True)
class BodyReader:
    """Turns a request body of any accepted media type into logits."""

    json_bodies: JsonBodies
    max_pixels: int  # of one picture
    max_images: int  # of one request
    max_bytes: int = 64 << 20  # of the arrays of an `.npz` body

    async def logits(
        self,
        request: PredictionOptions,
        body: bytes | memoryview,  # memoryview for `.npy` only
        deployment: Deployment,
        receive: Receive | None = None,
    ) -> ReadRows:
        """Read the rows of a body."""
        media_type = request.media_type
        if media_type == npy.MEDIA_TYPE:
            array = npy.decode(body, name=request.array_input)
            if request.array_input == "rows":
                return ReadRows(await _run_rows(array, deployment, receive), False)
            return await rows_of_numbers(request.array_input, array, deployment, is_json=False)
        body = bytes(body)
        if media_type == npy.NPZ_MEDIA_TYPE:
            return await self._npz_rows(body, deployment, receive)
        if media_type == json_rows.MEDIA_TYPE:
            if not json_rows.may_have_ids(body):
                return await self._json_rows(body, deployment, receive)
            ids, rest = await self.json_bodies.without_ids(body)
            return (await self._json_rows(rest, deployment, receive))._replace(ids=ids)
        if media_type in images.READ_MEDIA_TYPES:
            return ReadRows(await self._run_pictures([body], deployment, receive), False, True)
        if media_type == images.MULTIPART_MEDIA_TYPE:
            pictures = images.pictures_from_multipart(
                body, request.content_type, max_parts=self.max_images
            )
            return ReadRows(await self._run_pictures(pictures, deployment, receive), False, True)
        accepted = (
            json_rows.MEDIA_TYPE, npy.MEDIA_TYPE, npy.NPZ_MEDIA_TYPE, *images.MEDIA_TYPES,
        )  # fmt: skip
        raise UnsupportedMediaType(
            f"Content-Type {media_type or 'none'} is not supported: expected {', '.join(accepted)} "
            f"or {images.MULTIPART_MEDIA_TYPE}"
        )

    async def _json_rows(
        self, body: bytes, deployment: Deployment, receive: Receive | None
    ) -> ReadRows:
        name, values = await self.json_bodies.decode(body)
        if isinstance(values, list):
            return ReadRows(await self._run_pictures(values, deployment, receive), True, True)
        if isinstance(values, dict) or name == "rows":
            return ReadRows(await _run_rows(values, deployment, receive), True)
        return await rows_of_numbers(name, values, deployment, is_json=True)

    async def _npz_rows(
        self, body: bytes, deployment: Deployment, receive: Receive | None
    ) -> ReadRows:
        names, size = json_rows.MATRICES, self.max_bytes
        name, array, ids = await asyncio.to_thread(npy.decode_npz, body, names, max_bytes=size)
        if name == "rows":
            return ReadRows(await _run_rows(array, deployment, receive), False, ids=ids)
        read = await rows_of_numbers(name, array, deployment, is_json=False)
        return read._replace(ids=ids)

    async def _run_pictures(
        self, pictures: list[bytes], deployment: Deployment, receive: Receive | None
    ) -> NDArray[np.float32]:
        accepted = _network_inputs(deployment)
        if len(pictures) > self.max_images:
            raise BodyTooLarge(
                f"images must be at most {self.max_images} per request, got {len(pictures)}"
            )
        if not pictures:
            return _no_rows(deployment)
        decode = (accepted.pictures or accepted.require_pictures()).decode
        tensor = await asyncio.to_thread(decode, pictures, max_pixels=self.max_pixels)
        return await run_network(deployment, tensor, receive)


def _network_inputs(deployment: Deployment) -> NetworkInputs:
    accepted = None if deployment.network is None else deployment.served.inputs
    if accepted is None:
        check_refusal(deployment)
        raise InvalidRequest(
            f"model {deployment.served.model!r} version {deployment.served.version} has no "
            "network here: send logits, probabilities or log_probabilities"
        )
    return accepted


async def _run_rows(
    values: NDArray[Any] | dict[str, NDArray[Any]], deployment: Deployment, receive: Receive | None
) -> NDArray[np.float32]:
    """Run the network on rows of numbers, or on arrays by the names of its inputs."""
    accepted = _network_inputs(deployment)
    if isinstance(values, dict):
        return await run_network(deployment, accepted.from_fields(values), receive)
    rows = accepted.from_rows(values)
    return await run_network(deployment, accepted.tensors(rows), receive)


async def rows_of_numbers(
    name: str,  # says what the numbers are
    values: NDArray[Any],
    deployment: Deployment,
    *,
    is_json: bool,
) -> ReadRows:
    """Check rows of numbers, or one score of class 1 per row; an empty batch has no rows."""
    n_classes = deployment.served.n_classes
    if values.shape in ((0,), (0, n_classes)) or (n_classes == 2 and values.shape == (0, 1)):
        # A JSON list without rows may stand for either form, an array has its shape.
        one = n_classes == 2 and values.shape != (0, 2) and not (is_json and values.ndim == 1)
        return ReadRows(_no_rows(deployment), is_json, one_score=values.shape if one else None)
    logits = await _checked_logits(name, values, n_classes)
    one_score = values.shape if values.shape != logits.shape else None
    if name != "probabilities" or one_score is not None:
        return ReadRows(logits, is_json, one_score=one_score)
    if values.size <= INLINE_ELEMENTS:
        return ReadRows(logits, is_json, normalised=n_sums_off(values) > 0)
    off = await asyncio.to_thread(n_sums_off, values)
    return ReadRows(logits, is_json, normalised=off > 0)


def _no_rows(deployment: Deployment) -> NDArray[np.float32]:
    return np.empty((0, deployment.served.n_classes), np.float32)


async def _checked_logits(name: str, values: NDArray[Any], n_classes: int) -> NDArray[np.float32]:
    """Check values and convert them to logits, many in a thread; `name` says what they are."""
    check = _CHECKS[name]
    if values.size <= (_INLINE_CHECK if name == "logits" else INLINE_ELEMENTS):
        return check(values, n_classes=n_classes)
    return await asyncio.to_thread(check, values, n_classes=n_classes)


async def run_network(
    deployment: Deployment, tensors: Tensors, receive: Receive | None
) -> NDArray[np.float32]:
    """Run the network on its inputs through the batcher; raises for what are no logits."""
    network = deployment.network
    if network is None:
        raise ModelUnavailable(f"model {deployment.served.model!r} has no network here")
    if not len(tensors):
        return _no_rows(deployment)
    logits = await _while_connected(network.run(tensors), receive)
    if not np.isfinite(logits).all():
        _require_masks(logits)
    return logits


def _require_masks(logits: NDArray[np.float32]) -> None:
    """Raise `ModelUnavailable` unless all that is not finite is a mask, and a class is left."""
    masked = np.isneginf(logits)
    usable = (np.isfinite(logits) | masked).all(axis=1)
    if not usable.all():
        row = int(np.argmin(usable))
        raise ModelUnavailable(f"the network gave logits that are not finite in row {row}")
    if (none_left := masked.all(axis=1)).any():
        row = int(np.argmax(none_left))
        raise ModelUnavailable(f"the network masks all classes, by minus infinity, in row {row}")


def check_refusal(deployment: Deployment) -> None:
    """Raise `ModelUnavailable` if the version has a network that was refused here."""
    served = deployment.served
    if served.refusal is not None:
        raise ModelUnavailable(
            f"the network of model {served.model!r} version {served.version} does not run here: "
            f"{served.refusal}; logits, probabilities and log_probabilities are still answered"
        )


async def _while_connected(work: Coroutine[Any, Any, Result], receive: Receive | None) -> Result:
    """Await work, or cancel it and raise `ClientDisconnect` when the client disconnects."""
    if receive is None:
        return await work
    working = asyncio.ensure_future(work)
    disconnected = asyncio.ensure_future(_wait_for_disconnect(receive))
    try:
        await asyncio.wait((working, disconnected), return_when=asyncio.FIRST_COMPLETED)
        if not working.done():
            raise ClientDisconnect
        return working.result()
    finally:
        working.cancel()
        disconnected.cancel()
        await asyncio.gather(working, disconnected, return_exceptions=True)


async def _wait_for_disconnect(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass
