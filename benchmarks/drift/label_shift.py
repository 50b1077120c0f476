"""Adapting to another mix of classes: how often it is advised, and what it does.

The calibrator is fitted on half of the validation rows; the others are the labelled rows. Traffic
is drawn from the test half without replacement, and its labels only score the answers.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.calibration.report import nats, percent, table
from benchmarks.calibration.sets import LogitSet, of_arrays
from benchmarks.calibration.shifts import long_tailed, noisy
from benchmarks.drift.networks import Shifts, cifar10_shifts, digits_shifts, logits_of
from trueprob import check_label_shift, estimate_class_prior, negative_log_likelihood, softmax
from trueprob.arrays.calibration_set import CalibrationSet
from trueprob.fitting.methods import fit_rows
from trueprob.label_shift.label_shift_check import LEAST_TRAFFIC

METHODS = ("smart-vector", "smart", "identity")  # only the first is calibrated for each class
ROWS, SIZES = 1_000, (200, 500)
DRAWS, UNSHIFTED_DRAWS = 3, 10
STREAMS, LABELLED, TRAFFIC = 200, 2_000, 10_000  # synthetic
TEMPERATURE, RISE = 1.15, 3.0  # logits rise by so much from the first class to the last
LEVEL = 0.05  # of the likelihood-ratio test

Array = NDArray[Any]
Shift = Callable[[LogitSet, int], LogitSet]  # with a seed


@dataclass(frozen=True)
class Outcome:
    """One traffic: whether adapting was advised, and scores without and with it."""

    advised: bool
    nll: tuple[float, float]
    accuracy: tuple[float, float]

    @property
    def harm(self) -> float:
        """Nats by which adapting raises the NLL."""
        return self.nll[1] - self.nll[0]


@dataclass(frozen=True)
class Divided:
    """A calibrator on the labelled rows and on the test half of a set."""

    labelled: Array  # probabilities
    labels: Array
    predict: Callable[[Array], Array]

    @classmethod
    def of(cls, data: LogitSet, method: str) -> Divided:
        order = np.random.default_rng(0).permutation(data.val_labels.size)
        fit, rest = order[: order.size // 2], order[order.size // 2 :]
        rows = CalibrationSet(data.val_logits[fit], data.val_labels[fit])
        predict = fit_rows(method, rows).calibrator.predict_proba
        return cls(predict(data.val_logits[rest]), data.val_labels[rest], predict)

    def outcome(self, logits: Array, labels: Array, *, seed: int) -> Outcome:
        p = self.predict(logits)
        found = check_label_shift(self.labelled, self.labels, p, seed=seed)
        both = p, found.adapt(p)
        return Outcome(
            found.advised,
            tuple(negative_log_likelihood(each, labels) for each in both),
            tuple(float((each.argmax(axis=1) == labels).mean()) for each in both),
        )


def shifts(small: bool) -> dict[str, tuple[Shift, int, int]]:
    """Name → shift, rows of traffic, draws."""
    draws, calm_draws = (2, 4) if small else (DRAWS, UNSHIFTED_DRAWS)

    def tailed(data: LogitSet, seed: int) -> LogitSet:
        return long_tailed(data, seed=seed)

    def both(data: LogitSet, seed: int) -> LogitSet:
        return noisy(long_tailed(data, seed=seed), seed=seed)

    return {
        "long-tailed": (tailed, ROWS, draws),
        f"long-tailed, {SIZES[0]} rows": (tailed, SIZES[0], draws),
        "none": (lambda data, _: data, ROWS, calm_draws),
        "noisy logits": (lambda data, seed: noisy(data, seed=seed), ROWS, draws),
        "long-tailed and noisy": (both, ROWS, draws),
    }


def of_networks(sets: Iterable[LogitSet], small: bool) -> dict[tuple[str, str], list[Outcome]]:
    """Shift and method → outcomes over all sets and draws."""
    found: dict[tuple[str, str], list[Outcome]] = {}
    for data in (each for each in sets if each.has_real_tail):
        for method in METHODS:
            divided = Divided.of(data, method)
            for name, (shift, rows, draws) in shifts(small).items():
                for seed in range(draws):
                    test = shift(data, seed)
                    size = min(rows, test.test_labels.size)
                    if size < LEAST_TRAFFIC:
                        continue
                    chosen = np.random.default_rng(seed).permutation(test.test_labels.size)[:size]
                    outcome = divided.outcome(
                        test.test_logits[chosen], test.test_labels[chosen], seed=seed
                    )
                    found.setdefault((name, method), []).append(outcome)
    return found


def pictures(every: Iterable[Shifts | None]) -> Iterator[tuple[str, str, bool, Outcome]]:
    """Our networks on other pictures: network, method, whether shifted, outcome."""
    for shift in (each for each in every if each is not None):
        n = shift.labels.size
        fit_and_labelled, rest = np.arange(n // 2), np.arange(n // 2, n)
        calm, labels = logits_of(shift.version, shift.calm), shift.labels
        made = {name: logits_of(shift.version, each) for name, each in shift.shifted.items()}
        for method in METHODS:
            data = of_arrays(
                shift.title,
                calm[fit_and_labelled],
                labels[fit_and_labelled],
                calm[rest],
                labels[rest],
            )
            divided = Divided.of(data, method)
            for name, logits in {"none": calm, **made}.items():
                for size in [size for size in (*SIZES, ROWS) if size <= rest.size]:
                    chosen = np.random.default_rng(size).permutation(rest)[:size]
                    outcome = divided.outcome(logits[chosen], labels[chosen], seed=0)
                    yield shift.title, method, name != "none", outcome


def row_of(title: str, outcomes: list[Outcome]) -> list[str]:
    """A line of the tables: without adapting, where advised, and always."""
    advised = [each for each in outcomes if each.advised]
    nll = np.array([[o.nll[0], o.nll[o.advised], o.nll[1]] for o in outcomes]).mean(axis=0)
    right = [[o.accuracy[0], o.accuracy[o.advised], o.accuracy[1]] for o in outcomes]
    return [
        title,
        str(len(outcomes)),
        percent(len(advised) / len(outcomes), 1),
        *(nats(value, 3) for value in nll),
        *(percent(value, 1) for value in np.mean(right, axis=0)),
        nats(max((o.harm for o in advised), default=np.nan), 3),
        nats(max(o.harm for o in outcomes), 3),
    ]


def likelihood_ratio_rejects(p: Array, frequency: Array) -> bool:
    """The test of Saerens et al., eq. 2.12: 2·log likelihood ratio against χ² of k − 1."""
    from scipy.stats import chi2

    found = estimate_class_prior(p, frequency)
    statistic = 2.0 * float(np.log(p @ found.ratio).sum())
    return statistic > float(chi2.ppf(1.0 - LEVEL, frequency.size - 1))


def synthetic(k: int, temperature: float, streams: int) -> list[str]:
    """Streams without a shift: how often each test says that the mix changed."""
    rejected = np.zeros((streams, 3))
    for seed in range(streams):
        generator = np.random.default_rng(seed)
        logits = 2.0 * generator.normal(size=(LABELLED + TRAFFIC, k)) + np.linspace(0.0, RISE, k)
        labels = (logits + generator.gumbel(size=logits.shape)).argmax(axis=1)
        frequency = np.bincount(labels, minlength=k) / labels.size
        p = softmax((logits / temperature).astype(np.float32))
        held, stream = slice(0, LABELLED), slice(LABELLED, None)
        found = check_label_shift(p[held], labels[held], p[stream], seed=seed)
        rejected[seed] = (
            likelihood_ratio_rejects(p[stream].astype(np.float64), frequency),
            found.checks[0].passed,
            found.advised,
        )
    shares = (percent(share, 0) for share in rejected.mean(axis=0))
    return [f"k = {k}, temperature {temperature:g}", *shares]


def label_shift_report(sets: Iterable[LogitSet], data: Path, *, small: bool = False) -> str:
    header = ["traffic: calibrator", "cases", "advised %", "NLL", "where advised", "always",
              "accuracy %", "where advised", "always", "worst harm, advised", "worst harm, always",
              ]  # fmt: skip
    networks = of_networks(sets, small)
    names = sorted({key[0] for key in networks}, key=list(shifts(small)).index)
    lines = [
        row_of(f"{name}: {method}", networks[name, method]) for name in names for method in METHODS
    ]
    ours: dict[str, list[Outcome]] = {}
    for title, method, shifted, outcome in pictures(
        (cifar10_shifts(data, small=small), digits_shifts())
    ):
        what = "other pictures" if shifted else "none"
        ours.setdefault(f"{title}, {what}: {method}", []).append(outcome)
    streams = 40 if small else STREAMS
    tests = [
        synthetic(k, temperature, streams) for k in (2, 10) for temperature in (1.0, TEMPERATURE)
    ]
    return (
        f"Traffic of {ROWS} rows, or of as many as the thinned test half has. NLL in nats and "
        "accuracy are means: without adapting, adapting where it is advised, adapting always. "
        "Harm: by how much adapting raises the NLL of a case.\n\n"
        + table(header, lines)
        + "\n\nOur networks, with traffic of 200, 500 and 1 000 rows:\n\n"
        + table(header, [row_of(title, outcomes) for title, outcomes in ours.items()])
        + f"\n\nOf {streams} synthetic streams without a shift, in percent: {LABELLED} labelled "
        f"rows, {TRAFFIC} rows of traffic, unequal classes, and probabilities at a temperature "
        "that is right or 15 % off. The likelihood-ratio test of Saerens et al. has a level of "
        "5 %, `mix_changed` of 1 %:\n\n"
        + table(
            ["streams", "likelihood-ratio test rejects", "mix_changed", "advised"],
            tests,
        )
    )
