"""Network and calibrator in one graph, checked against the two apart."""

import numpy as np
from numpy.typing import NDArray

from trueprob.calibrators import Calibrator
from trueprob.onnx_export import fused_onnx
from trueprob_trainer.errors import ParityError
from trueprob_trainer.export.graph import PARITY_BATCHES, onnx_logits, onnx_outputs

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
