"""Calibrators: list, read, make live."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

from fastapi import APIRouter, Path, Query, Request, Response

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
from trueprob_service.control.schemas.documents import CalibratorSummary, Items, LivePair
from trueprob_service.control.schemas.lists import Page, split
from trueprob_service.errors import CalibratorNotFound, ModelNotFound

if TYPE_CHECKING:
    from trueprob_service.control.plane import ControlPlane

_CalibratorPath = Annotated[str, Path(description="Id of the calibrator.")]
_VersionQuery = Annotated[int | None, Query(ge=1, description="Version that it belongs to.")]


def create_router(plane: ControlPlane) -> APIRouter:
    """Routes of ``calibrators``."""
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
        page = Page.of(cursor, limit)
        with plane.parts.store.read() as transaction:
            live = transaction.promotions.live(model)
            if live is None:
                raise ModelNotFound(f"there is no model named {model!r}")
            rows, following = split(
                transaction.calibrators.page(
                    model, version=version, before=page.before, limit=page.limit + 1
                ),
                page,
                lambda row: row.id,
            )
        items = [answers.calibrator(row, live=live) for row in rows]
        return Items(items=items, next=following)

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
        """The document `calibrator.json`, every number as it was written."""
        with plane.parts.store.read() as transaction:
            live = transaction.promotions.live(model)
            if live is None:
                raise ModelNotFound(f"there is no model named {model!r}")
            candidates = [
                *([version] if version is not None else [live.version]),
                *(transaction.calibrators.versions_with(model, calibrator) if not version else ()),
            ]
            found = (transaction.calibrators.get(model, each, calibrator) for each in candidates)
            row = next((row for row in found if row is not None), None)
        if row is None:
            raise CalibratorNotFound(f"model {model!r} has no calibrator {calibrator!r}")
        return Response(row.document, media_type="application/json")

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
        force: Annotated[bool, Query(description="Even if it was not admitted.")] = False,
        if_match: IfMatchHeader = None,
    ) -> LivePair:
        """Put the pair (version, calibrator) live under the next revision.

        Refused with 409 when the calibrator belongs to another version than the live one (name it
        with `version`), or was not admitted (`force=true` promotes it, and the history says so).
        """
        row = plane.parts.promotions.promote(
            model,
            calibrator,
            version=version,
            expected=expected_revision(if_match),
            force=force,
            by=caller(request),
        )
        return answers.live_pair(row)

    return router
