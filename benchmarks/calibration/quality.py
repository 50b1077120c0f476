"""Every method on every set: mean table, paired differences, each set, and "never worse"."""

from __future__ import annotations

import time
from collections.abc import Iterable
from dataclasses import dataclass, field

import numpy as np

from benchmarks.calibration.peers import Method
from benchmarks.calibration.scoring import NEEDS_TAIL, Rows, scores_of
from benchmarks.calibration.sets import LogitSet

REFERENCE = "smart"
BASELINE = "identity"


@dataclass
class Results:
    """Scores by set and method; why a method has none; rows of the two that are tested."""

    families: dict[str, str] = field(default_factory=dict)
    shapes: dict[str, tuple[int, int, int]] = field(default_factory=dict)
    scores: dict[str, dict[str, dict[str, float]]] = field(default_factory=dict)
    failures: dict[str, dict[str, str]] = field(default_factory=dict)
    rows: dict[str, dict[str, Rows]] = field(default_factory=dict)
    missing: list[str] = field(default_factory=list)

    def values(self, method: str, score: str, sets: Iterable[str] | None = None) -> np.ndarray:
        """One number a set, in the order of the sets; NaN where the method has none."""
        empty: dict[str, float] = {}
        names = list(self.scores) if sets is None else list(sets)
        return np.array([self.scores[s].get(method, empty).get(score, np.nan) for s in names])

    def sets_for(self, score: str) -> list[str]:
        """Sets on which the score means something."""
        if score not in NEEDS_TAIL:
            return list(self.scores)
        return [s for s, by in self.scores.items() if not np.isnan(by[BASELINE][score])]

    def finished(self, methods: Iterable[str]) -> list[str]:
        """Methods with scores on every set."""
        return [m for m in methods if all(m in by for by in self.scores.values())]


def measure(sets: Iterable[LogitSet], methods: list[Method], *, verbose: bool = True) -> Results:
    """Fit each installed method on each validation half and score it on the test half.

    A peer that raises or answers with numbers that are not finite is recorded and passed over;
    one of ours that raises ends the run.
    """
    results = Results(missing=[m.name for m in methods if not m.installed])
    for data in sets:
        results.families[data.name] = data.family
        shape = (data.val_labels.size, data.test_labels.size, data.n_classes)
        results.shapes[data.name] = shape
        results.scores[data.name], results.failures[data.name] = {}, {}
        results.rows[data.name] = {}
        predicted = data.test_logits.argmax(axis=1)
        for method in (m for m in methods if m.installed and m.takes(data.n_classes)):
            start = time.perf_counter()
            try:
                predict = method.fit(data.val_logits, data.val_labels)
                seconds = time.perf_counter() - start
                probabilities = np.asarray(predict(data.test_logits))
                if probabilities.shape != data.test_logits.shape:
                    raise ValueError(f"shape {probabilities.shape}")
                if not np.isfinite(probabilities).all():
                    raise ValueError("probabilities that are not finite")
            except Exception as error:
                if method.ours:
                    raise
                results.failures[data.name][method.name] = f"{type(error).__name__}: {error}"
                continue
            scores, rows = scores_of(
                probabilities,
                data.test_labels,
                predicted if method.keeps_prediction and not method.ours else None,
                has_real_tail=data.has_real_tail,
            )
            results.scores[data.name][method.name] = {**scores, "seconds": seconds}
            if method.name in (REFERENCE, BASELINE):
                results.rows[data.name][method.name] = rows
            if verbose:
                print(
                    f"{data.name} {method.name}: ECE {100 * scores['ece']:.2f} %, "
                    f"NLL {scores['nll']:.4f}, {seconds:.2f} s",
                    flush=True,
                )
    return results
