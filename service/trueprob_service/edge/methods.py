"""Methods that every route has (RFC 9110): HEAD wherever GET is, OPTIONS, and the header Allow.

Routes know GET, POST, PUT and DELETE. HEAD is answered by the route of GET, so it has the same
status and headers; the body is left out. OPTIONS is answered with 204 and ``Allow``, and a method
that the path does not have with 405 and the same header. None of this runs for a prediction.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Collection, MutableMapping
from typing import Any, Final

from starlette.requests import ClientDisconnect

from trueprob_service.errors import MethodNotAllowed, NotFound

__all__ = ["ROUTED", "allow_header", "answer_options", "as_get", "asked_method", "not_allowed"]

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Send = Callable[[Message], Awaitable[None]]

ROUTED: Final = ("GET", "POST", "PUT", "DELETE")  # methods that routes are declared with
_ORDER: Final = ("GET", "HEAD", "POST", "PUT", "DELETE", "OPTIONS")


class _HeadersAreSent(ClientDisconnect):
    """Stops a route that would stream a body: the answer to a HEAD is complete."""


def allow_header(methods: Collection[str]) -> tuple[str, ...]:
    """The methods of a path for the header Allow: those of its routes, HEAD and OPTIONS."""
    known = {*methods, "OPTIONS", *(("HEAD",) if "GET" in methods else ())}
    return tuple(method for method in _ORDER if method in known)


def not_allowed(scope: Scope, path: str, methods: Collection[str]) -> MethodNotAllowed:
    """The error for a method that a path does not have; `methods` are those of its routes."""
    allowed = allow_header(methods)
    detail = f"{path} takes {', '.join(allowed)}, got {asked_method(scope)[:20]}"
    return MethodNotAllowed(detail, allowed=allowed)


async def answer_options(path: str, methods: Collection[str], send: Send) -> None:
    """Answer OPTIONS with 204 and Allow; `NotFound` for a path without routes."""
    if not methods:
        raise NotFound(f"no route has the path {path[:200]}")
    allow = ", ".join(allow_header(methods)).encode()
    await send({"type": "http.response.start", "status": 204, "headers": [(b"allow", allow)]})
    await send({"type": "http.response.body", "body": b""})


def asked_method(scope: Scope) -> str:
    """The method that the client sent: HEAD reaches the routes as GET."""
    method: str = scope.get("trueprob.method", scope["method"])
    return method


def as_get(scope: Scope, send: Send) -> tuple[Scope, Send]:
    """A HEAD request as a GET for the routes, and a ``send`` that leaves the body out.

    ``Range`` is dropped: it is defined for GET only (RFC 9110, 14.2).
    """
    done = False

    async def send_headers(message: Message) -> None:
        nonlocal done
        if message["type"] == "http.response.start":
            await send(message)
        elif not done:
            done = True
            await send({"type": "http.response.body", "body": b""})
            if message.get("more_body", False):
                raise _HeadersAreSent

    headers = [pair for pair in scope["headers"] if pair[0] != b"range"]
    as_got = {**scope, "method": "GET", "headers": headers, "trueprob.method": "HEAD"}
    return as_got, send_headers
