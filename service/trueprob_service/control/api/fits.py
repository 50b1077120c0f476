"""Fits: start one on stored rows, list, read and cancel them."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from typing import Annotated
from urllib.parse import quote

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
from trueprob_service.control.assembly import ControlServices
from trueprob_service.control.fitting.request import FitRequest
from trueprob_service.control.schemas.fits import FitBody, FitSummary
from trueprob_service.control.schemas.lists import Items, Page
from trueprob_service.errors import InvalidRequest

__all__ = ["fit_response", "fit_routes"]

_FitPath = Annotated[str, Path(description="Id of the fit.")]


def fit_routes(services: Callable[[], ControlServices]) -> APIRouter:
    """Start, list, read and cancel fits."""
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
        return services().fit_records.page(model, Page.from_query(cursor, limit))

    @router.get(
        "/models/{model}/fits/{fit}",
        summary="Read a fit",
        responses=problems(404),
        response_model_exclude_unset=True,
    )
    def get_fit(model: ModelPath, fit: _FitPath) -> FitSummary:
        """The state and, once the fit is done, the report with the verdict and the scores."""
        return services().fit_records.get(model, fit)

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
        """Fit on rows that the service already has; otherwise like an upload.

        For the refit window, its current rows are first stored as a set. The same request again
        gives the same fit, as for an upload.
        """
        if (body.calibration_set is None) == (body.source is None):
            raise InvalidRequest("exactly one of calibration_set and source is needed")
        fit_request = FitRequest(
            version=body.version,
            method=body.method,
            promote=body.promote,
            keep_prediction=body.keep_prediction,
            allow_prediction_change=body.allow_prediction_change,
            force=body.force,
            by=caller(request),
        )
        sets = services().set_uploads
        fit_id, done = await sets.fit(model, body.calibration_set, fit_request)
        return await fit_response(
            services(), model, fit_id, done, prefer=prefer, request=request, response=response
        )

    @router.delete(
        "/models/{model}/fits/{fit}",
        summary="Cancel a fit",
        responses=problems(404, 409),
        response_model_exclude_unset=True,
    )
    def cancel(model: ModelPath, request: Request, fit: _FitPath) -> FitSummary:
        """End a waiting or running fit without a result. 409 if it has already ended."""
        return services().fit_records.cancel(model, fit, by=caller(request))

    return router


async def fit_response(
    services: ControlServices,
    model: str,
    fit_id: int,
    done: Future[None],
    *,
    prefer: str | None,
    request: Request,
    response: Response,
    notes: Sequence[str] = (),  # on the body of an upload
) -> FitSummary:
    """Wait as long as the client asks for, then report the fit and set status and headers."""
    seconds = wait_seconds(prefer)
    if seconds is not None:
        response.headers["Preference-Applied"] = f"wait={seconds:.0f}"
        await asyncio.wait({asyncio.wrap_future(done)}, timeout=seconds)
    report = await run_in_threadpool(services.fit_records.report, model, str(fit_id))
    response.status_code = 201 if seconds is not None and report.has_ended else 202
    root_path = request.scope.get("root_path", "")
    response.headers["Location"] = quote(f"{root_path}/v1/models/{model}/fits/{fit_id}")
    if notes:
        report.notes = list(notes)
    return report
