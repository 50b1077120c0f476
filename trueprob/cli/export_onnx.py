"""`trueprob export-onnx model.onnx calibrator.json -o calibrated.onnx`: exports both as one."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from trueprob.arrays.calibration_set import INPUTS
from trueprob.cli.files import UnusableFile, read_calibrator, write_atomically
from trueprob.cli.output import print_json, print_line
from trueprob.errors import InvalidInput
from trueprob.onnx_export import EXPRESSIBLE, OUTPUTS, fused_onnx, head_onnx

__all__ = ["add_parser"]


def add_parser(commands: Any) -> None:
    """Add the command and its options."""
    parser = commands.add_parser(
        "export-onnx",
        help="write a network and its calibrator as one ONNX file",
        description="Append a calibrator to a network and write both as one ONNX file, for any "
        f"ONNX runtime. Outputs: {', '.join(OUTPUTS)}, then the network's other outputs. "
        "The temperature is NaN for methods without temperatures. A smart-binary adds the output "
        "log_odds. The prediction is that of the calibrator, which linear methods and smart-binary "
        "may change; the logits are those of the network. "
        f"Kinds of calibrators: {', '.join(sorted(EXPRESSIBLE))}. The linear methods, isotonic and "
        "smart-binary need a runtime with float64. Needs the extra onnx.",
    )
    parser.add_argument(
        "model",
        metavar="model.onnx",
        nargs="?",
        help="the network; leave it out with --logits-only",
    )
    parser.add_argument(
        "calibrator", metavar="calibrator.json", help="calibrator that 'trueprob fit' wrote"
    )
    parser.add_argument("-o", "--output", metavar="PATH", required=True, help="ONNX file to write")
    parser.add_argument(
        "--logits-only",
        action="store_true",
        help="export the calibrator alone, as a graph that takes logits (for ensembles)",
    )
    parser.add_argument(
        "--model-output",
        metavar="NAME",
        help="name of the network's output to calibrate; default: logits, or the only one that can "
        "hold scores",
    )
    parser.add_argument(
        "--input",
        choices=tuple(INPUTS),
        help="what that output holds; default: what the operator that makes it says, else logits",
    )
    parser.add_argument("--json", action="store_true", help="print the result as one JSON document")
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
    write_atomically(arguments.output, content)
    size, k = len(content), calibrator.n_classes
    if arguments.json:
        print_json({"model": arguments.output, "calibrator": calibrator.id, "k": k, "bytes": size})
    else:
        print_line(f"{calibrator.id}: {k} classes, {size} bytes, written to {arguments.output}")
    return 0
