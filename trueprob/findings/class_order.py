"""Class order: whether labels number the classes differently from the scores.

A candidate π says that a row with label c belongs to class π(c). First comes a named list on all
rows: a shift by one, reversed, sorted as text, and each pair of classes exchanged. Then a free
assignment that fits one half of the rows best is tested on the other half.

A row speaks for π when its rank in the column of class π(c) is higher than in that of class c.
Ranks within columns disregard that a network favours a class. For labels in the right order the
chance is at most one half, which an exact sign test on the rows that π moves refutes: at 1e-4 for
the whole list, and at 1e-4 for the free assignment. Further conditions protect sets whose network
is honest and bad, and sets whose labels are wrong in another way: the sum of ranks and the
accuracy grow, the ranks of π are as high as those of the labels are low, and the rows of most
moved classes (of both, for a pair) speak for π.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from trueprob.arrays.labels import Labels
from trueprob.arrays.logit_functions import Logits, prediction
from trueprob.findings.agreement import LEVEL, THRESHOLD, moments
from trueprob.findings.finding import Finding, Repair, Severity

__all__ = ["class_order_finding"]

MOST_CLASSES: Final = 0.6  # share of the moved classes whose rows must speak for π
LOWEST_RANKS: Final = -0.1  # mean rank of a row under π plus that under its label
ROWS_OF_A_CLASS: Final = 4  # on average; with fewer a free assignment is not tried
CLEARLY_BETTER: Final = 0.02  # accuracy that a free assignment must add to exchanged pairs
TEXT_CLASSES: Final = 10  # up to here text and numbers have one order, unless counted from 1
SHOWN: Final = 3  # pairs or classes that a sentence names

Integers = NDArray[np.int64]


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
    named = dict(named_orders(k))
    # Half of the level is for the few named orders, half for the many pairs.
    level = 0.5 * LEVEL / max(len(named), 1)
    supported = [order for order in named if sums.supports(np.array(order), level)]
    if supported:
        order = max(supported, key=lambda order: sums.accuracy_after(np.array(order)))
        look, remedy = named[order]
        if order[0] == k - 1 and sums.counts[0] == 0:
            look = "labels look counted from 1"
        return _finding(look, remedy, np.array(order), sums)
    pairs = exchanged_pairs(sums, 0.5 * LEVEL / (k * (k - 1) // 2))
    order_of_pairs = np.arange(k)
    for a, b in pairs:
        order_of_pairs[[a, b]] = b, a
    free = None
    if k > 2 and labels.size >= ROWS_OF_A_CLASS * np.count_nonzero(sums.counts):
        free = free_order(logits, labels, ranks)
    gained = sums.accuracy_after(order_of_pairs) + CLEARLY_BETTER * bool(pairs)
    if free is not None and sums.accuracy_after(free) > gained:
        moved = np.flatnonzero((free != np.arange(k)) & (sums.counts > 0))
        shown = ", ".join(f"label {c} looks like class {free[c]}" for c in moved[:SHOWN])
        more = f" and {moved.size - SHOWN} more" if moved.size > SHOWN else ""
        look = f"classes look permuted: {shown}{more}"
        return _finding(look, "renumber the labels", free, sums)
    if pairs:
        shown = ", ".join(f"{a} and {b}" for a, b in pairs[:SHOWN])
        more = f" and {len(pairs) - SHOWN} more pairs" if len(pairs) > SHOWN else ""
        remedy = f"exchange the two labels{' of each pair' * (len(pairs) > 1)}"
        return _finding(f"classes {shown}{more} look exchanged", remedy, order_of_pairs, sums)
    if k == 2:
        # Half of the rows of a very common class speak for either, so that the sum must tell.
        total, deviation = moments(ranks, labels)
        if total < -THRESHOLD * deviation < 0.0:
            look = "classes 0 and 1 look exchanged"
            return _finding(look, "exchange the two labels", np.array([1, 0]), sums)
    return None


def named_orders(k: int) -> Iterator[tuple[tuple[int, ...], tuple[str, str]]]:
    """Orders with a name, without exchanged pairs: the order, and how it looks and is repaired."""
    classes = np.arange(k)
    named = [
        (np.roll(classes, 1), "labels look shifted by one", "lower each label by one"),
        (np.roll(classes, -1), "labels look shifted by one", "raise each label by one"),
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


def exchanged_pairs(sums: ClassSums, level: float) -> list[tuple[int, int]]:
    """Disjoint pairs of classes whose labels are exchanged, the clearest first."""
    present = np.flatnonzero(sums.counts)
    both = np.ix_(present, present)
    counts, speaking, ranks = sums.counts[present], sums.speaking[both], sums.ranks[both]
    own = np.diag(ranks)
    before, after, rows = own[:, None] + own, ranks + ranks.T, counts[:, None] + counts
    most = speaking > 0.5 * counts[:, None]
    likely = most & most.T & (after > before) & (after + before > LOWEST_RANKS * rows)
    first, second = np.nonzero(np.triu(likely, 1))
    if first.size == 0:
        return []
    together = speaking[first, second] + speaking[second, first]
    p = sign_test(together, counts[first] + counts[second])
    pairs: list[tuple[int, int]] = []
    used: set[int] = set()
    for index in np.argsort(p, kind="stable"):
        a, b = int(present[first[index]]), int(present[second[index]])
        if p[index] <= level and not used & {a, b}:
            pairs.append((a, b))
            used |= {a, b}
    return pairs


def free_order(logits: Logits, labels: Labels, ranks: NDArray[np.float64]) -> Integers | None:
    """The assignment that fits one half of the rows best, if the other half proves it."""
    from scipy.optimize import linear_sum_assignment

    first, second = slice(0, None, 2), slice(1, None, 2)  # both have rows of each label
    fitted = class_sums(logits[first], labels[first], ranks[:, first])
    _, order = linear_sum_assignment(fitted.ranks, maximize=True)
    order = order.astype(np.int64)
    if np.array_equal(order, np.arange(order.size)):
        return None
    tested = class_sums(logits[second], labels[second], ranks[:, second])
    return order if tested.supports(order, LEVEL) else None


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
