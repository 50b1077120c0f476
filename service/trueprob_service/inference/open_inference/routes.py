"""The routes of the Open Inference Protocol v2: their paths and what they answer.

A request has ``logits`` (n, k), or the network's own inputs where the version has a network.
Outputs are requested by name; the default is `DEFAULT_OUTPUTS`. Receipts
(``prediction_id``) are issued only on request, because they cost more than everything else.
Errors are raised and become problem documents; clients of this protocol show their member
``error``.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, Final

import numpy as np
import orjson

from trueprob_service import __version__
from trueprob_service.errors import (
    BadRequest,
    InvalidRequest,
    ModelUnavailable,
    VersionNotFound,
)
from trueprob_service.inference.answer import Answer, compute
from trueprob_service.inference.body import (
    INLINE_ELEMENTS,
    BodyReader,
    ReadRows,
    Receive,
    check_refusal,
    rows_of_numbers,
    run_network,
)
from trueprob_service.inference.deployment import Deployment
from trueprob_service.inference.deployments import DeploymentLookup
from trueprob_service.inference.identified import chosen_ids, remember
from trueprob_service.inference.open_inference.model import (
    DEFAULT_OUTPUTS,
    OUTPUTS,
    PREDICTION_ID,
    InputTensorSpec,
    check_inputs,
    model_metadata,
    network_inputs,
)
from trueprob_service.inference.request import ID_HEADER, RequestId, request_id
from trueprob_service.inference.wire import json_rows, oip
from trueprob_service.inference.wire.oip_tensors import OipOutput, from_raw
from trueprob_service.receipts.identified import IdentifiedQueue
from trueprob_service.receipts.receipt import Receipts, Stamp

__all__ = ["ROUTES", "OipPath", "OipResponse", "describe", "infer"]

_MODEL: Final = "/v2/models/{model}"
_VERSION: Final = "/v2/models/{model}/versions/{version}"
ROUTES: Final[Mapping[str, tuple[str, ...]]] = MappingProxyType(
    {"/v2": ("GET",)}
    | {base + end: ("GET",) for base in (_MODEL, _VERSION) for end in ("", "/ready")}
    | {f"{base}/infer": ("POST",) for base in (_MODEL, _VERSION)}
)
_PATH: Final = re.compile(r"/v2(?:/models/([^/]+)(?:/versions/([^/]+))?(/ready|/infer)?)?")
_INLINE_RECEIPTS: Final = 256  # signed in about a millisecond; more rows are signed in a thread
_OCTETS: Final = "application/octet-stream"
_DTYPES: Final = MappingProxyType({"FP32": np.float32, "FP64": np.float64, "INT64": np.int64})


@dataclass(frozen=True)
class OipPath:
    """A path of the protocol: its route, model and version."""

    route: str  # one of `ROUTES`
    model: str | None = None  # None: the server itself
    version_text: str | None = None  # None: the live version

    @classmethod
    def parse(cls, path: str) -> OipPath | None:
        """Read a path; None if it is not one of the protocol."""
        match = _PATH.fullmatch(path)
        if match is None:
            return None
        model, version, end = match.groups()
        if model is None:
            return cls("/v2")
        return cls((_MODEL if version is None else _VERSION) + (end or ""), model, version)

    @property
    def version(self) -> int | None:
        """The version as a number; `VersionNotFound` if it is not a positive integer."""
        text = self.version_text
        if text is None:
            return None
        if not text.isascii() or not text.isdigit() or len(text) > 9 or text.startswith("0"):
            raise VersionNotFound(f"version must be a positive integer, got {text[:20]!r}")
        return int(text)


@dataclass(frozen=True)
class OipResponse:
    """The body of a successful answer, and the values of its headers."""

    body: bytes
    media_type: str = json_rows.MEDIA_TYPE
    header_length: int | None = None  # of the JSON part; None: the whole body is JSON


async def describe(path: OipPath, deployments: DeploymentLookup) -> OipResponse:
    """Answer a GET: metadata of the server or of a model, or that a model is ready."""
    if path.model is None:
        server = {"name": "trueprob", "version": __version__, "extensions": ["binary_tensor_data"]}
        return OipResponse(orjson.dumps(server))
    deployment = await deployments.current(path.model, path.version)
    if path.route.endswith("/ready"):
        check_refusal(deployment)
        if deployment.network is not None and deployment.network.failure is not None:
            raise ModelUnavailable(
                f"the network of model {path.model!r} does not run: {deployment.network.failure}"
            )
        return OipResponse(orjson.dumps({"name": path.model, "ready": True}))
    versions = deployments.versions(path.model)
    return OipResponse(orjson.dumps(model_metadata(deployment, versions)))


async def infer(
    headers: Mapping[bytes, bytes],
    body: bytes,  # after Content-Encoding was undone
    deployment: Deployment,
    *,
    bodies: BodyReader,  # its thread parses a large JSON part
    receipts: Callable[[], Receipts],
    receive: Receive | None = None,
    identified: IdentifiedQueue | None = None,  # remembers rows with ids; None: refuses them
) -> OipResponse:
    """Answer an inference request.

    The header ``X-Prediction-Id``, or with the parameter ``remember_id`` the request's ``id``, is
    the caller's own id of the rows.

    Raises `BadRequest`, `InvalidRequest` or `InvalidInput`, and errors of the network.
    """
    request = await _decode(headers, body, deployment, bodies)
    _check_outputs(request, deployment)
    rows = await _logits(request, deployment, receive)
    logits = rows.logits
    given = _request_id(headers, request)
    if given is not None:
        ids = chosen_ids(None, given, len(logits), deployment=deployment, queue=identified)
        rows = rows._replace(ids=ids)
    signed = any(output.name == PREDICTION_ID for output in request.outputs)
    if logits.size <= INLINE_ELEMENTS and not (signed and len(logits) > _INLINE_RECEIPTS):
        return _response(request, deployment, rows, receipts, identified)
    return await asyncio.to_thread(_response, request, deployment, rows, receipts, identified)


def _request_id(headers: Mapping[bytes, bytes], request: oip.OipRequest) -> RequestId | None:
    """The id for the rows of a request, if it asks for that."""
    header = headers.get(ID_HEADER)
    if request.remember_id and request.id is not None:
        if header is not None:
            raise InvalidRequest("ids are given twice: as X-Prediction-Id and by remember_id")
        return RequestId(request.id, "id")
    return None if header is None else request_id("X-Prediction-Id", header)


def _response(
    request: oip.OipRequest,
    deployment: Deployment,
    rows: ReadRows,
    receipts: Callable[[], Receipts],
    identified: IdentifiedQueue | None,
) -> OipResponse:
    logits = rows.logits
    answer = compute(deployment, logits)
    stamp = receipts().stamp(len(logits)) if rows.ids else None
    outputs = _outputs(request, answer, rows.one_score, receipts, stamp)
    if len(logits):
        deployment.meters.observe(
            answer.logit_gap, answer.temperature, answer.confidence, answer.probabilities, logits
        )
    served = deployment.served
    document: dict[str, Any] = {
        "model_name": served.model,
        "model_version": str(served.version),
        "parameters": {"version": served.version, "calibrator": deployment.calibrator_id},
    }
    if deployment.revision is not None:
        document["parameters"]["revision"] = deployment.revision
    if request.id is not None:
        document["id"] = request.id
    encoded, header_length = oip.encode(document, outputs)
    if rows.ids and stamp is not None and identified is not None:
        remember(identified, answer, rows.ids, stamp)
    media_type = json_rows.MEDIA_TYPE if header_length is None else _OCTETS
    return OipResponse(encoded, media_type, header_length)


async def _decode(
    headers: Mapping[bytes, bytes], body: bytes, deployment: Deployment, bodies: BodyReader
) -> oip.OipRequest:
    declared = headers.get(oip.HEADER_LENGTH.encode())
    if declared is None:
        return await bodies.json_bodies.decode_inference(body, None)
    if not declared.isdigit() or len(declared) > 12:
        raise BadRequest(f"{oip.HEADER_LENGTH} must be a number of bytes")
    if int(declared) > 0:
        return await bodies.json_bodies.decode_inference(body, int(declared))
    # Triton's "raw binary request": the body is one tensor and nothing else.
    specs = network_inputs(deployment) or (
        InputTensorSpec("logits", "FP32", (deployment.served.n_classes,)),
    )
    sides = tuple(side for side in specs[0].row_shape if isinstance(side, int))
    if len(specs) > 1 or len(sides) < len(specs[0].row_shape):
        raise InvalidRequest(
            f"the network takes {', '.join(f'{s.name} {s.shape}' for s in specs)}: a body without "
            "a JSON part is for one input whose dimensions are fixed after the first"
        )
    tensor = from_raw(body, name=specs[0].name, datatype=specs[0].datatype, row_shape=sides)
    return oip.OipRequest(None, (tensor,), binary_output=True)


def _check_outputs(request: oip.OipRequest, deployment: Deployment) -> None:
    for i, output in enumerate(request.outputs):
        if output.name not in OUTPUTS and output.name != PREDICTION_ID:
            raise InvalidRequest(
                f"outputs[{i}].name must be one of {', '.join(OUTPUTS)} or {PREDICTION_ID}, "
                f"got {output.name[:40]!r}"
            )
        if output.name == PREDICTION_ID and deployment.revision is None:
            raise InvalidRequest(
                f"outputs[{i}]: {PREDICTION_ID} is issued by the live version only, "
                f"version {deployment.served.version} is not live"
            )


async def _logits(
    request: oip.OipRequest, deployment: Deployment, receive: Receive | None
) -> ReadRows:
    specs = network_inputs(deployment)
    if len(request.inputs) == 1 and request.inputs[0].name == "logits":
        (tensor,) = request.inputs
        if tensor.datatype == "BOOL":
            raise InvalidRequest(
                "logits: datatype must be FP32, FP64 or another type of numbers, got 'BOOL'"
            )
        return await rows_of_numbers("logits", tensor.values, deployment, is_json=False)
    if request.inputs and not specs:
        check_refusal(deployment)
    own = " and ".join(spec.name for spec in specs)
    names = f"logits or {own}" if specs else "logits"
    if len(specs) <= 1 and len(request.inputs) != 1:
        raise InvalidRequest(f"inputs must have exactly one ({names}), got {len(request.inputs)}")
    tensors = {tensor.name: tensor for tensor in request.inputs}
    if len(tensors) < len(request.inputs):
        raise InvalidRequest("inputs must have different names, got one twice")
    wanted = {spec.name for spec in specs}
    for i, tensor in enumerate(request.inputs):
        if tensor.name not in wanted:
            raise InvalidRequest(f"inputs[{i}].name must be {names}, got {tensor.name[:40]!r}")
    missing = [spec for spec in specs if spec.name not in tensors]
    if missing:
        raise InvalidRequest(
            f"inputs must have {names}, {missing[0].name} ({missing[0].datatype} of shape "
            f"{missing[0].shape}) is missing"
        )
    given = check_inputs(deployment, tensors)
    return ReadRows(await run_network(deployment, given, receive), False)


def _outputs(
    request: oip.OipRequest,
    answer: Answer,
    one_score: tuple[int, ...] | None,  # as in `ReadRows`
    receipts: Callable[[], Receipts],
    stamp: Stamp | None,
) -> list[OipOutput]:
    names = DEFAULT_OUTPUTS if one_score is None else (*DEFAULT_OUTPUTS, "p1")
    chosen = request.outputs or tuple(
        oip.OutputChoice(name, request.binary_output)
        for name in names
        if OUTPUTS[name][2](answer) is not None
    )
    tensors = []
    for i, output in enumerate(chosen):
        if output.name == PREDICTION_ID:
            ids = answer.prediction_ids(receipts(), stamp)
            tensors.append(OipOutput(output.name, "BYTES", ids, output.binary))
            continue
        datatype, _, read = OUTPUTS[output.name]
        values = read(answer)
        if values is None:
            raise InvalidRequest(f"outputs[{i}]: {_missing(output.name, answer.deployment)}")
        if one_score is not None and output.name == "probabilities":  # in the form that was sent
            values = values[:, 1].reshape(one_score)
        values = values.astype(_DTYPES[datatype], copy=False)
        tensors.append(OipOutput(output.name, datatype, values, output.binary))
    return tensors


def _missing(output: str, deployment: Deployment) -> str:
    if output == "p1":
        return f"p1 is P(class 1) of two classes, this model has {deployment.served.n_classes}"
    return f"calibrator {deployment.calibrator_id!r} has no {output}"
