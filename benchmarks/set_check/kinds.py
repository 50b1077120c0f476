"""Twelve ways to break a calibration set, and honest sets with drift."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.calibration.sets import LogitSet
from trueprob.arrays.calibration_set import CalibrationSet
from trueprob.arrays.labels import Labels
from trueprob.arrays.logit_functions import Logits, log_softmax, prediction, softmax

IMBALANCE = 100.0  # the commonest class over the rarest
KAPPA = 1.0 / 3.0  # agreement of labels and predictions beyond chance
RARE = 0.01  # share of the event
LEAST_PAIR = 30  # rows of two exchanged classes together, for the repair to be counted

Array = NDArray[Any]


@dataclass(frozen=True)
class Drawn:
    """A calibration set as arrays, and the repair that would be right."""

    arrays: dict[str, Array]
    true_labels: Labels | None = None  # None where no relabelling repairs the set
    field: str | None = None  # where the numbers belong

    @property
    def has_repair(self) -> bool:
        return self.true_labels is not None or self.field is not None


def _relabelled(logits: Logits, given: Labels, true: Labels | None = None) -> Drawn:
    return Drawn({"logits": logits, "labels": given}, true)


def rows_of(data: LogitSet, n: int, generator: np.random.Generator) -> tuple[Logits, Labels] | None:
    """Random rows; None when the set has fewer."""
    if data.val_labels.size < n:
        return None
    chosen = generator.choice(data.val_labels.size, n, replace=False)
    return data.val_logits[chosen], data.val_labels[chosen]


# ----- Broken -----

Breaker = Callable[
    [LogitSet, int, np.random.Generator, Sequence[LogitSet]], Drawn | None
]  # the data, rows, randomness, all data


def by_labels(change: Callable[[Labels, int, np.random.Generator], Labels | None]) -> Breaker:
    """A kind that changes the labels only, and is repaired by the true ones."""

    def broken(
        data: LogitSet, n: int, generator: np.random.Generator, _: Sequence[LogitSet]
    ) -> Drawn | None:
        drawn = rows_of(data, n, generator)
        if drawn is None:
            return None
        logits, labels = drawn
        given = change(labels, data.n_classes, generator)
        return None if given is None else _relabelled(logits, given, labels)

    return broken


def unrepairable(breaker: Breaker) -> Breaker:
    def broken(*arguments: Any) -> Drawn | None:
        drawn = breaker(*arguments)
        return None if drawn is None else Drawn(drawn.arrays)

    return broken


def as_text(labels: Labels, k: int, _: np.random.Generator) -> Labels | None:
    return None if k <= 10 else np.argsort(sorted(range(k), key=str))[labels]


def exchanged(labels: Labels, k: int, generator: np.random.Generator) -> Labels | None:
    """Two classes that hold enough rows together; None when no two do."""
    counts = np.bincount(labels, minlength=k)
    pairs = np.argwhere(np.triu(counts[:, None] + counts >= LEAST_PAIR, 1) & (counts > 0))
    pairs = pairs[counts[pairs[:, 0]] > 0]
    if pairs.shape[0] == 0:
        return None
    a, b = pairs[generator.integers(pairs.shape[0])]
    order = np.arange(k)
    order[[a, b]] = b, a
    return order[labels]


def partly_random(labels: Labels, k: int, generator: np.random.Generator) -> Labels:
    chosen = generator.random(labels.size) < 0.3
    return np.where(chosen, generator.integers(0, k, labels.size), labels)


def one_class(
    data: LogitSet, n: int, generator: np.random.Generator, _: Sequence[LogitSet]
) -> Drawn | None:
    drawn = rows_of(data, n, generator)
    return None if drawn is None else _relabelled(drawn[0], np.full(n, drawn[1][0]))


def probabilities_as_logits(
    data: LogitSet, n: int, generator: np.random.Generator, _: Sequence[LogitSet]
) -> Drawn | None:
    drawn = rows_of(data, n, generator)
    if drawn is None:
        return None
    return Drawn({"logits": softmax(drawn[0]), "labels": drawn[1]}, field="probabilities")


def logits_as_probabilities(
    data: LogitSet, n: int, generator: np.random.Generator, _: Sequence[LogitSet]
) -> Drawn | None:
    drawn = rows_of(data, n, generator)
    return None if drawn is None else Drawn({"probabilities": drawn[0], "labels": drawn[1]})


def another_model(
    data: LogitSet, n: int, generator: np.random.Generator, everything: Sequence[LogitSet]
) -> Drawn | None:
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
    return _relabelled(other.val_logits[chosen], data.val_labels[chosen])


def another_data_set(
    data: LogitSet, n: int, generator: np.random.Generator, everything: Sequence[LogitSet]
) -> Drawn | None:
    others = [o for o in everything if o.family != data.family and o.n_classes <= data.n_classes]
    if not others:
        return None
    own, other = (rows_of(d, n, generator) for d in (data, others[generator.integers(len(others))]))
    return None if own is None or other is None else _relabelled(own[0], other[1])


BROKEN: dict[str, Breaker] = {
    "off by one": by_labels(lambda y, k, _: (y + 1) % k),
    "shuffled": unrepairable(by_labels(lambda y, _, g: g.permutation(y))),
    "halves swapped": by_labels(lambda y, *_: np.roll(y, y.size // 2)),
    "classes sorted as text (k > 10)": by_labels(as_text),
    "two classes exchanged": by_labels(exchanged),
    "one class only": one_class,
    "30 % random labels": unrepairable(by_labels(partly_random)),
    "probabilities as logits": probabilities_as_logits,
    "logits as probabilities": logits_as_probabilities,
    "logits of another model, same rows": another_model,
    "misaligned by one row": by_labels(lambda y, *_: np.roll(y, 1)),
    "another data set's labels": another_data_set,
}


# ----- Honest -----


def plain(data: LogitSet, n: int, generator: np.random.Generator) -> CalibrationSet | None:
    drawn = rows_of(data, n, generator)
    return None if drawn is None else CalibrationSet(*drawn)


def class_mix(data: LogitSet, n: int, generator: np.random.Generator) -> CalibrationSet | None:
    k = data.n_classes
    share = IMBALANCE ** (-generator.permutation(k)[data.val_labels] / (k - 1))
    kept = np.flatnonzero(generator.random(share.size) < share)
    if kept.size < n:
        return None
    chosen = generator.choice(kept, n, replace=False)
    return CalibrationSet(data.val_logits[chosen], data.val_labels[chosen])


def weak(data: LogitSet, n: int, generator: np.random.Generator) -> CalibrationSet | None:
    """Noise on the scores until the agreement has fallen to a third."""
    drawn = rows_of(data, n, generator)
    if drawn is None or data.n_classes < 3:
        return None
    scores, labels = log_softmax(drawn[0]), drawn[1]
    noise = generator.normal(size=scores.shape) * scores.std()
    low, high = 0.0, 64.0
    for _ in range(12):
        middle = 0.5 * (low + high)
        value = kappa((scores + middle * noise).astype(np.float32), labels)
        low, high = (middle, high) if value > KAPPA else (low, middle)
    return CalibrationSet((scores + low * noise).astype(np.float32), labels)


def kappa(logits: Logits, labels: Labels) -> float:
    predicted, k = prediction(logits), logits.shape[1]
    chance = float(np.bincount(predicted, minlength=k) @ np.bincount(labels, minlength=k))
    chance /= labels.size**2
    return (float((predicted == labels).mean()) - chance) / max(1.0 - chance, 1e-9)


def rare_event(data: LogitSet, n: int, generator: np.random.Generator) -> CalibrationSet | None:
    """One class against all others, thinned to 1 % of the rows."""
    event = generator.integers(data.n_classes)
    is_event = data.val_labels == event
    count = generator.binomial(n, RARE)
    if is_event.sum() < count or (~is_event).sum() < n - count:
        return None
    chosen = np.concatenate(
        [
            generator.choice(np.flatnonzero(is_event), count, replace=False),
            generator.choice(np.flatnonzero(~is_event), n - count, replace=False),
        ]
    )
    p = np.clip(softmax(data.val_logits[chosen])[:, event].astype(np.float64), 1e-12, 1 - 1e-7)
    return CalibrationSet(np.stack([np.log1p(-p), np.log(p)], axis=1), is_event[chosen].astype(int))


HONEST: dict[str, Callable[..., CalibrationSet | None]] = {
    "as given": plain,
    "class mix 1:100": class_mix,
    "agreement a third (k ≥ 3)": weak,
    "an event of 1 %": rare_event,
}
