"""The outermost ASGI layer: request ids, timing, API keys, and limits and encoding of bodies.

It surrounds both planes. An exception that leaves them becomes a problem document here, so a client
never sees a traceback, or half an answer that looks complete.
"""

from __future__ import annotations

import logging
import re
import secrets
import time
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any, Final

from starlette.requests import ClientDisconnect

from trueprob_service.edge.access import access_to
from trueprob_service.edge.auth import ACTOR, ANONYMOUS, Keyring, OriginPolicy
from trueprob_service.edge.bodies import (
    BodyLimits,
    InflatedBytes,
    InflatedShare,
    coding_of,
    inflated,
    limited,
)
from trueprob_service.edge.methods import as_get
from trueprob_service.edge.problems import problem_for
from trueprob_service.errors import (
    BodyTooLarge,
    Forbidden,
    TooManyRequests,
    Unauthenticated,
)
from trueprob_service.logs import REQUEST, TRACEPARENT, log_access, trace_of
from trueprob_service.metrics.telemetry import Telemetry

__all__ = ["Edge"]

_log = logging.getLogger(__name__)

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
Application = Callable[[Scope, Receive, Send], Awaitable[None]]

_AUDITED: Final = frozenset({403, 409, 412})  # refused, though the request was understood
_LARGEST_INFLATED: Final = 8  # compressed bodies of the largest size that are read at a time
_REQUEST_ID: Final = re.compile(rb"^[A-Za-z0-9._:/+=-]{1,128}$")


class Edge:
    """The outermost ASGI layer; `BodyLimits` describes the two limits."""

    def __init__(
        self,
        app: Application,
        *,
        origins: OriginPolicy,
        keyring: Keyring,
        telemetry: Telemetry,
        max_body_bytes: int,
        max_upload_bytes: int,
        root_path: str = "",  # where a proxy serves the application; default: as the server says
        # Called after a refused request: method, path, status, and why.
        on_refused: Callable[[str, str, int, str], Awaitable[None]] | None = None,
        access_log: bool = False,
    ) -> None:
        self._app = app
        self._origins = origins
        self._keyring = keyring
        self._telemetry = telemetry
        self._root_path = root_path
        self._on_refused = on_refused
        self._access_log = access_log
        self._limits = BodyLimits(max_body_bytes, max_upload_bytes)
        self._inflated = InflatedBytes(_LARGEST_INFLATED * max_body_bytes)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Admit, time and answer one request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        started = time.perf_counter()
        if root_path := self._root_path or scope.get("root_path", ""):
            scope = _without_prefix(scope, root_path)
        if scope["method"] == "HEAD":
            scope, send = as_get(scope, send)
        headers, path = dict(scope["headers"]), scope["path"]
        request_id = headers.get(b"x-request-id", b"")
        if not _REQUEST_ID.match(request_id):
            request_id = secrets.token_hex(16).encode()
        status, complete = 0, False
        share: InflatedShare | None = None  # of a compressed body
        state = scope.setdefault("state", {})
        ACTOR.set((ANONYMOUS, request_id.decode()))
        known: dict[str, str] = {"request_id": request_id.decode()}
        if b"traceparent" in headers:
            trace = trace_of(headers[b"traceparent"])
            known.update(trace)
            TRACEPARENT.set(headers[b"traceparent"].decode() if trace else "")
        REQUEST.set(known)  # of this task only, and of the threads that work for it

        async def send_with_id(message: Message) -> None:
            nonlocal status, complete
            if message["type"] == "http.response.start":
                status = message["status"]
                message["headers"] = [*message.get("headers", ()), (b"x-request-id", request_id)]
            else:
                complete = not message.get("more_body", False)
            await send(message)

        try:
            self._origins.admit(scope["method"], scope["path"], headers)
            try:
                found = self._keyring.admit(scope["method"], scope["path"], scope["headers"])
            except Unauthenticated as refused:
                client = scope.get("client") or ("unknown", 0)
                found = await self._keyring.admit_slowly(
                    refused, scope["method"], scope["path"], scope["headers"], client[0]
                )
            if found is not None:
                state["key_id"], state["principal"] = found.key_id, found
                known["key_id"] = found.key_id
                ACTOR.set((found.actor, request_id.decode()))
            if b"content-encoding" in headers:
                share = InflatedShare(self._inflated)
            await self._app(scope, self._body(scope, headers, receive, share), send_with_id)
        except ClientDisconnect:
            _log.debug("request %s: the client went away", request_id.decode())
        except Exception as error:
            problem = problem_for(error)
            if isinstance(error, Unauthenticated | Forbidden | TooManyRequests):
                self._telemetry.count_refusal(error.reason)
                if isinstance(error, Forbidden) and error.actor is not None:
                    ACTOR.set((error.actor, request_id.decode()))
            state["problem"] = problem.code
            if problem.status == 500:
                _log.exception("request %s failed", request_id.decode())
            if status and not complete:
                raise  # half of the answer is sent: the server closes the connection
            if not status:
                await _answer(problem.status, problem.headers, problem.body, send_with_id)
        finally:
            if share is not None:
                share.give_back()
            route = scope.get("trueprob.route")
            if (
                route is None and "route" in scope
            ):  # a route of FastAPI, which leaves its prefix out
                route = access_to(scope["method"], path).route
            state["route"] = str(route or "unmatched")
            # 499: the client left before an answer began.
            seconds = time.perf_counter() - started
            self._telemetry.observe_request(state["route"], status or 499, seconds)
            if self._access_log:
                log_access(
                    scope["method"],
                    scope["path"],
                    state["route"],
                    status or 499,
                    seconds,
                )
        if status in _AUDITED and self._on_refused is not None:
            why = str(state.get("problem", ""))
            await self._on_refused(scope["method"], scope["path"], status, why)

    def _body(
        self,
        scope: Scope,
        headers: dict[bytes, bytes],
        receive: Receive,
        share: InflatedShare | None,
    ) -> Receive:
        """The ``receive()`` for the routes: within the limit, as sent and as inflated."""
        declared = headers.get(b"content-length", b"")
        encoded = b"content-encoding" in headers
        plain = not encoded and b"transfer-encoding" not in headers and declared.isdigit()
        if plain and int(declared) <= self._limits.smallest:
            return receive  # the server reads no more than the declared length
        limit = self._limits.limit_for(
            scope["path"], headers.get(b"content-type", b"").decode("latin-1")
        )
        if declared.isdigit() and int(declared) > limit.max_bytes:
            raise BodyTooLarge(
                limit.refusal(
                    f"the body has {int(declared)} bytes, at most {limit.max_bytes} are allowed"
                )
            )
        if plain:
            return receive
        sent = limited(receive, limit)
        if not encoded:
            return sent
        codings = [value for name, value in scope["headers"] if name == b"content-encoding"]
        coding = coding_of(b", ".join(codings).decode("latin-1"))
        if coding is None:
            return sent
        outdated = (b"content-encoding", b"content-length")  # of the body as it was sent
        scope["headers"] = [pair for pair in scope["headers"] if pair[0] not in outdated]
        return inflated(sent, coding, limit, None if limit.in_file else share)


def _without_prefix(scope: Scope, root_path: str) -> Scope:
    """The request with the path that routes have: some proxies remove their prefix, some do not.

    By ASGI the path of a mounted application begins with the ``root_path`` of the server.
    """
    path: str = scope["path"]
    for prefix in (scope.get("root_path", ""), root_path):
        if prefix and (path == prefix or path.startswith(f"{prefix}/")):
            path = path[len(prefix) :] or "/"
    return {**scope, "path": path, "root_path": root_path}


async def _answer(status: int, headers: dict[str, str], body: bytes, send: Send) -> None:
    raw = [(name.encode(), value.encode()) for name, value in headers.items()]
    raw.append((b"content-length", str(len(body)).encode()))
    await send({"type": "http.response.start", "status": status, "headers": raw})
    await send({"type": "http.response.body", "body": body})
