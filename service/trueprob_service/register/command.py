"""The command ``trueprob-service register``: arguments, questions on the terminal, output."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from datetime import UTC, datetime
from pathlib import Path
from typing import NoReturn

from trueprob.arrays.class_names import require_order
from trueprob.cli.files import add_masks, join_negative, masks_of
from trueprob.errors import TrueprobError
from trueprob.findings.finding import Severity
from trueprob.fitting.methods import METHODS
from trueprob.repository.manifest import valid_model_name
from trueprob.repository.model_repository import ModelRepository
from trueprob_service.errors import InvalidSettings, ServiceError
from trueprob_service.inspection.inspector import Inspector
from trueprob_service.register.files import laid_out
from trueprob_service.register.graph import inspect_file
from trueprob_service.register.options import (
    CannotRegister,
    Prompt,
    RegisterOptions,
    class_names,
    refuse_to_guess,
)
from trueprob_service.register.version import (
    RegisteredVersion,
    SetHeld,
    described,
    one_score_of,
    register,
)
from trueprob_service.settings import Settings, load_settings

__all__ = ["main"]


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        raise CannotRegister(f"{message} (see {self.prog} --help)")


def main(
    argv: Sequence[str],
    environ: Mapping[str, str],
    *,
    ask: Prompt | None = None,
    inspector: Inspector | None = None,
) -> int:
    """Register a network and return the exit code.

    Parameters
    ----------
    argv : sequence of str
        The arguments after ``register``.
    environ : mapping of str to str
        Environment variables, from which the settings are read.
    ask : callable, optional
        Called for what neither the arguments nor the graph say. Default: ask on the terminal; where
        there is none, fail and name the missing flag.
    inspector : Inspector, optional
        What opens the network first. Default: a new one, with the limits of the settings.

    Returns
    -------
    int
        0 after success, 1 if a finding holds the calibration set, 2 for bad input (one line on
        standard error).
    """
    if ask is None:
        ask = _ask_terminal if sys.stdin.isatty() and sys.stderr.isatty() else refuse_to_guess
    try:
        arguments = _parser().parse_args(join_negative(argv))
        settings, _ = load_settings([], environ)
        with nullcontext(inspector) if inspector is not None else _inspector(settings) as looks:
            registered = _register(arguments, settings, ask, looks)
    except SetHeld as error:
        _print_findings(error)
        print(f"trueprob-service: error: {error}; --force registers it anyway", file=sys.stderr)
        return 1
    except (CannotRegister, InvalidSettings, TrueprobError) as error:
        return _refuse(str(error))
    except ServiceError as error:
        return _refuse(error.detail)
    except OSError as error:
        return _refuse(f"{error.filename or 'a file'}: {error.strerror}")
    _print_findings(registered)
    print(json.dumps(described(registered)) if arguments.json else _text(registered))
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(
        prog="trueprob-service register",
        description="Add an ONNX classifier to the model repository. The command asks for what the "
        "graph does not say; without a terminal that is an error.",
    )
    add = parser.add_argument
    add("model", metavar="MODEL.onnx", type=Path)
    add("--name", required=True, help="name of the model in the repository")
    add("--version", type=int, help="version number; default: the next one")
    add("--models", type=Path, metavar="DIR", help="model repository; default: the setting")
    add(
        "--class-names",
        metavar="FILE|LIST",
        help="JSON list, one name per line, or a,b,c; default: those of the graph, else 0, 1, 2, …",
    )
    add(
        "--calibration",
        type=Path,
        metavar="VAL.npz",
        help="labels with logits, images, rows or arrays named as the network's inputs",
    )
    add("--method", choices=METHODS, default="smart", help="calibration method; default: smart")
    add("--output", metavar="NAME", help="output to use, if there are several")
    add(
        "--output-kind",
        metavar="KIND",
        help="logits or probabilities; for one number per row, of class 1 of two",
    )
    add("--layout", metavar="LAYOUT", help="NHWC or NCHW")
    add("--mode", metavar="MODE", help="L (grey) or RGB")
    add(
        "--resize",
        metavar="H,W",
        help="size of the pictures, if the graph leaves it open; "
        "or one number: size of the shorter side before the middle is cropped",
    )
    add(
        "--crop",
        metavar="H,W",
        help="size of the crop, if the graph leaves it open; one number for a square",
    )
    add("--resample", choices=("bilinear", "bicubic", "box"), default="bilinear")
    add(
        "--background",
        metavar="V[,V,V]",
        help="colour behind transparent pixels, from 0 to 255; default: 255, white",
    )
    add("--scale", metavar="X", help="first divide the pixels by X; default: 255")
    add("--mean", metavar="M[,M,M]", help="then subtract the mean")
    add("--std", metavar="S[,S,S]", help="then divide by the standard deviation")
    add_masks(parser)
    add(
        "--force",
        action="store_true",
        help="register even if a finding says that the calibration set is very likely wrong (hold)",
    )
    add("--json", action="store_true", help="print one JSON document")
    return parser


def _register(
    arguments: argparse.Namespace, settings: Settings, ask: Prompt, inspector: Inspector
) -> RegisteredVersion:
    if not valid_model_name(arguments.name):
        raise CannotRegister(
            "--name must be 1 to 100 letters, digits, '_', '.' or '-', begin with a letter or a "
            f"digit and have no '..', got {arguments.name[:110]!r}"
        )
    if arguments.version is not None and arguments.version < 1:
        raise CannotRegister(f"--version must be a positive integer, got {arguments.version}")
    names = None if arguments.class_names is None else class_names(arguments.class_names)
    repository = ModelRepository(arguments.models or settings.model_repository)
    number = arguments.version or repository.next_version(arguments.name)
    flags = [name for name in vars(RegisterOptions()) if name != "n_classes"]
    options = RegisterOptions(
        n_classes=None if names is None else len(names),
        **{name: getattr(arguments, name) for name in flags},
    )
    with laid_out(arguments.model, inspector) as files:
        graph = inspect_file(files.path, options, ask, inspector.session(files.path))
        if names is None:
            names = graph.class_names or tuple(str(index) for index in range(graph.n_classes))
        if len(names) != graph.n_classes:
            raise CannotRegister(
                f"--class-names has {len(names)} names, output {graph.output_name!r} has "
                f"{graph.n_classes} classes"
            )
        if graph.class_names is not None:
            require_order(graph.class_names, names, name="classes of the graph")
        return register(
            files,
            graph,
            repository=repository,
            name=arguments.name,
            number=number,
            class_names=names,
            calibration=arguments.calibration,
            method=arguments.method,
            inspector=inspector,
            max_batch_rows=settings.max_batch_rows,
            providers=settings.execution_providers,
            force=arguments.force,
            masks=masks_of(arguments),
            created_at=datetime.now(UTC),
        )


def _inspector(settings: Settings) -> Inspector:
    return Inspector(
        memory=settings.inspect_memory,
        seconds=settings.inspect_seconds,
        idle_seconds=None,  # while the user is asked, its session stays
    )


def _text(registered: RegisteredVersion) -> str:
    document = described(registered)
    manifest, output = registered.version.manifest, document["output"]
    kind = output["kind"]
    if registered.one_score:
        kind += f": one number per row, {one_score_of(manifest)}"
    lines = [
        f"{document['model']}/{document['version']}: {document['n_classes']} classes",
        f"written to  {document['path']}",
        *(
            f"input       {spec.name} {spec.dtype} {spec.layout} {list(spec.shape)}"
            for spec in manifest.network_inputs
        ),
        f"output      {output['name']}, {kind}",
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


def _print_findings(checked: RegisteredVersion | SetHeld) -> None:
    for finding in checked.findings:
        kind = "hold" if finding.severity is Severity.HOLD else "warning"
        print(f"trueprob-service: {kind}: {finding}", file=sys.stderr)
    for warning in checked.warnings:
        print(f"trueprob-service: warning: {warning}", file=sys.stderr)


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
