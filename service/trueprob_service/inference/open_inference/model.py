"""A model as the Open Inference Protocol sees it: names, datatypes and shapes of its tensors.

The metadata name the network's inputs where the version has a network, else ``logits``, because
generic clients send every named input. Requests may send ``logits`` in both cases.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from trueprob_service.errors import InvalidRequest
from trueprob_service.inference.answer import Answer
from trueprob_service.inference.deployment import Deployment
from trueprob_service.inference.network.tensors import Tensors, TensorSpec, matching
from trueprob_service.inference.wire.oip_tensors import OipInput

__all__ = [
    "DEFAULT_OUTPUTS", "OUTPUTS", "PREDICTION_ID", "InputTensorSpec",
    "check_inputs", "model_metadata", "network_inputs",
]  # fmt: skip


def _positive(probabilities: NDArray[np.float32]) -> NDArray[np.float32] | None:
    """P(class 1) of two classes."""
    return probabilities[:, 1] if probabilities.shape[1] == 2 else None


# Name → datatype, whether it has a column for each class, and how it is read from an answer.
OUTPUTS: Final[Mapping[str, tuple[str, bool, Callable[[Answer], NDArray[Any] | None]]]] = (
    MappingProxyType(
        {
            "probabilities": ("FP32", True, lambda answer: answer.probabilities),
            "prediction": ("INT64", False, lambda answer: answer.prediction),
            "confidence": ("FP32", False, lambda answer: answer.confidence),
            "temperature": ("FP32", False, lambda answer: answer.temperature),
            "log_odds": ("FP64", False, lambda answer: answer.log_odds),
            "logit_gap": ("FP32", False, lambda answer: answer.logit_gap),
            "logits": ("FP32", True, lambda answer: answer.logits),
            "p1": ("FP32", False, lambda answer: _positive(answer.probabilities)),
        }
    )
)
PREDICTION_ID: Final = "prediction_id"
# Those that the calibrator has: not all have temperatures, and one kind has log-odds.
DEFAULT_OUTPUTS: Final = ("probabilities", "prediction", "confidence", "temperature", "log_odds")
# NumPy's name of a network's input type → the protocol's.
_DATATYPE_OF: Final[Mapping[str, str]] = MappingProxyType(
    {
        f"{kind}{bits}": f"{kind.upper()}{bits}"
        for kind in ("uint", "int")
        for bits in (8, 16, 32, 64)
    }
    | {"bool": "BOOL", "float16": "FP16", "float32": "FP32", "float64": "FP64"}
)


@dataclass(frozen=True)
class InputTensorSpec:
    """Name, datatype and row shape that an input tensor must have."""

    name: str
    datatype: str
    row_shape: tuple[int | str, ...]  # a name is a length that may differ by request

    @property
    def shape(self) -> list[int]:
        """The shape in the metadata."""
        return [-1, *(side if isinstance(side, int) else -1 for side in self.row_shape)]

    def check(self, tensor: OipInput) -> NDArray[Any]:
        """The tensor's array; `InvalidRequest` unless datatype and shape fit and it is finite."""
        if tensor.datatype != self.datatype:
            raise InvalidRequest(
                f"{self.name}: datatype must be {self.datatype}, got {tensor.datatype}"
            )
        given = tensor.values.shape
        if len(given) != len(self.row_shape) + 1 or any(
            isinstance(side, int) and side != length
            for side, length in zip(self.row_shape, given[1:], strict=True)
        ):
            expected = ", ".join(str(side) for side in self.row_shape)
            raise InvalidRequest(f"{self.name} must have shape (n, {expected}), got {given}")
        if not np.isfinite(tensor.values).all():
            raise InvalidRequest(f"{self.name} must be finite")
        return tensor.values


def network_inputs(deployment: Deployment) -> tuple[InputTensorSpec, ...]:
    """The inputs of a deployment's network; none if the version takes logits only."""
    return tuple(
        InputTensorSpec(spec.name, _DATATYPE_OF[spec.dtype], spec.row_shape)
        for spec in _specs(deployment)
    )


def check_inputs(deployment: Deployment, tensors: Mapping[str, OipInput]) -> Tensors:
    """The tensors of a request, by name, for a deployment's network."""
    checked = {spec.name: spec.check(tensors[spec.name]) for spec in network_inputs(deployment)}
    return matching(_specs(deployment), checked)


def _specs(deployment: Deployment) -> tuple[TensorSpec, ...]:
    accepted = None if deployment.network is None else deployment.served.inputs
    return () if accepted is None else accepted.specs


def model_metadata(deployment: Deployment, versions: list[int]) -> dict[str, Any]:
    """The protocol's metadata of a model, to be written as JSON."""
    k = deployment.served.n_classes
    network = network_inputs(deployment)
    inputs = network or (InputTensorSpec("logits", "FP32", (k,)),)
    # Tried on one row: only the calibrator knows whether it has temperatures and log-odds.
    tried = deployment.calibrator.calibrated(np.zeros((1, k), np.float32))
    missing = {name for name in ("temperature", "log_odds") if getattr(tried, name) is None}
    missing |= {"p1"} if k > 2 else set()
    outputs = [
        {"name": name, "datatype": datatype, "shape": [-1, k] if by_class else [-1]}
        for name, (datatype, by_class, _) in OUTPUTS.items()
        if name not in missing
    ]
    if deployment.revision is not None:
        outputs.append({"name": PREDICTION_ID, "datatype": "BYTES", "shape": [-1]})
    return {
        "name": deployment.served.model,
        "versions": [str(version) for version in versions],
        "platform": "onnx_onnxv1" if network else "trueprob_calibrator",
        "inputs": [
            {"name": spec.name, "datatype": spec.datatype, "shape": spec.shape} for spec in inputs
        ],
        "outputs": outputs,
    }
