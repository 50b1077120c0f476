"""The route of the audit trail."""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated, Literal

from fastapi import APIRouter, Query, Request

from trueprob_service.control.api.documentation import (
    DEFAULT_PAGE,
    CursorQuery,
    LimitQuery,
    problems,
    visible_models,
)
from trueprob_service.control.assembly import ControlServices
from trueprob_service.control.schemas.audit import AuditEntry
from trueprob_service.control.schemas.lists import Items, Page
from trueprob_service.edge.keys import parse_time
from trueprob_service.errors import InvalidRequest

__all__ = ["audit_routes"]

_TIME: str = "ISO 8601 with its zone, as in 2027-06-30T12:00:00Z; a date alone is 00:00 UTC."


def audit_routes(services: Callable[[], ControlServices]) -> APIRouter:
    """Read the audit trail."""
    router = APIRouter(tags=["audit"])

    @router.get("/audit", summary="Read the audit trail", responses=problems(422))
    def list_audit(
        request: Request,
        model: Annotated[str | None, Query(description="Only rows of this model.")] = None,
        actor: Annotated[str | None, Query(description="Only rows of this actor.")] = None,
        action: Annotated[str | None, Query(description="Only rows of this action.")] = None,
        outcome: Annotated[
            Literal["done", "refused"] | None, Query(description="Only rows of this outcome.")
        ] = None,
        since: Annotated[str | None, Query(description=f"Not before this time: {_TIME}")] = None,
        until: Annotated[str | None, Query(description=f"Before this time: {_TIME}")] = None,
        cursor: CursorQuery = None,
        limit: LimitQuery = DEFAULT_PAGE,
    ) -> Items[AuditEntry]:
        """Every control action, newest first, with refused ones. Needs the scope `admin`.

        A key that may use some models only sees the rows of those models.
        """
        return services().audit.page(
            Page.from_query(cursor, limit),
            model=model,
            actor=actor,
            action=action,
            outcome=outcome,
            since=_time("since", since),
            until=_time("until", until),
            models_pattern=visible_models(request),
        )

    return router


def _time(name: str, text: str | None) -> float | None:
    try:
        return None if text is None else parse_time(text)
    except ValueError as error:
        raise InvalidRequest(f"{name} {error}") from None
