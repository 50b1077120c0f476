"""`trueprob export-onnx model.onnx calibrator.json -o calibrated.onnx`: both as one graph."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from trueprob.arrays.calibration_set import INPUTS
from trueprob.cli.files import UnusableFile, read_calibrator, write_whole
from trueprob.cli.tables import print_json, print_line
from trueprob.errors import InvalidInput
from trueprob.onnx_export import EXPRESSIBLE, OUTPUTS, fused_onnx, head_onnx

__all__ = ["add_parser"]


def add_parser(commands: Any) -> None:
    """Add the command."""
    parser = commands.add_parser(
        "export-onnx",
        help="put a calibrator behind a network, as one ONNX file",
        description="Put a calibrator behind a network, as one ONNX file that any ONNX runtime "
        f"serves. Outputs: {', '.join(OUTPUTS)}, and what else the network gives; temperature is "
        "NaN for a method without one, prediction is the method's own where it may change, and "
        "logits are the network's. Linear stages and isotonic need a runtime with float64. "
        f"Kinds: {', '.join(sorted(EXPRESSIBLE))}. Needs the extra onnx.",
    )
    parser.add_argument("model", metavar="model.onnx", nargs="?", help="opset 13 or later")
    parser.add_argument("calibrator", metavar="calibrator.json")
    parser.add_argument("-o", "--output", metavar="PATH", required=True, help="calibrated.onnx")
    parser.add_argument(
        "--logits-only",
        action="store_true",
        help="no network: a graph that takes logits, for ensembles",
    )
    parser.add_argument(
        "--model-output",
        metavar="NAME",
        help="the network's output to calibrate; default logits, or the only one",
    )
    parser.add_argument(
        "--input", choices=tuple(INPUTS), default="logits", help="what it holds; default logits"
    )
    parser.add_argument("--json", action="store_true", help="print one JSON document")
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Run the command."""
    if arguments.logits_only == (arguments.model is not None):
        raise InvalidInput(
            "export-onnx needs either model.onnx or --logits-only, got "
            + ("both" if arguments.logits_only else "neither"),
            field="model",
        )
    calibrator = read_calibrator(arguments.calibrator)
    try:
        if arguments.logits_only:
            content = head_onnx(calibrator)
        else:
            if not Path(arguments.model).is_file():
                raise UnusableFile(f"{arguments.model} cannot be read: no such file")
            content = fused_onnx(
                arguments.model,
                calibrator,
                output=arguments.model_output,
                numbers=arguments.input,
            )
    except ModuleNotFoundError as error:
        if error.name != "onnx":
            raise
        raise UnusableFile(
            "export-onnx needs onnx, which is not installed: pip install 'trueprob[onnx]'"
        ) from None
    except OSError as error:
        raise UnusableFile(f"{arguments.model} cannot be read: {error.strerror}") from None
    write_whole(arguments.output, content)
    size, k = len(content), calibrator.n_classes
    if arguments.json:
        print_json({"model": arguments.output, "calibrator": calibrator.id, "k": k, "bytes": size})
    else:
        print_line(f"{calibrator.id}: {k} classes, {size} bytes, written to {arguments.output}")
    return 0
