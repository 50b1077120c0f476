"""Export of a network and its calibrator as one ONNX graph (extra `onnx`)."""

from trueprob.onnx_export.export import OUTPUTS, fused_onnx, head_onnx
from trueprob.onnx_export.stages import EXPRESSIBLE

__all__ = ["EXPRESSIBLE", "OUTPUTS", "fused_onnx", "head_onnx"]
