"""Scores of a network on the test split: uncalibrated, after one temperature, after SMART.

Calibrators are fitted on the calibration split. Nothing was fitted or chosen on the test split.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from trueprob.arrays.labels import Labels
from trueprob.arrays.logit_functions import Logits, softmax
from trueprob.calibrators import Calibrator, IdentityCalibrator
from trueprob.diagram import Panel
from trueprob.fitting.fit import fit
from trueprob.scores.score import Scores, mean_entropy, score

METHODS = ("temperature", "smart")


@dataclass(frozen=True)
class Evaluation:
    """Calibrators and their scores on the test split."""

    # Keys here and below: `uncalibrated` (the identity) and METHODS.
    calibrators: Mapping[str, Calibrator]
    scores: Mapping[str, Scores]
    entropies: Mapping[str, float]  # mean entropy of the probabilities, in nats
    panels: tuple[Panel, ...]  # one per key, for a reliability diagram

    def to_dict(self) -> dict[str, Any]:
        """JSON-safe document: the scores by key, as in a manifest."""
        return {name: scores.to_dict() for name, scores in self.scores.items()}

    def document(self) -> dict[str, dict[str, Any]]:
        """JSON-safe document: the scores and entropies by key."""
        return {
            name: {**scores, "entropy": round(self.entropies[name], 6)}
            for name, scores in self.to_dict().items()
        }

    def table(self) -> str:
        """Markdown table for a terminal or a model card: percent; NLL and entropy in nats."""
        columns = "accuracy % | ECE % | noise floor % | adaptive ECE % | NLL | AUROC | entropy"
        rows = [f"| test split | {columns} |", "|---|---|---|---|---|---|---|---|"]
        for name, s in self.scores.items():
            rows.append(
                f"| {name} | {100 * s.accuracy:.1f} | {100 * s.ece:.2f} | {100 * s.ece_floor:.2f} "
                f"| {100 * s.adaptive_ece:.2f} | {s.nll:.3f} | {s.auroc:.3f} "
                f"| {self.entropies[name]:.3f} |"
            )
        return "\n".join(rows)


def evaluate(
    calibration: tuple[Logits, Labels], test: tuple[Logits, Labels], *, seed: int = 0
) -> Evaluation:
    """Fit calibrators on the calibration rows and score them on the test rows."""
    calibrators: dict[str, Calibrator] = {
        "uncalibrated": IdentityCalibrator(n_classes=calibration[0].shape[1])
    }
    for method in METHODS:
        calibrators[method] = fit(*calibration, method, seed=seed).calibrator
    logits, labels = test
    probabilities = {"uncalibrated": softmax(logits)}
    for method in METHODS:
        probabilities[method] = calibrators[method].predict_proba(logits)
    return Evaluation(
        calibrators,
        {name: score(p, labels) for name, p in probabilities.items()},
        {name: mean_entropy(p) for name, p in probabilities.items()},
        tuple(Panel.of(name, p, labels) for name, p in probabilities.items()),
    )
