"""Whether adapting to the traffic's mix of classes is advised: three checks, no new labels.

EM (`class_prior`) always finds some prior: where nothing changed, where something else changed, and
where probabilities are too bad to adapt. So held-out labelled rows of the old mix are resampled 199
times, as labelled rows and as traffic of m rows, and EM runs on each. All three must hold:

`mix_changed`: KL(π̂‖π) exceeds that of 99 % of resamples with the old mix. The null hypothesis is
the same EM on the same probabilities. A likelihood-ratio test of π̂ = π supposes exact
probabilities, and rejects nearly always on many rows.

`label_shift_fits`: the scores of labelled rows, weighted by π̂_y/π_y, are distributed as those of
the traffic: their distance exceeds that of at least 1 % of resamples drawn with these weights.
Otherwise the rows of a class have changed too, or probabilities are not class-wise calibrated. The
scores are the probabilities of the 30 classes whose shares changed most, and ten bins of the
confidence. The distance of their means is a Mahalanobis distance, because wrong estimates of EM
differ from the truth in the directions of small variance. The mean of the weights must be 1 too, up
to what 99 % of resamples show: it is if probabilities are right by class, and far from it where EM
does most harm.

`adapting_helps`: on resamples with the new mix, whose labels are known, adapting lowers NLL at a
one-sided bound of 95 %.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import ArrayLike, NDArray

from trueprob.arrays.labels import Labels, as_labels
from trueprob.arrays.weights_and_groups import as_groups, as_weights
from trueprob.errors import InvalidInput
from trueprob.label_shift.class_prior import (
    PriorEstimate,
    as_probabilities,
    estimate_class_prior,
    ratios_by_em,
)
from trueprob.scores.interval import unit_of_rows

__all__ = ["LEAST_TRAFFIC", "LabelShift", "LabelShiftCheck", "check_label_shift"]

N_RESAMPLES: Final = 199  # with the observed value 200, so that 5 % and 1 % are whole numbers
CHANGE_LEVEL: Final = 0.01
FIT_LEVEL: Final = 0.01
REPLAY_LEVEL: Final = 0.05
LEAST_LABELLED: Final = 50  # rows or groups
# Fewer do not show that noisy pictures are no change of the mix.
LEAST_TRAFFIC: Final = 200
# Labelled rows of classes that grew count many times; resamples of fewer say too little.
LEAST_EFFECTIVE_ROWS: Final = 30.0
# Larger sets are thinned at random: bounds time (23 s for 5 000 × 1 000) and memory (280 MB).
MOST_ROWS: Final = 10_000
MOST_NUMBERS: Final = 5_000_000
N_CLASSES: Final = 30  # in the distance of scores
N_BINS: Final = 10  # of the confidence, equally full
SMALLEST_VARIANCE: Final = 1e-6  # of the largest; smaller ones are linear dependence

Array = NDArray[np.float64]


@dataclass(frozen=True)
class LabelShiftCheck:
    """One of the three conditions.

    Attributes
    ----------
    name : str
        mix_changed, label_shift_fits or adapting_helps.
    passed : bool
    sentence : str
        With the numbers.
    value : float
        KL(π̂‖π) in nats; squared distance of the scores over their degrees of freedom; mean gain
        in NLL on the replay, in nats.
    limit : float
        The value must be above it; for label_shift_fits at most it. For adapting_helps it is the
        lower bound of the value, which must be above 0.
    """

    name: str
    passed: bool
    sentence: str
    value: float
    limit: float

    def to_dict(self) -> dict[str, Any]:
        """The check as JSON values."""
        fields = ("name", "passed", "sentence", "value", "limit")
        return {name: getattr(self, name) for name in fields}


@dataclass(frozen=True)
class LabelShift:
    """The result of `check_label_shift`.

    Attributes
    ----------
    prior : PriorEstimate
        π and π̂.
    checks : tuple of LabelShiftCheck
    labelled_rows, traffic_rows : int
        Rows that were used; large sets are thinned.
    effective_rows : float
        How many labelled rows the weights π̂_y/π_y leave, (Σw)²/Σw².
    """

    prior: PriorEstimate
    checks: tuple[LabelShiftCheck, ...]
    labelled_rows: int
    traffic_rows: int
    effective_rows: float

    @property
    def advised(self) -> bool:
        """Whether all checks passed."""
        return all(check.passed for check in self.checks)

    def adapt(self, probabilities: ArrayLike) -> Array:
        """Probabilities for the estimated mix, whether that is advised or not.

        Parameters
        ----------
        probabilities : array_like of shape (n, k)
            Of the same calibrator.

        Returns
        -------
        ndarray of shape (n, k), float64
            p_c·π̂_c/π_c, normalised. The prediction may be another class than before.

        Raises
        ------
        InvalidInput
            Another shape, or rows that do not sum to one.
        """
        return self.prior.adapt(probabilities)

    def changed_classes(self, most: int = 10) -> list[int]:
        """Indices of the classes whose shares changed most, the largest change first."""
        change = np.abs(self.prior.target - self.prior.source)
        return [int(index) for index in np.argsort(-change, kind="stable")[:most]]

    def __str__(self) -> str:
        decides = [check.sentence for check in self.checks if not check.passed]
        if not decides:
            return "advised: " + "; ".join(check.sentence for check in self.checks)
        return "not advised: " + "; ".join(decides)

    def to_dict(self) -> dict[str, Any]:
        """The result as JSON values."""
        return {
            "advised": self.advised,
            "checks": [check.to_dict() for check in self.checks],
            "source": self.prior.source.tolist(),
            "target": self.prior.target.tolist(),
            "iterations": self.prior.iterations,
            "converged": self.prior.converged,
            "labelled_rows": self.labelled_rows,
            "traffic_rows": self.traffic_rows,
            "effective_rows": self.effective_rows,
        }


def check_label_shift(
    probabilities: ArrayLike,
    labels: ArrayLike,
    traffic: ArrayLike,
    *,
    weights: ArrayLike | None = None,
    groups: ArrayLike | None = None,
    seed: int = 0,
) -> LabelShift:
    """Estimate the mix of classes of unlabelled rows, and check whether to adapt to it.

    Nothing is adapted by itself: `LabelShift.adapt` does it.

    Parameters
    ----------
    probabilities : array_like of shape (n, k)
        Calibrated probabilities of labelled rows with the old mix of classes. The calibrator must
        not have been fitted on these rows; out-of-fold probabilities (`cross_fit`) will do. It
        should be calibrated for each class: `vector`, `smart-vector`, `smart-matrix`, or `auto`
        that may change predictions.
    labels : array_like of shape (n,)
        Class indices.
    traffic : array_like of shape (m, k)
        Probabilities of unlabelled rows, of the same calibrator. A thousand rows are enough for
        ten classes. Rows should be independent: bursts of one class look like a changed mix.
    weights : array_like of shape (n,), optional
        Of the labelled rows; only their ratios matter.
    groups : array_like of shape (n,), optional
        Labelled rows of one group are resampled together.
    seed : int
        The same call gives the same result.

    Returns
    -------
    LabelShift

    Raises
    ------
    InvalidInput
        Fewer than 50 labelled rows (or groups) or 200 rows of traffic, shapes that do not match,
        or rows that do not sum to one.

    References
    ----------
    Saerens, Latinne, Decaestecker, Neural Computation 14 (2002), eq. 2.4 and 2.9; for the need of
    class-wise calibration Alexandari, Kundaje, Shrikumar 2020, arXiv:1901.06852. A check of label
    shift against other shifts: compare Lipton, Wang, Smola 2018, arXiv:1802.03916.
    """
    p = as_probabilities(probabilities)
    n, k = p.shape
    y = as_labels(labels, n_classes=k, n_rows=n)
    t = as_probabilities(traffic, k=k, name="traffic")
    weight = np.ones(n) if weights is None else as_weights(weights, n_rows=n)
    unit = unit_of_rows(n, None if groups is None else as_groups(groups, n_rows=n))
    generator = np.random.default_rng(seed)
    rows = _thinned(np.flatnonzero(weight), k, generator)
    p, y, weight = p[rows], y[rows], weight[rows]
    unit = np.unique(unit[rows], return_inverse=True)[1]
    t = t[_thinned(np.arange(len(t)), k, generator)]
    _require_rows(int(unit.max()) + 1, len(t), grouped=groups is not None)
    weight = weight / weight.mean()
    source = weight @ p / len(p)
    fixed = (np.bincount(y, weights=weight, minlength=k) == 0.0) | (source == 0.0)
    prior = estimate_class_prior(t, source / source.sum(), fixed=fixed)
    replay = _Replay(p, y, weight, unit, fixed, prior, len(t), generator)
    return LabelShift(
        prior,
        (replay.mix_changed(), replay.label_shift_fits(t), replay.adapting_helps()),
        len(p),
        len(t),
        replay.effective_rows,
    )


class _Replay:
    """Resamples of the labelled rows, as labelled rows and as traffic, each with its own EM."""

    def __init__(
        self,
        p: Array,
        y: Labels,
        weight: Array,
        unit: NDArray[np.int64],
        fixed: NDArray[np.bool_],
        prior: PriorEstimate,
        n_traffic: int,
        generator: np.random.Generator,
    ) -> None:
        self._p, self._weight, self._unit = p, weight, unit
        self._y, self._fixed, self._prior = y, fixed, prior
        self._m, self._generator = n_traffic, generator
        n_units = int(unit.max()) + 1
        self._draws = max(1, round(n_traffic * n_units / len(p)))  # units in a resampled traffic
        even = np.full(n_units, 1.0 / n_units)
        drawn = generator.multinomial(n_units, even, size=N_RESAMPLES).T[unit]
        self._labelled = drawn * weight[:, None]  # (n, B) weights of the rows
        # One row more with the mean of all keeps every share above 0.
        sums = p.T @ self._labelled + prior.source[:, None]
        self._source = sums / sums.sum(axis=0)
        self._of_new_mix = weight * prior.ratio[y]  # weights that turn the old mix into the new
        of_units = np.bincount(unit, weights=self._of_new_mix)
        self.effective_rows = float(of_units.sum() ** 2 / np.square(of_units).sum())
        self._traffic = self._drawn(self._of_new_mix)
        self._ratio = self._em(self._traffic, prior.ratio)

    def mix_changed(self) -> LabelShiftCheck:
        """Whether the mix changed by more than EM finds in resamples of the old mix."""
        ratio = self._em(self._drawn(self._weight), np.ones(len(self._fixed)))
        null = (self._source * ratio * np.log(ratio)).sum(axis=0)
        value, limit = self._prior.distance, _upper(null, CHANGE_LEVEL)
        passed = value > limit
        sentence = (
            f"the mix of classes {'changed' if passed else 'is not proven to have changed'}: "
            f"{value:.4f} nats from the old one, resamples without a change up to {limit:.4f}"
        )
        return LabelShiftCheck("mix_changed", passed, sentence, value, limit)

    def label_shift_fits(self, traffic: Array) -> LabelShiftCheck:
        """Whether reweighted labelled rows have scores like those of the traffic."""
        score = _Scores(self._p, traffic, self._prior)
        labelled, observed = score.of(self._p), score.of(traffic).mean(axis=0)
        share = self._of_new_mix / self._of_new_mix.sum()
        mean = share @ labelled
        centred = labelled - mean
        # Variance of the mean of the reweighted rows, and of the mean of m rows like them.
        variance = (np.square(share) + share / self._m)[:, None]
        values, vectors = np.linalg.eigh(centred.T @ (variance * centred))
        kept = values > SMALLEST_VARIANCE * values[-1]
        whiten = vectors[:, kept] / np.sqrt(values[kept])
        weights = self._labelled * self._ratio[self._y]
        means = labelled.T @ (weights / weights.sum(axis=0))
        drawn = labelled.T @ (self._traffic / self._m)
        freedom = max(1, int(kept.sum()))
        null = np.square((means - drawn).T @ whiten).sum(axis=1) / freedom
        value = float(np.square((mean - observed) @ whiten).sum()) / freedom
        limit = _upper(null, FIT_LEVEL)
        sums = weights.sum(axis=0) / self._labelled.sum(axis=0)
        weight = float(self._of_new_mix.mean())
        spread = _upper(np.abs(sums - sums.mean()), FIT_LEVEL)
        passed = value <= limit and abs(weight - 1.0) <= spread
        sentence = (
            f"a change of the mix {'explains' if passed else 'does not explain'} the scores of the "
            f"traffic: distance {value:.2f}, resamples up to {limit:.2f}; "
            f"mean weight {weight:.3f}, resamples 1 ± {spread:.3f}"
        )
        return LabelShiftCheck("label_shift_fits", passed, sentence, value, limit)

    def adapting_helps(self) -> LabelShiftCheck:
        """Whether adapting lowers NLL where the labels are known: rows with the new mix."""
        gain = np.log(self._ratio[self._y]) - np.log(self._p @ self._ratio)  # of each row
        weights = self._labelled * self._prior.ratio[self._y][:, None]
        gains = (gain * weights).sum(axis=0) / weights.sum(axis=0)
        value, bound = float(gains.mean()), -_upper(-gains, REPLAY_LEVEL)
        enough = self.effective_rows >= LEAST_EFFECTIVE_ROWS
        passed = bound > 0.0 and enough
        sentence = (
            f"on labelled rows with the new mix adapting changes NLL by {_signed(-value)} nats "
            f"(upper bound, 95 %: {_signed(-bound)})"
        )
        if not enough:
            sentence += (
                f"; but these are worth {self.effective_rows:.0f} rows, "
                f"at least {LEAST_EFFECTIVE_ROWS:.0f} are needed"
            )
        return LabelShiftCheck("adapting_helps", passed, sentence, value, bound)

    def _drawn(self, mass: Array) -> Array:
        """Row weights (n, B) of traffic of m rows, drawn in proportion to `mass`."""
        of_units = np.bincount(self._unit, weights=mass)
        counts = self._generator.multinomial(
            self._draws, of_units / of_units.sum(), size=N_RESAMPLES
        )
        of_row = mass / of_units[self._unit] * (self._m / self._draws)
        return counts.T[self._unit] * of_row[:, None]

    def _em(self, weights: Array, start: Array) -> Array:
        starts = np.repeat(start[:, None], N_RESAMPLES, axis=1)
        return ratios_by_em(self._p, weights, self._source, starts, self._fixed)[0]


class _Scores:
    """The scores whose distribution is compared: probabilities, and bins of the confidence."""

    def __init__(self, labelled: Array, traffic: Array, prior: PriorEstimate) -> None:
        change = np.abs(prior.target - prior.source)
        self._classes = np.argsort(-change, kind="stable")[:N_CLASSES]
        confidence = np.concatenate([labelled.max(axis=1), traffic.max(axis=1)])
        self._edges = np.unique(np.quantile(confidence, np.arange(1, N_BINS) / N_BINS))

    def of(self, p: Array) -> Array:
        """Scores of rows, shape (n, columns)."""
        index = np.searchsorted(self._edges, p.max(axis=1), side="right")
        return np.column_stack([p[:, self._classes], np.eye(len(self._edges) + 1)[index]])


def _upper(values: Array, level: float) -> float:
    """The value that a further one exceeds with probability `level` at most (exchangeable)."""
    return float(np.sort(values)[-round(level * (len(values) + 1))])


def _signed(value: float) -> str:
    return f"{value:+.4f}".replace("-", "−")


def _thinned(
    rows: NDArray[np.int64], n_classes: int, generator: np.random.Generator
) -> NDArray[np.int64]:
    most = max(1_000, min(MOST_ROWS, MOST_NUMBERS // n_classes))
    return rows if len(rows) <= most else np.sort(generator.choice(rows, most, replace=False))


def _require_rows(labelled: int, traffic: int, *, grouped: bool) -> None:
    for name, got, least, what in (
        ("labels", labelled, LEAST_LABELLED, "groups" if grouped else "rows"),
        ("traffic", traffic, LEAST_TRAFFIC, "rows"),
    ):
        if got < least:
            raise InvalidInput(
                f"{name} must have at least {least} {what}, got {got}: fewer cannot show a changed "
                "mix of classes; collect more",
                field=name,
            )
