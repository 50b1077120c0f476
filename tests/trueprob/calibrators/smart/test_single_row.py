"""A row alone gets the bits that it gets among others; so does a row among few."""

import dataclasses

import numpy as np
import pytest

from trueprob.calibrators import SmartCalibrator
from trueprob.calibrators.smart.single_row import calibrate_single_row


def drawn(seed: int, scale: float) -> tuple[SmartCalibrator, np.ndarray]:
    rng = np.random.default_rng(seed)
    k, m = int(rng.integers(2, 64)), int(rng.integers(0, 8))
    edges = np.cumsum(rng.exponential(1.0, m) + 1e-3)
    slopes = rng.normal(0.0, 1.5, m + 1)
    weight = float(rng.choice([0.0, 1e-3, 0.2]))
    calibrator = SmartCalibrator(k, tuple(edges.tolist()), tuple(slopes.tolist()), weight, None)
    logits = (rng.standard_normal((40, k)) * scale).astype(np.float32)
    logits[::7] = np.round(logits[::7])  # ties
    logits[3] = logits[3, 0]
    logits[5] = -0.0
    return calibrator, logits


@pytest.mark.parametrize("scale", [1e-6, 1e-2, 1.0, 30.0, 1e6, 1e17, 1e37])
@pytest.mark.parametrize("seed", range(8))
def test_the_bits_do_not_depend_on_the_company(seed: int, scale: float) -> None:
    calibrator, logits = drawn(seed, scale)
    together = calibrator.calibrated(logits)
    for i, row in enumerate(logits):
        alone = calibrator.calibrated(row[None])
        for field in dataclasses.fields(alone):
            one = getattr(alone, field.name)
            among = getattr(together, field.name)[i : i + 1]
            assert (one.dtype, one.shape) == (among.dtype, among.shape), field.name
            assert one.tobytes() == among.tobytes(), field.name


@pytest.mark.parametrize("largest", [1e19, 3e38])
def test_rows_that_float32_may_overflow_on_are_left_to_arrays(largest: float) -> None:
    logits = np.array([[largest, -largest, 0.0]], np.float32)
    assert calibrate_single_row(logits, [], [1.0], [0.0], 0.0) is None
    calibrator = SmartCalibrator(3, (), (0.0,), 0.0, None)
    np.testing.assert_array_equal(calibrator.predict_proba(logits), [[1.0, 0.0, 0.0]])
