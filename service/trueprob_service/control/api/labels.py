"""Routes of labels, of the calibration that labels show, and of alarms."""

from __future__ import annotations

from collections.abc import Callable, Mapping
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
from trueprob_service.control.labels.body import read_document, read_labels, read_labels_by_id
from trueprob_service.control.labels.by_id import WAIT_SECONDS
from trueprob_service.control.schemas.labels import (
    AlarmSummary,
    Calibration,
    IdLabelRequest,
    IdLabelsRequest,
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
    """Schema of the bodies, with the items of lists written out.

    A reference to a definition would not be found in the OpenAPI document.
    """
    rows, pairs = RowsRequest.model_json_schema(), IdLabelsRequest.model_json_schema()
    rows["properties"]["rows"]["items"] = rows.pop("$defs")["LabelledRow"]
    pairs["properties"]["labels"]["items"] = pairs.pop("$defs")["IdLabel"]
    columns = (LabelRequest.model_json_schema(), IdLabelRequest.model_json_schema())
    return {"anyOf": [*columns, pairs, rows]}


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
        wait: Annotated[
            float,
            Query(
                ge=0,
                le=WAIT_SECONDS,
                allow_inf_nan=False,
                description="How many seconds to look for ids that are not there yet.",
            ),
        ] = WAIT_SECONDS,
    ) -> LabelOutcomes:
        """Count up to 100 000 labels. Each prediction counts once, even if it is sent again.

        Labels that were not accepted are reported by index: duplicate, expired, forged, foreign
        (another model's), unknown_class, superseded, capped. If no label is a class of the model,
        the request is refused.

        Labels by your own `ids` count for the predictions that had these ids, as labels by
        `prediction_ids` do. Of several predictions with one id, the latest counts (replaced).
        unknown_id: no prediction with this id is remembered; conflict: another label has counted
        for it.

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
        document = await run_in_threadpool(read_document, body)
        if "rows" in document:
            outcomes = await run_in_threadpool(
                services().row_labels.count, model, document, version=version
            )
            return LabelOutcomes.from_outcomes(outcomes)
        if version is not None:
            raise InvalidRequest("version is only for rows: a prediction has its version")
        if "prediction_ids" in document:
            return await run_in_threadpool(_count, services(), model, document)
        ids, labels = await run_in_threadpool(read_labels_by_id, document)
        counted = services().id_labels.count(model, ids, labels, wait_seconds=wait)
        return await run_in_threadpool(LabelOutcomes.from_outcomes, await counted)

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


def _count(services: ControlServices, model: str, document: Mapping[str, Any]) -> LabelOutcomes:
    ids, labels = read_labels(document)
    return LabelOutcomes.from_outcomes(services.receipt_labels.count(model, ids, labels))
