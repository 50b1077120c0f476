"""Command line: ``python -m trainer train | evaluate | export | register | examples``.

Exit codes: 0 fine; 1 the answer is no (parity, agreement); 2 bad input, in one line.
"""

import argparse
import dataclasses
import json
import sys
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

from trainer.config import TrainConfig
from trainer.errors import AnswerIsNo, TrainerError
from trueprob.errors import TrueprobError

if TYPE_CHECKING:
    from trueprob.repository import ModelVersion


class _OneLineParser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        self.exit(2, f"{self.prog}: {message}\n")


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command.

    Parameters
    ----------
    argv : sequence of str, optional
        Arguments; those of the process when not given.

    Returns
    -------
    int
        Exit code.
    """
    arguments = _parser().parse_args(argv)
    try:
        arguments.command(arguments)
    except (TrainerError, TrueprobError) as problem:
        sys.stderr.write(f"trainer: {problem}\n")
        return 1 if isinstance(problem, AnswerIsNo) else 2
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = _OneLineParser(prog="trainer", description="Train, evaluate, export, register.")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")

    train = commands.add_parser("train", help="train a network into a run folder")
    for field in dataclasses.fields(TrainConfig):
        option = f"--{field.name.replace('_', '-')}"
        kind = type(field.default)
        train.add_argument(option, type=kind, default=field.default, help=f"({field.default})")
    train.add_argument("--run", type=Path, required=True, help="folder for the run")
    train.add_argument("--overwrite", action="store_true", help="replace an earlier run there")
    train.set_defaults(command=_train)

    evaluate = commands.add_parser("evaluate", help="scores before and after calibration")
    evaluate.add_argument("--run", type=Path, required=True)
    evaluate.add_argument("--json", action="store_true", help="print one JSON document")
    evaluate.set_defaults(command=_evaluate)

    export = commands.add_parser("export", help="write RUN/model.onnx and check parity")
    export.add_argument("--run", type=Path, required=True)
    export.set_defaults(command=_export)

    register = commands.add_parser("register", help="write the next version of a model")
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
        "--compare-with",
        type=Path,
        metavar="VERSION_FOLDER",
        help="say whether the test scores agree with those of this version; exit code 1 if not",
    )
    register.set_defaults(command=_register)

    examples = commands.add_parser("examples", help="make example inputs for a digits model")
    examples.add_argument("--model", type=Path, required=True, metavar="VERSION_FOLDER")
    examples.add_argument("--output", type=Path, default=Path("examples"))
    examples.set_defaults(command=_examples)
    return parser


# Each command imports what it needs: training does not wait for onnxruntime.


def _train(arguments: argparse.Namespace) -> None:
    from trainer.data import load
    from trainer.networks import network_function
    from trainer.progress import Progress
    from trainer.run_folder import RunFolder
    from trainer.train import train_with

    names = [field.name for field in dataclasses.fields(TrainConfig)]
    config = TrainConfig(**{name: getattr(arguments, name) for name in names})
    network_function(config.network)  # a wrong name is said before a folder is made
    load(config.data)
    run = RunFolder.create(arguments.run, config, overwrite=arguments.overwrite)
    training = train_with(config, run=run, progress=Progress(sys.stdout))
    _say(f"trained {config.epochs} epochs in {training.seconds:.1f} s: {run.path}")


def _evaluate(arguments: argparse.Namespace) -> None:
    from trainer.data import Split
    from trainer.evaluate import evaluate
    from trainer.networks.classifier import predict_logits
    from trainer.run_folder import RunFolder
    from trainer.train import load_training

    run = RunFolder(arguments.run)
    training = load_training(run)
    splits = []
    for split in (Split.CALIBRATION, Split.TEST):
        images, labels = training.data.of(split)
        splits.append((predict_logits(training.model, images), labels))
    evaluation = evaluate(splits[0], splits[1])
    document = json.dumps(evaluation.to_dict(), indent=1)
    run.write("evaluation.json", document.encode() + b"\n")
    _say(document if arguments.json else evaluation.table())


def _export(arguments: argparse.Namespace) -> None:
    from trainer.data import Split
    from trainer.export import export
    from trainer.run_folder import RunFolder
    from trainer.train import load_training

    run = RunFolder(arguments.run)
    training = load_training(run)
    exported = export(training.model, training.data.of(Split.CALIBRATION)[0])
    written = run.write("model.onnx", exported.content)
    _say(f"{written}: {len(exported.content)} bytes, parity {exported.largest_difference:.1e} nats")


def _register(arguments: argparse.Namespace) -> None:
    from trainer.agreement import compare
    from trainer.errors import Disagreement
    from trainer.register import register
    from trainer.run_folder import RunFolder
    from trainer.train import load_training

    shipped = None if arguments.compare_with is None else _version(arguments.compare_with).manifest
    registered = register(
        load_training(RunFolder(arguments.run)),
        arguments.name,
        arguments.models,
        calibrator=arguments.calibrator,
        created_at=datetime.now(UTC),
    )
    _say(registered.evaluation.table())
    _say(f"parity {registered.largest_difference:.1e} nats; registered {registered.version.path}")
    if shipped is not None:
        agreement = compare(registered.version.manifest, shipped)
        _say(agreement.table())
        if not agreement.holds:
            raise Disagreement(f"test scores do not agree with {arguments.compare_with}")


def _examples(arguments: argparse.Namespace) -> None:
    from trainer.examples import make_examples

    made = make_examples(_version(arguments.model))
    arguments.output.mkdir(parents=True, exist_ok=True)
    for name, content in made.files().items():
        (arguments.output / name).write_bytes(content)
        _say(f"{arguments.output / name}: {len(content)} bytes")


def _version(folder: Path) -> "ModelVersion":
    from trainer.errors import BadInput
    from trueprob.repository import ModelRepository

    if not folder.name.isdigit():
        raise BadInput(f"a version folder is models/NAME/VERSION, got {folder}")
    return ModelRepository(folder.parent.parent).get(folder.parent.name, int(folder.name))


def _say(text: str) -> None:
    sys.stdout.write(text + "\n")


if __name__ == "__main__":
    sys.exit(main())
