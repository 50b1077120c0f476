"""Everything that ``evaluate`` says about a run: one document, one text, one diagram."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import nn

from trueprob.arrays.logit_functions import Logits
from trueprob.diagram import svg
from trueprob_trainer.data import Split
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
from trueprob_trainer.evaluation.ensemble import ensemble_logits, members
from trueprob_trainer.evaluation.network_scores import Evaluation, evaluate
from trueprob_trainer.networks.classifier import predict_logits
from trueprob_trainer.training.finished_run import Training


@dataclass(frozen=True)
class Report:
    """What was found."""

    # JSON-safe: scores of the clean test split by calibrator; where asked for, `conditions`,
    # and `ensemble` with the same entries
    document: dict[str, Any]
    text: str  # tables, Markdown
    diagram: str  # SVG of the clean test split, one panel a calibrator


def report(
    training: Training,
    *,
    corruptions: Sequence[str] = (),  # to test under, at each of `severities`
    severities: Sequence[int] = SEVERITIES,
    shifts: bool = False,  # whether to test under label shift and by frequency of classes
    attacks: Sequence[str] = (),
    epsilon: int = 8,  # of the attacks, grey levels
    ensemble: Sequence[Path] = (),
    n_rows: int = 0,  # of the test split that are corrupted and attacked; 0 for all
) -> Report:
    """Evaluate a run."""
    data, model = training.data, training.model

    def conditions() -> Iterator[Condition]:
        if shifts:
            yield from shifted(data)
        yield from corrupted(data, corruptions, severities, n_rows=n_rows)
        yield from attacked(data, model, attacks, epsilon, n_rows=n_rows)

    def alone(images: NDArray[np.uint8]) -> Logits:
        return predict_logits(model, images)

    wanted = bool(shifts or corruptions or attacks)
    evaluation = _clean(alone, training)
    found, texts = evaluation.document(), [evaluation.table()]
    if wanted:
        measured = measure(alone, evaluation, conditions())
        found["conditions"] = as_document(measured)
        texts.append(as_table(measured))
    if ensemble:
        models: list[nn.Module] = [model, *members(ensemble, data)]

        def together(images: NDArray[np.uint8]) -> Logits:
            return ensemble_logits(models, images)

        joint = _clean(together, training)
        found["ensemble"] = dict(joint.document())
        texts.append(f"Ensemble of {len(models)} runs:\n\n{joint.table()}")
        if wanted:
            measured = measure(together, joint, conditions())
            found["ensemble"]["conditions"] = as_document(measured)
            texts.append(as_table(measured))
    diagram = svg(evaluation.panels, title="Test split before and after calibration")
    return Report(found, "\n\n".join(texts), diagram)


def _clean(predict: Predict, training: Training) -> Evaluation:
    splits = []
    for split in (Split.CALIBRATION, Split.TEST):
        images, labels = training.data.of(split)
        splits.append((predict(images), labels))
    return evaluate(splits[0], splits[1])
