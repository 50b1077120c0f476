import numpy as np
import pytest

from trueprob.calibrators.smart.calibrator import out_of_fold_logit
from trueprob.calibrators.smart.fit import fit_log_slopes, minimise
from trueprob.calibrators.smart.objective import SmartObjective
from trueprob.folds import fold_of_rows


def by_refits(solution, logits, labels, weights, fold, uniform_weight):
    """The exact result: for each fold, a fit on the logits of all other rows."""
    k = logits.shape[1]
    logit = np.empty(labels.shape[0])
    for index in range(int(fold.max()) + 1):
        held = fold == index
        part = None if weights is None else weights[~held]
        refit = SmartObjective(logits[~held], labels[~held], part, solution.edges)
        theta, _ = minimise(refit, solution.log_slopes)
        beta = solution.objective.coverage @ np.exp(theta)
        rest = np.exp(solution.objective.moments(beta)[0])
        top = (1 - uniform_weight) / (1 + rest) + uniform_weight / k
        others = (1 - uniform_weight) * rest / (1 + rest) + uniform_weight * (k - 1) / k
        logit[held] = np.log(top / others)[held]
    return logit


@pytest.mark.parametrize("k", [2, 6, 80])
@pytest.mark.parametrize("weighted", [False, True])
def test_the_continuation_is_as_good_as_refits(k, weighted, overconfident):
    logits, labels = overconfident(600, k)
    weights = np.random.default_rng(1).exponential(size=600) if weighted else None
    solution = fit_log_slopes(logits, labels, weights)
    fold = fold_of_rows(solution.objective.correct, None, 5, seed=0)
    logit = out_of_fold_logit(solution, fold, uniform_weight=1e-3, n_classes=k)
    exact = by_refits(solution, logits, labels, weights, fold, 1e-3)
    in_sample = -solution.objective.moments(
        solution.objective.coverage @ np.exp(solution.log_slopes)
    )[0]
    assert logit == pytest.approx(exact, rel=0.01, abs=0.01)
    # Far less than what leaving rows out changes, or the comparison would say nothing.
    unmixed = out_of_fold_logit(solution, fold, uniform_weight=0.0, n_classes=k)
    exact_unmixed = by_refits(solution, logits, labels, weights, fold, 0.0)
    error = np.abs(unmixed - exact_unmixed).mean()
    assert error < 0.05 * np.abs(unmixed - in_sample).mean()


def test_labels_of_a_fold_do_not_change_its_own_confidences(overconfident):
    logits, labels = overconfident(400)
    fold = np.arange(400) % 4
    solution = fit_log_slopes(logits, labels)
    other = labels.copy()
    other[fold == 2] = (other[fold == 2] + 1) % 5
    changed = fit_log_slopes(logits, other)
    before = out_of_fold_logit(solution, fold, uniform_weight=0.0, n_classes=5)
    after = out_of_fold_logit(changed, fold, uniform_weight=0.0, n_classes=5)
    # The labels of a whole fold are wrong now: the fits on all rows differ, its own do not.
    assert np.abs(after[fold == 2] - before[fold == 2]).mean() < 0.1
    assert np.abs(after[fold != 2] - before[fold != 2]).mean() > 0.3


def test_certain_rows_stay_finite_with_a_mixture_and_ordered_without():
    logits = np.zeros((60, 3), dtype=np.float32)
    logits[:, 0] = np.linspace(0.0, 1e4, 60)
    labels = np.where(np.arange(60) % 6 == 0, 1, 0)
    solution = fit_log_slopes(logits, labels)
    fold = np.arange(60) % 5
    mixed = out_of_fold_logit(solution, fold, uniform_weight=1e-4, n_classes=3)
    assert np.isfinite(mixed).all()
    assert mixed.max() <= np.log(1e4 * 3 / 2) + 1e-3  # 1 − c is at least 2w/3
    assert np.isfinite(out_of_fold_logit(solution, fold, uniform_weight=0.0, n_classes=3)).all()
