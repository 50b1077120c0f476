"""``trueprob-trainer``: train, distill, evaluate, export, register, examples.

Exit codes: 0 fine; 1 the answer is no (parity, agreement); 2 bad input, in one line; 128 and the
signal's number when a run was asked to stop (it was saved).
"""

import argparse
import dataclasses
import sys
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any, NoReturn

from trueprob.errors import TrueprobError
from trueprob_trainer import commands
from trueprob_trainer.config import TrainConfig
from trueprob_trainer.errors import AnswerIsNo, Interrupted, TrainerError
from trueprob_trainer.evaluation.corruptions import CORRUPTIONS, SEVERITIES
from trueprob_trainer.sharpness_aware import OPTIMISERS, options_of


class _OneLineParser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        self.exit(2, f"{self.prog}: {message}\n")


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command.

    Returns: exit code.
    """
    arguments = _parser().parse_args(argv)
    try:
        arguments.command(arguments)
    except (TrainerError, TrueprobError) as problem:
        sys.stderr.write(f"trainer: {problem}\n")
        if isinstance(problem, Interrupted):
            return 128 + problem.number
        return 1 if isinstance(problem, AnswerIsNo) else 2
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = _OneLineParser(
        prog="trueprob-trainer", description="Train, evaluate, export, register."
    )
    kinds = parser.add_subparsers(required=True, metavar="COMMAND")

    train = kinds.add_parser("train", help="train a network into a run folder")
    _add_recipe(train)
    train.set_defaults(command=commands.train)

    distill = kinds.add_parser("distill", help="train a network on another's answers")
    _add_recipe(distill, required="teacher")
    distill.set_defaults(command=commands.train)

    evaluate = kinds.add_parser("evaluate", help="scores before and after calibration")
    evaluate.add_argument("--run", type=Path, required=True)
    evaluate.add_argument("--json", action="store_true", help="print one JSON document")
    evaluate.add_argument(
        "--corruptions",
        type=_names(CORRUPTIONS),
        default=(),
        metavar="NAMES",
        help="corrupt the test split: names separated by commas, or all",
    )
    evaluate.add_argument(
        "--severities",
        type=_severities,
        default=SEVERITIES,
        metavar="NUMBERS",
        help="1 to 5, separated by commas (1,2,3,4,5)",
    )
    evaluate.add_argument("--shifts", action="store_true", help="label shift, rare classes")
    evaluate.add_argument(
        "--attacks", type=_names(("fgsm", "pgd")), default=(), metavar="NAMES", help="fgsm,pgd"
    )
    evaluate.add_argument("--epsilon", type=int, default=8, help="of attacks, grey levels (8)")
    evaluate.add_argument(
        "--ensemble", type=Path, nargs="+", default=(), metavar="RUN", help="other members"
    )
    evaluate.add_argument(
        "--rows", type=int, default=0, help="test rows to corrupt and attack (0: all)"
    )
    evaluate.set_defaults(command=commands.evaluate)

    export = kinds.add_parser("export", help="write RUN/model.onnx and check parity")
    export.add_argument("--run", type=Path, required=True)
    export.add_argument("--fp16", action="store_true", help="RUN/model.fp16.onnx, too")
    export.add_argument("--int8", action="store_true", help="RUN/model.int8.onnx, too")
    export.add_argument(
        "--calibrated", action="store_true", help="RUN/model.calibrated.onnx, SMART inside, too"
    )
    export.set_defaults(command=commands.export)

    register = kinds.add_parser("register", help="write the next version of a model")
    register.add_argument("--run", type=Path, required=True)
    register.add_argument("--name", required=True, help="of the model")
    register.add_argument("--models", type=Path, default=Path("models"), help="repository (models)")
    register.add_argument(
        "--calibrator",
        choices=("smart", "temperature", "identity"),
        default="smart",
        help="factory calibrator (smart)",
    )
    register.add_argument(
        "--precision", choices=("fp32", "fp16", "int8"), default="fp32", help="of the graph (fp32)"
    )
    register.add_argument(
        "--note",
        action="append",
        default=[],
        metavar="TEXT",
        help="for the card's section on the data, such as origin and licence; may be repeated",
    )
    register.add_argument(
        "--compare-with",
        type=Path,
        metavar="VERSION_FOLDER",
        help="say whether the test scores agree with those of this version; exit code 1 if not",
    )
    register.set_defaults(command=commands.register)

    examples = kinds.add_parser("examples", help="make example inputs for a digits model")
    examples.add_argument("--model", type=Path, required=True, metavar="VERSION_FOLDER")
    examples.add_argument("--output", type=Path, default=Path("examples"))
    examples.set_defaults(command=commands.examples)
    return parser


def _names(known: Iterable[str]) -> Callable[[str], tuple[str, ...]]:
    """Reader of names separated by commas, each one of those known."""
    every = tuple(known)

    def names(text: str) -> tuple[str, ...]:
        given = every if text == "all" else tuple(text.split(","))
        for name in given:
            if name not in every:
                raise argparse.ArgumentTypeError(f"must be among {', '.join(every)}, got {name}")
        return given

    return names


def _severities(text: str) -> tuple[int, ...]:
    numbers = tuple(int(part) for part in text.split(","))
    if not set(numbers) <= set(SEVERITIES):
        raise argparse.ArgumentTypeError(f"must be 1 to 5, got {text}")
    return numbers


def _add_recipe(parser: argparse.ArgumentParser, *, required: str = "") -> None:
    """An option for each field of the recipe and each parameter of an optimiser."""
    for field in dataclasses.fields(TrainConfig):
        if field.name == "optimiser_options":
            continue
        option = f"--{field.name.replace('_', '-')}"
        if isinstance(field.default, bool):
            parser.add_argument(option, action="store_true", default=argparse.SUPPRESS)
            continue
        parser.add_argument(
            option,
            type=type(field.default),
            default=argparse.SUPPRESS,
            required=field.name == required,
            help=f"({field.default})",
        )
    options: dict[str, Any] = {}
    for optimiser in OPTIMISERS:
        options |= options_of(optimiser)
    del options["seed"]  # the recipe's
    for name, default in sorted(options.items()):
        parser.add_argument(
            f"--{name.replace('_', '-')}",
            type=type(default),
            default=argparse.SUPPRESS,
            help="of the optimiser",
        )
    parser.set_defaults(optimiser_parameters=tuple(options))
    parser.add_argument("--run", type=Path, required=True, help="folder for the run")
    parser.add_argument("--overwrite", action="store_true", help="replace an earlier run there")
    parser.add_argument(
        "--resume", action="store_true", help="go on with the run there, by its own recipe"
    )
    parser.add_argument("--csv", action="store_true", help="write RUN/metrics.csv, too")
    parser.add_argument("--tensorboard", action="store_true", help="write event files, too")


if __name__ == "__main__":
    sys.exit(main())
