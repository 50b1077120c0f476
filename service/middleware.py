"""What surrounds every request: its id, its time, its key and the limit of its body.

One plain ASGI layer outside both planes. Anything that escapes them becomes a problem document
here, so that a client never sees a half answer or a traceback.
"""

from __future__ import annotations

import logging
import re
import time
import uuid
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any, Final

from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect

from service.auth import Keyring
from service.errors import BodyTooLarge
from service.problems import problem_for
from service.telemetry import Telemetry

__all__ = ["BodyTooLargeWhileReading", "Edge"]

_log = logging.getLogger(__name__)

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
Application = Callable[[Scope, Receive, Send], Awaitable[None]]

_REQUEST_ID: Final = re.compile(rb"^[A-Za-z0-9._:/+=-]{1,128}$")
_UPLOAD: Final = re.compile(r"^/v1/models/[^/]+/calibration-sets(/.*)?$")


class BodyTooLargeWhileReading(BodyTooLarge, HTTPException):
    """Raised inside ``receive()``.

    FastAPI turns what a wrapped ``receive()`` raises into a 400, except an HTTPException.
    """

    def __init__(self, detail: str) -> None:
        HTTPException.__init__(self, 413, detail)
        BodyTooLarge.__init__(self, detail)


class Edge:
    """The outermost layer.

    Parameters
    ----------
    app : ASGI application
    keyring : Keyring
    telemetry : Telemetry
    max_body_bytes, max_upload_bytes : int
        The second is for calibration sets.
    """

    def __init__(
        self,
        app: Application,
        *,
        keyring: Keyring,
        telemetry: Telemetry,
        max_body_bytes: int,
        max_upload_bytes: int,
    ) -> None:
        self._app = app
        self._keyring = keyring
        self._telemetry = telemetry
        self._max_body_bytes, self._max_upload_bytes = max_body_bytes, max_upload_bytes

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Admit, time and answer one request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        started = time.perf_counter()
        headers = dict(scope["headers"])
        request_id = headers.get(b"x-request-id", b"")
        if not _REQUEST_ID.match(request_id):
            request_id = uuid.uuid4().hex.encode()
        status, complete = 0, False

        async def send_with_id(message: Message) -> None:
            nonlocal status, complete
            if message["type"] == "http.response.start":
                status = message["status"]
                message["headers"] = [*message.get("headers", ()), (b"x-request-id", request_id)]
            else:
                complete = not message.get("more_body", False)
            await send(message)

        try:
            authorization = headers.get(b"authorization", b"").decode("latin-1")
            key_id = self._keyring.admit(scope["method"], scope["path"], authorization)
            scope.setdefault("state", {})["key_id"] = key_id
            limited = self._limit(scope["path"], headers, receive)
            await self._app(scope, limited, send_with_id)
        except ClientDisconnect:
            _log.debug("request %s: the client went away", request_id.decode())
        except Exception as error:
            problem = problem_for(error)
            if problem.status == 500:
                _log.exception("request %s failed", request_id.decode())
            if status and not complete:
                raise  # half an answer is out: all that is left is to break it off
            if not status:
                await _answer(problem.status, problem.headers, problem.body, send_with_id)
        finally:
            route = scope.get("trueprob.route") or getattr(scope.get("route"), "path", None)
            # 499: the client went away before an answer began.
            self._telemetry.observe_request(
                str(route or "unmatched"), status or 499, time.perf_counter() - started
            )

    def _limit(self, path: str, headers: dict[bytes, bytes], receive: Receive) -> Receive:
        limit = self._max_upload_bytes if _UPLOAD.match(path) else self._max_body_bytes
        declared = headers.get(b"content-length", b"")
        if declared.isdigit() and int(declared) > limit:
            raise BodyTooLarge(f"the body has {int(declared)} bytes, at most {limit} are read")
        received = 0

        async def receive_limited() -> Message:
            nonlocal received
            message = await receive()
            received += len(message.get("body", b""))
            if received > limit:
                raise BodyTooLargeWhileReading(
                    f"the body has more than {limit} bytes, the most that are read"
                )
            return message

        return receive_limited


async def _answer(status: int, headers: dict[str, str], body: bytes, send: Send) -> None:
    raw = [(name.encode(), value.encode()) for name, value in headers.items()]
    raw.append((b"content-length", str(len(body)).encode()))
    await send({"type": "http.response.start", "status": status, "headers": raw})
    await send({"type": "http.response.body", "body": body})
