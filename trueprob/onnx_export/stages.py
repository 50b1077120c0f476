"""The stages that an ONNX graph of a calibrator consists of, in the order of the graph.

logits → linear stage → 1/h of each row → softmax, uniform mixture → map of the confidence
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from trueprob.calibrators import (
    Calibrator,
    IdentityCalibrator,
    IsotonicCalibrator,
    SmartBinaryCalibrator,
    SmartMatrixCalibrator,
    SmartVectorCalibrator,
    StackCalibrator,
    VectorCalibrator,
)
from trueprob.calibrators.linear.smart_vector_matrix import TwoStages
from trueprob.calibrators.linear.stage import LinearStage
from trueprob.calibrators.smart.second_stage import SecondStage
from trueprob.errors import InvalidInput
from trueprob.onnx_export.inverse_temperature import INVERSE_TEMPERATURES

__all__ = ["EXPRESSIBLE", "Stages", "require_expressible", "stages_of"]

EXPRESSIBLE: Final = (
    *INVERSE_TEMPERATURES,
    IsotonicCalibrator.kind,
    SmartBinaryCalibrator.kind,
    SmartMatrixCalibrator.kind,
    SmartVectorCalibrator.kind,
    StackCalibrator.kind,
    VectorCalibrator.kind,
)


@dataclass(frozen=True)
class Stages:
    """The stages of one calibrator."""

    gap_stage: Calibrator  # of a kind in `INVERSE_TEMPERATURES`: gives 1/h of each row
    linear: LinearStage | None = None  # before the gap stage
    uniform_weight: float = 0.0
    second: SecondStage | IsotonicCalibrator | None = None  # map of the confidence
    has_temperature: bool = True  # False: the method has none, and 1/h is 1


def require_expressible(calibrator: Calibrator) -> None:
    """Raise InvalidInput if ONNX cannot express the calibrator."""
    if calibrator.kind not in EXPRESSIBLE:
        raise InvalidInput(
            f"calibrator of kind {calibrator.kind} cannot be expressed in ONNX, expected one of "
            f"{', '.join(EXPRESSIBLE)}",
            field="calibrator",
        )


def stages_of(calibrator: Calibrator) -> Stages:
    """The stages of a calibrator; `smart-binary` has none, and a stack has those of its members."""
    require_expressible(calibrator)
    identity = IdentityCalibrator(calibrator.n_classes)
    if calibrator.kind in INVERSE_TEMPERATURES:
        return _gap_stage(calibrator)
    if isinstance(calibrator, TwoStages):
        return _gap_stage(calibrator.gap_stage, calibrator.linear)
    if isinstance(calibrator, VectorCalibrator):
        weight = calibrator.uniform_weight
        return Stages(identity, calibrator.linear, weight, has_temperature=False)
    if isinstance(calibrator, IsotonicCalibrator):
        return Stages(identity, second=calibrator, has_temperature=False)
    raise TypeError(f"{calibrator.kind} has no stages")


def _gap_stage(calibrator: Calibrator, linear: LinearStage | None = None) -> Stages:
    parameters = calibrator.parameters()
    weight = float(parameters.get("uniform_weight", 0.0))
    second = parameters.get("second_stage")
    stage = None if second is None else SecondStage.from_parameters(second)
    return Stages(calibrator, linear, weight, stage)
