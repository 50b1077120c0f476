"""The command line ``trueprob-trainer``: train, distill, evaluate, export, register, examples.

Exit codes: 0 success; 1 a check failed (parity, precision, agreement); 2 bad input, reported in one
line; 128 plus the signal's number when a signal stopped a run, which is saved first.
"""

import argparse
import contextlib
import dataclasses
import sys
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any, NoReturn

from trueprob.errors import TrueprobError
from trueprob_trainer import commands
from trueprob_trainer.config import CHOICES, TrainConfig, meanings
from trueprob_trainer.errors import CheckFailed, Interrupted, TrainerError
from trueprob_trainer.evaluation.corruptions import CORRUPTIONS, SEVERITIES
from trueprob_trainer.sharpness_aware import OPTIMISERS, meanings_of, options_of

METAVARS = {int: "N", float: "X", str: "TEXT"}


class _OneLineParser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        self.exit(2, f"{self.prog}: {message}\n")


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command and return the exit code."""
    arguments = build_parser().parse_args(argv)
    try:
        arguments.command(arguments)
    except (TrainerError, TrueprobError) as problem:
        sys.stderr.write(f"trainer: {problem}\n")
        if isinstance(problem, Interrupted):
            return 128 + problem.number
        return 1 if isinstance(problem, CheckFailed) else 2
    return 0


def build_parser() -> argparse.ArgumentParser:
    """The parser of all commands and their options."""
    parser = _OneLineParser(
        prog="trueprob-trainer",
        description="Train an image classifier, evaluate it before and after calibration, export "
        "it to ONNX, and register it for the service.",
    )
    add_command = parser.add_subparsers(required=True, metavar="COMMAND", title="commands")

    train = _add_command(
        add_command,
        "train",
        commands.run_train,
        "train a network and write it to a run folder",
        "A run can be stopped by Ctrl-C or SIGTERM and continued with --resume.",
    )
    _add_recipe(train)

    distill = _add_command(
        add_command,
        "distill",
        commands.run_train,
        "train a network on the predictions of finished runs",
        "The options are those of train; --teacher names the runs to learn from.",
    )
    _add_recipe(distill, required="teacher")

    evaluate = _add_command(
        add_command,
        "evaluate",
        commands.run_evaluate,
        "score a run on its test split before and after calibration",
        "Prints tables and writes RUN/evaluation.json and RUN/reliability.svg. The calibrators are "
        "fitted on the calibration split. Options add corrupted, shifted and attacked test rows.",
    )
    _add_run(evaluate)
    evaluate.add_argument(
        "--json", action="store_true", help="print one JSON document instead of tables"
    )
    evaluate.add_argument(
        "--corruptions",
        type=_names(CORRUPTIONS),
        default=(),
        metavar="NAMES",
        help="also score corrupted test rows; all, or names separated by commas: "
        + ", ".join(CORRUPTIONS),
    )
    evaluate.add_argument(
        "--severities",
        type=_severities,
        default=SEVERITIES,
        metavar="NUMBERS",
        help="severities of the corruptions, 1 (weak) to 5 (strong), separated by commas "
        f"(default: {','.join(map(str, SEVERITIES))})",
    )
    evaluate.add_argument(
        "--shifts",
        action="store_true",
        help="also score under other class frequencies, and by how frequent a class was in "
        "training",
    )
    evaluate.add_argument(
        "--attacks",
        type=_names(("fgsm", "pgd")),
        default=(),
        metavar="NAMES",
        help="also score test rows changed by white-box attacks: fgsm, pgd, or both with a comma",
    )
    evaluate.add_argument(
        "--epsilon",
        type=int,
        default=8,
        metavar="N",
        help="largest change of a pixel by an attack, in grey levels of 255 (default: 8)",
    )
    evaluate.add_argument(
        "--ensemble",
        type=Path,
        nargs="+",
        default=(),
        metavar="RUN",
        help="also score the mean of this run and these others, which must have the same split",
    )
    evaluate.add_argument(
        "--rows",
        type=int,
        default=0,
        metavar="N",
        help="number of test rows to corrupt and attack (default: 0, all)",
    )

    export = _add_command(
        add_command,
        "export",
        commands.run_export,
        "write RUN/model.onnx and check that it agrees with torch",
        "If the exported graph does not agree with torch, nothing is written and the exit code "
        "is 1.",
    )
    _add_run(export)
    export.add_argument(
        "--fp16", action="store_true", help="also write RUN/model.fp16.onnx, in half precision"
    )
    export.add_argument(
        "--int8", action="store_true", help="also write RUN/model.int8.onnx, with 8-bit integers"
    )
    export.add_argument(
        "--calibrated",
        action="store_true",
        help="also write RUN/model.calibrated.onnx, with a SMART calibrator in the graph",
    )

    register = _add_command(
        add_command,
        "register",
        commands.run_register,
        "write a run as the next version of a model",
        "Exports the graph, fits the factory calibrator, scores both and writes the version with "
        "its model card.",
    )
    _add_run(register)
    register.add_argument("--name", required=True, help="name of the model")
    register.add_argument(
        "--models",
        type=Path,
        default=Path("models"),
        metavar="FOLDER",
        help="model repository to write to (default: models)",
    )
    register.add_argument(
        "--calibrator",
        choices=("smart", "temperature", "identity"),
        default="smart",
        help="kind of the factory calibrator (default: smart)",
    )
    register.add_argument(
        "--precision",
        choices=("fp32", "fp16", "int8"),
        default="fp32",
        help="precision of the registered graph (default: fp32)",
    )
    register.add_argument(
        "--note",
        action="append",
        default=[],
        metavar="TEXT",
        help="sentence for the section on data in the model card, such as origin or licence; may "
        "be repeated",
    )
    register.add_argument(
        "--compare-with",
        type=Path,
        metavar="VERSION_FOLDER",
        help="also compare the test scores with those of this version; the exit code is 1 if they "
        "do not agree",
    )

    examples = _add_command(
        add_command,
        "examples",
        commands.run_examples,
        "make example inputs for a model of digits",
        "Writes a picture, logits and calibration sets from rows that no split was trained on.",
    )
    examples.add_argument(
        "--model",
        type=Path,
        required=True,
        metavar="VERSION_FOLDER",
        help="version folder of the model, such as models/digits/1",
    )
    examples.add_argument(
        "--output",
        type=Path,
        default=Path("examples"),
        metavar="FOLDER",
        help="folder to write to (default: examples)",
    )
    return parser


def _add_command(
    add: "argparse._SubParsersAction[Any]",
    name: str,
    function: Callable[[argparse.Namespace], None],
    what: str,
    details: str,
) -> argparse.ArgumentParser:
    sentence = f"{what[0].upper()}{what[1:]}."
    parser: argparse.ArgumentParser = add.add_parser(
        name, help=what, description=f"{sentence} {details}"
    )
    parser.set_defaults(command=function)
    return parser


def _add_run(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--run", type=Path, required=True, metavar="RUN", help="folder of a finished run"
    )


def _names(choices: Iterable[str]) -> Callable[[str], tuple[str, ...]]:
    """A reader of names that are separated by commas; ``all`` stands for every choice."""
    every = tuple(choices)

    def names(text: str) -> tuple[str, ...]:
        given = every if text == "all" else tuple(text.split(","))
        for name in given:
            if name not in every:
                raise argparse.ArgumentTypeError(f"must be among {', '.join(every)}, got {name}")
        return given

    return names


def _radii(text: str) -> tuple[float | None, dict[str, float]]:
    """The radius, None if it is not given, and those of single layers."""
    rho: float | None = None
    layers: dict[str, float] = {}
    for part in text.split(","):
        layer, _, number = part.rpartition("=")
        try:
            value = float(number)
        except ValueError:
            raise argparse.ArgumentTypeError(
                f"must be a number or numbers such as 0.05,head=0.1, got {text}"
            ) from None
        if (layer and layer in layers) or (not layer and rho is not None):
            raise argparse.ArgumentTypeError(f"has {layer or 'the radius'} twice, got {text}")
        if layer:
            layers[layer] = value
        else:
            rho = value
    return rho, layers


def _severities(text: str) -> tuple[int, ...]:
    numbers = tuple(int(part) for part in text.split(","))
    if not set(numbers) <= set(SEVERITIES):
        raise argparse.ArgumentTypeError(f"must be 1 to 5, got {text}")
    return numbers


def _add_recipe(parser: argparse.ArgumentParser, *, required: str = "") -> None:
    """Add an option for each field of the recipe and each hyperparameter of an optimiser."""
    folder = parser.add_argument_group("run folder")
    folder.add_argument("--run", type=Path, required=True, metavar="RUN", help="folder for the run")
    folder.add_argument("--overwrite", action="store_true", help="replace an earlier run there")
    folder.add_argument(
        "--resume", action="store_true", help="continue the run there, with its own recipe"
    )
    folder.add_argument("--csv", action="store_true", help="also write RUN/metrics.csv")
    folder.add_argument(
        "--tensorboard", action="store_true", help="also write event files for TensorBoard"
    )

    recipe, texts = parser.add_argument_group("recipe"), meanings()
    for field in dataclasses.fields(TrainConfig):
        if field.name not in texts:
            continue
        option, text = f"--{field.name.replace('_', '-')}", texts[field.name].replace("%", "%%")
        if field.name == "rho":
            recipe.add_argument(
                option,
                type=_radii,
                default=argparse.SUPPRESS,
                metavar="X[,LAYER=X,...]",
                help=f"{text}; features=0.02,head=0.1 sets it for the parameters whose names begin "
                "so",
            )
            continue
        if isinstance(field.default, bool):
            recipe.add_argument(option, action="store_true", default=argparse.SUPPRESS, help=text)
            continue
        if field.name in CHOICES:
            text += f"; one of {', '.join(CHOICES[field.name])}"
        recipe.add_argument(
            option,
            type=type(field.default),
            default=argparse.SUPPRESS,
            required=field.name == required,
            metavar=METAVARS[type(field.default)],
            help=text if field.default == "" else f"{text} (default: {field.default})",
        )

    group = parser.add_argument_group(
        "hyperparameters of single optimisers", "They are refused with any other --optimiser."
    )
    hyperparameters = _hyperparameters()
    for name, (kind, text) in sorted(hyperparameters.items()):
        group.add_argument(
            f"--{name.replace('_', '-')}",
            type=kind,
            default=argparse.SUPPRESS,
            metavar=METAVARS[kind],
            help=text.replace("%", "%%"),
        )
    group.add_argument(
        "--optimiser-option",
        action="append",
        type=_option,
        default=[],
        metavar="NAME=VALUE",
        help="hyperparameter of an optimiser package.module:Class; may be repeated",
    )
    parser.set_defaults(optimiser_parameters=tuple(hyperparameters))


def _option(text: str) -> tuple[str, int | float | str]:
    name, separator, value = text.partition("=")
    if not separator:
        raise argparse.ArgumentTypeError(f"must be NAME=VALUE, got {text}")
    for kind in (int, float):
        with contextlib.suppress(ValueError):
            return name, kind(value)
    return name, value


def _hyperparameters() -> dict[str, tuple[type, str]]:
    """Type and help of each hyperparameter, with the optimisers that take it."""
    kinds: dict[str, type] = {}
    users: dict[str, dict[tuple[str, object], list[str]]] = {}
    for optimiser in OPTIMISERS:
        meaning = meanings_of(optimiser)
        for name, default in options_of(optimiser).items():
            if name != "seed":  # the recipe's --seed is used
                kinds[name] = type(default)
                users.setdefault(name, {}).setdefault((meaning[name], default), []).append(
                    optimiser
                )
    return {
        name: (
            kinds[name],
            ". ".join(
                f"{', '.join(optimisers)} (default: {default}): {text[:1].lower()}{text[1:]}"
                for (text, default), optimisers in entries.items()
            ),
        )
        for name, entries in users.items()
    }


if __name__ == "__main__":
    sys.exit(main())
