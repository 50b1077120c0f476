"""Agreement: a rank test of whether labels have anything to do with scores.

With a_ic the rank of row i's log softmax among all rows in column c, scaled to [−1, 1],

    T = Σ_i a_{i, y_i}

is large when rows score high in the column of their own label. Ranks within a column do not
depend on how often the network predicts a class, so rare events and a changed class mix do no
harm; nor do they ask that predictions are right. If labels and rows are unrelated, all
assignments of the labels to the rows are equally likely, and (Hoeffding 1951, A combinatorial
central limit theorem, section 2)

    E T = 0,   Var T = Σ_ij d_ij² / (n − 1)

with d_ij the doubly centred a_{i, y_j}. Columns of ranks have mean 0 and d_ij depends on j by its
label only, so that class counts n_c suffice: Σ_ij d_ij² = Σ_c n_c Σ_i (a_ic − r_i)² with
r_i = Σ_c n_c a_ic / n.

The tail is taken as normal. It is very nearly so at 2 standard errors, which decide on small sets
(`trueprob.findings.set_check`). Labels that are moved by a number of rows have the same variance;
when halves change places, each pair of rows counts twice and the variance doubles.
"""

from __future__ import annotations

from typing import Final

import numpy as np
from numpy.typing import NDArray

from trueprob.arrays.labels import Labels
from trueprob.arrays.logit_functions import Logits, log_softmax

__all__ = [
    "LEVEL",
    "NEARLY",
    "THRESHOLD",
    "agreement",
    "column_ranks",
    "misaligned_rows",
    "moments",
]

LEVEL: Final = 1e-4  # chance that unrelated labels pass
THRESHOLD: Final = 3.72  # standard errors: the normal quantile of that level
NEARLY: Final = 2.0  # standard errors; on few rows, honest but weak networks reach no more
ALL_SHIFTS: Final = 4_000_000  # rows × shifts; of larger sets only the likely shifts are tried
LIKELY_SHIFT: Final = 32  # rows

Array = NDArray[np.float64]


def column_ranks(logits: Logits) -> Array:
    """Ranks of each column of the log softmax, scaled to [−1, 1], ties shared: (k, n)."""
    scores = np.ascontiguousarray(log_softmax(logits).T, dtype=np.float32)
    k, n = scores.shape
    order = np.argsort(scores, axis=1)
    ordered = np.take_along_axis(scores, order, axis=1)
    position = np.broadcast_to(np.arange(n, dtype=np.float64), (k, n))
    new = np.ones((k, n), dtype=bool)
    new[:, 1:] = ordered[:, 1:] != ordered[:, :-1]
    if not new.all():
        first = np.maximum.accumulate(np.where(new, position, 0.0), axis=1)
        last = np.full((k, n), float(n - 1))
        last[:, :-1] = np.where(new[:, 1:], position[:, :-1], n - 1)
        last = np.minimum.accumulate(last[:, ::-1], axis=1)[:, ::-1]
        position = 0.5 * (first + last)
    ranks = np.empty((k, n))
    np.put_along_axis(ranks, order, position, axis=1)
    return ranks * (2.0 / max(n - 1, 1)) - 1.0 if n > 1 else np.zeros((k, n))


def moments(ranks: Array, labels: Labels) -> tuple[float, float]:
    """T, and its standard deviation over all assignments of the labels to the rows."""
    k, n = ranks.shape
    total = float(ranks[labels, np.arange(n)].sum())
    if n < 2:
        return total, 0.0
    counts = np.bincount(labels, minlength=k).astype(np.float64)
    mean = counts @ ranks / n
    squares = float(counts @ np.einsum("ci,ci->c", ranks, ranks) - n * (mean @ mean))
    variance = squares / (n - 1)
    # Rounding leaves something of labels of one class or of constant scores.
    return total, float(np.sqrt(variance)) if variance > 1e-9 * n else 0.0


def agreement(ranks: Array, labels: Labels) -> float:
    """T in standard errors; 0 when no assignment of the labels differs from another."""
    total, deviation = moments(ranks, labels)
    return total / deviation if deviation > 0.0 else 0.0


def misaligned_rows(ranks: Array, rows: NDArray[np.int64], labels: Labels) -> int | None:
    """The shift s for which ``np.roll(labels, s)`` is clearly related to the scores, if any.

    `ranks` are those of some rows, which `rows` lists; labels are all.
    """
    n = labels.size
    z, deviation = agreement(ranks, labels[rows]), moments(ranks, labels[rows])[1]
    if deviation == 0.0:
        return None
    shifts = np.arange(n) - (n - 1) // 2
    if rows.size * n > ALL_SHIFTS:
        near = np.arange(1, LIKELY_SHIFT + 1)
        shifts = np.concatenate([-near, near, [n // 2, -(n // 2)]])
    shifts = shifts[shifts != 0]
    likely = (np.abs(shifts) == 1) | (np.abs(shifts) == n // 2)
    columns = np.arange(rows.size)
    shifted = [ranks[labels[(rows - s) % n], columns].sum() for s in shifts]
    # The normal tail beyond z is at most exp(−z²/2)/2; half of the level is for four shifts.
    needed = np.sqrt(2.0 * np.log(np.where(likely, 4.0, shifts.size) / LEVEL))
    related = z if z >= NEARLY else 0.0  # labels that nearly pass may be right
    excess = np.array(shifted) / deviation - related - needed
    best = int(excess.argmax())
    return int(shifts[best]) if excess[best] >= 0.0 else None
