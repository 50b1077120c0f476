"""Variants of an exported graph: half precision, 8-bit integers, or with the calibrator inside.

fp16 halves the file. int8 (static, QDQ, one scale per channel of weights, ranges from calibration
images) quarters it. Neither meets the parity tolerance of :mod:`trueprob_trainer.export.graph`, so
they are judged by accuracy and calibration on rows that nothing was trained on. A fused graph must
agree with its calibrator.
"""

import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnxruntime.quantization import CalibrationDataReader, QuantFormat, QuantType, quantize_static
from onnxruntime.quantization.shape_inference import quant_pre_process
from onnxruntime.transformers.float16 import convert_float_to_float16

from trueprob.arrays.logit_functions import softmax
from trueprob.calibrators import Calibrator
from trueprob.fitting.fit import fit
from trueprob.onnx_export import fused_onnx
from trueprob.scores.score import Scores, score
from trueprob_trainer.data import Split
from trueprob_trainer.errors import ParityError, PrecisionLoss
from trueprob_trainer.export.graph import (
    INPUT,
    PARITY_BATCHES,
    batch_of,
    export,
    onnx_logits,
    onnx_outputs,
)
from trueprob_trainer.training.finished_run import Training

RANGE_ROWS = 512  # calibration images that give the ranges of activations for int8
LARGEST_LOSS = 0.01  # accuracy that a smaller graph may lose on the calibration split
# Of a probability; the calibrator is float64 in NumPy and float32 in the graph.
FUSED_TOLERANCE = 1e-5


@dataclass(frozen=True)
class ExportFiles:
    """Graphs of one run, and their scores on the test split."""

    files: dict[str, bytes]  # by file name
    # JSON-safe: `largest_difference` from torch in nats; bytes and scores by precision
    document: dict[str, Any]
    table: str  # the same in Markdown, for a terminal


def export_files(
    training: Training, precisions: Sequence[str] = (), *, calibrated: bool = False
) -> ExportFiles:
    """Export a run in float32, in the given precisions and, if asked, with SMART inside."""
    images, labels = training.data.of(Split.CALIBRATION)
    exported = export(training.model, images)
    files = {"model.onnx": exported.content}
    contents = {"fp32": exported.content}
    for precision in precisions:
        contents[precision] = in_precision(exported.content, precision, images)
        files[f"model.{precision}.onnx"] = contents[precision]
    if calibrated:
        factory = fit(onnx_logits(exported.content, images), labels).calibrator
        files["model.calibrated.onnx"] = fuse(exported.content, factory, images)
    compared = compare_precisions(contents, *training.data.of(Split.TEST))
    scores = {p.name: {"bytes": len(p.content), **p.scores.to_dict()} for p in compared}
    document = {"largest_difference": exported.largest_difference, "test": scores}
    return ExportFiles(files, document, table(compared))


# ----- Precision -----


def in_precision(content: bytes, precision: str, images: NDArray[np.uint8]) -> bytes:
    """Convert a graph to another precision; it still takes uint8 and returns float32."""
    if precision == "fp32":
        return content
    if precision == "fp16":
        half = convert_float_to_float16(onnx.load_from_string(content), keep_io_types=True)
        encoded: bytes = half.SerializeToString()
        return encoded
    with tempfile.TemporaryDirectory() as folder:  # the quantiser works on files
        original, inferred, quantised = (Path(folder) / f"{name}.onnx" for name in ("a", "b", "c"))
        original.write_bytes(content)
        quant_pre_process(str(original), str(inferred))
        quantize_static(
            str(inferred),
            str(quantised),
            _Batches(images[:RANGE_ROWS]),
            quant_format=QuantFormat.QDQ,
            per_channel=True,
            # Weights of 7 bits: processors without VNNI add products in 16 bits, which overflow.
            reduce_range=True,
            activation_type=QuantType.QInt8,
            weight_type=QuantType.QInt8,
        )
        return quantised.read_bytes()


class _Batches(CalibrationDataReader):  # type: ignore[misc]  # untyped
    """Batches of images in the form that the quantiser reads."""

    def __init__(self, images: NDArray[np.uint8]) -> None:
        parts = np.array_split(images, max(1, len(images) // 64))
        self.batches: Iterator[NDArray[np.uint8]] = iter(parts)

    def get_next(self) -> dict[str, NDArray[np.uint8]] | None:
        batch = next(self.batches, None)
        return None if batch is None else {INPUT: batch}


@dataclass(frozen=True)
class PrecisionScores:
    """A graph in one precision, and the scores of the softmax of its logits."""

    name: str
    content: bytes
    scores: Scores


def compare_precisions(
    contents: Mapping[str, bytes], images: NDArray[np.uint8], labels: NDArray[np.int64]
) -> list[PrecisionScores]:
    """Score graphs on the same rows."""
    return [
        PrecisionScores(name, content, score(softmax(onnx_logits(content, images)), labels))
        for name, content in contents.items()
    ]


def table(precisions: list[PrecisionScores]) -> str:
    """Markdown: bytes, accuracy, ECE with its noise floor, NLL."""
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


def check_loss(precisions: list[PrecisionScores]) -> None:
    """Refuse a graph that loses more accuracy than is allowed, compared with the first."""
    accuracy = precisions[0].scores.accuracy
    for reduced in precisions[1:]:
        if not accuracy - reduced.scores.accuracy <= LARGEST_LOSS:
            raise PrecisionLoss(
                f"{reduced.name} is right on {100 * reduced.scores.accuracy:.2f} % of the "
                f"calibration rows, float32 on {100 * accuracy:.2f} %: at most "
                f"{100 * LARGEST_LOSS:g} points less are allowed"
            )


# ----- Calibrator inside -----


def fuse(content: bytes, calibrator: Calibrator, images: NDArray[np.uint8]) -> bytes:
    """One graph of network and calibrator, checked against running both separately.

    Its outputs are ``probabilities``, ``prediction``, ``temperature`` and ``logits``.
    """
    fused = fused_onnx(content, calibrator)
    for size in PARITY_BATCHES:
        batch = batch_of(images, size)
        expected = calibrator.predict_proba(onnx_logits(content, batch))
        actual = onnx_outputs(fused, batch, ["probabilities"])[0]
        difference = float(np.max(np.abs(actual - expected)))
        if not difference <= FUSED_TOLERANCE:
            raise ParityError(
                f"probabilities of a batch of {size} differ by {difference:.3g} between the fused "
                f"graph and the calibrator, at most {FUSED_TOLERANCE:.3g} is allowed"
            )
    return fused
