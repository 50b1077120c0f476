"""The entrants of CalArena against a stand-in for its run of an experiment."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from benchmarks.calibration.calarena import CUSTOM_CALIBRATORS, TrueprobCalibrator, rows_of
from trueprob import softmax


def experiment(factory: Any, p_cal: Any, y_cal: Any, p_test: Any, y_test: Any) -> float:
    """What `run_benchmark.py` does with a calibrator, as its README documents it; the log loss."""
    calibrator = factory()
    assert calibrator.fit(p_cal, y_cal) is None
    p = calibrator.predict_proba(p_test)
    assert isinstance(p, np.ndarray)
    n_columns = 1 if np.ndim(p_cal) == 1 else np.shape(p_cal)[1]
    assert p.shape == (len(y_test), max(2, n_columns))
    assert p.sum(axis=1) == pytest.approx(1.0, abs=1e-9)
    assert p.min() >= 0.0
    return float(-np.log(np.maximum(p[np.arange(len(y_test)), y_test], 1e-30)).mean())


def overconfident(k: int, n: int = 500) -> tuple[np.ndarray, np.ndarray]:
    generator = np.random.default_rng(k)
    logits = 1.5 * generator.normal(size=(n, k))
    labels = (logits + generator.gumbel(size=logits.shape)).argmax(axis=1)
    return softmax(3.0 * logits.astype(np.float32)), labels


@pytest.mark.parametrize("name", CUSTOM_CALIBRATORS)
@pytest.mark.parametrize("form", ["vector", "column", "two columns", "five columns"])
def test_an_experiment_runs_in_every_form_and_repairs_the_probabilities(
    name: str, form: str
) -> None:
    p, y = overconfident(5 if form == "five columns" else 2)
    given = {"vector": p[:, 1], "column": p[:, 1:2]}.get(form, p)
    raw = -np.log(np.maximum(p[250:][np.arange(250), y[250:]], 1e-30)).mean()
    labels = y.astype(np.uint8)  # the files have labels of several types
    loss = experiment(CUSTOM_CALIBRATORS[name], given[:250], labels[:250], given[250:], y[250:])
    assert loss < raw - 0.1


def test_probabilities_of_zero_and_one_and_rounded_sums_are_taken() -> None:
    p = np.array([0.0, 1.0, 0.25, 0.75] * 20, dtype=np.float32)
    y = np.array([0, 1, 0, 1] * 20)
    assert np.isfinite(experiment(TrueprobCalibrator, p, y, p, y))
    rows = rows_of(np.full((2, 4), 0.2501, dtype=np.float32))
    assert rows.sum(axis=1) == pytest.approx(1.0, abs=1e-12)


def test_the_default_keeps_the_prediction_of_many_classes() -> None:
    p, y = overconfident(5)
    calibrator = TrueprobCalibrator()
    calibrator.fit(p[:250], y[:250])
    assert np.array_equal(calibrator.predict_proba(p[250:]).argmax(axis=1), p[250:].argmax(axis=1))
