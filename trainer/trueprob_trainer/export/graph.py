"""Exports a trained network to one ONNX file and checks its parity with torch.

The graph takes uint8 pixels in batches of any size and returns logits. The network is exported in
evaluation mode. In training mode the export would not fail but give a wrong graph: torch 2.13
handles BatchNorm, but not dropout or other layers that depend on the mode.

Parity check: onnxruntime runs real images in batches of several sizes. It must agree with torch to
:data:`TOLERANCE`, or to :data:`RELATIVE` of the largest logit where that is more.
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
TOLERANCE = 1e-4  # nats; an error of this size changes no probability by more than 0.005 %
# Of logits above 50 nats, where float32 is no more precise. DenseNet-121: 4e-7 at 500 nats.
RELATIVE = 2e-6


@dataclass(frozen=True)
class Exported:
    """A graph and the result of its parity check."""

    content: bytes  # `model.onnx`
    largest_difference: float  # of a logit between onnxruntime and torch, nats


def export(model: nn.Module, images: NDArray[np.uint8]) -> Exported:
    """Export in evaluation mode and check parity."""
    content = onnx_of(model.eval(), batch_of(images, 2))
    return Exported(content, check_parity(content, model, images))


def onnx_of(model: nn.Module, images: NDArray[np.uint8]) -> bytes:
    """Export a network in its present mode, without a check; use :func:`export`."""
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
    # The exporter's stack traces name files of this machine.
    del graph.metadata_props[:]
    for described in (graph.graph, *graph.graph.node, *graph.graph.value_info, *graph.functions):
        del described.metadata_props[:]
        described.doc_string = ""
    onnx.checker.check_model(graph)
    buffer = io.BytesIO()
    onnx.save_model(graph, buffer)
    return buffer.getvalue()


def check_parity(
    content: bytes,
    model: nn.Module,
    images: NDArray[np.uint8],
    *,
    batches: Sequence[int] = PARITY_BATCHES,  # sizes; see `batch_of`
) -> float:
    """Compare onnxruntime with torch in evaluation mode; the largest difference in nats."""
    largest = 0.0
    for size in batches:
        batch = batch_of(images, size)
        by_torch = predict_logits(model, batch)
        by_onnx = onnx_logits(content, batch)
        if by_onnx.shape != by_torch.shape:
            raise ParityError(
                f"logits of a batch of {size} must have shape {by_torch.shape}, "
                f"got {by_onnx.shape} from the exported graph"
            )
        difference = float(np.max(np.abs(by_onnx - by_torch)))
        allowed = max(TOLERANCE, RELATIVE * float(np.max(np.abs(by_torch))))
        if not difference <= allowed:  # NaN is refused too
            raise ParityError(
                f"logits of a batch of {size} differ by {difference:.3g} nats between torch and "
                f"onnxruntime, at most {allowed:.3g} is allowed"
            )
        largest = max(largest, difference)
    return largest


def batch_of(images: NDArray[np.uint8], size: int) -> NDArray[np.uint8]:
    """The first images; where there are fewer, they are repeated."""
    return images[np.arange(size) % len(images)]


def onnx_logits(
    content: bytes, images: NDArray[np.uint8], batch_size: int = 512
) -> NDArray[np.float32]:
    """Logits by onnxruntime on one CPU thread."""
    return onnx_outputs(content, images, [OUTPUT], batch_size)[0].astype(np.float32)


def onnx_outputs(
    content: bytes, images: NDArray[np.uint8], names: Sequence[str], batch_size: int = 512
) -> list[NDArray[Any]]:
    """The named outputs of a graph by onnxruntime on one CPU thread, n rows each."""
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
    """Silence two messages of the exporter that do not concern this package."""
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
