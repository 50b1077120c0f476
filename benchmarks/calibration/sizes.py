"""How many rows are needed: identity, one temperature and `smart` from 10 to 5 000 rows."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np

from benchmarks.calibration.peers import Ours
from benchmarks.calibration.report import nats, percent, table
from benchmarks.calibration.scoring import quick_scores
from benchmarks.calibration.sets import LogitSet

SIZES = (10, 20, 50, 100, 200, 500, 1_000, 2_000, 5_000)
COMPARED = ("identity", "temperature", "smart")
MAX_TEST_ELEMENTS = 200_000  # of the test half: 2 000 rows of 100 classes are score enough


def sizes_report(sets: Iterable[LogitSet], *, n_draws: int = 10) -> str:
    """Mean ECE and NLL by number of calibration rows.

    A draw takes rows without replacement by a seed of its own; a set is left out at sizes above
    its own, and so are sets whose tail was rebuilt (their NLL means nothing).
    """
    found: dict[int, list[np.ndarray]] = {size: [] for size in SIZES}
    for data in (d for d in sets if d.has_real_tail):
        kept = slice(0, max(1, MAX_TEST_ELEMENTS // data.n_classes))
        test_logits, test_labels = data.test_logits[kept], data.test_labels[kept]
        predicted = test_logits.argmax(axis=1)
        for size in (s for s in SIZES if s <= data.val_labels.size):
            # All rows can be drawn in one way only.
            draws = 1 if size == data.val_labels.size else n_draws
            measured = np.empty((draws, len(COMPARED), 2))
            for draw in range(draws):
                generator = np.random.default_rng([size, draw])
                rows = generator.choice(data.val_labels.size, size, replace=False)
                for index, method in enumerate(COMPARED):
                    predict = Ours(method)(data.val_logits[rows], data.val_labels[rows])
                    scores = quick_scores(predict(test_logits), test_labels, predicted)
                    measured[draw, index] = scores
            found[size].append(measured)
    rows = []
    for size, per_set in found.items():
        if not per_set:
            continue
        means = np.mean([m.mean(axis=0) for m in per_set], axis=0)
        worst = max(float((m[:, 2, 1] - m[:, 0, 1]).max()) for m in per_set)
        rows.append(
            [
                str(size),
                str(len(per_set)),
                *(percent(ece) for ece in means[:, 0]),
                *(nats(nll) for nll in means[:, 1]),
                f"{worst:+.3f}",
            ]
        )
    header = [
        "rows",
        "sets",
        *(f"ECE % {name}" for name in COMPARED),
        *(f"NLL {name}" for name in COMPARED),
        "worst draw: NLL of smart − identity",
    ]
    return table(header, rows) + (
        f"\n\nMeans over {n_draws} draws and over the sets that have so many rows; at most "
        f"{MAX_TEST_ELEMENTS} test logits a set are scored."
    )
