import numpy as np
import pytest

from trueprob.admission.reference import check_reference
from trueprob.arrays.calibration_set import CalibrationSet
from trueprob.calibrators import IdentityCalibrator, TemperatureCalibrator


def reference(n: int = 600, *, groups: bool = False, seed: int = 0) -> CalibrationSet:
    """Rows on which the softmax of the logits is exactly right."""
    random = np.random.default_rng(seed)
    logits = random.normal(0, 2, (n, 3)).astype(np.float32)
    labels = np.argmax(logits + random.gumbel(size=(n, 3)), axis=1)
    return CalibrationSet(logits, labels, None, np.arange(n) // 100 if groups else None)


RIGHT, WRONG = IdentityCalibrator(3), TemperatureCalibrator(3, 3.0)


def test_what_is_worse_does_not_pass_and_what_is_better_or_equal_does() -> None:
    data = reference()
    assert not check_reference(RIGHT, WRONG, data).passed
    assert check_reference(WRONG, RIGHT, data).passed
    same = check_reference(RIGHT, RIGHT, data)
    assert (same.passed, same.n_compared) == (True, 600)
    assert check_reference(RIGHT, WRONG, data) == check_reference(RIGHT, WRONG, data)


def test_rows_that_the_candidate_was_fitted_on_are_not_compared() -> None:
    data = reference()
    part = check_reference(RIGHT, WRONG, data, fitted_row_digests=data.row_digests[:400])
    assert part.n_compared == 200
    everything = check_reference(WRONG, RIGHT, data, fitted_row_digests=data.row_digests)
    assert (everything.passed, everything.n_compared) == (False, 0)


def test_too_little_to_tell_does_not_pass() -> None:
    few = check_reference(WRONG, RIGHT, reference(9))
    assert not few.passed
    assert "at least 10" in few.reason
    dependent = check_reference(WRONG, RIGHT, reference(600, groups=True))
    assert "6 groups" in dependent.reason


@pytest.mark.parametrize("seed", range(3))
def test_a_loss_of_accuracy_does_not_pass(seed: int) -> None:
    from trueprob.calibrators import VectorCalibrator

    data = reference(seed=seed)
    swap = VectorCalibrator.from_parameters(
        3, {"weights": [1.0, 1.0, 1.0], "bias": [3.0, 0.0, 0.0], "uniform_weight": 0.0}
    )
    assert not check_reference(WRONG, swap, data).passed
