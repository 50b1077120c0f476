"""How requests travel: one connection that blocks, one that is awaited, and one rule for retries.

    HttpRequest ──▶ ServiceConnection.send ──▶ HttpResponse, ServiceProblem or ServiceUnreachable

The two connections differ in nothing but ``await`` and in how a file is read; whether and when a
request is sent again is decided by `seconds_until_retry` for both.
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

from trueprob.errors import InvalidInput, TrueprobError

__all__ = [
    "AsyncServiceConnection",
    "HttpRequest",
    "HttpResponse",
    "ServiceConnection",
    "ServiceProblem",
    "ServiceUnreachable",
]

ATTEMPTS: Final = 4
FIRST_PAUSE_SECONDS: Final = 0.25
LONGEST_PAUSE_SECONDS: Final = 10.0
SERVICE_UNAVAILABLE: Final = 503
CHUNK_BYTES: Final = 1 << 20


class ServiceProblem(TrueprobError):
    """The service refused a request (RFC 9457).

    Attributes
    ----------
    status : int
    code : str
        For programs: ``stale_revision``, ``invalid_request``, …
    detail : str
        One sentence.
    retry_after_seconds : float or None
    """

    def __init__(
        self, status: int, code: str, detail: str, retry_after_seconds: float | None = None
    ) -> None:
        super().__init__(f"{detail} ({status} {code})")
        self.status = status
        self.code = code
        self.detail = detail
        self.retry_after_seconds = retry_after_seconds


class ServiceUnreachable(TrueprobError):
    """There was no answer: nothing listens, the connection broke, or it took too long.

    The request may or may not have been acted on.
    """


@dataclass(frozen=True)
class HttpRequest:
    """One request. ``retry`` says that sending it twice does no harm.

    ``path`` is escaped already; parameters that are None are left out; a file is streamed;
    ``wait_seconds`` is how long the service was asked to take, on top of the client's timeout.
    """

    method: str
    path: str
    params: Mapping[str, Any] = field(default_factory=dict)
    headers: Mapping[str, str] = field(default_factory=dict)
    content: bytes | Path | None = None
    retry: bool = False
    wait_seconds: float = 0.0


@dataclass(frozen=True)
class HttpResponse:
    """What came back; header names are lower case."""

    status: int
    headers: Mapping[str, str]
    content: bytes

    def json(self) -> Any:
        """The body as JSON, or a `ServiceProblem`: what answered is not this service."""
        try:
            return json.loads(self.content)
        except ValueError:
            raise ServiceProblem(
                self.status, "not_json", "the answer is not JSON: is this the service's address?"
            ) from None


class ServiceConnection:
    """A connection that blocks."""

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
        self._timeout_seconds = timeout_seconds
        self.sleep = sleep

    def send(self, request: HttpRequest) -> HttpResponse:
        """The answer to a request, which is sent again where that does no harm and may help."""
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
    """A connection that is awaited, under asyncio or trio."""

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
        import anyio  # httpx needs it too, but loads it later

        self._http = httpx.AsyncClient(
            base_url=_checked_url(url), headers=_headers(key), verify=verify, transport=transport
        )
        self._timeout_seconds = timeout_seconds
        self.sleep = sleep or anyio.sleep

    async def send(self, request: HttpRequest) -> HttpResponse:
        """The answer to a request, which is sent again where that does no harm and may help."""
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
    """How long to wait before the next attempt; None is to give up."""
    if not request.retry or attempt == ATTEMPTS:
        return None
    seconds = FIRST_PAUSE_SECONDS * 2.0 ** (attempt - 1)
    if isinstance(failure, ServiceProblem):
        if failure.status != SERVICE_UNAVAILABLE:
            return None
        seconds = max(seconds, failure.retry_after_seconds or 0.0)
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
