"""The live pair's history, and going back."""

from __future__ import annotations

from typing import TYPE_CHECKING

from fastapi import APIRouter, Request

from trueprob_service.control.api.documentation import (
    DEFAULT_PAGE,
    CursorQuery,
    IfMatchHeader,
    LimitQuery,
    ModelPath,
    problems,
)
from trueprob_service.control.api.requests import caller, expected_revision
from trueprob_service.control.schemas import answers
from trueprob_service.control.schemas.documents import (
    Items,
    LivePair,
    PromotionSummary,
    RollbackRequest,
)
from trueprob_service.control.schemas.lists import Page, split
from trueprob_service.errors import ModelNotFound

if TYPE_CHECKING:
    from trueprob_service.control.plane import ControlPlane


def create_router(plane: ControlPlane) -> APIRouter:
    """Routes of ``promotions`` and ``rollback``."""
    router = APIRouter(tags=["promotion"])

    @router.get(
        "/models/{model}/promotions", summary="List promotions", responses=problems(404, 422)
    )
    def list_promotions(
        model: ModelPath, cursor: CursorQuery = None, limit: LimitQuery = DEFAULT_PAGE
    ) -> Items[PromotionSummary]:
        """Every revision of the live pair, newest first; nothing is ever removed from it."""
        page = Page.of(cursor, limit)
        with plane.parts.store.read() as transaction:
            if transaction.models.get(model) is None:
                raise ModelNotFound(f"there is no model named {model!r}")
            rows, following = split(
                transaction.promotions.page(model, before=page.before, limit=page.limit + 1),
                page,
                lambda row: row.revision,
            )
        return Items(items=[answers.promotion(row) for row in rows], next=following)

    @router.post(
        "/models/{model}/rollback",
        summary="Go back to an earlier pair",
        responses=problems(404, 409, 412, 422, 428),
    )
    def rollback(
        model: ModelPath,
        request: Request,
        body: RollbackRequest | None = None,
        if_match: IfMatchHeader = None,
    ) -> LivePair:
        """Put the pair of a revision back, as a new revision.

        Without `revision`: undo the last promotion that was not itself a rollback and has not been
        undone.
        """
        row = plane.parts.promotions.rollback(
            model,
            revision=None if body is None else body.revision,
            expected=expected_revision(if_match),
            by=caller(request),
        )
        return answers.live_pair(row)

    return router
