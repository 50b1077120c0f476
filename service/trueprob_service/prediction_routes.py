"""The hot routes as FastAPI sees them: their signatures, for the OpenAPI document.

`trueprob_service.inference.asgi` answers these paths before FastAPI's router is asked, so that none
of the functions here is ever called.

Bodies of the hot routes, for the OpenAPI document: nothing is parsed with these classes.
"""

from __future__ import annotations

import re
from typing import Annotated, Any, Final, Literal

from fastapi import APIRouter, Depends, Header, Path, Query
from pydantic import BaseModel, ConfigDict, Field, JsonValue
from pydantic.json_schema import SkipJsonSchema

from trueprob_service import prediction_routes as schemas
from trueprob_service.control.api.documentation import ModelPath, problems
from trueprob_service.edge.bodies import CODINGS
from trueprob_service.errors import NotFound
from trueprob_service.inference.answer import FIELDS
from trueprob_service.inference.asgi import LIVE, PREDICT, READY
from trueprob_service.inference.open_inference.model import DEFAULT_OUTPUTS, OUTPUTS, PREDICTION_ID
from trueprob_service.inference.wire import images as wire_images
from trueprob_service.inference.wire import images as wire_multipart
from trueprob_service.inference.wire import npy as wire_npy
from trueprob_service.inference.wire import npy as wire_npz
from trueprob_service.inference.wire.oip import HEADER_LENGTH
from trueprob_service.inference.wire.oip_tensors import DATATYPES

__all__ = [
    "InferenceRequest",
    "InferenceResponse",
    "Left",
    "ModelMetadata",
    "ModelReady",
    "PredictionQuery",
    "PredictionRequest",
    "PredictionResponse",
    "ServerMetadata",
    "create_router",
]


Left = SkipJsonSchema[None]
"""For a field that may be left out, but not be null."""
Positive = Annotated[int, Field(ge=1)]
Base64Text = Annotated[str, Field(json_schema_extra={"contentEncoding": "base64"})]
_ROW: Final[list[JsonValue]] = [0.1, 4.2, -1.0, 0.3, 0.0, -2.1, 0.7, 1.1, -0.4, 0.2]
_INFERENCE: Final[JsonValue] = {
    "inputs": [{"name": "logits", "shape": [1, 10], "datatype": "FP32", "data": _ROW}],
    "outputs": [{"name": "probabilities"}, {"name": "prediction_id"}],
}
_DATA: Final = "Numbers in row-major order, nested as the shape or flat."


class PredictionRequest(BaseModel):
    """Exactly one of these."""

    model_config = ConfigDict(
        json_schema_extra={
            "minProperties": 1,
            "maxProperties": 1,
            "examples": [{"logits": [_ROW]}],
        }
    )
    logits: list[list[float]] | Left = None
    probabilities: list[list[float]] | Left = None
    log_probabilities: list[list[float]] | Left = None
    images: list[Base64Text] | Left = Field(None, description="PNG, JPEG or WebP.")


class PredictionQuery(BaseModel):
    """The query of a prediction, without `return`."""

    version: Positive | Left = Field(None, description="Default: the live version.")
    receipts: bool | Left = Field(
        None,
        description="Answer with prediction_ids. Default: for pictures and JSON up to 256 rows.",
    )
    input: Literal["logits", "probabilities", "log_probabilities"] = Field(
        "logits", description="What an .npy body holds."
    )
    top: Positive | Left = Field(
        None, description="The likeliest classes only, at most as many as there are."
    )


class PredictionResponse(BaseModel):
    """Without `return`: all but the last five; `top` puts those of `top_` for `probabilities`."""

    model: str | Left = None
    version: int | Left = None
    calibrator: str | Left = None
    revision: int | None = None
    probabilities: list[list[float]] | Left = None
    prediction: list[int] | Left = None
    class_: list[str] | Left = Field(None, alias="class")
    confidence: list[float] | Left = None
    temperature: list[float] | None = None
    prediction_ids: list[str] | Left = None
    logit_gap: list[float] | Left = None
    logits: list[list[float]] | Left = None
    top_indices: list[list[int]] | Left = None
    top_classes: list[list[str]] | Left = None
    top_probabilities: list[list[float]] | Left = None


class ServerMetadata(BaseModel):
    """The server and its protocol extensions."""

    name: str
    version: str
    extensions: list[str]


class TensorMetadata(BaseModel):
    """A tensor that a model takes or gives; -1 is a free side."""

    name: str
    datatype: str
    shape: list[int]


class ModelMetadata(BaseModel):
    """A model as the protocol sees it."""

    name: str
    versions: list[str]
    platform: str
    inputs: list[TensorMetadata]
    outputs: list[TensorMetadata]


class ModelReady(BaseModel):
    """A model or version that can answer."""

    name: str
    ready: bool


class InferenceInput(BaseModel):
    """The input tensor."""

    name: str
    shape: list[Positive]
    datatype: str = Field(json_schema_extra={"enum": list(DATATYPES)})
    data: list[Any] | Left = Field(None, description=_DATA)
    parameters: dict[str, Any] | Left = Field(None, description="`binary_data_size`: in bytes.")


class RequestedOutput(BaseModel):
    """An output that is asked for."""

    name: str = Field(json_schema_extra={"enum": [*OUTPUTS, PREDICTION_ID]})
    parameters: dict[str, Any] | Left = Field(None, description="`binary_data`: true or false.")


class InferenceRequest(BaseModel):
    """One input, and the outputs that are asked for."""

    model_config = ConfigDict(json_schema_extra={"examples": [_INFERENCE]})
    id: str | Left = Field(None, description="Echoed.")
    parameters: dict[str, Any] | Left = Field(
        None, description="`binary_data_output`: whether outputs are binary unless they say."
    )
    inputs: list[InferenceInput] = Field(min_length=1, max_length=1)
    outputs: list[RequestedOutput] | Left = Field(
        None, description=f"Default: {', '.join(DEFAULT_OUTPUTS)} where there is one."
    )


class ResponseParameters(BaseModel):
    """The pair that answered."""

    version: int
    calibrator: str
    revision: int | Left = Field(None, description="Only of the live pair.")


class OutputTensor(BaseModel):
    """An output tensor; without `data` it follows in binary."""

    name: str
    shape: list[int]
    datatype: str
    data: list[Any] | Left = Field(None, description=_DATA)
    parameters: dict[str, Any] | Left = None


class InferenceResponse(BaseModel):
    """The outputs."""

    model_config = ConfigDict(protected_namespaces=())
    model_name: str
    model_version: str
    id: str | Left = None
    parameters: ResponseParameters
    outputs: list[OutputTensor]


# ruff: noqa: ARG001 - the arguments are the documentation


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
                    wire_multipart.MULTIPART_MEDIA_TYPE: {"schema": _FORM},
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
