"""Test halves with a shift; the validation halves are not changed.

Long-tailed: class c of k, in a random order, is kept with probability 100^(−c/(k−1)), so that
the commonest is 100 times as frequent as the rarest. Noisy: normal noise on every test logit,
half the standard deviation of the validation gaps; labels stay, so accuracy falls.
"""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np

from benchmarks.calibration.peers import Method
from benchmarks.calibration.report import nats, percent, table
from benchmarks.calibration.scoring import scores_of
from benchmarks.calibration.sets import LogitSet, of_arrays
from trueprob.arrays.logit_functions import logit_gap

IMBALANCE = 100.0
NOISE = 0.5  # of the standard deviation of the validation gaps
SLOW = ("smart-mlp", "smart-mlp-authors", "auto", "auto (free)")
SCORES = ("ece", "adaptive_ece", "nll", "accuracy")
KEPT_PEERS = ("sklearn isotonic (top label)",)


def long_tailed(data: LogitSet, *, seed: int = 0) -> LogitSet:
    """The test half with classes thinned geometrically."""
    generator = np.random.default_rng(seed)
    rank = generator.permutation(data.n_classes)[data.test_labels]
    share = IMBALANCE ** (-rank / (data.n_classes - 1))
    kept = generator.random(rank.size) < share
    return of_arrays(
        data.name,
        data.val_logits,
        data.val_labels,
        data.test_logits[kept],
        data.test_labels[kept],
    )


def noisy(data: LogitSet, *, seed: int = 0) -> LogitSet:
    """The test half with noise on the logits."""
    deviation = NOISE * float(logit_gap(data.val_logits).std())
    noise = np.random.default_rng(seed).normal(scale=deviation, size=data.test_logits.shape)
    return of_arrays(
        data.name,
        data.val_logits,
        data.val_labels,
        data.test_logits + noise.astype(np.float32),
        data.test_labels,
    )


def shifts_report(sets: Iterable[LogitSet], methods: list[Method]) -> str:
    """Mean scores on the original sets and under both shifts."""
    chosen = [
        m
        for m in methods
        if m.installed
        and m.most_classes is None
        and (m.name in KEPT_PEERS if not m.ours else m.name not in SLOW)
    ]
    made = {"as given": lambda data: data, "long-tailed": long_tailed, "noisy logits": noisy}
    found: list[np.ndarray] = []
    for data in (d for d in sets if d.has_real_tail):
        measured = np.empty((len(made), len(chosen), len(SCORES)))
        shifted = [make(data) for make in made.values()]
        for index, method in enumerate(chosen):
            predict = method.fit(data.val_logits, data.val_labels)
            for part, test in enumerate(shifted):
                keeps = method.keeps_prediction and not method.ours
                predicted = test.test_logits.argmax(axis=1) if keeps else None
                scores, _ = scores_of(predict(test.test_logits), test.test_labels, predicted)
                measured[part, index] = [scores[name] for name in SCORES]
        found.append(measured)
    means = np.mean(found, axis=0)
    rows = []
    for part, title in enumerate(made):
        for index, method in enumerate(chosen):
            ece, adaptive, nll, accuracy = means[part, index]
            cells = [percent(ece), percent(adaptive), nats(nll), percent(accuracy, 1)]
            rows.append([f"{title}: {method.name}", *cells])
    header = ["test half: method", "ECE %", "adaptive ECE %", "NLL", "accuracy %"]
    return (
        table(header, rows) + f"\n\nMeans over {len(found)} sets. The shifts are made, not found."
    )
