"""Calibration sets: upload, list, read."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Annotated, Any, Literal

from fastapi import APIRouter, Header, Path, Query, Request, Response
from starlette.concurrency import run_in_threadpool

from service.control import answers
from service.control.calibration_sets import Wish
from service.control.headers import caller, wait_seconds
from service.control.paging import Page, split
from service.control.routes.documentation import (
    DEFAULT_PAGE,
    CursorQuery,
    LimitQuery,
    ModelPath,
    problems,
)
from service.control.routes.fits import set_rows
from service.control.schemas import CalibrationSetSummary, FitSummary, Items
from service.control.store.fits import ENDED
from service.control.uploads import JSON_TYPES, NPZ_TYPES
from service.errors import CalibrationSetNotFound, FitNotFound, ModelNotFound

if TYPE_CHECKING:
    from service.control.plane import ControlPlane

_BODY: dict[str, Any] = {
    "required": True,
    "content": {
        **{kind: {"schema": {"type": "string", "format": "binary"}} for kind in NPZ_TYPES},
        JSON_TYPES[0]: {
            "schema": {
                "type": "object",
                "required": ["labels"],
                "properties": {
                    **{
                        name: {
                            "type": "array",
                            "items": {"type": "array", "items": {"type": "number"}},
                        }
                        for name in ("logits", "probabilities", "log_probabilities")
                    },
                    "labels": {
                        "type": "array",
                        "items": {"oneOf": [{"type": "integer"}, {"type": "string"}]},
                    },
                    "weights": {"type": "array", "items": {"type": "number"}},
                    "groups": {"type": "array", "items": {"type": "integer"}},
                },
                "example": {"logits": [[0.1, 4.2, -1.0], [2.2, 0.3, 0.1]], "labels": [1, 0]},
            }
        },
    },
}


def create_router(plane: ControlPlane) -> APIRouter:
    """Routes of ``calibration-sets``."""
    router = APIRouter(tags=["calibration sets"])

    @router.post(
        "/models/{model}/calibration-sets",
        summary="Upload held-out rows and fit a calibrator",
        status_code=202,
        responses={
            201: {"model": FitSummary, "description": "Done within the time of `Prefer: wait`"},
            **problems(400, 404, 413, 415, 422),
        },
        response_model_exclude_unset=True,
        openapi_extra={"requestBody": _BODY},
    )
    async def upload(
        model: ModelPath,
        request: Request,
        response: Response,
        method: Annotated[str | None, Query(description="How to fit; default: a setting.")] = None,
        promote: Annotated[
            Literal["auto", "never", "always"],
            Query(description="`auto`: if admitted; `always` is recorded as forced."),
        ] = "auto",
        version: Annotated[int | None, Query(ge=1, description="Default: the live one.")] = None,
        name: Annotated[str | None, Query(description="Names the set.")] = None,
        force: Annotated[bool, Query(description="Fit even a very small set.")] = False,
        prefer: Annotated[
            str | None, Header(description="`wait=SECONDS`: wait for the report, at most 60.")
        ] = None,
    ) -> FitSummary:
        """Store the rows, fit a calibrator on them, judge it against what is live.

        The body is an `.npz` or JSON with `labels` and one of `logits`, `probabilities`,
        `log_probabilities` (and, in an `.npz`, `images`, which are run through the network);
        `weights` and `groups` are optional. It is checked whole before anything is stored; the
        same rows again are stored once and fitted again.
        """
        wish = Wish(
            version=version,
            method=method,
            promote=promote,
            name=name,
            force=force,
            by=caller(request),
        )
        fit_id, done = await plane.parts.calibration_sets.upload(request, model, wish)
        seconds = wait_seconds(prefer)
        if seconds is not None:
            response.headers["Preference-Applied"] = f"wait={seconds:.0f}"
            await asyncio.wait({asyncio.wrap_future(done)}, timeout=seconds)
        report = await run_in_threadpool(_report, plane, model, fit_id)
        ended = seconds is not None and report.state in ENDED
        response.status_code = 201 if ended else 202
        response.headers["Location"] = f"/v1/models/{model}/fits/{fit_id}"
        return report

    @router.get(
        "/models/{model}/calibration-sets",
        summary="List calibration sets",
        responses=problems(404, 422),
    )
    def list_sets(
        model: ModelPath,
        name: Annotated[str | None, Query(description="Only what this name means.")] = None,
        cursor: CursorQuery = None,
        limit: LimitQuery = DEFAULT_PAGE,
    ) -> Items[CalibrationSetSummary]:
        """Every stored set of the model, newest first."""
        page = Page.of(cursor, limit)
        with plane.parts.store.read() as transaction:
            if transaction.models.get(model) is None:
                raise ModelNotFound(f"there is no model named {model!r}")
            sets = transaction.calibration_sets
            if name is not None:
                named = sets.get(model, name)
                found = [] if named is None else [named]
            else:
                found = sets.page(model, before=page.before, limit=page.limit + 1)
            rows, following = split(found, page, lambda row: row.id)
            names = sets.names(model)
        items = [answers.calibration_set(row, names.get(row.digest, ())) for row in rows]
        return Items(items=items, next=following)

    @router.get(
        "/models/{model}/calibration-sets/{digest}",
        summary="Describe a calibration set",
        responses=problems(404),
    )
    def get_set(
        model: ModelPath,
        digest: Annotated[str, Path(description="`sha256:…`, or a name.")],
    ) -> CalibrationSetSummary:
        """How many rows it has, and since when it is stored."""
        with plane.parts.store.read() as transaction:
            row = transaction.calibration_sets.get(model, digest)
            if row is None:
                raise CalibrationSetNotFound(f"model {model!r} has no calibration set {digest!r}")
            names = transaction.calibration_sets.names(model)
        return answers.calibration_set(row, names.get(row.digest, ()))

    return router


def _report(plane: ControlPlane, model: str, fit_id: int) -> FitSummary:
    with plane.parts.store.read() as transaction:
        row = transaction.fits.get(model, fit_id)
        if row is None:
            raise FitNotFound(f"fit {fit_id} is gone")
        return answers.fit_report(row, n=set_rows(transaction, row))
