"""Conditions under which a network is tested besides the clean test split.

A condition is a name with images, labels and optional weights: corrupted rows, attacked rows, other
class frequencies. The calibrators stay those that were fitted on the clean calibration split, since
the question is how well they hold when the inputs change.

Class frequencies change by weights, so no row is drawn or left out. Under label shift P(y) changes
and P(x | y) does not: a row of class y counts as P′(y)/P(y) rows (Saerens, Latinne, Decaestecker
2002, eq. 2.4).
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import nn

from trueprob.arrays.logit_functions import Logits
from trueprob.scores.score import Scores, score
from trueprob_trainer.data import LabelledImages, Split
from trueprob_trainer.errors import BadInput
from trueprob_trainer.evaluation.adversarial import fgsm, pgd
from trueprob_trainer.evaluation.corruptions import CORRUPTIONS, SEVERITIES, corrupt
from trueprob_trainer.evaluation.network_scores import Evaluation

Predict = Callable[[NDArray[np.uint8]], Logits]
ATTACKS = {"fgsm": fgsm, "pgd": pgd}
SHIFT = 10.0  # frequency of the most common class over that of the least common
THIRDS = ("frequent classes", "middling classes", "rare classes")


@dataclass(frozen=True)
class Condition:
    """A test set and its name; weights of None count every row once."""

    name: str
    images: NDArray[np.uint8]
    labels: NDArray[np.int64]
    weights: NDArray[np.float64] | None = None


def rows_to_test(
    data: LabelledImages, n_rows: int = 0
) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
    """Images and labels of the test split, or of ``n_rows`` evenly spaced rows; 0 means all."""
    images, labels = data.of(Split.TEST)
    if not 0 < n_rows < len(labels):
        return images, labels
    rows = np.linspace(0, len(labels) - 1, n_rows).astype(np.int64)
    return images[rows], labels[rows]


def corrupted(
    data: LabelledImages,
    names: Sequence[str] = tuple(CORRUPTIONS),
    severities: Sequence[int] = SEVERITIES,
    *,
    n_rows: int = 0,
) -> Iterator[Condition]:
    """The test split under each corruption at each severity."""
    images, labels = rows_to_test(data, n_rows)
    for name in names:
        for severity in severities:
            yield Condition(f"{name} {severity}", corrupt(images, name, severity), labels)


def shifted(data: LabelledImages) -> Iterator[Condition]:
    """The test split with other class frequencies, and split into thirds of the classes."""
    images, labels = data.of(Split.TEST)
    k = len(data.class_names)
    for name, factor in (("first classes common", SHIFT), ("last classes common", 1 / SHIFT)):
        yield Condition(name, images, labels, exponential_weights(labels, k, factor))
    thirds = thirds_by_frequency(data.of(Split.TRAIN)[1], k)[labels]
    for third, name in enumerate(THIRDS):
        if np.any(thirds == third):
            yield Condition(name, images[thirds == third], labels[thirds == third])


def exponential_weights(
    labels: NDArray[np.int64], n_classes: int, factor: float
) -> NDArray[np.float64]:
    """Row weights of mean 1; class frequencies fall by ``factor`` from the first to the last."""
    if not 0 < factor < float("inf"):
        raise BadInput(f"label shift needs a positive factor, got {factor}")
    counts = np.bincount(labels, minlength=n_classes)
    frequencies = factor ** (-np.arange(n_classes) / max(1, n_classes - 1))
    weights = (frequencies / np.maximum(counts, 1))[labels]
    scaled: NDArray[np.float64] = weights / weights.mean()
    return scaled


def thirds_by_frequency(train_labels: NDArray[np.int64], n_classes: int) -> NDArray[np.int64]:
    """Third of each class by number of train rows: 0 frequent, 1 medium, 2 rare; ties by index."""
    counts = np.bincount(train_labels, minlength=n_classes)
    rank = np.empty(n_classes, dtype=np.int64)
    rank[np.argsort(-counts, kind="stable")] = np.arange(n_classes)
    return np.minimum(3 * rank // n_classes, 2)


def attacked(
    data: LabelledImages,
    model: nn.Module,
    names: Sequence[str],  # keys of ATTACKS
    epsilon: int,  # in grey levels
    *,
    n_rows: int = 0,
) -> Iterator[Condition]:
    """The test split under white-box attacks on a network."""
    images, labels = rows_to_test(data, n_rows)
    for name in names:
        if name not in ATTACKS:
            raise BadInput(f"attack must be one of {', '.join(ATTACKS)}, got {name}")
        moved = ATTACKS[name](model, images, labels, epsilon=epsilon)
        yield Condition(f"{name} {epsilon}/255", moved, labels)


def measure(
    predict: Predict, evaluation: Evaluation, conditions: Iterable[Condition]
) -> dict[str, dict[str, Scores]]:
    """Scores by condition and calibrator, with the calibrators of a clean evaluation."""
    measured: dict[str, dict[str, Scores]] = {}
    for condition in conditions:
        logits = predict(condition.images)
        measured[condition.name] = {
            name: score(
                calibrator.predict_proba(logits), condition.labels, weights=condition.weights
            )
            for name, calibrator in evaluation.calibrators.items()
        }
    return measured


def as_document(measured: Mapping[str, Mapping[str, Scores]]) -> dict[str, Any]:
    """JSON-safe form of the result of :func:`measure`."""
    return {
        condition: {name: scores.to_dict() for name, scores in by_calibrator.items()}
        for condition, by_calibrator in measured.items()
    }


def as_table(measured: Mapping[str, Mapping[str, Scores]]) -> str:
    """Markdown table: accuracy, and ECE and NLL for each calibrator."""
    names = list(next(iter(measured.values())))
    head = [f"ECE %, {name}" for name in names] + [f"NLL, {name}" for name in names]
    lines = [
        f"| condition | rows | accuracy % | floor % | {' | '.join(head)} |",
        "|---|" + "---:|" * (3 + 2 * len(names)),
    ]
    for condition, by in measured.items():
        first = by[names[0]]
        cells = [f"{100 * by[name].ece:.2f}" for name in names]
        cells += [f"{by[name].nll:.3f}" for name in names]
        lines.append(
            f"| {condition} | {first.n} | {100 * first.accuracy:.1f} "
            f"| {100 * first.ece_floor:.2f} | {' | '.join(cells)} |"
        )
    return "\n".join(lines)
