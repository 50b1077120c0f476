"""Fits: what was asked for, what came of it, and giving one up."""

from __future__ import annotations

import asyncio
from concurrent.futures import Future
from typing import TYPE_CHECKING, Annotated

from fastapi import APIRouter, Path, Request, Response
from starlette.concurrency import run_in_threadpool

from trueprob_service.control.api.documentation import (
    DEFAULT_PAGE,
    CursorQuery,
    LimitQuery,
    ModelPath,
    PreferHeader,
    caller,
    problems,
    wait_seconds,
)
from trueprob_service.control.fitting.queue import cancel_fit
from trueprob_service.control.fitting.request import FitRequest
from trueprob_service.control.schemas import answers
from trueprob_service.control.schemas.documents import FitBody, FitSummary, Items
from trueprob_service.control.schemas.lists import Page, split
from trueprob_service.control.store import Transaction
from trueprob_service.control.store.fits import ENDED, FitRow
from trueprob_service.errors import FitNotFound, InvalidRequest, ModelNotFound

if TYPE_CHECKING:
    from trueprob_service.control.plane import ControlPlane

_LARGEST_ID = 2**31 - 1


def create_router(plane: ControlPlane) -> APIRouter:
    """Routes of ``fits``."""
    router = APIRouter(tags=["fits"])

    @router.get(
        "/models/{model}/fits",
        summary="List fits",
        responses=problems(404, 422),
        response_model_exclude_unset=True,
    )
    def list_fits(
        model: ModelPath, cursor: CursorQuery = None, limit: LimitQuery = DEFAULT_PAGE
    ) -> Items[FitSummary]:
        """Every fit of the model, newest first."""
        page = Page.of(cursor, limit)
        with plane.parts.store.read() as transaction:
            if transaction.models.get(model) is None:
                raise ModelNotFound(f"there is no model named {model!r}")
            rows, following = split(
                transaction.fits.page(model, before=page.before, limit=page.limit + 1),
                page,
                lambda row: row.id,
            )
            items = [answers.fit(row, n=set_rows(transaction, row)) for row in rows]
        return Items(items=items, next=following)

    @router.get(
        "/models/{model}/fits/{fit}",
        summary="Read a fit",
        responses=problems(404),
        response_model_exclude_unset=True,
    )
    def get_fit(
        model: ModelPath, fit: Annotated[str, Path(description="Id of the fit.")]
    ) -> FitSummary:
        """Its state and, once it is done, the report with the verdict and the scores."""
        is_id = fit.isascii() and fit.isdigit() and int(fit) <= _LARGEST_ID
        with plane.parts.store.read() as transaction:
            row = transaction.fits.get(model, int(fit)) if is_id else None
            if row is None:
                raise FitNotFound(f"model {model!r} has no fit {fit!r}")
            return answers.fit(row, n=set_rows(transaction, row))

    @router.post(
        "/models/{model}/fits",
        summary="Fit a calibrator on a stored set or on the refit window",
        status_code=202,
        responses={
            201: {"model": FitSummary, "description": "Done within the time of `Prefer: wait`"},
            **problems(404, 409, 422),
        },
        response_model_exclude_unset=True,
    )
    async def start_fit(
        model: ModelPath,
        body: FitBody,
        request: Request,
        response: Response,
        prefer: PreferHeader = None,
    ) -> FitSummary:
        """As an upload, of rows that are here already.

        Of the refit window, the rows that it holds now are stored as a set first. Asked for again
        it is the same fit, as of an upload.
        """
        if (body.calibration_set is None) == (body.source is None):
            raise InvalidRequest("exactly one of calibration_set and source is needed")
        asked = FitRequest(
            version=body.version,
            method=body.method,
            promote=body.promote,
            allow_prediction_change=body.allow_prediction_change,
            force=body.force,
            by=caller(request),
        )
        sets = plane.parts.set_uploads
        fit_id, done = await sets.fit(model, body.calibration_set, asked)
        return await answer_fit(plane, model, fit_id, done, prefer=prefer, response=response)

    @router.delete(
        "/models/{model}/fits/{fit}",
        summary="Cancel a fit",
        responses=problems(404, 409),
        response_model_exclude_unset=True,
    )
    def cancel(
        model: ModelPath,
        request: Request,
        fit: Annotated[str, Path(description="Id of the fit.")],
    ) -> FitSummary:
        """End a fit that waits or runs; nothing comes of it. 409 when it has ended already."""
        is_id = fit.isascii() and fit.isdigit() and int(fit) <= _LARGEST_ID
        if not is_id:
            raise FitNotFound(f"model {model!r} has no fit {fit[:40]!r}")
        now = plane.parts.clock()
        cancel_fit(plane.parts.store, model, int(fit), by=caller(request), now=now)
        plane.parts.fit_runner.check_cancelled()
        return _report(plane, model, int(fit))

    return router


async def answer_fit(
    plane: ControlPlane,
    model: str,
    fit_id: int,
    done: Future[None],
    *,
    prefer: str | None,
    response: Response,
) -> FitSummary:
    """Wait as long as the client would, and say where the fit is and stands."""
    seconds = wait_seconds(prefer)
    if seconds is not None:
        response.headers["Preference-Applied"] = f"wait={seconds:.0f}"
        await asyncio.wait({asyncio.wrap_future(done)}, timeout=seconds)
    report = await run_in_threadpool(_report, plane, model, fit_id)
    ended = seconds is not None and report.state in ENDED
    response.status_code = 201 if ended else 202
    response.headers["Location"] = f"/v1/models/{model}/fits/{fit_id}"
    return report


def _report(plane: ControlPlane, model: str, fit_id: int) -> FitSummary:
    with plane.parts.store.read() as transaction:
        row = transaction.fits.get(model, fit_id)
        if row is None:
            raise FitNotFound(f"fit {fit_id} is gone")
        return answers.fit_report(row, n=set_rows(transaction, row))


def set_rows(transaction: Transaction, row: FitRow) -> int:
    """How many rows the fit's set has."""
    found = transaction.calibration_sets.get(row.model, row.calibration_set, deleted=True)
    return 0 if found is None else found.n_rows
