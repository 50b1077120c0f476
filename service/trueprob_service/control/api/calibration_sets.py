"""Calibration sets: upload, append, list, read, download, delete.

The OpenAPI description of an upload's body.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Literal

from fastapi import APIRouter, Header, Path, Query, Request, Response
from fastapi.responses import FileResponse
from starlette.concurrency import run_in_threadpool

from trueprob_service.control.api.documentation import (
    DEFAULT_PAGE,
    CursorQuery,
    LimitQuery,
    ModelPath,
    PreferHeader,
    caller,
    problems,
)
from trueprob_service.control.api.fits import answer_fit
from trueprob_service.control.fitting.request import FitRequest
from trueprob_service.control.fitting.stored_sets import ROWS_NOT_FOUND, find_set
from trueprob_service.control.fitting.upload_body import NPZ_TYPES
from trueprob_service.control.schemas import answers
from trueprob_service.control.schemas.documents import CalibrationSetSummary, FitSummary, Items
from trueprob_service.control.schemas.lists import Page, split
from trueprob_service.control.store.calibration_sets import CalibrationSetRow
from trueprob_service.errors import ModelNotFound, Unavailable

if TYPE_CHECKING:
    from trueprob_service.control.plane import ControlPlane
from typing import Any, Final

from trueprob_service.control.fitting.upload_body import (
    CSV_TYPES,
    FORM_TYPES,
    JSON_TYPES,
)

__all__ = ["UPLOAD_BODY"]


_BINARY: Final = {"type": "string", "format": "binary"}
_NUMBERS: Final = {"type": "array", "items": {"type": "number"}}
_ROWS: Final = {"type": "array", "items": _NUMBERS}
_MATRICES: Final = ("logits", "probabilities", "log_probabilities")

UPLOAD_BODY: Final[dict[str, Any]] = {
    "required": True,
    "content": {
        **{kind: {"schema": _BINARY} for kind in (*NPZ_TYPES, *CSV_TYPES)},
        JSON_TYPES[0]: {
            "schema": {
                "type": "object",
                "required": ["labels"],
                "properties": {
                    **dict.fromkeys(_MATRICES, _ROWS),
                    "images": {
                        "type": "array",
                        "items": {"type": "string", "contentEncoding": "base64"},
                    },
                    "labels": {
                        "type": "array",
                        "items": {"oneOf": [{"type": "integer"}, {"type": "string"}]},
                    },
                    "weights": _NUMBERS,
                    "groups": {
                        "type": "array",
                        "items": {"oneOf": [{"type": "integer"}, {"type": "string"}]},
                    },
                },
                "example": {"logits": [[0.1, 4.2, -1.0], [2.2, 0.3, 0.1]], "labels": [1, 0]},
            }
        },
        FORM_TYPES[0]: {
            "schema": {
                "type": "object",
                "required": ["labels"],
                "properties": {
                    **dict.fromkeys((*_MATRICES, "images", "labels", "weights", "groups"), _BINARY),
                    "image": {"type": "array", "items": _BINARY},
                },
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
        openapi_extra={"requestBody": UPLOAD_BODY},
    )
    async def upload(
        model: ModelPath,
        request: Request,
        response: Response,
        method: Annotated[str | None, Query(description="How to fit; default: a setting.")] = None,
        promote: Annotated[
            Literal["auto", "never", "always", "shadow"],
            Query(description="`auto`: if admitted; `always` is recorded as forced."),
        ] = "auto",
        version: Annotated[int | None, Query(ge=1, description="Default: the live one.")] = None,
        name: Annotated[str | None, Query(description="Names the set.")] = None,
        allow_prediction_change: Annotated[
            bool | None, Query(description="Whether predictions may change; default: a setting.")
        ] = None,
        force: Annotated[bool, Query(description="Fit even a very small set.")] = False,
        prefer: PreferHeader = None,
    ) -> FitSummary:
        """Store the rows, fit a calibrator on them, judge it against what is live.

        The body is an `.npz`, JSON, a `.csv` or a form with `labels` and one of `logits`,
        `probabilities`, `log_probabilities`, `images` (run through the network); `weights` and
        `groups` are optional. It is checked whole before anything is stored. The same rows again
        are the same set, and with the same parameters the same fit, as long as what is live is
        what it was judged against or what came of it; later they are judged anew, and not fitted
        again.
        """
        asked = FitRequest(
            version=version,
            method=method,
            promote=promote,
            name=name,
            allow_prediction_change=allow_prediction_change,
            force=force,
            by=caller(request),
        )
        fit_id, done = await plane.parts.set_uploads.upload(request, model, asked)
        return await answer_fit(plane, model, fit_id, done, prefer=prefer, response=response)

    @router.post(
        "/models/{model}/calibration-sets/{name}/rows",
        summary="Append rows to a named set",
        responses=problems(400, 404, 409, 413, 415, 422),
        openapi_extra={"requestBody": UPLOAD_BODY},
    )
    async def append(
        model: ModelPath,
        name: Annotated[str, Path(description="The set's name; the first rows make the set.")],
        request: Request,
        version: Annotated[int | None, Query(ge=1, description="Default: the live one.")] = None,
    ) -> CalibrationSetSummary:
        """Add rows, in a body as of an upload; nothing is fitted.

        The name means the new, longer set from now on. `POST …/fits` fits it. Rows that it holds
        already, all of the request in a run and in their order, are not added again.
        """
        row = await plane.parts.set_uploads.append(
            request, model, name, version=version, by=caller(request)
        )
        return await run_in_threadpool(_summary, plane, row)

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
        summary="Describe or download a calibration set",
        response_model=CalibrationSetSummary,
        responses={
            200: {"content": {NPZ_TYPES[0]: {"schema": {"type": "string", "format": "binary"}}}},
            **problems(404),
        },
    )
    def get_set(
        model: ModelPath,
        digest: Annotated[str, Path(description="`sha256:…`, or a name.")],
        accept: Annotated[
            str | None, Header(description="`application/x-npz` for the rows themselves.")
        ] = None,
    ) -> CalibrationSetSummary | FileResponse:
        """How many rows it has, and since when it is stored; or the rows, as an `.npz`."""
        with plane.parts.store.read() as transaction:
            row = find_set(transaction, model, digest)
        if NPZ_TYPES[0] not in (accept or ""):
            return _summary(plane, row)
        path = plane.parts.set_files.find(row.digest)
        if path is None:
            raise Unavailable(ROWS_NOT_FOUND)
        return FileResponse(path, media_type=NPZ_TYPES[0], filename=path.name)

    @router.delete(
        "/models/{model}/calibration-sets/{digest}",
        summary="Delete a calibration set",
        status_code=204,
        responses=problems(404, 409),
    )
    def delete_set(
        model: ModelPath,
        digest: Annotated[str, Path(description="`sha256:…`, or a name.")],
    ) -> None:
        """Let go of the rows and of the names that mean them.

        Refused with 409 while a fit on the set has not ended. Calibrators that were fitted on it
        stay, and so do the digests of its rows, so that the same rows are not evidence twice.
        """
        plane.parts.stored_sets.delete(model, digest)

    return router


def _summary(plane: ControlPlane, row: CalibrationSetRow) -> CalibrationSetSummary:
    with plane.parts.store.read() as transaction:
        names = transaction.calibration_sets.names(row.model)
    return answers.calibration_set(row, names.get(row.digest, ()))
