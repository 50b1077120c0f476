"""Ways to break a calibration set: the kinds that decided the design, and other inputs of each."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.calibration.sets import LogitSet
from trueprob.arrays.labels import Labels
from trueprob.arrays.logit_functions import Logits, log_softmax, softmax

LEAST_ROWS = 30  # of the exchanged classes together, for the repair to be counted

Array = NDArray[Any]
Generator = np.random.Generator
Sets = Sequence[LogitSet]


@dataclass(frozen=True)
class Drawn:
    """A calibration set as arrays, and the repair that would be right."""

    arrays: dict[str, Array]
    true_labels: Labels | None = None  # None where no relabelling repairs the set
    field: str | None = None  # where the numbers belong

    @property
    def has_repair(self) -> bool:
        return self.true_labels is not None or self.field is not None


def rows_of(data: LogitSet, n: int, generator: Generator) -> tuple[Logits, Labels] | None:
    """Random rows; None when the set has fewer."""
    if data.val_labels.size < n:
        return None
    chosen = generator.choice(data.val_labels.size, n, replace=False)
    return data.val_logits[chosen], data.val_labels[chosen]


# The data, rows, randomness and all data → a broken set, if the data can be broken in this way.
Breaker = Callable[[LogitSet, int, Generator, Sets], Drawn | None]
Change = Callable[[Labels, int, Generator], Labels | None]  # labels, classes, randomness


def by_labels(change: Change, *, repairable: bool = True) -> Breaker:
    """A kind that changes the labels only."""

    def broken(data: LogitSet, n: int, generator: Generator, _: Sets) -> Drawn | None:
        drawn = rows_of(data, n, generator)
        given = None if drawn is None else change(drawn[1], data.n_classes, generator)
        if drawn is None or given is None:
            return None
        arrays = {"logits": drawn[0], "labels": given}
        return Drawn(arrays, drawn[1] if repairable else None)

    return broken


def by_numbers(given: str, change: Callable[[Logits], Array], field: str) -> Breaker:
    """A kind that gives numbers under a wrong name; ``field`` is the right one."""

    def broken(data: LogitSet, n: int, generator: Generator, _: Sets) -> Drawn | None:
        drawn = rows_of(data, n, generator)
        if drawn is None:
            return None
        return Drawn({given: change(drawn[0]), "labels": drawn[1]}, field=field)

    return broken


def as_text(start: int, *, back: bool = False) -> Change:
    """Classes numbered in the order of their numbers as text, or as if they were."""

    def change(labels: Labels, k: int, _: Generator) -> Labels | None:
        by_text = np.array(sorted(range(k), key=lambda c: str(c + start)))
        order = by_text if back else np.argsort(by_text)
        return None if k <= 10 - start else order[labels]

    return change


def exchanged(pairs: int) -> Change:
    """Disjoint pairs of classes that hold enough rows each; None when there are too few."""

    def change(labels: Labels, k: int, generator: Generator) -> Labels | None:
        counts = np.bincount(labels, minlength=k)
        classes = generator.permutation(np.flatnonzero(counts))
        order, found = np.arange(k), 0
        for a in classes:
            for b in classes:
                free = order[a] == a and order[b] == b and a < b
                if found < pairs and free and counts[a] + counts[b] >= LEAST_ROWS:
                    order[[a, b]] = b, a
                    found += 1
        return order[labels] if found == pairs else None

    return change


def turned(classes: int) -> Change:
    """Each of some classes called by the next one's number."""

    def change(labels: Labels, k: int, generator: Generator) -> Labels | None:
        counts = np.bincount(labels, minlength=k)
        chosen = np.argsort(-counts, kind="stable")[:classes]
        if k < classes or counts[chosen].sum() < LEAST_ROWS:
            return None
        chosen = generator.permutation(chosen)
        order = np.arange(k)
        order[chosen] = np.roll(chosen, 1)
        return order[labels]

    return change


def moved(k: int, generator: Generator) -> NDArray[np.int64]:
    """A permutation that leaves no class in its place."""
    while True:
        order = generator.permutation(k)
        if (order != np.arange(k)).all():
            return order


def centred(logits: Logits) -> Array:
    """Some of the sets have log-probabilities as logits; these are none."""
    return logits - logits.mean(axis=1, keepdims=True)


def partly_random(labels: Labels, k: int, generator: Generator) -> Labels:
    chosen = generator.random(labels.size) < 0.3
    return np.where(chosen, generator.integers(0, k, labels.size), labels)


def another_model(data: LogitSet, n: int, generator: Generator, everything: Sets) -> Drawn | None:
    """The same rows, where the data set of the other network is the same."""
    others = [
        other
        for other in everything
        if other.family == data.family
        and other.name != data.name
        and np.array_equal(other.val_labels, data.val_labels)
    ]
    if not others or data.val_labels.size < n:
        return None
    other = others[generator.integers(len(others))]
    chosen = generator.choice(data.val_labels.size, n, replace=False)
    return Drawn({"logits": other.val_logits[chosen], "labels": data.val_labels[chosen]})


def another_data_set(*, same_k: bool) -> Breaker:
    def broken(data: LogitSet, n: int, generator: Generator, everything: Sets) -> Drawn | None:
        k = data.n_classes
        others = [
            other
            for other in everything
            if other.family != data.family
            and (other.n_classes == k if same_k else other.n_classes <= k)
        ]
        if not others:
            return None
        other = others[generator.integers(len(others))]
        own, theirs = (rows_of(d, n, generator) for d in (data, other))
        if own is None or theirs is None:
            return None
        return Drawn({"logits": own[0], "labels": theirs[1]})

    return broken


BROKEN: dict[str, Breaker] = {
    "off by one": by_labels(lambda y, k, _: (y + 1) % k),
    "shuffled": by_labels(lambda y, _, g: g.permutation(y), repairable=False),
    "halves swapped": by_labels(lambda y, *_: np.roll(y, y.size // 2)),
    "classes sorted as text (k > 10)": by_labels(as_text(0)),
    "two classes exchanged": by_labels(exchanged(1)),
    "one class only": by_labels(lambda y, *_: np.full_like(y, y[0]), repairable=False),
    "30 % random labels": by_labels(partly_random, repairable=False),
    "probabilities as logits": by_numbers("logits", softmax, "probabilities"),
    "logits as probabilities": by_numbers("probabilities", centred, "logits"),
    "logits of another model, same rows": another_model,
    "misaligned by one row": by_labels(lambda y, *_: np.roll(y, 1)),
    "another data set's labels": another_data_set(same_k=False),
    "log-probabilities as probabilities": by_numbers(
        "probabilities", log_softmax, "log_probabilities"
    ),
    "probabilities as log-probabilities": by_numbers("log_probabilities", softmax, "probabilities"),
}
# Kept back until the first count; what it showed was then repaired.
OTHER_INPUTS: dict[str, Breaker] = {
    "off by minus one": by_labels(lambda y, k, _: (y - 1) % k),
    "off by two to five (k > 5)": by_labels(
        lambda y, k, g: (y + g.integers(2, 6)) % k if k > 5 else None
    ),
    "classes reversed": by_labels(lambda y, k, _: k - 1 - y),
    "sorted as text, counted from 1": by_labels(as_text(1)),
    "sorted as text, the other way round": by_labels(as_text(0, back=True)),
    "two pairs exchanged": by_labels(exchanged(2)),
    "three classes turned": by_labels(turned(3)),
    "classes permuted": by_labels(
        lambda y, k, g: moved(k, g)[y] if 3 <= k <= 20 else None,
    ),
    "labels sorted, rows not": by_labels(lambda y, *_: np.sort(y), repairable=False),
    "random labels": by_labels(lambda y, k, g: g.integers(0, k, y.size), repairable=False),
    "misaligned by two to nine rows": by_labels(
        lambda y, _, g: np.roll(y, int(g.integers(2, 10) * g.choice([-1, 1])))
    ),
    "thirds swapped": by_labels(lambda y, *_: np.roll(y, y.size // 3)),
    "another data set's labels, same k": another_data_set(same_k=True),
    "probabilities as logits, two digits": by_numbers(
        "logits", lambda x: softmax(x).round(2), "probabilities"
    ),
    "log-probabilities with −∞ as probabilities": by_numbers(
        "probabilities",
        lambda x: np.where((p := log_softmax(x)) < -14.0, -np.inf, p),
        "log_probabilities",
    ),
    "logits as log-probabilities": by_numbers("log_probabilities", centred, "logits"),
}
