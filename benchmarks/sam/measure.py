"""Trains and scores a cell; a cell with a stored result is not run again."""

from __future__ import annotations

import functools
import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.sam.plan import Cell, teacher_recipe
from trueprob_trainer.config import TrainConfig
from trueprob_trainer.data import LabelledImages, Split
from trueprob_trainer.data.recipe import prepare
from trueprob_trainer.evaluation.conditions import Condition, corrupted, measure
from trueprob_trainer.evaluation.network_scores import evaluate
from trueprob_trainer.networks.classifier import predict_logits
from trueprob_trainer.training.loop import train_with
from trueprob_trainer.training.run_folder import RunFolder

DATA_FIELDS = ("data", "train_rows", "label_noise", "split_seed")
CORRUPTED_ROWS = 500  # of the test split, at severities 1, 3 and 5


@functools.cache
def _prepared(fields: tuple[object, ...]) -> LabelledImages:
    return prepare(TrainConfig(**dict(zip(DATA_FIELDS, fields, strict=True))))  # type: ignore[arg-type]


def data_of(config: TrainConfig) -> LabelledImages:
    """The data of a recipe, loaded once for all cells that share them."""
    return _prepared(tuple(getattr(config, name) for name in DATA_FIELDS))


@functools.cache
def _corrupted(fields: tuple[object, ...]) -> tuple[Condition, ...]:
    return tuple(corrupted(_prepared(fields), severities=(1, 3, 5), n_rows=CORRUPTED_ROWS))


def run_cell(cell: Cell) -> dict[str, Any]:
    """Train and score.

    Returns
    -------
    dict
        JSON-safe: config, seconds, and accuracy, ECE, NLL before, after one temperature and after
        SMART; means over corruptions where the cell asks for them.
    """
    config, data = cell.config, data_of(cell.config)
    if config.teacher:
        _train_teacher(config, data)
    begun = time.perf_counter()
    model = train_with(config, data=data).model
    seconds = time.perf_counter() - begun
    predict = functools.partial(predict_logits, model)
    splits = [data.of(split) for split in (Split.CALIBRATION, Split.TEST)]
    evaluation = evaluate(*((predict(images), labels) for images, labels in splits))
    result = {"config": config.published(), "seconds": seconds, "test": evaluation.to_dict()}
    if cell.corrupted:
        fields = tuple(getattr(config, name) for name in DATA_FIELDS)
        measured = measure(predict, evaluation, _corrupted(fields))
        result["corrupted"] = {
            name: {
                key: float(np.mean([getattr(by[name], key) for by in measured.values()]))
                for key in ("accuracy", "ece", "nll")
            }
            for name in evaluation.calibrators
        }
    return result


def _train_teacher(config: TrainConfig, data: LabelledImages) -> None:
    folder = Path(config.teacher)
    recipe = teacher_recipe(config)
    if (folder / "checkpoint.pt").exists() and RunFolder(folder).config() == recipe:
        return
    train_with(recipe, data=data, run=RunFolder.create(folder, recipe, overwrite=True))


def result_of(cell: Cell, folder: Path) -> dict[str, Any] | None:
    """The stored result of a cell, if it is of the same recipe."""
    path = folder / f"{cell.key}.json"
    if not path.exists():
        return None
    result: dict[str, Any] = json.loads(path.read_text("utf-8"))
    return result if result["config"] == cell.config.published() else None


def run_missing(
    cells: list[Cell],
    folder: Path,
    *,
    budget_seconds: float,
    say: Callable[[str], None],
    clock: Callable[[], float] = time.process_time,
) -> dict[str, dict[str, Any]]:
    """Run the cells that have no result, until the budget is spent.

    Returns
    -------
    dict
        Results by the cells' keys, also those of earlier calls.
    """
    folder.mkdir(parents=True, exist_ok=True)
    begun = clock()
    results: dict[str, dict[str, Any]] = {}
    left_out = 0
    for i, cell in enumerate(cells, start=1):
        found = result_of(cell, folder)
        if found is None and clock() - begun >= budget_seconds:
            left_out += 1
            continue
        if found is None:
            found = run_cell(cell)
            partial = folder / f"{cell.key}.partial"
            partial.write_text(json.dumps(found, indent=1), "utf-8")
            partial.replace(folder / f"{cell.key}.json")
            say(f"{i}/{len(cells)} {cell.key}: {found['seconds']:.1f} s")
        results[cell.key] = found
    if left_out:
        say(f"budget spent: {left_out} of {len(cells)} cells are left for the next call")
    return results
