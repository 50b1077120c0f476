"""The prediction routes for the OpenAPI document: signatures and bodies, no behaviour.

`trueprob_service.inference.asgi` answers these paths before FastAPI's router sees them. None of the
functions here is called, and no body is parsed with these classes.
"""

# ruff: noqa: ARG001 - the arguments are the documentation

from __future__ import annotations

import re
from typing import Annotated, Any, Final, Literal

from fastapi import APIRouter, Depends, Header, Path, Query
from pydantic import BaseModel, ConfigDict, Field, JsonValue
from pydantic.json_schema import SkipJsonSchema

from trueprob_service.control.api.documentation import ModelPath, problems
from trueprob_service.errors import NotFound
from trueprob_service.inference.answer import FIELDS
from trueprob_service.inference.asgi import LIVE, PREDICT, READY
from trueprob_service.inference.open_inference.model import DEFAULT_OUTPUTS, OUTPUTS, PREDICTION_ID
from trueprob_service.inference.wire import images, npy
from trueprob_service.inference.wire.oip_tensors import DATATYPES, MAX_DIMENSIONS
from trueprob_service.receipts.identified import ID_CHARACTERS

__all__ = [
    "InferenceRequest",
    "InferenceResponse",
    "ModelMetadata",
    "ModelReady",
    "Omittable",
    "PredictionQuery",
    "PredictionRequest",
    "PredictionResponse",
    "ServerMetadata",
    "create_router",
]


Omittable = SkipJsonSchema[None]  # type of a field that may be left out, but not be null
Positive = Annotated[int, Field(ge=1, le=999_999_999)]
PredictionKey = Annotated[
    str,
    Field(min_length=1, max_length=ID_CHARACTERS, pattern=r"^[^\x00-\x1f\x7f-\x9f]+$"),
]
_RowId = Annotated[
    PredictionKey | Omittable,
    Header(
        alias="X-Prediction-Id",
        description="Your own id of the row; of several rows it gets /0, /1 and so on.",
    ),
]
Base64Text = Annotated[str, Field(json_schema_extra={"contentEncoding": "base64"})]
_ROW: Final[list[JsonValue]] = [0.1, 4.2, -1.0, 0.3, 0.0, -2.1, 0.7, 1.1, -0.4, 0.2]
_INFERENCE: Final[JsonValue] = {
    "inputs": [{"name": "logits", "shape": [1, 10], "datatype": "FP32", "data": _ROW}],
    "outputs": [{"name": "probabilities"}, {"name": "prediction_id"}],
}
_Rows = Annotated[
    list[list[float]] | list[float],
    Field(description="Rows of numbers; with two classes also one number per row, of class 1."),
]
_DATA: Final = "Numbers in row-major order, nested as the shape or flat."


class PredictionRequest(BaseModel):
    """The rows, in exactly one of these fields, and ids for them if you like."""

    model_config = ConfigDict(
        json_schema_extra={
            "minProperties": 1,
            "maxProperties": 2,
            "examples": [{"logits": [_ROW]}],
        }
    )
    logits: _Rows | Omittable = None
    probabilities: _Rows | Omittable = None
    log_probabilities: _Rows | Omittable = None
    images: list[Base64Text] | Omittable = Field(None, description="PNG, JPEG or WebP.")
    rows: list[Any] | Omittable = Field(
        None, description="What a network of one input takes: a list, nested or not, for each row."
    )
    inputs: dict[str, list[Any]] | Omittable = Field(
        None, description="The same by the names of the network's inputs, such as input_ids."
    )
    ids: list[PredictionKey | int] | Omittable = Field(
        None, description="Your own id of each row, for labels by id; all different."
    )


class PredictionQuery(BaseModel):
    """The query of a prediction, without `return`."""

    version: Positive | Omittable = Field(None, description="Default: the live version.")
    receipts: bool | Omittable = Field(
        None,
        description="Whether to return prediction_ids. Default: yes for pictures and JSON of up to "
        "256 rows.",
    )
    input: Literal["logits", "probabilities", "log_probabilities", "rows"] = Field(
        "logits", description="What the numbers of an .npy body are."
    )
    id_from: Literal["request-id"] | Omittable = Field(
        None, description="Whether X-Request-Id is used as X-Prediction-Id would be."
    )
    top: Positive | Omittable = Field(
        None, description="Only this many of the most likely classes, at most as many as there are."
    )


class PredictionResponse(BaseModel):
    """Without `return`: all but the last seven; `p1` for one score per row, `normalised` if so.

    With `top`: `top_…`, not `probabilities`.
    """

    model: str | Omittable = None
    version: int | Omittable = None
    calibrator: str | Omittable = None
    revision: int | None = None
    probabilities: list[list[float]] | list[float] | Omittable = Field(
        None, description="One score per row is answered by P(class 1), in the form it came in."
    )
    prediction: list[int] | Omittable = None
    class_: list[str] | Omittable = Field(None, alias="class")
    confidence: list[float] | Omittable = None
    temperature: list[float] | None = None
    log_odds: list[float] | Omittable = Field(
        None, description="log P(1) − log P(0), in float64; of `smart-binary` only."
    )
    prediction_ids: list[str] | Omittable = None
    p1: list[float] | Omittable = Field(
        None, description="P(class 1) of two classes; by default if one score per row was sent."
    )
    normalised: bool | Omittable = Field(
        None, description="True if the sum of a row of probabilities was off by more than 1e-3."
    )
    logit_gap: list[float] | Omittable = None
    logits: list[list[float]] | Omittable = None
    top_indices: list[list[int]] | Omittable = None
    top_classes: list[list[str]] | Omittable = None
    top_probabilities: list[list[float]] | Omittable = None


class ServerMetadata(BaseModel):
    """The server and the protocol extensions that it has."""

    name: str
    version: str
    extensions: list[str]


class TensorMetadata(BaseModel):
    """An input or output tensor of a model; -1 is a dimension of any length."""

    name: str
    datatype: str
    shape: list[int]


class ModelMetadata(BaseModel):
    """A model in the terms of the protocol."""

    name: str
    versions: list[str]
    platform: str
    inputs: list[TensorMetadata]
    outputs: list[TensorMetadata]


class ModelReady(BaseModel):
    """A model or version that is served."""

    name: str
    ready: bool


class InferenceInput(BaseModel):
    """An input tensor."""

    name: str
    shape: list[Annotated[int, Field(ge=0)]] = Field(
        min_length=1, max_length=MAX_DIMENSIONS, description="Only the first may be 0: no rows."
    )
    datatype: str = Field(json_schema_extra={"enum": list(DATATYPES)})
    data: list[Any] | Omittable = Field(None, description=_DATA)
    parameters: dict[str, Any] | None = Field(None, description="`binary_data_size`: in bytes.")


class RequestedOutput(BaseModel):
    """An output that the client asks for."""

    name: str = Field(json_schema_extra={"enum": [*OUTPUTS, PREDICTION_ID]})
    parameters: dict[str, Any] | None = Field(None, description="`binary_data`: true or false.")


class InferenceRequest(BaseModel):
    """Logits or the network's inputs, and the outputs that the client asks for."""

    model_config = ConfigDict(json_schema_extra={"examples": [_INFERENCE]})
    id: str | None = Field(None, description="Echoed.")
    parameters: dict[str, Any] | None = Field(
        None,
        description="`binary_data_output`: whether outputs are binary by default; `remember_id`: "
        "whether `id` is used as X-Prediction-Id would be.",
    )
    inputs: list[InferenceInput] = Field(min_length=1)
    outputs: list[RequestedOutput] | None = Field(
        None, description=f"Default: {', '.join(DEFAULT_OUTPUTS)} where there is one."
    )


class ResponseParameters(BaseModel):
    """The version, calibrator and revision that the answer was computed with."""

    version: int
    calibrator: str
    revision: int | Omittable = Field(None, description="Only if the live pair answered.")


class OutputTensor(BaseModel):
    """An output tensor. Without `data`, its numbers follow the JSON in binary."""

    name: str
    shape: list[int]
    datatype: str
    data: list[Any] | Omittable = Field(None, description=_DATA)
    parameters: dict[str, Any] | Omittable = None


class InferenceResponse(BaseModel):
    """The outputs, and what they were computed with."""

    model_config = ConfigDict(protected_namespaces=())
    model_name: str
    model_version: str
    id: str | Omittable = None
    parameters: ResponseParameters
    outputs: list[OutputTensor]


_BINARY: Final = {"schema": {"type": "string", "format": "binary"}}
_OCTETS: Final = {"application/octet-stream": _BINARY}
_FORM: Final = {
    "type": "object",
    "required": [images.PART_NAME],
    "properties": {images.PART_NAME: {"type": "array", "items": _BINARY["schema"]}},
}
# FastAPI cannot express a list that is separated by commas.
_RETURN: Final = {
    "name": "return",
    "in": "query",
    "explode": False,
    "schema": {"type": "array", "items": {"enum": list(FIELDS)}, "uniqueItems": True},
    "description": "Fields of a JSON or .npz answer, separated by commas.",
}


def create_router() -> APIRouter:
    """Documents the routes of `trueprob_service.inference.asgi.HOT_ROUTES`."""
    router = APIRouter()
    _add_prediction(router)
    _add_health(router)

    @router.get("/v2", tags=["open inference"], summary="Server metadata", operation_id="v2")
    def server_metadata() -> ServerMetadata:
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
        response_description="`Accept` chooses the format. An .npy answer is the probabilities "
        "alone, an .npz answer has every field that is not null.",
        responses={
            200: {"content": {npy.MEDIA_TYPE: _BINARY, npy.NPZ_MEDIA_TYPE: _BINARY}},
            **problems(400, 404, 406, 413, 415),
        },
        openapi_extra={
            "parameters": [_RETURN],
            "requestBody": {
                "content": {
                    npy.MEDIA_TYPE: _BINARY,
                    npy.NPZ_MEDIA_TYPE: _BINARY,
                    **dict.fromkeys(images.MEDIA_TYPES, _BINARY),
                    images.MULTIPART_MEDIA_TYPE: {"schema": _FORM},
                }
            },
        },
    )
    def predict(
        model: ModelPath,
        body: PredictionRequest,
        query: Annotated[PredictionQuery, Query()],
        x_prediction_id: _RowId = None,
    ) -> PredictionResponse:
        """Turns logits, probabilities or a network's inputs into calibrated probabilities.

        A body may be compressed, with `Content-Encoding` gzip, deflate or zstd.
        The answer names the version, calibrator and revision that it was computed with. Keep
        `prediction_ids` to send the labels when they are known, or send `ids` of your own.
        """
        raise _unreachable()


def _add_health(router: APIRouter) -> None:
    @router.get(LIVE, tags=["health"], summary="Server live", operation_id="server_live")
    def live() -> dict[str, Any]:
        """The process is running."""
        raise _unreachable()

    @router.get(
        READY,
        tags=["health"],
        summary="Server ready",
        operation_id="server_ready",
        responses={503: {"description": "Starting or stopping."}},
    )
    def ready() -> dict[str, Any]:
        """The models are loaded; `status` is degraded while the database does not answer."""
        raise _unreachable()


def _model(model: ModelPath) -> None:
    """Declares the path parameter of a model."""


def _version(
    model: ModelPath, version: Annotated[str, Path(description="A positive integer.")]
) -> None:
    """Declares the path parameters of a version."""


def _open_inference(prefix: str, parameters: Any) -> APIRouter:
    """The Open Inference Protocol's routes of a model or a version."""
    router = APIRouter(
        prefix=prefix,
        tags=["open inference"],
        dependencies=[Depends(parameters)],
        generate_unique_id_function=lambda route: re.sub(r"\W", "_", route.path_format[1:]),
    )

    @router.get("", summary="Model metadata", responses=problems(404))
    def metadata() -> ModelMetadata:
        """The input and output tensors of the model."""
        raise _unreachable()

    @router.get("/ready", summary="Model ready", responses=problems(404))
    def is_ready() -> ModelReady:
        """The model is served."""
        raise _unreachable()

    @router.post(
        "/infer",
        summary="Inference",
        responses={200: {"content": _OCTETS}, **problems(400, 404, 413, 415)},
        openapi_extra={"requestBody": {"content": _OCTETS}},
    )
    def infer(body: InferenceRequest, x_prediction_id: _RowId = None) -> InferenceResponse:
        """Takes logits or the network's inputs and returns the outputs that the client asks for.

        With binary data, the header `Inference-Header-Content-Length` gives the length of the JSON
        that comes first; 0: the body is only the input tensor. FP16 and BF16 are binary only.
        """
        raise _unreachable()

    return router


def _unreachable() -> NotFound:
    """The error for a path with a line break at its end, which FastAPI's router lets through."""
    return NotFound("no route has this path")
