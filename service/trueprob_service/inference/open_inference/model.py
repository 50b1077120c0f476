"""A model as the Open Inference Protocol sees it: names, datatypes and shapes of its tensors.

The metadata name one input, because generic clients send every named input: the network's input
where the version has a network, else ``logits``. Requests may send ``logits`` in both cases.
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
from trueprob_service.inference.network.input import NetworkInput
from trueprob_service.inference.wire.oip_tensors import OipInput

__all__ = [
    "DEFAULT_OUTPUTS", "OUTPUTS", "PREDICTION_ID", "InputTensorSpec",
    "model_metadata", "network_input",
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
    {f"{kind}{bits}": f"{kind.upper()}{bits}" for kind in ("uint", "int") for bits in (8, 16, 32)}
    | {"int64": "INT64", "float16": "FP16", "float32": "FP32", "float64": "FP64"}
)


@dataclass(frozen=True)
class InputTensorSpec:
    """Name, datatype and row shape that an input tensor must have."""

    name: str
    datatype: str
    row_shape: tuple[int, ...]

    def check(self, tensor: OipInput) -> NDArray[Any]:
        """The tensor's array; `InvalidRequest` unless datatype and shape fit and it is finite."""
        if tensor.datatype != self.datatype:
            raise InvalidRequest(
                f"{self.name}: datatype must be {self.datatype}, got {tensor.datatype}"
            )
        if tensor.values.shape[1:] != self.row_shape:
            expected = ", ".join(str(side) for side in self.row_shape)
            raise InvalidRequest(
                f"{self.name} must have shape (n, {expected}), got {tensor.values.shape}"
            )
        if not np.isfinite(tensor.values).all():
            raise InvalidRequest(f"{self.name} must be finite")
        return tensor.values


def network_input(deployment: Deployment) -> InputTensorSpec | None:
    """The input of a deployment's network; None if the version takes logits only."""
    manifest = deployment.served.manifest
    if deployment.network is None or manifest is None or manifest.input is None:
        return None
    # The manifest's shape may have a free dimension; the rows of one batch have one shape.
    tensor = NetworkInput.from_manifest(manifest.input)
    datatype = _DATATYPE_OF.get(tensor.dtype, tensor.dtype.upper())
    return InputTensorSpec(manifest.input.name, datatype, tensor.row_shape)


def model_metadata(deployment: Deployment, versions: list[int]) -> dict[str, Any]:
    """The protocol's metadata of a model, to be written as JSON."""
    k = deployment.served.n_classes
    network = network_input(deployment)
    spec = network or InputTensorSpec("logits", "FP32", (k,))
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
        "platform": "onnx_onnxv1" if network is not None else "trueprob_calibrator",
        "inputs": [{"name": spec.name, "datatype": spec.datatype, "shape": [-1, *spec.row_shape]}],
        "outputs": outputs,
    }
