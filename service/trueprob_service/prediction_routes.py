"""The hot routes as FastAPI sees them: their signatures, for the OpenAPI document.

`trueprob_service.inference.asgi` answers these paths before FastAPI's router is asked, so that none
of the functions here is ever called.
"""

# ruff: noqa: ARG001 - the arguments are the documentation

from __future__ import annotations

import re
from typing import Annotated, Any, Final

from fastapi import APIRouter, Depends, Header, Path, Query
from pydantic import Field

from trueprob_service import prediction_schemas as schemas
from trueprob_service.content_encoding import CODINGS
from trueprob_service.control.api.documentation import ModelPath, problems
from trueprob_service.errors import NotFound
from trueprob_service.inference import wire_multipart
from trueprob_service.inference.answer_fields import FIELDS
from trueprob_service.inference.asgi import LIVE, PREDICT, READY
from trueprob_service.inference.wire import images as wire_images
from trueprob_service.inference.wire import npy as wire_npy
from trueprob_service.inference.wire import npz as wire_npz
from trueprob_service.inference.wire.oip import HEADER_LENGTH

__all__ = ["create_router"]

_BINARY: Final = {"schema": {"type": "string", "format": "binary"}}
_OCTETS: Final = {"application/octet-stream": _BINARY}
_FORM: Final = {
    "type": "object",
    "required": [wire_multipart.PART_NAME],
    "properties": {wire_multipart.PART_NAME: {"type": "array", "items": _BINARY["schema"]}},
}
# FastAPI has no list separated by commas.
_RETURN: Final = {
    "name": "return",
    "in": "query",
    "explode": False,
    "schema": {"type": "array", "items": {"enum": list(FIELDS)}, "uniqueItems": True},
    "description": "Fields of a JSON or .npz answer, separated by commas.",
}


def create_router() -> APIRouter:
    """The routes of `trueprob_service.inference.asgi.HOT_ROUTES`."""
    router = APIRouter()
    _add_prediction(router)
    _add_health(router)

    @router.get("/v2", tags=["open inference"], summary="Server metadata", operation_id="v2")
    def server_metadata() -> schemas.ServerMetadata:
        """The server's name, version and protocol extensions."""
        raise _unreachable()

    router.include_router(_open_inference("/v2/models/{model}", _model))
    router.include_router(_open_inference("/v2/models/{model}/versions/{version}", _version))
    return router


def _add_prediction(router: APIRouter) -> None:
    @router.post(
        PREDICT,
        tags=["predictions"],
        summary="Calibrated probabilities",
        operation_id="predict",
        response_description="`Accept` chooses. An .npy answer is the probabilities alone, an .npz "
        "answer holds every field that is not null.",
        responses={
            200: {"content": {wire_npy.MEDIA_TYPE: _BINARY, wire_npz.NPZ_MEDIA_TYPE: _BINARY}},
            **problems(400, 404, 406, 413, 415),
        },
        openapi_extra={
            "parameters": [_RETURN],
            "requestBody": {
                "content": {
                    wire_npy.MEDIA_TYPE: _BINARY,
                    **dict.fromkeys(wire_images.MEDIA_TYPES, _BINARY),
                    wire_multipart.MEDIA_TYPE: {"schema": _FORM},
                }
            },
        },
    )
    def predict(
        model: ModelPath,
        body: schemas.PredictionRequest,
        query: Annotated[schemas.PredictionQuery, Query()],
        content_encoding: Annotated[
            str | schemas.Left,
            Header(
                alias="Content-Encoding",
                description="How the body is compressed.",
                json_schema_extra={"enum": list(CODINGS)},
            ),
        ] = None,
    ) -> schemas.PredictionResponse:
        """Logits, probabilities or pictures in; calibrated probabilities out.

        The answer names the version, calibrator and revision that it was computed with. Keep
        `prediction_ids` to send the label when it is known.
        """
        raise _unreachable()


def _add_health(router: APIRouter) -> None:
    @router.get(LIVE, tags=["health"], summary="Server live", operation_id="server_live")
    def live() -> dict[str, Any]:
        """The process answers."""
        raise _unreachable()

    @router.get(
        READY,
        tags=["health"],
        summary="Server ready",
        operation_id="server_ready",
        responses={503: {"description": "Not yet, or not any more."}},
    )
    def ready() -> dict[str, Any]:
        """Models are loaded; `status` is degraded while the database is away."""
        raise _unreachable()


def _model(model: ModelPath) -> None:
    """The path of a model."""


def _version(
    model: ModelPath, version: Annotated[str, Path(description="A positive integer.")]
) -> None:
    """The path of a version."""


def _open_inference(prefix: str, parameters: Any) -> APIRouter:
    """The Open Inference Protocol's routes of a model, or of a version."""
    router = APIRouter(
        prefix=prefix,
        tags=["open inference"],
        dependencies=[Depends(parameters)],
        generate_unique_id_function=lambda route: re.sub(r"\W", "_", route.path_format[1:]),
    )

    @router.get("", summary="Model metadata", responses=problems(404))
    def metadata() -> schemas.ModelMetadata:
        """The tensors that the model takes and gives."""
        raise _unreachable()

    @router.get("/ready", summary="Model ready", responses=problems(404))
    def is_ready() -> schemas.ModelReady:
        """The model is served."""
        raise _unreachable()

    @router.post(
        "/infer",
        summary="Inference",
        responses={200: {"content": _OCTETS}, **problems(400, 404, 413, 415)},
        openapi_extra={"requestBody": {"content": _OCTETS}},
    )
    def infer(
        body: schemas.InferenceRequest,
        header_length: Annotated[
            Annotated[int, Field(ge=0)] | schemas.Left,
            Header(
                alias=HEADER_LENGTH.title(),
                description="Bytes of JSON before the binary tensors; 0: the body is the input "
                "tensor alone.",
            ),
        ] = None,
    ) -> schemas.InferenceResponse:
        """One input in; the outputs that are asked for out; both in JSON or binary.

        With binary data the header `Inference-Header-Content-Length` gives the length of the JSON
        in front.
        """
        raise _unreachable()

    return router


def _unreachable() -> NotFound:
    """What a path with a line break at its end gets, which the router takes for one without."""
    return NotFound("no route has this path")
