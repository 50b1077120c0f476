"""What every route's documentation shares: how errors look, and how lists are asked for.

Request headers that control routes read: If-Match, Prefer, and who is asking.
"""

from __future__ import annotations

import re
from typing import Annotated, Any, Final

from fastapi import Header, Path, Query
from starlette.requests import Request

from trueprob_service.control.schemas.documents import ProblemDocument
from trueprob_service.control.schemas.lists import DEFAULT_LIMIT, MAX_LIMIT
from trueprob_service.edge.problems import MEDIA_TYPE, TITLES
from trueprob_service.errors import InvalidRequest, PreconditionRequired

__all__ = [
    "MAX_WAIT_SECONDS",
    "CursorQuery",
    "IfMatchHeader",
    "LimitQuery",
    "ModelPath",
    "PreferHeader",
    "caller",
    "expected_revision",
    "problems",
    "wait_seconds",
]


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


_SCHEMA: Final = ProblemDocument.model_json_schema()

ModelPath = Annotated[str, Path(description="Name of the model.", examples=["digits"])]
CursorQuery = Annotated[str | None, Query(description="`next` of the page before.")]
LimitQuery = Annotated[int, Query(ge=1, le=MAX_LIMIT, description="Items of a page.")]
IfMatchHeader = Annotated[
    str | None,
    Header(alias="If-Match", description="The live revision that was seen, in quotes."),
]
PreferHeader = Annotated[
    str | None, Header(description="`wait=SECONDS`: wait for the report, at most 60.")
]
DEFAULT_PAGE: Final = DEFAULT_LIMIT


def problems(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """OpenAPI responses of the errors of a route; 422 and 503 are those of all."""
    return {
        status: {
            "description": TITLES[status],
            "content": {MEDIA_TYPE: {"schema": _SCHEMA}},
        }
        for status in sorted({*statuses, 422, 503})
    }
