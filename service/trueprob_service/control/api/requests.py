"""Request headers that control routes read: If-Match, Prefer, and who is asking."""

from __future__ import annotations

import re
from typing import Final

from starlette.requests import Request

from trueprob_service.errors import InvalidRequest, PreconditionRequired

__all__ = ["MAX_WAIT_SECONDS", "caller", "expected_revision", "wait_seconds"]

MAX_WAIT_SECONDS: Final = 60.0
_REVISION: Final = re.compile(r'^\s*"?(\d{1,18})"?\s*$')
_ID_CHARACTERS: Final = 100  # of the columns that keep it
_WAIT: Final = re.compile(r"(?:^|[,;\s])wait\s*=\s*\"?(\d{1,9})", re.IGNORECASE)


def expected_revision(if_match: str | None) -> int:
    """The revision that the client saw before it asked for a change.

    Raises `PreconditionRequired`: there is none. Raises `InvalidRequest`: it is not one revision.
    ``*`` is not taken: it would change what the client has not seen.
    """
    if if_match is None:
        raise PreconditionRequired(
            'If-Match must name the live revision that the change is based on, as in If-Match: "4"'
        )
    match = _REVISION.match(if_match)
    if match is None:
        raise InvalidRequest('If-Match must be one revision in quotes, as in "4"')
    return int(match[1])


def wait_seconds(prefer: str | None) -> float | None:
    """How long the client would wait for the outcome (RFC 7240), at most a minute."""
    match = _WAIT.search(prefer or "")
    return None if match is None else min(float(match[1]), MAX_WAIT_SECONDS)


def caller(request: Request) -> str | None:
    """Id of the API key that the middleware found, for the history."""
    key_id = request.scope.get("state", {}).get("key_id")
    return key_id[:_ID_CHARACTERS] if isinstance(key_id, str) else None
