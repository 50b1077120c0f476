import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from trueprob.folds import fold_of_rows


@settings(deadline=None)
@given(st.integers(1, 80), st.integers(0, 80), st.integers(0, 5))
def test_folds_are_even_in_rows_and_errors(n, errors, seed):
    correct = np.arange(n) >= errors
    fold = fold_of_rows(correct, None, 5, seed=seed)
    folds = min(5, n)
    rows = np.bincount(fold, minlength=folds)
    wrong = np.bincount(fold[~correct], minlength=folds)
    assert rows.max() - rows.min() <= 1
    assert wrong.max() - wrong.min() <= 1
    assert rows.shape[0] == folds
    assert np.array_equal(fold, fold_of_rows(correct, None, 5, seed=seed))


@pytest.mark.slow
@settings(deadline=None)
@given(st.lists(st.integers(0, 9), min_size=1, max_size=60), st.integers(0, 5))
def test_groups_stay_together(groups, seed):
    groups = np.array(groups)
    correct = np.arange(groups.shape[0]) % 3 > 0
    fold = fold_of_rows(correct, groups, 5, seed=seed)
    for group in np.unique(groups):
        assert np.unique(fold[groups == group]).shape[0] == 1
    assert np.unique(fold).tolist() == list(range(min(5, np.unique(groups).shape[0])))


def test_equal_groups_make_even_folds():
    groups = np.repeat(np.arange(20), 3)
    fold = fold_of_rows(np.ones(60, dtype=bool), groups, 5, seed=0)
    assert np.bincount(fold).tolist() == [12] * 5
