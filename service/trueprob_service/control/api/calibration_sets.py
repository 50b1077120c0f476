"""Calibration sets: upload, append, list, read, download, delete."""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated, Any, Final, Literal

from fastapi import APIRouter, Header, Path, Query, Request, Response
from fastapi.responses import FileResponse
from starlette.concurrency import run_in_threadpool

from trueprob.fitting.methods import METHODS
from trueprob_service.control.api.documentation import (
    DEFAULT_PAGE,
    CursorQuery,
    LimitQuery,
    ModelPath,
    PreferHeader,
    VersionQuery,
    caller,
    problems,
)
from trueprob_service.control.api.fits import fit_response
from trueprob_service.control.assembly import ControlServices
from trueprob_service.control.fitting.request import SET_NAME, FitRequest
from trueprob_service.control.fitting.upload_body import (
    CSV_TYPES,
    FORM_TYPES,
    JSON_TYPES,
    NPZ_TYPES,
)
from trueprob_service.control.schemas.fits import CalibrationSetSummary, FitSummary
from trueprob_service.control.schemas.lists import Items, Page

__all__ = ["UPLOAD_BODY", "calibration_set_routes"]

_BINARY: Final = {"type": "string", "format": "binary", "minLength": 1}
_NUMBERS: Final = {"type": "array", "items": {"type": "number"}}
_ROWS: Final = {"type": "array", "items": _NUMBERS}
_MATRICES: Final = ("logits", "probabilities", "log_probabilities")
_OTHERS: Final = ("images", "labels", "weights", "groups", "class_names")

# OpenAPI's description of the body of an upload.
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
                    "class_names": {"type": "array", "items": {"type": "string"}},
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
                    **dict.fromkeys((*_MATRICES, *_OTHERS), _BINARY),
                    "image": {"type": "array", "items": _BINARY},
                },
            }
        },
    },
}


def calibration_set_routes(services: Callable[[], ControlServices]) -> APIRouter:
    """Upload, append to, list, read, download and delete calibration sets."""
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
        method: Annotated[
            str | None,
            Query(
                description="How to fit; default: a setting.",
                json_schema_extra={"enum": list(METHODS)},
            ),
        ] = None,
        promote: Annotated[
            Literal["auto", "never", "always", "shadow"],
            Query(description="`auto`: if admitted; `always` is recorded as forced."),
        ] = "auto",
        version: VersionQuery = None,
        name: Annotated[
            str | None,
            Query(description="Name to give to the set.", json_schema_extra={"pattern": SET_NAME}),
        ] = None,
        keep_prediction: Annotated[
            bool | None, Query(description="Whether every prediction stays; default: a setting.")
        ] = None,
        allow_prediction_change: Annotated[
            bool | None, Query(description="Whether predictions may change; default: a setting.")
        ] = None,
        force: Annotated[bool, Query(description="Fit even a very small set.")] = False,
        prefer: PreferHeader = None,
    ) -> FitSummary:
        """Store the rows, fit a calibrator on them, and judge it against the live one.

        The body is an `.npz`, JSON, a `.csv` or a form with `labels` and one of `logits`,
        `probabilities`, `log_probabilities`, `images` (run through the network); `weights`,
        `groups` and `class_names` are optional. Columns with names are matched by name with the
        classes of the version. The whole body is checked before anything is stored. Sending the
        same rows again gives the same set. With the same parameters it also gives the same fit,
        while the live pair is the one that the fit was judged against or the one that it produced.
        Later the calibrator is judged again, but not fitted again.
        """
        fit_request = FitRequest(
            version=version,
            method=method,
            promote=promote,
            name=name,
            keep_prediction=keep_prediction,
            allow_prediction_change=allow_prediction_change,
            force=force,
            by=caller(request),
        )
        fit_id, done, notes = await services().set_uploads.upload(request, model, fit_request)
        return await fit_response(
            services(),
            model,
            fit_id,
            done,
            prefer=prefer,
            request=request,
            response=response,
            notes=notes,
        )

    @router.post(
        "/models/{model}/calibration-sets/{name}/rows",
        summary="Append rows to a named set",
        responses=problems(400, 404, 409, 413, 415, 422),
        openapi_extra={"requestBody": UPLOAD_BODY},
    )
    async def append(
        model: ModelPath,
        name: Annotated[
            str,
            Path(
                description="The set's name; the first rows create it.",
                json_schema_extra={"pattern": SET_NAME},
            ),
        ],
        request: Request,
        version: VersionQuery = None,
    ) -> CalibrationSetSummary:
        """Add rows to a set, in a body like that of an upload; nothing is fitted.

        From then on the name refers to the new, longer set; its `findings` say what speaks against
        a fit on it, and no row is refused for them. `POST …/fits` fits on it. A request
        whose rows the set already contains, in one run and in order, adds nothing.
        """
        row, notes = await services().set_uploads.append(
            request, model, name, version=version, by=caller(request)
        )
        summary = await run_in_threadpool(services().stored_sets.describe, row)
        summary.notes = list(notes)
        return summary

    @router.get(
        "/models/{model}/calibration-sets",
        summary="List calibration sets",
        responses=problems(404, 422),
    )
    def list_sets(
        model: ModelPath,
        name: Annotated[str | None, Query(description="Only the set of this name.")] = None,
        cursor: CursorQuery = None,
        limit: LimitQuery = DEFAULT_PAGE,
    ) -> Items[CalibrationSetSummary]:
        """Every stored set of the model, newest first."""
        return services().stored_sets.page(model, Page.from_query(cursor, limit), name=name)

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
        """The number of rows and the findings, or the rows themselves as an `.npz`."""
        sets = services().stored_sets
        if NPZ_TYPES[0] not in (accept or ""):
            return sets.get(model, digest)
        path = sets.file(model, digest)
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
        """Delete the rows and the names that refer to them.

        Refused with 409 while a fit on the set has not ended. Calibrators that were fitted on it
        stay. The digests of its rows stay too, so that the same rows do not count as evidence
        twice.
        """
        services().stored_sets.delete(model, digest)

    return router
