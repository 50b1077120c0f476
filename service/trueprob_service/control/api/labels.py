"""Routes of labels, of the calibration that labels show, and of alarms."""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated, Any

from fastapi import APIRouter, Path, Query, Request
from starlette.concurrency import run_in_threadpool

from trueprob_service.control.api.documentation import (
    DEFAULT_PAGE,
    CursorQuery,
    LimitQuery,
    ModelPath,
    caller,
    problems,
)
from trueprob_service.control.assembly import ControlServices
from trueprob_service.control.labels.body import read_document, read_labels
from trueprob_service.control.schemas.labels import (
    AlarmSummary,
    Calibration,
    LabelOutcomes,
    LabelRequest,
    RowsRequest,
)
from trueprob_service.control.schemas.lists import LARGEST_ID, Items, Page, row_id
from trueprob_service.edge.bodies import BodyLimits, media_type, read_body
from trueprob_service.errors import AlarmNotFound, InvalidRequest, UnsupportedMediaType

__all__ = ["alarm_routes", "label_routes"]

_AlarmPath = Annotated[str, Path(description="Id of the alarm.")]


def _labels_schema() -> dict[str, Any]:
    """Schema of the two bodies, with `LabelledRow` written out.

    A reference to a definition would not be found in the OpenAPI document.
    """
    rows = RowsRequest.model_json_schema()
    rows["properties"]["rows"]["items"] = rows.pop("$defs")["LabelledRow"]
    return {"anyOf": [LabelRequest.model_json_schema(), rows]}


def label_routes(services: Callable[[], ControlServices]) -> APIRouter:
    """Send labels, and read the calibration statistics."""
    router = APIRouter(tags=["monitoring"])

    @router.post(
        "/models/{model}/labels",
        summary="Send labels of earlier predictions",
        responses=problems(400, 404, 413, 415, 422),
        openapi_extra={
            "requestBody": {
                "required": True,
                "content": {"application/json": {"schema": _labels_schema()}},
            }
        },
    )
    async def post_labels(
        model: ModelPath,
        request: Request,
        version: Annotated[
            int | None,
            Query(
                ge=1,
                le=LARGEST_ID,
                description="For rows: the version of their logits; default: the live one.",
            ),
        ] = None,
    ) -> LabelOutcomes:
        """Count up to 100 000 labels. Each prediction counts once, even if it is sent again.

        Labels that were not accepted are reported by index: duplicate, expired, forged, foreign
        (another model's), unknown_class, superseded, capped. If no label is a class of the model,
        the request is refused.

        Labels may also be sent with their logits, as `rows`; the id of each counts once. Rows are
        stored for refits. They do not affect the statistics of predictions or raise alarms.
        """
        kind = media_type(request)
        if kind != "application/json":
            raise UnsupportedMediaType(
                f"Content-Type must be application/json, got {kind or 'none'}"
            )
        settings = services().settings
        limits = BodyLimits(settings.max_body_bytes, settings.max_upload_bytes)
        body = await read_body(request, limit=limits.labels)
        return await run_in_threadpool(_count, services(), model, body, version)

    @router.get(
        "/models/{model}/calibration",
        summary="Calibration by labels",
        responses=problems(404, 422),
    )
    def get_calibration(
        model: ModelPath,
        window: Annotated[
            str,
            Query(
                description="Hours or days: `1h`, `24h`, `7d`.",
                json_schema_extra={"pattern": "^[1-9][0-9]{0,2}[hd]$"},
            ),
        ] = "24h",
    ) -> Calibration:
        """Error, noise floor and accuracy of the live pair over the labels of a window."""
        return services().statistics.calibration(model, window)

    return router


def alarm_routes(services: Callable[[], ControlServices]) -> APIRouter:
    """List and acknowledge alarms."""
    router = APIRouter(tags=["monitoring"])

    @router.get("/models/{model}/alarms", summary="List alarms", responses=problems(404, 422))
    def list_alarms(
        model: ModelPath, cursor: CursorQuery = None, limit: LimitQuery = DEFAULT_PAGE
    ) -> Items[AlarmSummary]:
        """The alarms of every promotion, newest first; none is ever removed."""
        return services().alarms.page(model, Page.from_query(cursor, limit))

    @router.post(
        "/models/{model}/alarms/{alarm}/acknowledge",
        summary="Acknowledge an alarm",
        responses=problems(404),
    )
    def acknowledge(model: ModelPath, alarm: _AlarmPath, request: Request) -> AlarmSummary:
        """Record that the alarm was seen; for an alarm of change, also reset that statistic to 0.

        A second acknowledgement changes nothing; the first one stays recorded. Evidence is not
        reset: it covers the whole time since the promotion, and the next promotion resets it.
        """
        number = row_id(alarm)
        if number is None:
            raise AlarmNotFound(f"model {model!r} has no alarm {alarm[:40]!r}")
        row = services().alarms.acknowledge(model, number, by=caller(request))
        return AlarmSummary.from_row(row)

    return router


def _count(
    services: ControlServices, model: str, body: bytes, version: int | None
) -> LabelOutcomes:
    document = read_document(body)
    if "rows" in document:
        return LabelOutcomes.from_outcomes(
            services.row_labels.count(model, document, version=version)
        )
    if version is not None:
        raise InvalidRequest("version is only for rows: a prediction id contains its version")
    ids, labels = read_labels(document)
    return LabelOutcomes.from_outcomes(services.receipt_labels.count(model, ids, labels))
