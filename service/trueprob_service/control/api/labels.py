"""Labels of earlier predictions, and what they say about the calibration."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

from fastapi import APIRouter, Query, Request
from starlette.concurrency import run_in_threadpool

from trueprob_service.control.api.documentation import ModelPath, problems
from trueprob_service.control.bodies import media_type, read_body
from trueprob_service.control.labels.body import read_document, read_labels
from trueprob_service.control.schemas import answers
from trueprob_service.control.schemas.labels import (
    Calibration,
    LabelOutcomes,
    LabelRequest,
    RowsRequest,
)
from trueprob_service.edge.bodies import BodyLimits
from trueprob_service.errors import InvalidRequest, UnsupportedMediaType

if TYPE_CHECKING:
    from trueprob_service.control.plane import ControlPlane


def _body() -> dict[str, Any]:
    """Schema of the two bodies; a reference to a definition would not be found in the document."""
    rows = RowsRequest.model_json_schema()
    rows["properties"]["rows"]["items"] = rows.pop("$defs")["LabelledRow"]
    return {"anyOf": [LabelRequest.model_json_schema(), rows]}


def create_router(plane: ControlPlane) -> APIRouter:
    """Routes of ``labels`` and ``calibration``."""
    router = APIRouter(tags=["monitoring"])

    @router.post(
        "/models/{model}/labels",
        summary="Send labels of earlier predictions",
        responses=problems(400, 404, 413, 415, 422),
        openapi_extra={
            "requestBody": {
                "required": True,
                "content": {"application/json": {"schema": _body()}},
            }
        },
    )
    async def post_labels(
        model: ModelPath,
        request: Request,
        version: Annotated[
            int | None, Query(ge=1, description="Of rows: whose logits; default: the live one.")
        ] = None,
    ) -> LabelOutcomes:
        """Count up to 100 000 labels, each prediction once, whatever is sent again.

        What was not accepted is reported by index: duplicate, expired, forged, foreign (another
        model's), unknown_class, superseded, capped. When no label is a class of the model, the
        request is refused.

        Labels may come with the logits that they belong to, as `rows`, each with an id that
        counts once. Rows are kept to be fitted on; they say nothing about predictions and never
        raise an alarm.
        """
        if media_type(request) not in ("application/json", ""):
            raise UnsupportedMediaType("Content-Type must be application/json")
        settings = plane.parts.settings
        limits = BodyLimits(settings.max_body_bytes, settings.max_upload_bytes)
        body = await read_body(request, limit=limits.labels)
        return await run_in_threadpool(_count, plane, model, body, version)

    @router.get(
        "/models/{model}/calibration",
        summary="How well the probabilities hold",
        responses=problems(404, 422),
    )
    def get_calibration(
        model: ModelPath,
        window: Annotated[str, Query(description="Hours or days: `1h`, `24h`, `7d`.")] = "24h",
    ) -> Calibration:
        """Error, noise floor and accuracy of the live pair over the labels of a window."""
        return plane.parts.statistics.calibration(model, window)

    return router


def _count(
    plane: ControlPlane,
    model: str,
    body: bytes,
    version: int | None,
) -> LabelOutcomes:
    document = read_document(body)
    if "rows" in document:
        rows = plane.parts.row_labels
        return answers.label_outcomes(rows.count(model, document, version=version))
    if version is not None:
        raise InvalidRequest("version must come with rows: a prediction id says its own")
    ids, labels = read_labels(document)
    return answers.label_outcomes(plane.parts.receipt_labels.count(model, ids, labels))
