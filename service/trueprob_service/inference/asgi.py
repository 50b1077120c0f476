"""The hot routes as a plain ASGI application in front of the rest.

What is not one of them goes on to `fallback` (FastAPI) untouched, and what goes wrong goes up to
`trueprob_service.edge.middleware.Edge`, which answers it. A prediction's path is: body →
wire → logits (through the network for pictures) → the deployment captured once → answer → wire.
No database, no pydantic, no queue and no lock for logits.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Awaitable, Callable, MutableMapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Final

import numpy as np
import orjson
from numpy.typing import NDArray

from trueprob_service.errors import MethodNotAllowed
from trueprob_service.inference.answer import Answer, compute
from trueprob_service.inference.answer_fields import answer_fields
from trueprob_service.inference.body import INLINE_ARRAY_ELEMENTS, INLINE_ELEMENTS, BodyReader
from trueprob_service.inference.body_stream import read_body, read_whole
from trueprob_service.inference.deployment import Deployment, Headers
from trueprob_service.inference.elsewhere import Elsewhere
from trueprob_service.inference.network.cores import usable_cores
from trueprob_service.inference.oip_routes import ROUTES, Call
from trueprob_service.inference.open_inference import routes as open_inference
from trueprob_service.inference.request import PredictionRequest
from trueprob_service.inference.wire import json_rows as wire_json
from trueprob_service.inference.wire import npy as wire_npy
from trueprob_service.inference.wire import npz as wire_npz
from trueprob_service.inference.wire.oip import HEADER_LENGTH
from trueprob_service.receipts.receipt import Receipts

__all__ = ["HOT_ROUTES", "HotRoutes"]

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
Body = bytes | tuple[bytes, memoryview]
Application = Callable[[Scope, Receive, Send], Awaitable[None]]

PREDICT: Final = "/v1/models/{model}/probabilities"
LIVE: Final = "/v2/health/live"
READY: Final = "/v2/health/ready"
# Template → methods; trueprob_service.prediction_routes documents these.
HOT_ROUTES: Final = {
    PREDICT: ("POST",),
    LIVE: ("GET", "HEAD"),
    READY: ("GET", "HEAD"),
    **ROUTES,
}
_PREDICT_PATH: Final = re.compile(r"^/v1/models/([^/]+)/probabilities$")


class HotRoutes:
    """Predictions, health and the Open Inference Protocol."""

    def __init__(
        self,
        fallback: Application,  # everything else
        *,
        deployments: Elsewhere,
        receipts: Callable[[], Receipts],
        readiness: Callable[[], tuple[bool, dict[str, Any]]],
        bodies: BodyReader,
    ) -> None:
        self._fallback = fallback
        self._deployments = deployments
        self._receipts = receipts
        self._readiness = readiness
        self._bodies = bodies
        # No more at once than there are cores: others would only take turns with the loop.
        self._large = ThreadPoolExecutor(usable_cores(), thread_name_prefix="trueprob-large")

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a hot route, or hand on."""
        if scope["type"] != "http":
            await self._fallback(scope, receive, send)
            return
        path: str = scope["path"]
        match = _PREDICT_PATH.match(path)
        call = Call.from_path(path) if match is None else None
        if match is None and call is None and path not in (LIVE, READY):
            await self._fallback(scope, receive, send)
            return
        scope["trueprob.route"] = PREDICT if match else call.route if call else path
        methods = HOT_ROUTES[scope["trueprob.route"]]
        if scope["method"] not in methods:
            raise MethodNotAllowed(f"{path} takes {', '.join(methods)}, got {scope['method']}")
        if match is not None:
            await self._predict(match[1], scope, receive, send)
        elif call is not None:
            await self._open_inference(call, scope, receive, send)
        else:
            await self._health(path, send)

    async def _health(self, path: str, send: Send) -> None:
        if path == LIVE:
            await _send(send, 200, orjson.dumps({"live": True}), ())
            return
        ready, document = self._readiness()
        await _send(send, 200 if ready else 503, orjson.dumps(document), ())

    async def _predict(self, model: str, scope: Scope, receive: Receive, send: Send) -> None:
        request = PredictionRequest.from_scope(scope)
        # Captured once: whatever is promoted from here on, this request answers with this pair.
        deployment = await self._deployments.current(model, request.version)
        request.check_top(deployment.served.n_classes)
        logits, is_json, is_images = await self._bodies.logits(
            request, await read_body(request, scope["headers"], receive), deployment, receive
        )
        wanted = request.wants_receipts(is_json=is_json, is_images=is_images, n=len(logits))
        as_text = request.answer_type == wire_json.MEDIA_TYPE
        if logits.size <= (INLINE_ELEMENTS if as_text else INLINE_ARRAY_ELEMENTS):
            body, headers = self._answer(request, deployment, logits, wanted)
        else:
            loop = asyncio.get_running_loop()
            body, headers = await loop.run_in_executor(
                self._large, self._answer, request, deployment, logits, wanted
            )
        await _send(send, 200, body, headers, media_type=request.answer_type)

    def _answer(
        self,
        request: PredictionRequest,
        deployment: Deployment,
        logits: NDArray[np.float32],
        receipts: bool,
    ) -> tuple[Body, Headers]:
        answer = compute(deployment, logits)
        deployment.meters.observe(
            answer.logit_gap, answer.temperature, answer.confidence, answer.probabilities
        )
        issued = receipts and deployment.revision is not None
        ids = answer.prediction_ids(self._receipts()) if issued else None
        return _encode(request, answer, ids), deployment.headers

    async def _open_inference(self, call: Call, scope: Scope, receive: Receive, send: Send) -> None:
        if call.model is None or scope["method"] != "POST":
            reply = await open_inference.describe(call, self._deployments)
            await _send(send, 200, reply.body, ())
            return
        deployment = await self._deployments.current(call.model, call.version)
        reply = await open_inference.infer(
            dict(scope["headers"]), await read_whole(receive), deployment,
            bodies=self._bodies, receipts=self._receipts, receive=receive,
        )  # fmt: skip
        headers = deployment.headers
        if reply.header_length is not None:
            length = str(reply.header_length).encode()
            headers = (*headers, (HEADER_LENGTH.lower().encode(), length))
        await _send(send, 200, reply.body, headers, media_type=reply.media_type)


def _encode(request: PredictionRequest, answer: Answer, ids: list[str] | None) -> Body:
    if request.answer_type == wire_npy.MEDIA_TYPE:
        return wire_npy.encode(answer.probabilities)
    fields = answer_fields(answer, request.fields, top=request.top, prediction_ids=ids)
    if request.answer_type == wire_npz.NPZ_MEDIA_TYPE:
        return wire_npz.encode_npz(fields)
    return wire_json.encode(fields)


async def _send(
    send: Send,
    status: int,
    body: Body,
    headers: Headers,
    *,
    media_type: str = "application/json",
) -> None:
    first, last = body if isinstance(body, tuple) else (b"", body)
    raw = [
        (b"content-type", media_type.encode()),
        (b"content-length", b"%d" % (len(first) + len(last))),
        *headers,
    ]
    await send({"type": "http.response.start", "status": status, "headers": raw})
    if first:
        await send({"type": "http.response.body", "body": first, "more_body": True})
    await send({"type": "http.response.body", "body": last})
