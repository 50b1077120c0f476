"""What every route's documentation shares: how errors look, and how lists are asked for."""

from __future__ import annotations

from typing import Annotated, Any, Final

from fastapi import Header, Path, Query

from trueprob_service.control.schemas.documents import ProblemDocument
from trueprob_service.control.schemas.lists import DEFAULT_LIMIT, MAX_LIMIT
from trueprob_service.edge.problems import MEDIA_TYPE, TITLES

__all__ = [
    "CursorQuery",
    "IfMatchHeader",
    "LimitQuery",
    "ModelPath",
    "PreferHeader",
    "problems",
]

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
