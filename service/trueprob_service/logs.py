"""Logs: as text, or one JSON object a line, with what is known of the request that a line is about.

A trace context of W3C (``traceparent``) that a client or a proxy sends is in the lines of its
request, so that they are found beside the spans of others. `TRACEPARENT` has it for what the
request causes: webhooks and fits. `trueprob_service.tracing` makes spans of our own.
"""

from __future__ import annotations

import logging
import re
import secrets
from collections.abc import Mapping
from contextvars import ContextVar
from datetime import UTC, datetime
from typing import Any, Final, Literal

import orjson

__all__ = [
    "REQUEST",
    "TRACEPARENT",
    "configure_logging",
    "log_access",
    "trace_of",
    "traceparent_below",
]

# What the lines of a request have: `request_id`, and `key_id`, `trace_id`, `parent_id` if known.
REQUEST: Final[ContextVar[Mapping[str, Any]]] = ContextVar("trueprob_request", default={})  # noqa: B039
# The valid `traceparent` of the request that this thread or task works for; "" without one.
TRACEPARENT: Final[ContextVar[str]] = ContextVar("trueprob_traceparent", default="")
_ACCESS: Final = logging.getLogger("trueprob_service.access")
# https://www.w3.org/TR/trace-context/#traceparent-header; later versions may append more.
_TRACEPARENT: Final = re.compile(
    rb"^(?!ff)([0-9a-f]{2})-(?!0{32})([0-9a-f]{32})-(?!0{16})([0-9a-f]{16})-[0-9a-f]{2}(-.*)?$"
)
_MODEL: Final = re.compile(r"^/v[12]/models/([^/]+)")


class _JsonLines(logging.Formatter):
    """A line for each record: one JSON object."""

    def __init__(self, replica: int | None) -> None:
        super().__init__()
        self._always = {} if replica is None else {"replica": replica}

    def format(self, record: logging.LogRecord) -> str:
        """The record with its time in UTC, the fields of its request, and a traceback if any."""
        line: dict[str, Any] = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
            **self._always,
            **REQUEST.get(),
            **getattr(record, "fields", {}),
        }
        if record.exc_info:
            line["exception"] = self.formatException(record.exc_info)
        return orjson.dumps(line, default=str, option=orjson.OPT_NON_STR_KEYS).decode()


def configure_logging(kind: Literal["text", "json"], *, replica: int | None = None) -> None:
    """Log to standard error from now on, in the process of a replica with its number."""
    handler = logging.StreamHandler()
    if kind == "json":
        handler.setFormatter(_JsonLines(replica))
    else:
        who = "" if replica is None else f"replica {replica} "
        handler.setFormatter(
            logging.Formatter(f"%(asctime)s %(levelname)s {who}%(name)s: %(message)s")
        )
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(logging.INFO)
    # Alembic logs three lines at every start; a migration that fails raises anyway.
    logging.getLogger("alembic").setLevel(logging.WARNING)
    # It would log the webhook's address, which may have a secret.
    logging.getLogger("httpx").setLevel(logging.WARNING)
    # A malformed form is answered with a 400 and needs no line in the log.
    logging.getLogger("python_multipart").setLevel(logging.ERROR)


def trace_of(header: bytes) -> Mapping[str, str]:
    """The ids of a ``traceparent`` header; empty for one that is not valid, as W3C asks for."""
    match = _TRACEPARENT.match(header)
    if match is None or (match[1] == b"00" and match[4] is not None):
        return {}
    return {"trace_id": match[2].decode(), "parent_id": match[3].decode()}


def traceparent_below(traceparent: str) -> str:
    """The header of a request that a traced one causes: the same trace with a new parent id.

    Flags other than "sampled" are 0, since version 00 has no other.
    """
    _, trace_id, _, flags = traceparent.split("-")[:4]
    return f"00-{trace_id}-{secrets.token_hex(8)}-{int(flags, 16) & 1:02x}"


def log_access(method: str, path: str, route: str, status: int, seconds: float) -> None:
    """One line for an answered request; bodies, queries and keys are never logged."""
    model = _MODEL.match(path)
    fields: dict[str, Any] = {
        "method": method,
        "route": route,
        "status": status,
        "duration_ms": round(1000 * seconds, 3),
    }
    if model is not None:
        fields["model"] = model[1][:200]
    request = REQUEST.get()
    words = [f"{name}={value!r}" for name, value in {**fields, **request}.items()]
    _ACCESS.info(" ".join(words), extra={"fields": fields})
