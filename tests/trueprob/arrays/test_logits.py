from decimal import Decimal, localcontext

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from trueprob import InvalidInput
from trueprob.arrays.labels import as_labels
from trueprob.arrays.logit_functions import (
    log_softmax,
    logit_gap,
    prediction,
    softmax,
    tempered_softmax,
)
from trueprob.arrays.logits import (
    as_logits,
    logits_from_log_probabilities,
    logits_from_probabilities,
)

matrices = st.integers(2, 80).flatmap(
    lambda k: arrays(
        np.float32, (3, k), elements=st.floats(-(2.0**99), 2.0**99, width=32, allow_subnormal=False)
    )
)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        (np.zeros((2, 2, 2)), r"logits must have shape \(n, k\), got \(2, 2, 2\)"),
        (1.0, r"logits must have shape \(n, k\), got \(\)"),
        ([[1.0, 2.0], [1.0]], "logits must be rows of equal length, got ragged rows"),
        (np.zeros((0, 3)), "logits must have at least one row"),
        (np.zeros((3, 0)), "logits must have at least two classes"),
        ([["a", "b"]], "logits must be numbers"),
        ([[True, False]], "logits must be numbers, got bool"),
        ([[1.0, None]], "logits must be numbers, got object"),
        ([[1 + 1j, 0]], "logits must be numbers"),
        ([[0.0, 1.0], [0.0, float("nan")]], "logits must be finite as float32, row 1 is not"),
        ([[0.0, float("inf")]], "row 0 is not"),
        ([[0.0, 1.0], [1e39, 0.0]], "row 1 is not"),  # finite in float64 only
        ([[10**400, 0]], "logits must be"),
    ],
)
def test_logits_that_cannot_be_used_are_refused(values, message):
    with pytest.raises(InvalidInput, match=message) as caught:
        as_logits(values)
    assert caught.value.field == "logits"


def test_logits_of_another_width_are_refused_by_the_callers_name():
    with pytest.raises(InvalidInput, match=r"scores must have shape \(n, 10\), got \(3, 4\)"):
        as_logits(np.zeros((3, 4)), name="scores", n_classes=10)


@pytest.mark.parametrize("dtype", [np.float16, np.float64, np.int8, np.uint64, ">f4"])
def test_logits_are_cast_to_contiguous_float32(dtype):
    values = np.arange(12).reshape(3, 4).astype(dtype).T
    logits = as_logits(values)
    assert logits.dtype == np.float32
    assert logits.flags.c_contiguous
    assert np.array_equal(logits, values.astype(np.float64))


def test_logits_in_the_right_form_are_not_copied():
    values = np.zeros((2, 3), dtype=np.float32)
    assert as_logits(values) is values


def test_rows_whose_sum_overflows_are_finite_all_the_same():
    assert as_logits(np.full((2, 3), 3e38, dtype=np.float32)).shape == (2, 3)


scores = arrays(np.float64, st.integers(1, 5), elements=st.floats(-700.0, 700.0))


def log_pair(z):
    """log P(0) and log P(1) of a logit of class 1, from 400 decimal digits."""
    with localcontext() as context:
        context.prec = 400
        odds = Decimal(z).exp()
        return float((1 / (1 + odds)).ln()), float((odds / (1 + odds)).ln())


@settings(deadline=None)
@given(scores, st.booleans())
def test_one_logit_per_row_is_that_of_class_1(z, column):
    found = as_logits(z[:, None] if column else z, n_classes=2)
    assert (found.dtype, found.flags.c_contiguous) == (np.float32, True)
    assert np.array_equal(found, np.stack([np.zeros_like(z), z], axis=1).astype(np.float32))


@settings(deadline=None, max_examples=50)
@given(scores, st.booleans())
def test_one_probability_per_row_is_that_of_class_1(z, column):
    exact = np.array([log_pair(value) for value in z])
    p, log_p = np.exp(exact[:, 1]), exact[:, 1]
    if column:
        p, log_p = p[:, None], log_p[:, None]
    # What float64 can still tell of 1 − p.
    resolved = np.log(np.maximum(1.0 - np.exp(exact[:, 1]), 1e-12))
    floored = np.maximum(exact, np.log(1e-12))
    found = logits_from_probabilities(p)
    assert found[:, 1] == pytest.approx(floored[:, 1], rel=1e-6, abs=1e-6)
    small = np.exp(exact[:, 1]) < 0.5
    assert found[small, 0] == pytest.approx(floored[small, 0], rel=1e-6, abs=1e-37)
    assert found[~small, 0] == pytest.approx(resolved[~small], rel=1e-6)
    # Logarithms keep both ends.
    assert logits_from_log_probabilities(log_p) == pytest.approx(floored, rel=1e-6, abs=1e-37)


def test_the_ends_of_one_score_are_zeros_and_masks():
    floor = np.float32(np.log(1e-12))
    assert logits_from_probabilities([0.0, 1.0]).tolist() == [[0.0, floor], [floor, 0.0]]
    assert logits_from_log_probabilities([-np.inf, 0.0]).tolist() == [[0.0, floor], [floor, 0.0]]
    assert as_logits([-np.inf]).tolist() == [[0.0, -np.inf]]
    # 1 − p would be 1 in float32.
    assert logits_from_probabilities(np.float32([1e-9]))[0, 0] == pytest.approx(-1e-9, rel=1e-6)


@pytest.mark.parametrize(
    "convert", [as_logits, logits_from_probabilities, logits_from_log_probabilities]
)
@pytest.mark.parametrize("shape", [(3,), (3, 1)])
def test_one_score_is_refused_for_other_than_two_classes(convert, shape):
    with pytest.raises(InvalidInput, match=r"shape \(n, 3\), got .*is for two classes"):
        convert(np.zeros(shape), n_classes=3)
    assert convert(np.zeros(shape), n_classes=2).shape == (3, 2)


def test_one_score_outside_its_range_is_refused():
    with pytest.raises(InvalidInput, match=r"probabilities must lie in \[0, 1\], row 1 does not"):
        logits_from_probabilities([0.5, 1.5])
    with pytest.raises(InvalidInput, match="at most 0 and not NaN, row 1 is not"):
        logits_from_log_probabilities([-0.5, 1.5])


def test_probabilities_come_back_from_their_logits():
    p = np.array([[0.5, 0.3, 0.2], [1.0, 0.0, 0.0]])
    logits = logits_from_probabilities(p)
    assert softmax(logits) == pytest.approx(np.maximum(p, 1e-12), abs=1e-6)
    assert logits[1, 1] == np.float32(np.log(1e-12))


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ([[0.5, 0.6]], "probabilities must sum to 1 within 0.001 in each row, row 0 does not"),
        ([[1.5, -0.5]], r"probabilities must lie in \[0, 1\], row 0 does not"),
        ([[0.5, float("nan")]], "finite"),
    ],
)
def test_probabilities_that_are_none_are_refused(values, message):
    with pytest.raises(InvalidInput, match=message):
        logits_from_probabilities(values)


@settings(deadline=None)
@given(
    st.integers(2, 30), st.integers(2, 6), st.integers(0, 2**32), st.sampled_from("fd"),
)  # fmt: skip
def test_rounded_probabilities_are_taken_and_normalised(k, decimals, seed, dtype):
    rng = np.random.default_rng(seed)
    p = rng.dirichlet(np.full(k, rng.choice([0.1, 1.0, 20.0])), size=20).round(decimals)
    logits = logits_from_probabilities(p.astype(dtype))
    kept = p > 0
    shares = np.where(kept, p / p.sum(axis=1, keepdims=True), 0.0)
    assert softmax(logits) == pytest.approx(shares, abs=1e-6)
    assert (logits[~kept] == np.float32(np.log(1e-12))).all()  # zeros stay zeros


def by_interval(row, decimals):
    """Whether numbers that are rounded to `row` can sum to 1, in integers of half a last digit."""
    twice = [2 * int(Decimal(text) * 10**decimals) for text in row]
    low, high = sum(max(v - 1, 0) for v in twice), sum(v + 1 for v in twice)
    return low <= 2 * 10**decimals <= high


@settings(deadline=None, max_examples=200)
@given(st.lists(st.integers(0, 60), min_size=2, max_size=9).filter(lambda v: sum(v) > 0))
def test_sums_that_rounding_cannot_explain_are_refused(hundredths):
    texts = [f"{value / 100:.2f}" for value in hundredths]
    values = [[float(text) for text in texts]]
    if by_interval(texts, 2) or abs(sum(hundredths) - 100) == 0:
        assert logits_from_probabilities(values).shape == (1, len(texts))
    else:
        with pytest.raises(InvalidInput, match="rounding of probabilities does not explain"):
            logits_from_probabilities(values)


def test_two_decimals_of_eight_classes_are_all_taken():
    rng = np.random.default_rng(0)
    p = rng.dirichlet(np.ones(8), size=5_000).round(2)
    assert (np.abs(p.sum(axis=1) - 1.0) > 1e-3).mean() > 0.4  # what was refused
    assert logits_from_probabilities(p).shape == p.shape
    assert logits_from_probabilities([[0.334, 0.334, 0.333]]).shape == (1, 3)


def test_rounded_float32_numbers_are_known_when_they_were_written_in_full():
    rows = np.array([[0.334, 0.334, 0.333], [0.12, 0.44, 0.43]], np.float32).tolist()
    assert rows[0][0] != 0.334
    assert logits_from_probabilities(rows).shape == (2, 3)
    with pytest.raises(InvalidInput, match="row 1 does not"):
        logits_from_probabilities([rows[0], np.float32([0.3341, 0.3341, 0.3332]).tolist()])


@pytest.mark.parametrize(
    "row", [[1, 1, 0], [0.5, 0.6], [0.0, 0.0], [0.3341, 0.3341, 0.3332], [0.9, 0.9, 0.9]]
)
def test_independent_or_broken_probabilities_are_refused(row):
    with pytest.raises(InvalidInput, match="row 1 does not: its sum is"):
        logits_from_probabilities([[1.0] + [0.0] * (len(row) - 1), row])


def test_log_probabilities_may_be_minus_infinity():
    with np.errstate(divide="ignore"):
        logs = np.log(np.array([[0.0, 1.0], [0.25, 0.75]]))
    logits = logits_from_log_probabilities(logs)
    assert logits[0].tolist() == [np.float32(np.log(1e-12)), 0.0]
    assert softmax(logits)[1] == pytest.approx([0.25, 0.75], abs=1e-6)


def test_float16_log_probabilities_of_many_classes_are_taken():
    logs = np.full((2, 1000), np.log(1e-3), dtype=np.float16)
    assert logits_from_log_probabilities(logs).shape == (2, 1000)


@pytest.mark.parametrize("values", [[[1.0, 2.0]], [[float("nan"), 0.0]], [[-5.0, -5.0]]])
def test_logits_sent_as_log_probabilities_are_refused(values):
    with pytest.raises(InvalidInput, match="log_probabilities"):
        logits_from_log_probabilities(values)


def test_labels_are_indices_or_names_or_both():
    names = ["cat", "dog", "7"]
    assert as_labels([0, 2], n_classes=3).tolist() == [0, 2]
    assert as_labels(["dog", "cat"], n_classes=3, class_names=names).tolist() == [1, 0]
    assert as_labels([1, "7"], n_classes=3, class_names=names).tolist() == [1, 2]
    assert as_labels(np.array(["dog"]), n_classes=3, class_names=names).tolist() == [1]
    assert as_labels(np.array([b"dog"]), n_classes=3, class_names=names).tolist() == [1]
    assert as_labels(np.array([1], dtype=np.uint64), n_classes=3).dtype == np.int64


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ([0, 3], r"labels must lie in 0 … 2, row 1 does not"),
        ([-1], "row 0 does not"),
        ([10**30], "labels must"),
        ([0.0, 1.5], "labels must be integers .*, row 1 is 1.5"),
        ([0.0, float("nan")], "row 1 is missing"),
        ([0.0, 1e300], r"labels must lie in 0 … 2, row 1 does not"),
        ([[1, 0, 0], [1, 0, 1]], "must be one-hot, a single 1 .* row 1 is not"),
        ([[0.2, 0.8, 0.0]], "must be one-hot"),
        ([True, False], "labels must be integers"),
        ([True, 1], "row 0 is bool"),
        ([0, None], "labels must be"),
        ([[0, 1]], r"labels must have shape \(n,\), got \(1, 2\)"),
        (["bird", "cat"], "labels must be among the 3 class names, row 0 is not"),
        (np.array([0.5]), "labels must be integers"),
        (np.array([True]), "labels must be integers"),
    ],
)
def test_labels_that_cannot_be_used_are_refused(values, message):
    with pytest.raises(InvalidInput, match=message):
        as_labels(values, n_classes=3, class_names=["cat", "dog", "emu"])


class Column:
    """A nullable column as pandas gives it to NumPy: objects, and its own missing value."""

    def __init__(self, values):
        self.values = values

    def __array__(self, dtype=None, copy=None):
        return np.array(self.values, dtype=object)


def columns_of(values):
    """The same labels as others hold them."""
    import pyarrow as pa
    import torch

    yield torch.tensor(values)
    yield torch.tensor(values, dtype=torch.bfloat16, requires_grad=True)
    yield pa.array(values)
    yield pa.chunked_array([values[:1], values[1:]], pa.int8())
    yield pa.array(values, pa.float32())
    yield Column(values)
    yield Column([float(value) for value in values])
    yield Column([[value] for value in values])


def test_labels_of_every_kind_are_the_same_indices():
    import pyarrow as pa

    labels = [0, 2, 1, 2]
    one_hot = np.eye(3)[labels]
    kinds = [
        [0.0, 2.0, 1.0, 2.0], np.float16(labels), ["0", "2", "1", "2"], one_hot,
        one_hot.astype(bool), one_hot.astype(int).tolist(), np.array(labels)[:, None],
        np.array([0, 2.0, "1", 2], dtype=object),
    ]  # fmt: skip
    for values in (*kinds, *columns_of(labels)):
        assert as_labels(values, n_classes=3).tolist() == labels, values
    names = ["a", "c", "b", "c"]
    for values in (names, Column(names), pa.array(names)):
        assert as_labels(values, n_classes=3, class_names=["a", "b", "c"]).tolist() == labels


def test_booleans_are_labels_of_two_classes_only():
    for values in ([True, False], np.array([True, False]), Column([True, False])):
        assert as_labels(values, n_classes=2, class_names=["no", "yes"]).tolist() == [1, 0]
        with pytest.raises(InvalidInput, match="labels must be integers"):
            as_labels(values, n_classes=3)


def test_a_missing_label_is_named():
    with pytest.raises(InvalidInput, match="row 1 is missing: fill it"):
        as_labels(Column([1, None]), n_classes=3)


def test_logits_of_other_libraries_are_taken():
    import torch

    rows = [[1.0, -2.0, 0.5], [0.25, 0.0, -1.0]]
    plain = torch.tensor(rows)
    others = [
        plain, plain.bfloat16(), plain.clone().requires_grad_(), plain.half(), Column(rows),
    ]  # fmt: skip
    for values in others:
        assert as_logits(values).tolist() == rows
    for missing in (None, float("nan")):
        with pytest.raises(InvalidInput, match="logits must be"):
            as_logits(Column([[0.0, missing]]))


def test_names_without_class_names_are_refused():
    with pytest.raises(InvalidInput, match="no class names are given"):
        as_labels(["cat"], n_classes=3)


def test_labels_of_another_length_are_refused():
    with pytest.raises(InvalidInput, match=r"labels must have shape \(3,\), got \(2,\)"):
        as_labels([0, 1], n_classes=2, n_rows=3)


@settings(deadline=None)
@given(matrices)
def test_gap_is_the_difference_of_the_two_largest(logits):
    two = np.sort(logits, axis=1)[:, -2:]
    assert np.array_equal(logit_gap(logits), two[:, 1] - two[:, 0])


def test_gap_of_opposite_extremes_stays_finite():
    assert np.isfinite(logit_gap(np.array([[3e38, -3e38]], dtype=np.float32))).all()


@settings(deadline=None)
@given(matrices, st.floats(0.01, 100.0), st.floats(0.0, 0.5))
def test_prediction_has_the_largest_probability_at_any_temperature(logits, temperature, weight):
    p = tempered_softmax(logits, temperature, uniform_weight=weight)
    assert p.dtype == np.float32
    assert p.flags.c_contiguous
    assert np.array_equal(p[np.arange(3), prediction(logits)], p.max(axis=1))
    assert p.sum(axis=1, dtype=np.float64) == pytest.approx(1.0, abs=1e-5)
    assert p.max() <= 1.0


def test_near_ties_keep_their_prediction_where_dividing_first_would_not():
    generator = np.random.default_rng(0)
    top = generator.uniform(5, 50, size=(20_000, 1)).astype(np.float32)
    logits = np.concatenate([top, np.nextafter(top, np.float32(100))], axis=1)
    divided = logits / np.float32(1.7)
    assert (divided[:, 0] == divided[:, 1]).any()  # what a plain softmax would be given
    p = tempered_softmax(logits, 1.7)
    assert np.array_equal(p[:, 1], p.max(axis=1))


@pytest.mark.parametrize("k", [2, 10, 63, 64, 200])
def test_softmax_is_that_of_float64(k):
    logits = np.random.default_rng(k).normal(size=(50, k)).astype(np.float32) * 5
    exact = np.exp(log_softmax(logits))
    assert softmax(logits) == pytest.approx(exact, rel=2e-6, abs=1e-12)
    by_row = np.linspace(0.5, 3.0, 50)
    exact = np.exp(log_softmax(logits.astype(np.float64) / by_row[:, None]))
    assert tempered_softmax(logits, by_row) == pytest.approx(exact, rel=5e-6, abs=1e-12)
