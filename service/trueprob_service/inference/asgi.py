"""The hot routes, as a plain ASGI application in front of FastAPI.

Every other request goes to `fallback` (FastAPI) unchanged. Errors are raised;
`trueprob_service.edge.middleware.Edge` answers them. A prediction with logits uses no database, no
pydantic, no queue and no lock.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Awaitable, Callable, MutableMapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Final

import numpy as np
import orjson

from trueprob_service.edge.methods import answer_options, not_allowed
from trueprob_service.inference.answer import Answer, answer_fields, compute
from trueprob_service.inference.body import (
    INLINE_ARRAY_ELEMENTS,
    INLINE_ELEMENTS,
    BodyReader,
    ReadRows,
    read_body,
    read_whole,
)
from trueprob_service.inference.deployment import Deployment, Headers
from trueprob_service.inference.deployments import DeploymentLookup
from trueprob_service.inference.identified import chosen_ids, remember
from trueprob_service.inference.network.cores import usable_cores
from trueprob_service.inference.open_inference.routes import ROUTES, OipPath, describe, infer
from trueprob_service.inference.request import PredictionOptions
from trueprob_service.inference.wire import json_rows, npy
from trueprob_service.inference.wire.oip import HEADER_LENGTH
from trueprob_service.receipts.identified import IdentifiedQueue
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
# Route → methods; `trueprob_service.prediction_routes` has their documentation.
HOT_ROUTES: Final = {
    PREDICT: ("POST",),
    LIVE: ("GET",),
    READY: ("GET",),
    **ROUTES,
}
_PREDICT_PATH: Final = re.compile(r"^/v1/models/([^/]+)/probabilities$")


class HotRoutes:
    """Answers predictions, health checks and the Open Inference Protocol."""

    def __init__(
        self,
        fallback: Application,  # answers all other requests
        *,
        methods_of: Callable[[str], tuple[str, ...]],  # of a path of the fallback
        deployments: DeploymentLookup,
        receipts: Callable[[], Receipts],  # available once the database is open
        readiness: Callable[
            [], tuple[bool, dict[str, Any]]
        ],  # whether the service is ready, and the body of the answer
        bodies: BodyReader,
        identified: IdentifiedQueue | None = None,  # remembers rows with ids; None: refuses them
    ) -> None:
        self._fallback = fallback
        self._methods_of = methods_of
        self._deployments = deployments
        self._receipts = receipts
        self._readiness = readiness
        self._bodies = bodies
        self._identified = identified
        # One thread per core; more would only compete with the event loop.
        self._large = ThreadPoolExecutor(usable_cores(), thread_name_prefix="trueprob-large")

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a hot route, or pass the request on to the fallback."""
        if scope["type"] != "http":
            await self._fallback(scope, receive, send)
            return
        path: str = scope["path"]
        match = _PREDICT_PATH.match(path)
        oip_path = OipPath.parse(path) if match is None else None
        if match is None and oip_path is None and path not in (LIVE, READY):
            await self._pass_on(path, scope, receive, send)
            return
        scope["trueprob.route"] = PREDICT if match else oip_path.route if oip_path else path
        methods = HOT_ROUTES[scope["trueprob.route"]]
        if scope["method"] not in methods:
            if scope["method"] != "OPTIONS":
                raise not_allowed(scope, path, methods)
            await answer_options(path, methods, send)
        elif match is not None:
            await self._predict(match[1], scope, receive, send)
        elif oip_path is not None:
            await self._open_inference(oip_path, scope, receive, send)
        else:
            await self._health(path, send)

    async def _pass_on(self, path: str, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["method"] == "OPTIONS":
            await answer_options(path, self._methods_of(path), send)
            return
        # FastAPI wants the path with the proxy's prefix, as ASGI has it.
        scope["path"] = scope.get("root_path", "") + path
        await self._fallback(scope, receive, send)

    async def _health(self, path: str, send: Send) -> None:
        if path == LIVE:
            await _send(send, 200, orjson.dumps({"live": True}), ())
            return
        ready, document = self._readiness()
        await _send(send, 200 if ready else 503, orjson.dumps(document), ())

    async def _predict(self, model: str, scope: Scope, receive: Receive, send: Send) -> None:
        request = PredictionOptions.from_scope(scope)
        # Read once, so that a later promotion does not change this answer.
        deployment = await self._deployments.current(model, request.version)
        request.check_classes(deployment.served.n_classes)
        rows = await self._bodies.logits(
            request, await read_body(request, scope["headers"], receive), deployment, receive
        )
        logits = rows.logits
        ids = None
        if rows.ids is not None or request.request_id is not None:
            ids = chosen_ids(
                rows.ids, request.request_id, len(logits),
                deployment=deployment, queue=self._identified,
            )  # fmt: skip
        receipts = request.wants_receipts(
            is_json=rows.is_json, is_images=rows.is_images, n=len(logits)
        )
        is_text = request.answer_type == json_rows.MEDIA_TYPE
        if logits.size <= (INLINE_ELEMENTS if is_text else INLINE_ARRAY_ELEMENTS):
            body, headers = self._answer(request, deployment, rows, receipts, ids)
        else:
            loop = asyncio.get_running_loop()
            body, headers = await loop.run_in_executor(
                self._large, self._answer, request, deployment, rows, receipts, ids
            )
        await _send(send, 200, body, headers, media_type=request.answer_type)

    def _answer(
        self,
        request: PredictionOptions,
        deployment: Deployment,
        rows: ReadRows,
        receipts: bool,
        own_ids: list[str] | None,  # of the caller, to be remembered
    ) -> tuple[Body, Headers]:
        logits = rows.logits
        answer = compute(deployment, logits)
        if len(logits):
            deployment.meters.observe(
                answer.logit_gap,
                answer.temperature,
                answer.confidence,
                answer.probabilities,
                logits,
            )
        issued = receipts and deployment.revision is not None
        stamp = None if own_ids is None else self._receipts().stamp(len(logits))
        ids = answer.prediction_ids(self._receipts(), stamp) if issued else None
        body = _encode(request, answer, ids, rows)
        if own_ids and stamp is not None and self._identified is not None:
            remember(self._identified, answer, own_ids, stamp)
        return body, deployment.headers

    async def _open_inference(
        self, path: OipPath, scope: Scope, receive: Receive, send: Send
    ) -> None:
        if path.model is None or scope["method"] != "POST":
            response = await describe(path, self._deployments)
            await _send(send, 200, response.body, ())
            return
        deployment = await self._deployments.current(path.model, path.version)
        response = await infer(
            dict(scope["headers"]), await read_whole(receive), deployment,
            bodies=self._bodies, receipts=self._receipts, receive=receive,
            identified=self._identified,
        )  # fmt: skip
        headers = deployment.headers
        if response.header_length is not None:
            length = str(response.header_length).encode()
            headers = (*headers, (HEADER_LENGTH.lower().encode(), length))
        await _send(send, 200, response.body, headers, media_type=response.media_type)


def _encode(
    request: PredictionOptions, answer: Answer, ids: list[str] | None, rows: ReadRows
) -> Body:
    one_score = rows.one_score
    if request.answer_type == npy.MEDIA_TYPE:
        p = answer.probabilities
        return npy.encode(p if one_score is None else p[:, 1].reshape(one_score))
    fields = answer_fields(answer, request.fields, top=request.top, prediction_ids=ids)
    if one_score is not None:  # answered in its own form
        p1 = np.ascontiguousarray(answer.probabilities[:, 1])
        if "probabilities" in fields:
            fields["probabilities"] = p1.reshape(one_score)
        if not request.fields_named:
            fields["p1"] = p1
    if rows.normalised and not request.fields_named:
        fields["normalised"] = True
    if request.answer_type == npy.NPZ_MEDIA_TYPE:
        return npy.encode_npz(fields, top=request.top)
    return json_rows.encode(fields)


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
