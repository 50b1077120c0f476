"""Reports the evaluation of a run, of an ensemble, or of a repeated training.

- :func:`report`: what the command ``evaluate`` prints and writes.
- :func:`ensemble_logits`: a deep ensemble (Lakshminarayanan, Pritzel, Blundell: arXiv:1612.01474).
  Its probabilities are the mean of its members'. Its logits are their logarithm, so calibrators and
  scores treat it as one network.
- :func:`compare`: whether a repeated training reproduces the scores of a shipped version.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from math import sqrt
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import nn

from trueprob.arrays.logit_functions import Logits, softmax
from trueprob.diagram import svg
from trueprob.repository.manifest import Manifest
from trueprob_trainer.data import LabelledImages, Split
from trueprob_trainer.errors import BadInput
from trueprob_trainer.evaluation.conditions import (
    Condition,
    Predict,
    as_document,
    as_table,
    attacked,
    corrupted,
    measure,
    shifted,
)
from trueprob_trainer.evaluation.corruptions import SEVERITIES
from trueprob_trainer.evaluation.network_scores import Evaluation, evaluate
from trueprob_trainer.networks.classifier import predict_logits
from trueprob_trainer.training.finished_run import Training, load_training
from trueprob_trainer.training.run_folder import RunFolder

SMALLEST = 1e-12  # floor of a probability before the logarithm, as in trueprob


@dataclass(frozen=True)
class Report:
    """The result of an evaluation as a document, a text and a diagram."""

    # JSON-safe: scores of the clean test split by calibrator. If requested also `conditions`, and
    # `ensemble` with the same entries.
    document: dict[str, Any]
    text: str  # tables in Markdown
    diagram: str  # SVG of the clean test split, one panel per calibrator


def report(
    training: Training,
    *,
    corruptions: Sequence[str] = (),
    severities: Sequence[int] = SEVERITIES,
    shifts: bool = False,  # label shift, and classes by frequency in training
    attacks: Sequence[str] = (),
    epsilon: int = 8,  # of the attacks, in grey levels
    ensemble: Sequence[Path] = (),  # other runs
    n_rows: int = 0,  # test rows to corrupt and attack; 0 means all
) -> Report:
    """Evaluate a run on the clean test split and under the requested conditions."""
    data, model = training.data, training.model

    def conditions() -> Iterator[Condition]:
        if shifts:
            yield from shifted(data)
        yield from corrupted(data, corruptions, severities, n_rows=n_rows)
        yield from attacked(data, model, attacks, epsilon, n_rows=n_rows)

    def by_network(images: NDArray[np.uint8]) -> Logits:
        return predict_logits(model, images)

    has_conditions = bool(shifts or corruptions or attacks)
    evaluation = _clean(by_network, training)
    document, texts = evaluation.document(), [evaluation.table()]
    if has_conditions:
        measured = measure(by_network, evaluation, conditions())
        document["conditions"] = as_document(measured)
        texts.append(as_table(measured))
    if ensemble:
        models: list[nn.Module] = [model, *members(ensemble, data)]

        def by_ensemble(images: NDArray[np.uint8]) -> Logits:
            return ensemble_logits(models, images)

        ensemble_evaluation = _clean(by_ensemble, training)
        document["ensemble"] = dict(ensemble_evaluation.document())
        texts.append(f"Ensemble of {len(models)} runs:\n\n{ensemble_evaluation.table()}")
        if has_conditions:
            measured = measure(by_ensemble, ensemble_evaluation, conditions())
            document["ensemble"]["conditions"] = as_document(measured)
            texts.append(as_table(measured))
    diagram = svg(evaluation.panels, title="Test split before and after calibration")
    return Report(document, "\n\n".join(texts), diagram)


def _clean(predict: Predict, training: Training) -> Evaluation:
    splits = []
    for split in (Split.CALIBRATION, Split.TEST):
        images, labels = training.data.of(split)
        splits.append((predict(images), labels))
    return evaluate(splits[0], splits[1])


def ensemble_logits(models: Sequence[nn.Module], images: NDArray[np.uint8]) -> Logits:
    """Logarithm of the mean of the members' probabilities."""
    mean = np.mean([softmax(predict_logits(model, images)) for model in models], axis=0)
    logits: Logits = np.log(np.maximum(mean, SMALLEST)).astype(np.float32)
    return logits


def members(runs: Sequence[Path], data: LabelledImages) -> list[nn.Module]:
    """Networks of other runs; refused unless they have the same split of the same data."""
    models: list[nn.Module] = []
    for path in runs:
        training = load_training(RunFolder(path))
        other = training.data
        if other.images.shape != data.images.shape or not np.array_equal(other.split, data.split):
            raise BadInput(f"ensemble {path} was trained on another split of other data")
        models.append(training.model)
    return models


@dataclass(frozen=True)
class Agreement:
    """Scores of two versions and the allowed differences."""

    # Name, our score, the shipped score, allowed difference; fractions.
    rows: tuple[tuple[str, float, float, float], ...]

    @property
    def holds(self) -> bool:
        """Whether every difference is allowed."""
        return all(abs(ours - shipped) <= allowed for _, ours, shipped, allowed in self.rows)

    def table(self) -> str:
        """Table for a terminal, in percent."""
        lines = [f"{'figure':<24}{'now %':>9}{'shipped %':>11}{'allowed ±':>11}"]
        for name, *values in self.rows:
            now, shipped, allowed = (f"{100 * value:.2f}" for value in values)
            lines.append(f"{name:<24}{now:>9}{shipped:>11}{allowed:>11}")
        answer = "yes" if self.holds else "no"
        return "\n".join([*lines, f"agree within the noise floor: {answer}"])


def compare(ours: Manifest, shipped: Manifest) -> Agreement:
    """Compare the test scores of two versions of the same data set."""
    # Another processor sums in another order, and after a hundred epochs a different last bit gives
    # a different network. So differences that the test rows cannot resolve are allowed: up to the
    # noise floor for an ECE, up to two standard errors for an accuracy.
    try:
        a, b = ours.scores["test"], shipped.scores["test"]
        if (a["n"], ours.training["dataset"]) != (b["n"], shipped.training["dataset"]):
            raise BadInput("versions can be compared on one data set only, got two")
        rows = []
        for state in ("uncalibrated", "calibrated"):
            floor = max(a[state]["ece_floor"], b[state]["ece_floor"])
            rows.append((f"ECE, {state}", a[state]["ece"], b[state]["ece"], floor))
        accuracy = b["uncalibrated"]["accuracy"]
        allowed = 2 * sqrt(accuracy * (1 - accuracy) / b["n"])
        rows.append(("accuracy", a["uncalibrated"]["accuracy"], accuracy, allowed))
    except KeyError as problem:
        raise BadInput(f"manifest has no entry {problem} to compare") from problem
    return Agreement(tuple(rows))
