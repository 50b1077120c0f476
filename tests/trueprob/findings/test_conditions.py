"""A test set under other conditions than the calibration set is named."""

import json
from pathlib import Path

import numpy as np

from trueprob import CalibrationSet, FittedOn
from trueprob.arrays.logit_functions import logit_gap
from trueprob.cli.__main__ import main
from trueprob.findings.set_check import check_conditions

EXAMPLES = Path(__file__).parents[3] / "examples"


def test_a_test_set_of_other_conditions_is_named(tmp_path, capsys):
    calibrator = tmp_path / "calibrator.json"
    assert main(["fit", str(EXAMPLES / "digits_calibration.npz"), "-o", str(calibrator)]) == 0
    capsys.readouterr()
    codes = {}
    for name in ("digits_test", "digits_drifted", "digits_calibration"):
        command = ["evaluate", str(EXAMPLES / f"{name}.npz"), "--calibrator", str(calibrator)]
        assert main([*command, "--json"]) == 0
        output = capsys.readouterr()
        codes[name] = [f["code"] for f in json.loads(output.out)["findings"]]
        assert main([*command, "--strict"]) == int(name == "digits_drifted")
        assert output.err.startswith(
            "trueprob: warning: the calibrator was fitted under other"
        ) == (name == "digits_drifted")
        capsys.readouterr()
    expected = {"digits_test": [], "digits_drifted": ["conditions_differ"]}
    assert codes == {**expected, "digits_calibration": []}


def test_a_shipped_calibrator_has_its_gaps_beside_it(tmp_path, capsys):
    shipped = EXAMPLES.parent / "models/digits/1/calibrator.json"
    command = ["evaluate", "--strict", "--calibrator", str(shipped)]
    assert main([*command, str(EXAMPLES / "digits_drifted.npz")]) == 1
    assert "fitted under other conditions" in capsys.readouterr().err
    assert main([*command, str(EXAMPLES / "digits_test.npz")]) == 0
    alone = tmp_path / "calibrator.json"
    alone.write_bytes(shipped.read_bytes())
    command = ["evaluate", "--strict", "--calibrator", str(alone)]
    assert main([*command, str(EXAMPLES / "digits_drifted.npz")]) == 0


def test_rows_of_the_same_conditions_are_rarely_called_others(real_set):
    for name in ("cifar10_lenet5", "pcam_randomforest", "sst2_gpt2zs", "20news_cleanlabcv"):
        (logits, labels), (test_logits, test_labels) = real_set(name)
        gaps = FittedOn.of(CalibrationSet(logits, labels), "").gaps
        assert check_conditions(gaps, CalibrationSet(test_logits, test_labels)) == ()
        harder = CalibrationSet(0.5 * test_logits, test_labels)
        assert [f.code for f in check_conditions(gaps, harder)] == ["conditions_differ"]


def test_a_small_shift_of_many_rows_is_no_finding():
    generator = np.random.default_rng(0)
    rows = [
        CalibrationSet(scale * generator.gumbel(size=(40_000, 3)), np.zeros(40_000, int))
        for scale in (1.0, 1.05, 1.5)
    ]
    gaps = FittedOn.of(rows[0], "").gaps
    assert gaps is not None
    assert gaps.psi_ratio(gaps.counts(np.float64(logit_gap(rows[1].logits)))) > gaps.limit
    assert [len(check_conditions(gaps, data)) for data in rows] == [0, 0, 1]
