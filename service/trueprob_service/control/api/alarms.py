"""Alarms: what was raised, and that somebody knows."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

from fastapi import APIRouter, Path, Request

from trueprob_service.control.alarm_schemas import AlarmSummary
from trueprob_service.control.api.documentation import (
    DEFAULT_PAGE,
    CursorQuery,
    LimitQuery,
    ModelPath,
    problems,
)
from trueprob_service.control.api.requests import caller
from trueprob_service.control.schemas import answers
from trueprob_service.control.schemas.documents import Items
from trueprob_service.control.schemas.lists import Page, split
from trueprob_service.errors import AlarmNotFound, ModelNotFound

if TYPE_CHECKING:
    from trueprob_service.control.plane import ControlPlane

_LARGEST_ID = 2**31 - 1
_AlarmPath = Annotated[str, Path(description="Id of the alarm.")]


def create_router(plane: ControlPlane) -> APIRouter:
    """Routes of ``alarms``."""
    router = APIRouter(tags=["monitoring"])

    @router.get("/models/{model}/alarms", summary="List alarms", responses=problems(404, 422))
    def list_alarms(
        model: ModelPath, cursor: CursorQuery = None, limit: LimitQuery = DEFAULT_PAGE
    ) -> Items[AlarmSummary]:
        """Every alarm of every promotion, newest first; nothing is ever removed from it."""
        page = Page.of(cursor, limit)
        with plane.parts.store.read() as transaction:
            if transaction.models.get(model) is None:
                raise ModelNotFound(f"there is no model named {model!r}")
            rows, following = split(
                transaction.alarms.page(model, before=page.before, limit=page.limit + 1),
                page,
                lambda row: row.id,
            )
        return Items(items=[answers.alarm(row) for row in rows], next=following)

    @router.post(
        "/models/{model}/alarms/{alarm}/acknowledge",
        summary="Acknowledge an alarm",
        responses=problems(404),
    )
    def acknowledge(model: ModelPath, alarm: _AlarmPath, request: Request) -> AlarmSummary:
        """Say that it is known: an alarm of change sets that statistic of its promotion back to 0.

        Doing so again changes nothing; the first one stays recorded. Evidence is not set back: it
        tells of the whole time since the promotion, and the next promotion starts it anew.
        """
        number = int(alarm) if alarm.isascii() and alarm.isdigit() else 0
        if not 0 < number <= _LARGEST_ID:
            raise AlarmNotFound(f"model {model!r} has no alarm {alarm[:40]!r}")
        row = plane.parts.alarms.acknowledge(model, number, by=caller(request))
        return answers.alarm(row)

    return router
