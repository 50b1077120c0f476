"""The bench of label shift on a made set: its columns mean what the header says."""

import numpy as np

from benchmarks.calibration.sets import of_arrays
from benchmarks.drift.label_shift import Divided, Outcome, likelihood_ratio_rejects, row_of, shifts
from tests.trueprob.label_shift.made_rows import calibrated_rows, probabilities


def test_adapting_helps_a_long_tailed_half_and_not_the_half_as_it_is() -> None:
    val, val_labels = calibrated_rows(0, 1_600, 4)
    test, test_labels = calibrated_rows(1, 3_000, 4)
    data = of_arrays("made", val, val_labels, test, test_labels)
    divided = Divided.of(data, "identity")
    assert divided.labels.shape == (800,)
    made = shifts(small=True)
    outcomes = {}
    for name in ("long-tailed", "none"):
        shifted = made[name][0](data, 0)
        outcomes[name] = divided.outcome(shifted.test_logits, shifted.test_labels, seed=0)
    assert outcomes["long-tailed"].advised
    assert outcomes["long-tailed"].harm < -0.1
    assert not outcomes["none"].advised
    assert made["long-tailed and noisy"][0](data, 0).test_labels.size < 2_000


def test_a_line_has_means_without_adapting_where_advised_and_always() -> None:
    outcomes = [
        Outcome(True, (1.0, 0.5), (0.7, 0.9)),
        Outcome(False, (0.6, 0.8), (0.8, 0.6)),
    ]
    assert row_of("made", outcomes) == [
        "made", "2", "50.0", "0.800", "0.550", "0.650", "75.0", "85.0", "75.0", "-0.500", "0.200",
    ]  # fmt: skip
    assert row_of("none", outcomes[1:])[-2:] == ["–", "0.200"]


def test_the_likelihood_ratio_test_finds_another_mix() -> None:
    even = np.full(4, 0.25)
    calm = probabilities(calibrated_rows(2, 1_000, 4)[0]).astype(np.float64)
    tail = probabilities(calibrated_rows(3, 3_000, 4, mix=(8, 4, 2, 1))[0]).astype(np.float64)
    assert not likelihood_ratio_rejects(calm, even)
    assert likelihood_ratio_rejects(tail, even)
