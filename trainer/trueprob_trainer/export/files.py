"""Every graph that ``export`` writes, and what each is worth on the test split.

Network and calibrator in one graph, checked against the two apart.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from trueprob.calibrators import Calibrator
from trueprob.fitting.fit import fit
from trueprob.onnx_export import fused_onnx
from trueprob_trainer.data import Split
from trueprob_trainer.errors import ParityError
from trueprob_trainer.export.graph import PARITY_BATCHES, export, onnx_logits, onnx_outputs
from trueprob_trainer.export.precision import compare_precisions, in_precision, table
from trueprob_trainer.training.finished_run import Training

TOLERANCE = 1e-5  # of a probability; the calibrator is float64 in NumPy and float32 in the graph


def fuse(content: bytes, calibrator: Calibrator, images: NDArray[np.uint8]) -> bytes:
    """A graph with the outputs ``probabilities``, ``prediction``, ``temperature``, ``logits``.

    Raises `ParityError`: its probabilities are not the calibrator's of the network's logits.
    """
    fused = fused_onnx(content, calibrator)
    for size in PARITY_BATCHES:
        expected = calibrator.predict_proba(onnx_logits(content, images[:size]))
        found = onnx_outputs(fused, images[:size], ["probabilities"])[0]
        difference = float(np.max(np.abs(found - expected)))
        if not difference <= TOLERANCE:
            raise ParityError(
                f"probabilities of a batch of {size} differ by {difference:.3g} between the fused "
                f"graph and the calibrator, allowed are {TOLERANCE:.3g}"
            )
    return fused


@dataclass(frozen=True)
class ExportFiles:
    """Graphs of one run."""

    files: dict[str, bytes]  # by file name
    # JSON-safe: `largest_difference` from torch, and bytes and scores by precision
    document: dict[str, Any]
    table: str  # the same for a terminal, Markdown


def export_files(
    training: Training, precisions: Sequence[str] = (), *, calibrated: bool = False
) -> ExportFiles:
    """Export a run.

    Raises `ParityError`: a graph does not answer as what it was made of.
    """
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
