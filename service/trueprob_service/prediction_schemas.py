"""Bodies of the hot routes, for the OpenAPI document: nothing is parsed with these classes."""

from __future__ import annotations

from typing import Annotated, Any, Final, Literal

from pydantic import BaseModel, ConfigDict, Field, JsonValue
from pydantic.json_schema import SkipJsonSchema

from trueprob_service.inference.open_inference.model import DEFAULT_OUTPUTS, OUTPUTS, PREDICTION_ID
from trueprob_service.inference.wire.oip_tensors import DATATYPES

__all__ = [
    "InferenceRequest", "InferenceResponse", "Left", "ModelMetadata", "ModelReady",
    "PredictionQuery", "PredictionRequest", "PredictionResponse", "ServerMetadata",
]  # fmt: skip

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
