"""A graph in half precision or with 8-bit integers, and what that costs.

fp16 halves the file; int8 (static, QDQ, one scale a channel of weights, ranges from calibration
images) quarters it. Neither agrees with torch to the parity tolerance, so they are judged by what
they do to accuracy and calibration, on rows that nothing was trained on.
"""

import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx
from numpy.typing import NDArray
from onnxruntime.quantization import CalibrationDataReader, QuantFormat, QuantType, quantize_static
from onnxruntime.quantization.shape_inference import quant_pre_process
from onnxruntime.transformers.float16 import convert_float_to_float16

from trueprob.arrays.logit_functions import softmax
from trueprob.scores.score import Scores, score
from trueprob_trainer.errors import PrecisionLoss
from trueprob_trainer.export.graph import INPUT, onnx_logits

RANGE_ROWS = 512  # calibration images that the ranges of activations are taken from
LARGEST_LOSS = 0.01  # of accuracy on the calibration split, before a graph is refused


def in_precision(content: bytes, precision: str, images: NDArray[np.uint8]) -> bytes:
    """The graph in another precision; inputs and outputs stay uint8 and float32."""
    if precision == "fp32":
        return content
    if precision == "fp16":
        half = convert_float_to_float16(onnx.load_from_string(content), keep_io_types=True)
        encoded: bytes = half.SerializeToString()
        return encoded
    with tempfile.TemporaryDirectory() as folder:  # the quantiser works on files
        whole, inferred, small = (Path(folder) / f"{name}.onnx" for name in ("a", "b", "c"))
        whole.write_bytes(content)
        quant_pre_process(str(whole), str(inferred))
        quantize_static(
            str(inferred),
            str(small),
            _Reader(images[:RANGE_ROWS]),
            quant_format=QuantFormat.QDQ,
            per_channel=True,
            activation_type=QuantType.QInt8,
            weight_type=QuantType.QInt8,
        )
        return small.read_bytes()


class _Reader(CalibrationDataReader):  # type: ignore[misc]  # untyped
    """Batches of images in the form that the quantiser asks for."""

    def __init__(self, images: NDArray[np.uint8]) -> None:
        parts = np.array_split(images, max(1, len(images) // 64))
        self.batches: Iterator[NDArray[np.uint8]] = iter(parts)

    def get_next(self) -> dict[str, NDArray[np.uint8]] | None:
        batch = next(self.batches, None)
        return None if batch is None else {INPUT: batch}


@dataclass(frozen=True)
class Precision:
    """A graph in some precision."""

    name: str
    content: bytes
    scores: Scores  # of the softmax of its logits


def compare_precisions(
    contents: Mapping[str, bytes], images: NDArray[np.uint8], labels: NDArray[np.int64]
) -> list[Precision]:
    """Score graphs on the same rows."""
    return [
        Precision(name, content, score(softmax(onnx_logits(content, images)), labels))
        for name, content in contents.items()
    ]


def table(precisions: list[Precision]) -> str:
    """Markdown: bytes, accuracy, ECE with its floor, NLL."""
    lines = [
        "| graph | bytes | accuracy % | ECE % | noise floor % | NLL |",
        "|---|---:|---:|---:|---:|---:|",
    ]
    for p in precisions:
        s = p.scores
        lines.append(
            f"| {p.name} | {len(p.content)} | {100 * s.accuracy:.2f} | {100 * s.ece:.2f} "
            f"| {100 * s.ece_floor:.2f} | {s.nll:.4f} |"
        )
    return "\n".join(lines)


def check_loss(precisions: list[Precision]) -> None:
    """Refuse a graph that is less often right than the first.

    Raises `PrecisionLoss`: naming the graph and both accuracies.
    """
    whole = precisions[0].scores.accuracy
    for reduced in precisions[1:]:
        if not whole - reduced.scores.accuracy <= LARGEST_LOSS:
            raise PrecisionLoss(
                f"{reduced.name} is right on {100 * reduced.scores.accuracy:.2f} % of the "
                f"calibration rows, float32 on {100 * whole:.2f} %: allowed are "
                f"{100 * LARGEST_LOSS:g} points less"
            )
