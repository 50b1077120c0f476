"""From a trained network to one ONNX file that answers as the network does, or to an error.

Exported in evaluation mode: in training mode the export does not fail, it is wrong (torch 2.13
saves BatchNorm, but neither dropout nor anything else that asks for the mode). One file, any batch
size, uint8 pixels in, logits out.

Parity is not assumed: onnxruntime answers real images in batches of several sizes and must agree
with torch to :data:`TOLERANCE`, or to :data:`RELATIVE` of the largest logit where that is more.
"""

import io
import logging
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx
import onnxruntime
import torch
from numpy.typing import NDArray
from torch import nn

from trueprob_trainer.errors import ParityError
from trueprob_trainer.networks.classifier import predict_logits

OPSET = 20
INPUT, OUTPUT = "image", "logits"
PARITY_BATCHES = (1, 7, 64)
TOLERANCE = 1e-4  # nats; logits all off by this much move no probability by more than 0.005 %
RELATIVE = 2e-6  # of logits beyond 50 nats, where float32 has no more: DenseNet-121 4e-7 at 500


@dataclass(frozen=True)
class Exported:
    """A graph and how well it was found to agree."""

    content: bytes  # `model.onnx`
    largest_difference: float  # between a logit by onnxruntime and by torch, nats


def export(model: nn.Module, images: NDArray[np.uint8]) -> Exported:
    """Export in evaluation mode and check parity.

    Raises `ParityError`: the graph does not answer as the network.
    """
    content = onnx_of(model.eval(), images[:2])
    return Exported(content, check_parity(content, model, images))


def onnx_of(model: nn.Module, images: NDArray[np.uint8]) -> bytes:
    """The graph of a network, in the mode that it is in; :func:`export` is what to call.

    Returns: without the exporter's stack traces, which name files of the machine that it ran on.
    """
    with _quiet_exporter():
        program = torch.onnx.export(
            model,
            (torch.from_numpy(images),),
            dynamo=True,
            opset_version=OPSET,
            external_data=False,
            input_names=[INPUT],
            output_names=[OUTPUT],
            dynamic_shapes=({0: torch.export.Dim("batch")},),
            verbose=False,
        )
    if program is None:
        raise ParityError("the exporter returned no graph")
    graph = program.model_proto
    del graph.metadata_props[:]
    for described in (graph.graph, *graph.graph.node, *graph.graph.value_info, *graph.functions):
        del described.metadata_props[:]
        described.doc_string = ""
    onnx.checker.check_model(graph)
    buffer = io.BytesIO()
    onnx.save_model(graph, buffer)
    return buffer.getvalue()


def check_parity(
    content: bytes,  # `model.onnx`
    model: nn.Module,
    images: NDArray[np.uint8],  # (n, height, width, channels) uint8, n at least the largest batch
    *,
    batches: Sequence[int] = PARITY_BATCHES,  # Sizes; each takes the first images
) -> float:
    """Compare onnxruntime with torch in evaluation mode.

    Returns: largest difference found. Raises `ParityError`: a logit differs by more than
    :data:`TOLERANCE` (of logits above 50, than their :data:`RELATIVE`), another shape, or not a
    number.
    """
    largest = 0.0
    for size in batches:
        if len(images) < size:
            raise ParityError(f"parity needs {size} images, got {len(images)}")
        by_torch = predict_logits(model, images[:size])
        by_onnx = onnx_logits(content, images[:size])
        if by_onnx.shape != by_torch.shape:
            raise ParityError(
                f"logits of a batch of {size} must have shape {by_torch.shape}, "
                f"got {by_onnx.shape} from the exported graph"
            )
        difference = float(np.max(np.abs(by_onnx - by_torch)))
        allowed = max(TOLERANCE, RELATIVE * float(np.max(np.abs(by_torch))))
        if not difference <= allowed:  # NaN is refused, too
            raise ParityError(
                f"logits of a batch of {size} differ by {difference:.3g} nats between torch and "
                f"onnxruntime, allowed are {allowed:.3g}"
            )
        largest = max(largest, difference)
    return largest


def onnx_logits(
    content: bytes, images: NDArray[np.uint8], batch_size: int = 512
) -> NDArray[np.float32]:
    """Logits by onnxruntime on one CPU thread."""
    return onnx_outputs(content, images, [OUTPUT], batch_size)[0].astype(np.float32)


def onnx_outputs(
    content: bytes, images: NDArray[np.uint8], names: Sequence[str], batch_size: int = 512
) -> list[NDArray[Any]]:
    """Outputs of a graph by onnxruntime on one CPU thread.

    Returns: one for each name, n rows each.
    """
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(content, options, providers=["CPUExecutionProvider"])
    parts = [
        session.run(list(names), {INPUT: images[i : i + batch_size]})
        for i in range(0, len(images), batch_size)
    ]
    return [np.concatenate(output) for output in zip(*parts, strict=True)]


@contextmanager
def _quiet_exporter() -> Iterator[None]:
    """Silence two messages of the exporter that nobody here can act on."""
    registration = logging.getLogger("torch.onnx._internal.exporter._registration")
    level = registration.level
    registration.setLevel(logging.ERROR)  # "torchvision is not installed. Skipping …": not used
    try:
        with warnings.catch_warnings():
            # torch's own pytree code copies a class that torch has deprecated.
            warnings.filterwarnings("ignore", message=".*LeafSpec.*", category=FutureWarning)
            yield
    finally:
        registration.setLevel(level)
