"""Routes of calibrators, promotions, rollbacks and shadows."""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated, Literal

from fastapi import APIRouter, Path, Query, Request, Response

from trueprob_service.control.api.documentation import (
    DEFAULT_PAGE,
    CursorQuery,
    IfMatchHeader,
    LimitQuery,
    ModelPath,
    caller,
    expected_revision,
    problems,
)
from trueprob_service.control.assembly import ControlServices
from trueprob_service.control.schemas.lists import LARGEST_ID, Items, Page
from trueprob_service.control.schemas.live import (
    CalibratorSummary,
    LivePair,
    PromotionSummary,
    RollbackRequest,
    ShadowRequest,
    ShadowSummary,
)

__all__ = ["calibrator_routes", "promotion_routes", "shadow_routes"]

_CalibratorPath = Annotated[str, Path(description="Id of the calibrator.")]
_RoleQuery = Annotated[
    Literal["candidate", "predecessor"],
    Query(description="The candidate, or the predecessor that a promotion put into the shadow."),
]
_VersionQuery = Annotated[
    int | None, Query(ge=1, le=LARGEST_ID, description="Version that it belongs to.")
]


def calibrator_routes(services: Callable[[], ControlServices]) -> APIRouter:
    """List, read and promote calibrators."""
    router = APIRouter(tags=["calibrators"])

    @router.get(
        "/models/{model}/calibrators", summary="List calibrators", responses=problems(404, 422)
    )
    def list_calibrators(
        model: ModelPath,
        version: _VersionQuery = None,
        cursor: CursorQuery = None,
        limit: LimitQuery = DEFAULT_PAGE,
    ) -> Items[CalibratorSummary]:
        """Calibrators of all versions, newest first."""
        page = Page.from_query(cursor, limit)
        return services().descriptions.calibrators(model, page, version=version)

    @router.get(
        "/models/{model}/calibrators/{calibrator}",
        summary="Read a calibrator",
        responses={
            200: {"description": "`calibrator.json`", "content": {"application/json": {}}},
            **problems(404, 422),
        },
        response_class=Response,
    )
    def get_calibrator(
        model: ModelPath, calibrator: _CalibratorPath, version: _VersionQuery = None
    ) -> Response:
        """The document `calibrator.json`, with every number exactly as stored."""
        descriptions = services().descriptions
        document = descriptions.calibrator_document(model, calibrator, version=version)
        return Response(document, media_type="application/json")

    @router.post(
        "/models/{model}/calibrators/{calibrator}/promote",
        summary="Make a calibrator live",
        responses=problems(404, 409, 412, 422, 428),
    )
    def promote(
        model: ModelPath,
        calibrator: _CalibratorPath,
        request: Request,
        version: _VersionQuery = None,
        force: Annotated[
            bool,
            Query(description="Promote it even if it is held, was not admitted, or was reverted."),
        ] = False,
        if_match: IfMatchHeader = None,
    ) -> LivePair:
        """Put the pair (version, calibrator) live under the next revision.

        Refused with 409 when the calibrator belongs to another version than the live one (name it
        with `version`), is held by a finding, was not admitted, or was reverted. `force=true`
        promotes such a calibrator, and the history says so.
        """
        row = services().promotions.promote(
            model,
            calibrator,
            version=version,
            expected=expected_revision(if_match),
            force=force,
            by=caller(request),
        )
        return LivePair.from_row(row)

    return router


def promotion_routes(services: Callable[[], ControlServices]) -> APIRouter:
    """List promotions, and go back to an earlier pair."""
    router = APIRouter(tags=["promotion"])

    @router.get(
        "/models/{model}/promotions", summary="List promotions", responses=problems(404, 422)
    )
    def list_promotions(
        model: ModelPath, cursor: CursorQuery = None, limit: LimitQuery = DEFAULT_PAGE
    ) -> Items[PromotionSummary]:
        """Every revision of the live pair, newest first; none is ever removed."""
        return services().descriptions.promotions(model, Page.from_query(cursor, limit))

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
        """Make the pair of an earlier revision live again, as a new revision.

        Without `revision`: undo the last promotion that was not itself a rollback and has not been
        undone.
        """
        row = services().promotions.rollback(
            model,
            revision=None if body is None else body.revision,
            expected=expected_revision(if_match),
            by=caller(request),
        )
        return LivePair.from_row(row)

    return router


def shadow_routes(services: Callable[[], ControlServices]) -> APIRouter:
    """Read, start and end the shadow of a live pair."""
    router = APIRouter(tags=["shadow"])

    @router.get(
        "/models/{model}/shadow",
        summary="Read the shadow",
        responses=problems(404, 422),
    )
    def get_shadow(model: ModelPath, role: _RoleQuery = "candidate") -> ShadowSummary:
        """The evidence for and against the calibrator in the shadow, or the last one."""
        return ShadowSummary.from_row(services().shadows.newest(model, role))

    @router.put(
        "/models/{model}/shadow",
        summary="Let a calibrator shadow the live pair",
        responses={
            201: {"model": ShadowSummary, "description": "The shadow has started"},
            **problems(404, 409, 422),
        },
    )
    def put_shadow(
        model: ModelPath, body: ShadowRequest, request: Request, response: Response
    ) -> ShadowSummary:
        """Compare a calibrator of the live version with the live one, on labels from now on.

        It replaces an earlier candidate in the shadow. It answers no request, but receipts carry
        its answers too, and labels score both. The shadow ends when another pair becomes live.
        """
        row, is_new = services().shadows.put(
            model, body.calibrator, policy=body.policy, by=caller(request)
        )
        response.status_code = 201 if is_new else 200
        return ShadowSummary.from_row(row)

    @router.delete(
        "/models/{model}/shadow",
        status_code=204,
        summary="End a shadow",
        responses=problems(404, 422),
    )
    def delete_shadow(model: ModelPath, role: _RoleQuery = "candidate") -> None:
        """Stop the comparison; its evidence so far can still be read."""
        services().shadows.remove(model, role)

    return router
