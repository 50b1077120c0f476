"""The commands of :mod:`trueprob_trainer.__main__`, one function each.

Imports are inside the functions, so that ``train`` does not wait for onnxruntime.
"""

import argparse
import contextlib
import dataclasses
import json
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

from trueprob_trainer.config import TrainConfig
from trueprob_trainer.errors import BadInput

if TYPE_CHECKING:
    from trueprob.repository.model_version import ModelVersion
    from trueprob_trainer.training.run_folder import RunFolder


def run_train(arguments: argparse.Namespace) -> None:
    """Train into a new run folder, or continue the run that is there."""
    from trueprob_trainer.training.loop import Log, checked_data, train_with
    from trueprob_trainer.training.progress import CsvLog, Progress, TensorBoardLog, silent
    from trueprob_trainer.training.ranks import joined_ranks
    from trueprob_trainer.training.run_folder import RunFolder

    given, data = given_recipe(arguments), None
    if arguments.resume:
        run = RunFolder(arguments.run)
        config = run.config()
        _refuse_another_recipe(given, config)
    else:
        config = TrainConfig.from_dict(given)
        data = checked_data(config)  # refuses bad input before a folder is made
        run = RunFolder(arguments.run)
    with contextlib.ExitStack() as stack:
        ranks = stack.enter_context(joined_ranks())
        if ranks.first and not arguments.resume:
            RunFolder.create(arguments.run, config, overwrite=arguments.overwrite)
        ranks.any(False)  # the others wait for the folder
        logs: list[Log] = [CsvLog(run)] if arguments.csv and ranks.first else []
        if arguments.tensorboard and ranks.first:
            logs.append(stack.enter_context(contextlib.closing(TensorBoardLog(run))))
        training = train_with(
            config,
            data=data,
            run=run,
            resume=arguments.resume,
            logs=logs,
            progress=Progress(sys.stdout) if ranks.first else silent,
            ranks=ranks,
        )
    if ranks.first:
        _say(f"trained {config.epochs} epochs in {training.seconds:.1f} s: {run.path}")


def given_recipe(arguments: argparse.Namespace) -> dict[str, object]:
    """The fields of the recipe that are on the command line."""
    values = vars(arguments)
    names = [field.name for field in dataclasses.fields(TrainConfig)]
    given: dict[str, object] = {name: values[name] for name in names if name in values}
    if "rho" in given:
        rho, layers = values["rho"]
        del given["rho"]
        given |= ({} if rho is None else {"rho": rho}) | ({"layer_rho": layers} if layers else {})
    options = {n: values[n] for n in arguments.optimiser_parameters if n in values}
    options |= dict(arguments.optimiser_option)
    return {**given, "optimiser_options": options} if options else given


def _refuse_another_recipe(given: dict[str, object], config: TrainConfig) -> None:
    for name, value in given.items():
        if value != getattr(config, name):
            raise BadInput(
                f"{name} is {getattr(config, name)} in this run and --resume keeps it, got {value}"
            )


def run_evaluate(arguments: argparse.Namespace) -> None:
    """Score a run on its test split and under the requested conditions."""
    from trueprob_trainer.evaluation.report import report
    from trueprob_trainer.training.finished_run import load_training

    run = _run_folder(arguments)
    evaluated = report(
        load_training(run),
        corruptions=arguments.corruptions,
        severities=arguments.severities,
        shifts=arguments.shifts,
        attacks=arguments.attacks,
        epsilon=arguments.epsilon,
        ensemble=arguments.ensemble,
        n_rows=arguments.rows,
    )
    document = json.dumps(evaluated.document, indent=1)
    run.write("evaluation.json", document.encode() + b"\n")
    run.write("reliability.svg", evaluated.diagram.encode())
    _say(document if arguments.json else evaluated.text)


def run_export(arguments: argparse.Namespace) -> None:
    """Write ``model.onnx`` and the requested variants, once parity is checked."""
    from trueprob_trainer.export.variants import export_files
    from trueprob_trainer.training.finished_run import load_training

    run = _run_folder(arguments)
    precisions = [name for name in ("fp16", "int8") if getattr(arguments, name)]
    exported = export_files(load_training(run), precisions, calibrated=arguments.calibrated)
    for name, content in exported.files.items():
        _say(f"{run.write(name, content)}: {len(content)} bytes")
    run.write("export.json", json.dumps(exported.document, indent=1).encode() + b"\n")
    _say(f"parity {exported.document['largest_difference']:.1e} nats")
    if precisions:
        _say(exported.table)


def run_register(arguments: argparse.Namespace) -> None:
    """Write the next version of a model and, if requested, compare it with a shipped one."""
    from trueprob_trainer.errors import Disagreement
    from trueprob_trainer.evaluation.report import compare
    from trueprob_trainer.export.registration import register
    from trueprob_trainer.training.finished_run import load_training

    shipped = None if arguments.compare_with is None else _version(arguments.compare_with).manifest
    registered = register(
        load_training(_run_folder(arguments)),
        arguments.name,
        arguments.models,
        calibrator=arguments.calibrator,
        precision=arguments.precision,
        notes=arguments.note,
        created_at=datetime.now(UTC),
    )
    _say(registered.evaluation.table())
    _say(f"parity {registered.largest_difference:.1e} nats; registered {registered.version.path}")
    if shipped is not None:
        agreement = compare(registered.version.manifest, shipped)
        _say(agreement.table())
        if not agreement.holds:
            raise Disagreement(f"test scores do not agree with {arguments.compare_with}")


def run_examples(arguments: argparse.Namespace) -> None:
    """Write the example files of the demo model."""
    from trueprob_trainer.examples import make_examples

    examples = make_examples(_version(arguments.model))
    arguments.output.mkdir(parents=True, exist_ok=True)
    for name, content in examples.files().items():
        (arguments.output / name).write_bytes(content)
        _say(f"{arguments.output / name}: {len(content)} bytes")


def _run_folder(arguments: argparse.Namespace) -> "RunFolder":
    from trueprob_trainer.training.run_folder import RunFolder

    return RunFolder(arguments.run)


def _version(folder: Path) -> "ModelVersion":
    from trueprob.repository.model_repository import ModelRepository

    if not folder.name.isdigit():
        raise BadInput(f"a version folder is models/NAME/VERSION, got {folder}")
    return ModelRepository(folder.parent.parent).get(folder.parent.name, int(folder.name))


def _say(text: str) -> None:
    sys.stdout.write(text + "\n")
