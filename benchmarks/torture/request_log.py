"""Every request that was sent, with its outcome, as the network saw it."""

from __future__ import annotations

import itertools
import threading
import time
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Final

import httpx

__all__ = ["RecordedTransport", "Request", "RequestLog", "kind_of"]

NO_ANSWER: Final = "no answer"
# The last part of the path → the kind of the request; others are "control".
_KINDS: Final = {
    "probabilities": "predict",
    "infer": "predict",
    "labels": "label",
    "calibration-sets": "upload",
    "metrics": "scrape",
    "ready": "ready",
}


@dataclass(frozen=True)
class Request:
    """One attempt: when it ended, what it was, its status (or ``no answer``), its duration."""

    ended: float  # seconds of `time.monotonic`
    kind: str
    outcome: str
    seconds: float
    cause: str = ""  # of no answer


class RequestLog:
    """Requests in the order in which they ended; several threads may add to it."""

    def __init__(self) -> None:
        self._requests: list[Request] = []
        self._lock = threading.Lock()

    def add(self, request: Request) -> None:
        """Append a request."""
        with self._lock:
            self._requests.append(request)

    def between(self, start: float, end: float) -> list[Request]:
        """Those that ended in a time."""
        with self._lock:
            return [each for each in self._requests if start <= each.ended <= end]


def counts(requests: Iterable[Request]) -> Mapping[str, Mapping[str, int]]:
    """How many of each kind had which outcome."""
    found: dict[str, Counter[str]] = {}
    for each in requests:
        found.setdefault(each.kind, Counter())[each.outcome] += 1
    return {kind: dict(sorted(found[kind].items())) for kind in sorted(found)}


def longest_gap(requests: Iterable[Request], kind: str, start: float, end: float) -> float:
    """The longest time without an answer 2xx to a kind of request, as far as it lies in a time."""
    ended = [each.ended for each in requests if each.kind == kind and each.outcome[0] == "2"]
    inside = [min(max(each, start), end) for each in sorted(ended)]
    return max(b - a for a, b in itertools.pairwise([start, *inside, end]))


def kind_of(request: httpx.Request) -> str:
    """What a request is, by its path."""
    return _KINDS.get(request.url.path.rpartition("/")[2], "control")


class RecordedTransport(httpx.BaseTransport):
    """Sends requests and records each attempt, those that a client repeats too.

    Parameters
    ----------
    log : RequestLog
    inner : httpx.BaseTransport, optional
        Sends the requests; default: the network.
    kind : str, optional
        Of all its requests; default: by their paths.

    Notes
    -----
    ``Retry-After`` is left out of the answers, so that the client tries again at once and the log
    has more attempts of a fault.
    """

    def __init__(
        self, log: RequestLog, inner: httpx.BaseTransport | None = None, *, kind: str = ""
    ) -> None:
        self._log = log
        self._kind = kind
        self._inner = inner or httpx.HTTPTransport()

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        kind, started = self._kind or kind_of(request), time.monotonic()
        outcome, cause = NO_ANSWER, ""
        try:
            response = self._inner.handle_request(request)
            response.read()  # an answer that breaks off is none
            outcome = str(response.status_code)
        except httpx.TransportError as error:
            cause = type(error).__name__
            raise
        finally:
            ended = time.monotonic()
            self._log.add(Request(ended, kind, outcome, ended - started, cause))
        response.headers.pop("retry-after", None)
        return response

    def close(self) -> None:
        self._inner.close()
