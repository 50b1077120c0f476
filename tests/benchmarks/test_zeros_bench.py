"""The benchmark of zeros and wild scales measures what it says."""

import numpy as np

from benchmarks.calibration.report import write_section
from benchmarks.zeros.__main__ import (
    CLASSIFIERS,
    DOCUMENT,
    digits,
    wild_sets,
    with_floor,
    zeros_row,
)
from trueprob import CalibrationSet, logits_from_probabilities


def test_the_document_has_its_place(tmp_path):
    copy = tmp_path / "benchmarks.md"
    copy.write_text(DOCUMENT.read_text("utf-8"), "utf-8")
    write_section(copy, "all", "the tables were here", benchmark="zeros")
    assert "the tables were here" in copy.read_text("utf-8")


def test_a_row_of_neighbours_is_best_with_learnt_zeros():
    data, test = (
        CalibrationSet(logits_from_probabilities(p), labels)
        for p, labels in digits(CLASSIFIERS["5 neighbours"], "predict_proba", noise=8.0)
    )
    assert with_floor(data, 0.01).logits.min() == np.float32(np.log(0.01))
    cells = zeros_row("digits", data, test)
    floors, learnt = [float(cell) for cell in cells[4:7]], float(cells[7])
    assert learnt < min(floors) - 0.05


def test_naive_bayes_is_trained_where_the_given_set_is_absent(tmp_path):
    names = [name for name, _ in wild_sets(tmp_path)]
    assert names == ["digits, smoothing 1e-09", "digits, smoothing 0.0001"]
