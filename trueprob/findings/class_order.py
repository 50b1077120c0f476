"""Class order: whether labels number the classes differently from the scores.

A candidate π says that a row with label c belongs to class π(c). There is a named list, on all
rows: the best shift, reversed, and sorted as text. There are pairs of classes that exchange best,
on all rows. And there is a free assignment, which fits one half of the rows best and is tested on
the other half. What repairs most is reported; the simpler one, unless another is clearly better.

A row speaks for π when its rank in the column of class π(c) is higher than in that of class c.
Ranks within columns disregard that a network favours a class. For labels in the right order the
chance is at most one half, which an exact sign test on the rows that π moves refutes: at 1e-4 for
the whole list, and at 1e-4 for the free assignment. Of the many pairs an honest network is near
that half for very few, so each is tested at 1e-4: by signs, or by the Mann-Whitney test of the
difference of the two scores between the rows of either label. Further conditions protect sets
whose network is honest and bad, and sets whose labels are wrong in another way: the sum of ranks
and the accuracy grow, the ranks of π are as high as those of the labels are low, the rows of most
moved classes (of both, for a pair) speak for π, and the repaired labels agree with the scores.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from trueprob.arrays.labels import Labels
from trueprob.arrays.logit_functions import Logits, prediction
from trueprob.findings.agreement import LEVEL, THRESHOLD, agreement, moments
from trueprob.findings.finding import Finding, Repair, Severity

__all__ = ["class_order_finding"]

MOST_CLASSES: Final = 0.6  # share of the moved classes whose rows must speak for π
LOWEST_RANKS: Final = -0.1  # mean rank of a row under π plus that under its label
ROWS_OF_A_CLASS: Final = 4  # on average; with fewer a free assignment is not tried
CLEARLY_BETTER: Final = 0.02  # accuracy that a less simple order must add
TEXT_CLASSES: Final = 10  # up to here text and numbers have one order, unless counted from 1
SHOWN: Final = 3  # pairs or classes that a sentence names

Integers = NDArray[np.int64]
Candidate = tuple[str, str, Integers]  # how the labels look, the repair, the order


@dataclass(frozen=True)
class ClassSums:
    """Sums over the rows of each label, (k, k): label × class."""

    counts: Integers  # (k,)
    speaking: Integers  # rows that speak for the class instead of the label
    ranks: NDArray[np.float64]
    predicted: Integers

    @property
    def accuracy(self) -> float:
        """Of the labels as they are."""
        return float(np.trace(self.predicted) / self.counts.sum())

    def accuracy_after(self, order: Integers) -> float:
        """Of the labels ``order[label]``."""
        return float(self.predicted[np.arange(order.size), order].sum() / self.counts.sum())

    def supports(self, order: Integers, level: float) -> bool:
        """Whether the rows prove, at this level, that label c means class ``order[c]``."""
        labels = np.arange(order.size)
        moved = (order != labels) & (self.counts > 0)
        if not moved.any():
            return False
        speaking, rows = self.speaking[labels, order][moved], self.counts[moved]
        before, after = np.diag(self.ranks)[moved].sum(), self.ranks[labels, order][moved].sum()
        return bool(
            (speaking > 0.5 * rows).mean() > MOST_CLASSES
            and after > before
            and after + before > LOWEST_RANKS * rows.sum()
            and self.accuracy_after(order) > self.accuracy
            and sign_test(speaking.sum(keepdims=True), rows.sum(keepdims=True))[0] <= level
        )


def class_order_finding(
    logits: Logits, labels: Labels, ranks: NDArray[np.float64]
) -> Finding | None:
    """The order of classes that the rows prove, if it is not that of the labels."""
    k = logits.shape[1]
    by_label = np.argsort(labels, kind="stable")
    logits, labels, ranks = logits[by_label], labels[by_label], ranks[:, by_label]
    sums = class_sums(logits, labels, ranks)
    candidates = (_named(sums), _pairs(sums, logits), _free(logits, labels, ranks, sums))
    found = [
        (sums.accuracy_after(candidate[2]), candidate)
        for candidate in candidates
        if candidate is not None and agreement(ranks, candidate[2][labels]) >= THRESHOLD
    ]
    if found:
        least = max(accuracy for accuracy, _ in found) - CLEARLY_BETTER
        return next(_finding(*each, sums) for accuracy, each in found if accuracy >= least)
    if k == 2:
        # Half of the rows of a very common class speak for either, so that the sum must tell.
        total, deviation = moments(ranks, labels)
        if total < -THRESHOLD * deviation < 0.0:
            look = "classes 0 and 1 look exchanged"
            return _finding(look, "exchange the two labels", np.array([1, 0]), sums)
    return None


def _named(sums: ClassSums) -> Candidate | None:
    """The named order that repairs most."""
    k, shift = sums.counts.size, _best_shift(sums)
    named = dict(named_orders(k, shift))
    supported = []
    for order in named:
        # A shift by more than one class is the best of k.
        tried = len(named) * (k if abs(shift) > 1 and order[shift] == 0 else 1)
        if sums.supports(np.array(order), 0.5 * LEVEL / tried):
            supported.append(order)
    if not supported:
        return None
    order = max(supported, key=lambda order: sums.accuracy_after(np.array(order)))
    look, remedy = named[order]
    if shift == 1 and order[1] == 0 and sums.counts[0] == 0:
        look = "labels look counted from 1"
    return look, remedy, np.array(order)


def _pairs(sums: ClassSums, logits: Logits) -> Candidate | None:
    """All exchanged pairs."""
    order = np.arange(sums.counts.size)
    pairs = exchanged_pairs(sums, logits)
    for a, b in pairs:
        order[[a, b]] = b, a
    if not pairs:
        return None
    shown = ", ".join(f"{a} and {b}" for a, b in pairs[:SHOWN])
    more = f" and {len(pairs) - SHOWN} more pairs" if len(pairs) > SHOWN else ""
    remedy = f"exchange the two labels{' of each pair' * (len(pairs) > 1)}"
    return f"classes {shown}{more} look exchanged", remedy, order


def _free(
    logits: Logits, labels: Labels, ranks: NDArray[np.float64], sums: ClassSums
) -> Candidate | None:
    """The free assignment, if there are enough rows to try one."""
    k = sums.counts.size
    if k == 2 or labels.size < ROWS_OF_A_CLASS * np.count_nonzero(sums.counts):
        return None
    free = free_order(logits, labels, ranks)
    if free is None:
        return None
    moved = np.flatnonzero((free != np.arange(k)) & (sums.counts > 0))
    shown = ", ".join(f"label {c} looks like class {free[c]}" for c in moved[:SHOWN])
    more = f" and {moved.size - SHOWN} more" if moved.size > SHOWN else ""
    return f"classes look permuted: {shown}{more}", "renumber the labels", free


def _best_shift(sums: ClassSums) -> int:
    """The s of the shift by s classes, label c to class c − s, that makes most rows right."""
    k = sums.counts.size
    shifts = np.subtract.outer(np.arange(k), np.arange(k)) % k
    right = np.bincount(shifts.ravel(), weights=sums.predicted.ravel(), minlength=k)
    right[0] = -1.0
    s = int(right.argmax())
    return s if s <= k // 2 else s - k


def named_orders(k: int, shift: int) -> Iterator[tuple[tuple[int, ...], tuple[str, str]]]:
    """Orders with a name, without exchanged pairs: the order, and how it looks and is repaired."""
    classes = np.arange(k)
    by = "one" if abs(shift) == 1 else str(abs(shift))
    verb = "lower" if shift > 0 else "raise"
    named = [
        (
            np.roll(classes, shift),
            f"labels look shifted by {by}",
            f"{verb} each label by {by}" + f" (modulo {k})" * (abs(shift) > 1),
        ),
        (classes[::-1], "classes look reversed", "number the classes from the other end"),
    ]
    for start in (0, 1):
        by_text = np.array(sorted(range(k), key=lambda c: str(c + start)))
        shown = ", ".join(str(c + start) for c in by_text[:4])
        look = f"classes look sorted as text ({shown}, …)"
        named += [
            (by_text, look, "sort the classes of the labels as numbers"),
            (np.argsort(by_text), look, "sort the classes of the labels as text"),
        ]
    seen = set()
    for order, look, remedy in named:
        key = tuple(map(int, order))
        if np.count_nonzero(order != classes) > 2 and key not in seen:
            seen.add(key)
            yield key, (look, remedy)


def class_sums(logits: Logits, labels: Labels, ranks: NDArray[np.float64]) -> ClassSums:
    """Sums over the rows of each label; rows are in the order of their labels."""
    n, k = logits.shape
    rows = np.arange(n)
    speaking = ranks > ranks[labels, rows]
    counts = np.bincount(labels, minlength=k)
    present = np.flatnonzero(counts)
    starts = np.concatenate([[0], np.cumsum(counts[present])[:-1]])
    speaking_sums = np.zeros((k, k), dtype=np.int64)
    rank_sums = np.zeros((k, k))
    # Sums of booleans are slower.
    speaking_sums[present] = np.add.reduceat(speaking.astype(np.float64), starts, axis=1).T
    rank_sums[present] = np.add.reduceat(ranks, starts, axis=1).T
    predicted = np.bincount(labels * k + prediction(logits), minlength=k * k).reshape(k, k)
    return ClassSums(counts, speaking_sums, rank_sums, predicted)


def exchanged_pairs(sums: ClassSums, logits: Logits) -> list[tuple[int, int]]:
    """Pairs of classes whose labels are exchanged; each is the best partner of the other."""
    present = np.flatnonzero(sums.counts)
    both = np.ix_(present, present)
    counts, speaking, sum_of = sums.counts[present], sums.speaking[both], sums.ranks[both]
    own = np.diag(sum_of)
    before, after, rows = own[:, None] + own, sum_of + sum_of.T, counts[:, None] + counts
    most = speaking > 0.5 * counts[:, None]
    predicted = sums.predicted[both]
    right = np.diag(predicted)
    likely = (
        (most & most.T & (after > before) & (after + before > LOWEST_RANKS * rows))
        & (predicted + predicted.T > right[:, None] + right)  # the accuracy grows
    )
    if not likely.any():
        return []
    gain = np.where(likely, (after - before) / rows, -np.inf)
    partner = gain.argmax(axis=1)
    pairs = []
    ends = np.cumsum(counts)
    for first, second in enumerate(partner):
        if first >= second or partner[second] != first or not likely[first, second]:
            continue
        a, b = present[first], present[second]
        of_a, of_b = (slice(ends[c] - counts[c], ends[c]) for c in (first, second))
        together = speaking[first, second] + speaking[second, first]
        signs = sign_test(np.array([together]), rows[first, second : second + 1])[0]
        order = mann_whitney(*(logits[of, b] - logits[of, a] for of in (of_a, of_b)))
        if min(signs, order) <= LEVEL:
            pairs.append((int(a), int(b)))
    return pairs


def mann_whitney(high: NDArray[np.float32], low: NDArray[np.float32]) -> float:
    """P(so many pairs of values have the first one higher) if both are drawn alike; at most."""
    n, m = high.size, low.size
    below = np.sort(low)
    higher = 0.5 * sum(below.searchsorted(high, side).sum() for side in ("left", "right"))
    z = (higher - 0.5 * n * m) / math.sqrt(n * m * (n + m + 1) / 12.0)
    return 0.5 * math.erfc(float(z) / math.sqrt(2.0))


def free_order(logits: Logits, labels: Labels, ranks: NDArray[np.float64]) -> Integers | None:
    """The assignment that fits the rows best, if that of one half is proved by the other."""
    first, second = slice(0, None, 2), slice(1, None, 2)  # both have rows of each label
    halves = [class_sums(logits[half], labels[half], ranks[:, half]) for half in (first, second)]
    order = assignment(halves[0].ranks)
    if not halves[1].supports(order, LEVEL):
        return None
    both = assignment(halves[0].ranks + halves[1].ranks)
    return both if halves[1].supports(both, LEVEL) else order


def assignment(ranks: NDArray[np.float64]) -> Integers:
    """The order with the largest sum of ranks."""
    from scipy.optimize import linear_sum_assignment

    return np.asarray(linear_sum_assignment(ranks, maximize=True)[1], dtype=np.int64)


def sign_test(speaking: Integers, counts: Integers) -> NDArray[np.float64]:
    """P(at least so many of the rows speak for an order), each with chance one half."""
    # Hoeffding: only where exp(−2·counts·(share − ½)²) is small can the exact tail be.
    excess = np.maximum(2.0 * speaking - counts, 0.0)
    p: NDArray[np.float64] = np.exp(-np.square(excess) / (2.0 * np.maximum(counts, 1)))
    small = p < 0.01
    if small.any():
        from scipy.special import bdtrc

        p[small] = bdtrc(speaking[small] - 1.0, counts[small], 0.5)
    return p


def _finding(look: str, remedy: str, order: Integers, sums: ClassSums) -> Finding:
    after = sums.accuracy_after(order)
    sentence = f"{look}: accuracy {sums.accuracy:.3f}, and {after:.3f} after the repair"
    repair = Repair(remedy, labels=tuple(map(int, order)), accuracy=after)
    return Finding("class_order", Severity.HOLD, sentence, repair)
