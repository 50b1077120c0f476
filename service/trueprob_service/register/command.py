"""The command ``trueprob-service register``."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import NoReturn

from trueprob.errors import TrueprobError
from trueprob.fitting.methods import METHODS
from trueprob.repository.manifest import valid_model_name
from trueprob.repository.model_repository import ModelRepository
from trueprob_service.errors import InvalidSettings, ServiceError
from trueprob_service.register.graph import inspect_content
from trueprob_service.register.options import Ask, Unusable, Wishes, class_names, refuse_to_guess
from trueprob_service.register.version import Registered, described, register
from trueprob_service.settings import Settings, load_settings

__all__ = ["main"]


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        raise Unusable(f"{message} (see {self.prog} --help)")


def main(argv: Sequence[str], environ: Mapping[str, str], *, ask: Ask | None = None) -> int:
    """Register a network.

    Returns: 0 fine, 2 bad input (one line on standard error).
    """
    if ask is None:
        ask = _ask_terminal if sys.stdin.isatty() and sys.stderr.isatty() else refuse_to_guess
    try:
        options = _parser().parse_args(list(argv))
        settings, _ = load_settings([], environ)
        registered = _register(options, settings, ask)
    except (Unusable, InvalidSettings, TrueprobError) as error:
        return _refuse(str(error))
    except ServiceError as error:
        return _refuse(error.detail)
    except OSError as error:
        return _refuse(f"{error.filename or 'a file'}: {error.strerror}")
    for warning in registered.warnings:
        print(f"trueprob-service: warning: {warning}", file=sys.stderr)
    print(json.dumps(described(registered)) if options.json else _text(registered))
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(
        prog="trueprob-service register",
        description="Add a classifier in ONNX to the model repository. What the graph does not "
        "say is asked for on a terminal and an error elsewhere.",
    )
    add = parser.add_argument
    add("model", metavar="MODEL.onnx", type=Path)
    add("--name", required=True, help="of the model in the repository")
    add("--version", type=int, help="default: the next one")
    add("--models", type=Path, metavar="DIR", help="default: the setting model_repository")
    add("--class-names", metavar="FILE|LIST", help="a JSON list, one a line, or a,b,c")
    add("--calibration", type=Path, metavar="VAL.npz", help="labels and logits, or images")
    add("--method", choices=METHODS, default="smart", help="of the calibrator, default smart")
    add("--output", metavar="NAME", help="which output, where there are several")
    add("--output-kind", metavar="KIND", help="logits or probabilities")
    add("--layout", metavar="LAYOUT", help="NHWC or NCHW")
    add("--mode", metavar="MODE", help="L (grey) or RGB")
    add(
        "--resize",
        metavar="H,W",
        help="size of the pictures, where the graph leaves it open; "
        "or one number, to which the shorter side is brought before the middle is cut out",
    )
    add("--crop", metavar="H,W", help="size of the middle, where the graph leaves it open")
    add("--resample", choices=("bilinear", "bicubic", "box"), default="bilinear")
    add("--scale", metavar="X", help="pixels are divided by it first, default 255")
    add("--mean", metavar="M[,M,M]", help="then this is taken away")
    add("--std", metavar="S[,S,S]", help="and this divided by")
    add("--json", action="store_true", help="print one JSON document")
    return parser


def _register(options: argparse.Namespace, settings: Settings, ask: Ask) -> Registered:
    if not valid_model_name(options.name):
        raise Unusable(
            "--name must be 1 to 100 letters, digits, '_', '.' or '-', begin with a letter or a "
            f"digit and have no '..', got {options.name[:110]!r}"
        )
    if options.version is not None and options.version < 1:
        raise Unusable(f"--version must be a positive integer, got {options.version}")
    names = None if options.class_names is None else class_names(options.class_names)
    repository = ModelRepository(options.models or settings.model_repository)
    number = options.version or repository.next_version(options.name)
    content = options.model.read_bytes()
    wishes = Wishes(
        n_classes=None if names is None else len(names),
        **{name: getattr(options, name) for name in vars(Wishes()) if name != "n_classes"},
    )
    network = inspect_content(content, wishes, ask)
    if names is None:
        names = tuple(str(index) for index in range(network.n_classes))
    if len(names) != network.n_classes:
        raise Unusable(
            f"--class-names has {len(names)} names, output {network.output_name!r} has "
            f"{network.n_classes} classes"
        )
    return register(
        content,
        network,
        repository=repository,
        name=options.name,
        number=number,
        names=names,
        calibration=options.calibration,
        method=options.method,
        providers=settings.execution_providers,
        source=options.model.name,
        created_at=datetime.now(UTC),
    )


def _text(registered: Registered) -> str:
    document = described(registered)
    spec, output = document["input"], document["output"]
    lines = [
        f"{document['model']}/{document['version']}: {document['n_classes']} classes",
        f"written to  {document['path']}",
        f"input       {spec['name']} {spec['dtype']} {spec['layout']} {spec['shape']}",
        f"output      {output['name']}, {output['kind']}",
    ]
    if registered.fit is None:
        lines.append("calibrator  none: the probabilities are the network's own")
    else:
        report = registered.fit.report
        lines.append(
            f"calibrator  {document['calibrator']}, {report.n} rows, ECE "
            f"{100 * report.before.ece:.2f} % -> {100 * report.after.ece:.2f} % out of fold"
        )
    return "\n".join(lines)


def _ask_terminal(flag: str, unknown: str) -> str:
    print(f"{unknown}.", file=sys.stderr)
    print(f"{flag}: ", file=sys.stderr, end="", flush=True)
    try:
        return input().strip()
    except EOFError:
        return refuse_to_guess(flag, unknown)


def _refuse(message: str) -> int:
    print(f"trueprob-service: error: {' '.join(message.split())}", file=sys.stderr)
    return 2
