"""Every graph that ``export`` writes, and what each is worth on the test split."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from trueprob.fitting.fit import fit
from trueprob_trainer.data import Split
from trueprob_trainer.export.fused import fuse
from trueprob_trainer.export.graph import export, onnx_logits
from trueprob_trainer.export.precision import compare_precisions, in_precision, table
from trueprob_trainer.training.finished_run import Training


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
