"""Sends requests: a blocking connection, an asynchronous one, and one rule for retries.

    HttpRequest ──▶ ServiceConnection.send ──▶ HttpResponse, ServiceProblem or ServiceUnreachable

The two connections differ only in ``await`` and in how they read a file. For both,
`seconds_until_retry` decides whether and when a request is sent again.
"""

from __future__ import annotations

import json
import ssl
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import httpx

from trueprob.client.errors import ServiceProblem, ServiceUnreachable
from trueprob.errors import InvalidInput

__all__ = [
    "AsyncServiceConnection",
    "HttpRequest",
    "HttpResponse",
    "ServiceConnection",
]

ATTEMPTS: Final = 4
FIRST_PAUSE_SECONDS: Final = 0.25
LONGEST_PAUSE_SECONDS: Final = 10.0
TOO_MANY_REQUESTS: Final = 429
SERVICE_UNAVAILABLE: Final = 503
CHUNK_BYTES: Final = 1 << 20


@dataclass(frozen=True)
class HttpRequest:
    """One HTTP request."""

    method: str
    path: str  # escaped
    params: Mapping[str, Any] = field(default_factory=dict)  # those that are None are left out
    headers: Mapping[str, str] = field(default_factory=dict)
    content: bytes | Path | None = None  # a file is streamed
    retry: bool = False  # whether sending it twice does no harm
    wait_seconds: float = 0.0  # how long the service may wait, on top of the client's timeout


@dataclass(frozen=True)
class HttpResponse:
    """A successful HTTP response."""

    status: int
    headers: Mapping[str, str]  # names in lower case
    content: bytes

    def json(self) -> Any:
        """The body as JSON; ServiceProblem if it is not JSON."""
        try:
            return json.loads(self.content)
        except ValueError:
            raise ServiceProblem(
                self.status, "not_json", "the answer is not JSON: check the address of the service"
            ) from None


class ServiceConnection:
    """A blocking connection to the service."""

    def __init__(
        self,
        url: str,
        *,
        key: str | None,
        timeout_seconds: float,
        verify: bool | ssl.SSLContext,
        transport: httpx.BaseTransport | None,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self._http = httpx.Client(
            base_url=_checked_url(url), headers=_headers(key), verify=verify, transport=transport
        )
        self.url = url.rstrip("/")
        self._timeout_seconds = timeout_seconds
        self.sleep = sleep

    def send(self, request: HttpRequest) -> HttpResponse:
        """Send a request, again after a failure if that is harmless and may help."""
        attempt = 0
        while True:
            attempt += 1
            try:
                return _accepted(self._send_once(request))
            except (ServiceProblem, ServiceUnreachable) as failure:
                seconds = seconds_until_retry(request, attempt, failure)
                if seconds is None:
                    raise
            self.sleep(seconds)

    def _send_once(self, request: HttpRequest) -> httpx.Response:
        body = request.content
        try:
            with body.open("rb") if isinstance(body, Path) else nullcontext(body) as content:
                return self._http.request(
                    **_arguments(request, self._timeout_seconds), content=content
                )
        except httpx.TransportError as error:
            raise _unreachable(request, error) from error

    def close(self) -> None:
        """Close the sockets."""
        self._http.close()


class AsyncServiceConnection:
    """An asynchronous connection to the service, for asyncio or trio."""

    def __init__(
        self,
        url: str,
        *,
        key: str | None,
        timeout_seconds: float,
        verify: bool | ssl.SSLContext,
        transport: httpx.AsyncBaseTransport | None,
        sleep: Callable[[float], Awaitable[None]] | None = None,
    ) -> None:
        import anyio  # a dependency of httpx, which imports it late

        self._http = httpx.AsyncClient(
            base_url=_checked_url(url), headers=_headers(key), verify=verify, transport=transport
        )
        self.url = url.rstrip("/")
        self._timeout_seconds = timeout_seconds
        self.sleep = sleep or anyio.sleep

    async def send(self, request: HttpRequest) -> HttpResponse:
        """Send a request, again after a failure if that is harmless and may help."""
        attempt = 0
        while True:
            attempt += 1
            try:
                return _accepted(await self._send_once(request))
            except (ServiceProblem, ServiceUnreachable) as failure:
                seconds = seconds_until_retry(request, attempt, failure)
                if seconds is None:
                    raise
            await self.sleep(seconds)

    async def _send_once(self, request: HttpRequest) -> httpx.Response:
        body = request.content
        content = _chunks(body) if isinstance(body, Path) else body
        try:
            return await self._http.request(
                **_arguments(request, self._timeout_seconds), content=content
            )
        except httpx.TransportError as error:
            raise _unreachable(request, error) from error

    async def close(self) -> None:
        """Close the sockets."""
        await self._http.aclose()


def seconds_until_retry(
    request: HttpRequest, attempt: int, failure: ServiceProblem | ServiceUnreachable
) -> float | None:
    """Seconds until the next attempt, or None to give up."""
    if not request.retry or attempt == ATTEMPTS:
        return None
    seconds = FIRST_PAUSE_SECONDS * 2.0 ** (attempt - 1)
    if isinstance(failure, ServiceProblem):
        asked = failure.retry_after_seconds or 0.0
        # A rate that allows no request soon is for the caller to deal with.
        soon = failure.status == TOO_MANY_REQUESTS and asked <= LONGEST_PAUSE_SECONDS
        if failure.status != SERVICE_UNAVAILABLE and not soon:
            return None
        seconds = max(seconds, asked)
    return min(seconds, LONGEST_PAUSE_SECONDS)


def _accepted(answer: httpx.Response) -> HttpResponse:
    if answer.is_success:
        return HttpResponse(answer.status_code, answer.headers, answer.content)
    try:
        document = json.loads(answer.content)
    except ValueError:
        document = {}
    if not isinstance(document, dict):
        document = {}
    after = answer.headers.get("retry-after", "")
    raise ServiceProblem(
        answer.status_code,
        str(document.get("code", "unknown")),
        str(document.get("detail", "the answer is not a problem document of this service")),
        float(after) if after.isdigit() else None,
    )


def _unreachable(request: HttpRequest, error: Exception) -> ServiceUnreachable:
    what = f"{request.method} {request.path}: no answer ({type(error).__name__}: {error})"
    return ServiceUnreachable(what)


def _checked_url(url: str) -> str:
    if not url.startswith(("http://", "https://")):
        raise InvalidInput(f"url must begin with http:// or https://, got {url!r}", field="url")
    return url


def _headers(key: str | None) -> dict[str, str]:
    return {} if key is None else {"authorization": f"Bearer {key}"}


def _arguments(request: HttpRequest, timeout_seconds: float) -> dict[str, Any]:
    return {
        "method": request.method,
        "url": request.path,
        "params": {
            name: str(value).lower() if isinstance(value, bool) else value
            for name, value in request.params.items()
            if value is not None
        },
        "headers": dict(request.headers),
        "timeout": timeout_seconds + request.wait_seconds,
    }


async def _chunks(path: Path) -> AsyncIterator[bytes]:
    from anyio import open_file

    async with await open_file(path, "rb") as file:
        while chunk := await file.read(CHUNK_BYTES):
            yield chunk
