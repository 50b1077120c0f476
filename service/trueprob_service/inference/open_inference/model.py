"""A model as the Open Inference Protocol sees it: its tensors' names, datatypes and shapes.

The input is the network's own where the version has a network, else ``logits``. (``logits`` are
taken in both cases; metadata names one input because generic clients fill in all that it names.)
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
from trueprob_service.inference.wire.oip_tensors import InputTensor

__all__ = [
    "DEFAULT_OUTPUTS", "LOGIT_TYPES", "OUTPUTS", "PREDICTION_ID", "InputTensorSpec", "describe",
    "network_input",
]  # fmt: skip

# Name → datatype, whether it has a column for each class, and where an answer has it.
OUTPUTS: Final[Mapping[str, tuple[str, bool, Callable[[Answer], NDArray[Any] | None]]]] = (
    MappingProxyType(
        {
            "probabilities": ("FP32", True, lambda answer: answer.probabilities),
            "prediction": ("INT64", False, lambda answer: answer.prediction),
            "confidence": ("FP32", False, lambda answer: answer.confidence),
            "temperature": ("FP32", False, lambda answer: answer.temperature),
            "logit_gap": ("FP32", False, lambda answer: answer.logit_gap),
            "logits": ("FP32", True, lambda answer: answer.logits),
        }
    )
)
PREDICTION_ID: Final = "prediction_id"
DEFAULT_OUTPUTS: Final = ("probabilities", "prediction", "confidence", "temperature")
LOGIT_TYPES: Final = ("FP32", "FP16", "FP64")
# NumPy's name of a network's input type → the protocol's.
_DATATYPE_OF: Final[Mapping[str, str]] = MappingProxyType(
    {f"{kind}{bits}": f"{kind.upper()}{bits}" for kind in ("uint", "int") for bits in (8, 16, 32)}
    | {"int64": "INT64", "float16": "FP16", "float32": "FP32", "float64": "FP64"}
)


@dataclass(frozen=True)
class InputTensorSpec:
    """What an input must be."""

    name: str
    datatype: str
    row_shape: tuple[int, ...]  # shape of one row

    def check(self, tensor: InputTensor) -> NDArray[Any]:
        """The tensor's array.

        Raises `InvalidRequest`: another datatype or shape, or numbers that are not finite.
        """
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
    """The input of the deployment's network; None where it takes logits only."""
    manifest = deployment.served.manifest
    if deployment.network is None or manifest is None or manifest.input is None:
        return None
    # Not the manifest's shape, where a side may be free: rows of one batch have one shape.
    taken = NetworkInput.of(manifest.input)
    datatype = _DATATYPE_OF.get(taken.dtype, taken.dtype.upper())
    return InputTensorSpec(manifest.input.name, datatype, taken.row_shape)


def describe(deployment: Deployment, versions: list[int]) -> dict[str, Any]:
    """The metadata of a model.

    Returns: JSON-able.
    """
    k = deployment.served.n_classes
    network = network_input(deployment)
    spec = network or InputTensorSpec("logits", "FP32", (k,))
    # Asked with one row: only the calibrator's method knows whether it has temperatures.
    temperature = deployment.calibrator.temperature(np.zeros((1, k), np.float32))
    outputs = [
        {"name": name, "datatype": datatype, "shape": [-1, k] if by_class else [-1]}
        for name, (datatype, by_class, _) in OUTPUTS.items()
        if name != "temperature" or temperature is not None
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
