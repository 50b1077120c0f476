"""Parameters, request headers and error responses that several routes share."""

from __future__ import annotations

import re
from typing import Annotated, Any, Final

from fastapi import Header, Path, Query
from starlette.requests import Request

from trueprob_service.control.schemas.base import ProblemDocument
from trueprob_service.control.schemas.lists import DEFAULT_LIMIT, LARGEST_ID, MAX_LIMIT
from trueprob_service.edge.keys import Principal
from trueprob_service.edge.problems import MEDIA_TYPE, TITLES
from trueprob_service.errors import InvalidRequest, PreconditionRequired

__all__ = [
    "IF_MATCH_SOMETIMES",
    "MAX_WAIT_SECONDS",
    "CursorQuery",
    "IfMatchHeader",
    "LimitQuery",
    "ModelPath",
    "PreferHeader",
    "VersionQuery",
    "caller",
    "expected_revision",
    "problems",
    "visible_models",
    "wait_seconds",
]

DEFAULT_PAGE: Final = DEFAULT_LIMIT
MAX_WAIT_SECONDS: Final = 60.0
# Mark of an operation whose body decides whether If-Match is needed; not in the final document.
IF_MATCH_SOMETIMES: Final = "x-if-match-sometimes"
_REVISION: Final = re.compile(r'^\s*"?(\d{1,18})"?\s*$')
_WAIT: Final = re.compile(r"(?:^|[,;\s])wait\s*=\s*\"?(\d{1,9})", re.IGNORECASE)
_KEY_ID_CHARACTERS: Final = 100  # of the database columns that store a key's id
_PROBLEM_SCHEMA: Final = ProblemDocument.model_json_schema()

ModelPath = Annotated[str, Path(description="Name of the model.", examples=["digits"])]
CursorQuery = Annotated[
    str | None,
    Query(
        description="`next` of the previous page.",
        json_schema_extra={"pattern": "^[0-9]{1,9}$"},  # of ten digits, some are no id
    ),
]
LimitQuery = Annotated[int, Query(ge=1, le=MAX_LIMIT, description="Number of items on a page.")]
VersionQuery = Annotated[
    int | None, Query(ge=1, le=LARGEST_ID, description="Default: the live one.")
]
IfMatchHeader = Annotated[
    str | None,
    Header(
        alias="If-Match",
        description="The live revision that you have seen, in quotes.",
        json_schema_extra={"pattern": '^"?[0-9]{1,18}"?$', "examples": ['"4"']},
    ),
]
PreferHeader = Annotated[
    str | None,
    Header(description="`wait=SECONDS`: wait for the report, for at most 60 seconds."),
]


def problems(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """OpenAPI responses for the errors of a route; every route may answer 422 and 503."""
    return {
        status: {
            "description": TITLES[status],
            "content": {MEDIA_TYPE: {"schema": _PROBLEM_SCHEMA}},
        }
        for status in sorted({*statuses, 422, 503})
    }


def expected_revision(if_match: str | None) -> int:
    """The live revision that the client has seen, from If-Match.

    Raises `PreconditionRequired` without the header, and `InvalidRequest` if it is not one
    revision. `*` is refused: it would allow a change to a state that the client has not seen.
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
    """How long the client wants to wait for the result (RFC 7240), at most `MAX_WAIT_SECONDS`."""
    match = _WAIT.search(prefer or "")
    return None if match is None else min(float(match[1]), MAX_WAIT_SECONDS)


def visible_models(request: Request) -> str | None:
    """Regular expression for the models that the request's key may use; None for all."""
    principal = request.scope.get("state", {}).get("principal")
    pattern = principal.models_pattern if isinstance(principal, Principal) else None
    return None if pattern is None else pattern.pattern


def caller(request: Request) -> str | None:
    """Id of the API key that the request was made with, for the history."""
    key_id = request.scope.get("state", {}).get("key_id")
    return key_id[:_KEY_ID_CHARACTERS] if isinstance(key_id, str) else None
