"""The Open Inference Protocol v2: what its routes answer for models that are calibrated here.

A request has one input: ``logits`` (n, k), or the network's own input where the version has a
network. Outputs are chosen by name; without a choice they are `oip_model.DEFAULT_OUTPUTS`.
Receipts (``prediction_id``) are issued only when asked for: they cost more than all the rest.
Whatever goes wrong is raised and becomes a problem document, whose member ``error`` is what
clients of this protocol show.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import orjson
from numpy.typing import NDArray

from trueprob_service import __version__
from trueprob_service.errors import BadRequest, InvalidRequest
from trueprob_service.inference.answer import Answer, compute
from trueprob_service.inference.body import INLINE_ELEMENTS, BodyReader, checked_logits, run_network
from trueprob_service.inference.connection import Receive
from trueprob_service.inference.deployment import Deployment
from trueprob_service.inference.elsewhere import Elsewhere
from trueprob_service.inference.oip_routes import Call
from trueprob_service.inference.open_inference import model as oip_model
from trueprob_service.inference.open_inference.model import (
    DEFAULT_OUTPUTS,
    LOGIT_TYPES,
    OUTPUTS,
    PREDICTION_ID,
    InputTensorSpec,
    network_input,
)
from trueprob_service.inference.wire import json_rows as wire_json
from trueprob_service.inference.wire import oip as wire_oip
from trueprob_service.inference.wire.oip_tensors import OutputTensor, from_raw
from trueprob_service.receipts.receipt import Receipts

__all__ = ["Reply", "describe", "infer"]

# Receipts of more rows than this are signed in a thread: about a millisecond.
_INLINE_RECEIPTS: Final = 256
_OCTETS: Final = "application/octet-stream"


@dataclass(frozen=True)
class Reply:
    """The body of a 200 and what its headers say."""

    body: bytes
    media_type: str = wire_json.MEDIA_TYPE
    header_length: int | None = None


async def describe(call: Call, deployments: Elsewhere) -> Reply:
    """Answer a GET: the metadata of the server or of a model, or that a model is ready."""
    if call.model is None:
        server = {"name": "trueprob", "version": __version__, "extensions": ["binary_tensor_data"]}
        return Reply(orjson.dumps(server))
    deployment = await deployments.current(call.model, call.version)
    if call.route.endswith("/ready"):
        # A version whose network cannot run is not deployed, or takes logits only.
        return Reply(orjson.dumps({"name": call.model, "ready": True}))
    return Reply(orjson.dumps(oip_model.describe(deployment, deployments.versions(call.model))))


async def infer(
    headers: Mapping[bytes, bytes],
    body: bytes,  # inflated
    deployment: Deployment,
    *,
    bodies: BodyReader,  # whose thread parses a large JSON part
    receipts: Callable[[], Receipts],  # the `Receipts` of the running service
    receive: Receive | None = None,
) -> Reply:
    """Answer an inference request.

    Raises `BadRequest`: and what the network raises. Raises `InvalidRequest`: and what the network
    raises. Raises `InvalidInput`: and what the network raises.
    """
    request = await _decode(headers, body, deployment, bodies)
    _require_known(request, deployment)
    logits = await _logits(request, deployment, receive)
    signed = any(output.name == PREDICTION_ID for output in request.outputs)
    if logits.size <= INLINE_ELEMENTS and not (signed and len(logits) > _INLINE_RECEIPTS):
        return _reply(request, deployment, logits, receipts)
    return await asyncio.to_thread(_reply, request, deployment, logits, receipts)


def _reply(
    request: wire_oip.InferenceRequest,
    deployment: Deployment,
    logits: NDArray[np.float32],
    receipts: Callable[[], Receipts],
) -> Reply:
    answer = compute(deployment, logits)
    outputs = _outputs(request, answer, receipts)
    deployment.meters.observe(
        answer.logit_gap, answer.temperature, answer.confidence, answer.probabilities
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
    encoded, header_length = wire_oip.encode(document, outputs)
    media_type = wire_json.MEDIA_TYPE if header_length is None else _OCTETS
    return Reply(encoded, media_type, header_length)


async def _decode(
    headers: Mapping[bytes, bytes], body: bytes, deployment: Deployment, bodies: BodyReader
) -> wire_oip.InferenceRequest:
    declared = headers.get(wire_oip.HEADER_LENGTH.encode())
    if declared is None:
        return await bodies.json_bodies.decode_inference(body, None)
    if not declared.isdigit() or len(declared) > 12:
        raise BadRequest(f"{wire_oip.HEADER_LENGTH} must be a number of bytes")
    if int(declared) > 0:
        return await bodies.json_bodies.decode_inference(body, int(declared))
    # Triton's "raw binary request": the body is the one input and nothing else.
    spec = network_input(deployment)
    if spec is None:
        spec = InputTensorSpec("logits", "FP32", (deployment.served.n_classes,))
    tensor = from_raw(body, name=spec.name, datatype=spec.datatype, row_shape=spec.row_shape)
    return wire_oip.InferenceRequest(None, (tensor,), binary_output=True)


def _require_known(request: wire_oip.InferenceRequest, deployment: Deployment) -> None:
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
    request: wire_oip.InferenceRequest, deployment: Deployment, receive: Receive | None
) -> NDArray[np.float32]:
    spec = network_input(deployment)
    names = "logits" if spec is None else f"logits or {spec.name}"
    if len(request.inputs) != 1:
        raise InvalidRequest(f"inputs must have exactly one ({names}), got {len(request.inputs)}")
    (tensor,) = request.inputs
    if tensor.name == "logits":
        if tensor.datatype not in LOGIT_TYPES:
            raise InvalidRequest(
                f"logits: datatype must be {', '.join(LOGIT_TYPES)}, got {tensor.datatype}"
            )
        return await checked_logits("logits", tensor.values, deployment.served.n_classes)
    if spec is None or tensor.name != spec.name:
        raise InvalidRequest(f"inputs[0].name must be {names}, got {tensor.name[:40]!r}")
    return await run_network(deployment, spec.check(tensor), receive)


def _outputs(
    request: wire_oip.InferenceRequest, answer: Answer, receipts: Callable[[], Receipts]
) -> list[OutputTensor]:
    chosen = request.outputs or tuple(
        wire_oip.RequestedOutput(name, request.binary_output)
        for name in DEFAULT_OUTPUTS
        if name != "temperature" or answer.temperature is not None
    )
    tensors = []
    for i, output in enumerate(chosen):
        if output.name == PREDICTION_ID:
            ids = answer.prediction_ids(receipts())
            tensors.append(OutputTensor(output.name, "BYTES", ids, output.binary))
            continue
        datatype, _, of = OUTPUTS[output.name]
        values = of(answer)
        if values is None:
            raise InvalidRequest(
                f"outputs[{i}]: calibrator {answer.deployment.calibrator_id!r} has no {output.name}"
            )
        dtype = np.int64 if datatype == "INT64" else np.float32
        values = values.astype(dtype, copy=False)
        tensors.append(OutputTensor(output.name, datatype, values, output.binary))
    return tensors
