"""`trueprob adapt`: the printed finding, the exit codes, and the file that it writes."""

import json

import numpy as np
import pytest

from tests.trueprob.label_shift.made_rows import calibrated_rows
from trueprob import loads_calibrator, softmax
from trueprob.cli.__main__ import main

NAMES = ("cat", "dog", "bird", "fish")


@pytest.fixture
def files(tmp_path):
    """A calibrator, rows of the old mix, and traffic of another mix and of the same."""
    fitted, labels = calibrated_rows(0, 400, 4)
    np.savez(tmp_path / "fit.npz", logits=2 * fitted, labels=labels, class_names=NAMES)
    labelled, labels = calibrated_rows(1, 900, 4)
    np.savez(tmp_path / "cal.npz", logits=2 * labelled, labels=labels)
    shifted, truth = calibrated_rows(2, 2_500, 4, mix=(60, 30, 8, 2))
    np.savez(tmp_path / "traffic.npz", logits=2 * shifted, truth=truth)
    np.savez(tmp_path / "calm.npz", logits=2 * calibrated_rows(3, 600, 4)[0])
    command = ["fit", str(tmp_path / "fit.npz"), "--method", "vector", "-o"]
    assert main([*command, str(tmp_path / "calibrator.json")]) == 0
    return tmp_path


def adapt(files, *more, calibrator="calibrator.json", labelled="cal.npz", traffic="traffic.npz"):
    name = calibrator if calibrator == "-" else str(files / calibrator)
    rows = ["--labelled", str(files / labelled), "--traffic", str(files / traffic)]
    return main(["adapt", name, *rows, *map(str, more)])


def test_another_mix_is_advised_and_written(files, capsys):
    capsys.readouterr()
    assert adapt(files, "-o", files / "probs.npz") == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith("900 labelled rows, worth ")
    assert lines[1].split() == ["class", "old", "mix", "new", "mix"]
    assert {line.split()[0] for line in lines[2:6]} == set(NAMES)
    assert [line.partition(":")[0] for line in lines[6:9]] == ["yes"] * 3
    assert lines[9:] == ["adapting is advised", f"written to {files / 'probs.npz'}"]

    with np.load(files / "traffic.npz") as traffic, np.load(files / "probs.npz") as written:
        truth, rows = traffic["truth"], np.arange(len(traffic["truth"]))
        calibrator = loads_calibrator((files / "calibrator.json").read_bytes())
        before, after = calibrator.predict_proba(traffic["logits"]), written["probabilities"]
        assert after.dtype == np.float32
        np.testing.assert_allclose(after.sum(axis=1), 1.0, rtol=1e-5)
        np.testing.assert_array_equal(written["prediction"], after.argmax(axis=1))
        assert written["class_names"].tolist() == list(NAMES)
        gain = np.log(after[rows, truth]) - np.log(before[rows, truth])
        assert gain.mean() > 0.15


def test_the_same_mix_is_not_advised_and_nothing_is_written(files, capsys):
    capsys.readouterr()
    assert adapt(files, "-o", files / "probs.npy", traffic="calm.npz") == 1
    lines = capsys.readouterr().out.splitlines()
    assert lines[6].startswith("no: the mix of classes is not proven to have changed: ")
    assert lines[9:] == ["adapting is not advised", "nothing written"]
    assert not (files / "probs.npy").exists()


def test_json_has_the_mix_the_checks_and_the_names(files, capsys):
    capsys.readouterr()
    assert adapt(files, "--json") == 0
    (line,) = capsys.readouterr().out.splitlines()
    document = json.loads(line)
    assert document["advised"] is True
    assert document["class_names"] == list(NAMES)
    assert document["probabilities"] is None
    assert [check["passed"] for check in document["checks"]] == [True] * 3
    assert document["target"][0] > 0.5 > document["source"][0]
    assert sum(document["target"]) == pytest.approx(1.0)
    assert (document["n"], document["k"]) == (900, 4)


def test_columns_of_the_traffic_are_matched_by_name(files, capsys):
    with np.load(files / "traffic.npz") as traffic:
        order = [2, 0, 3, 1]
        names = np.array(NAMES)[order]
        np.savez(files / "permuted.npz", logits=traffic["logits"][:, order], class_names=names)
    assert adapt(files, "-o", files / "a.npz") == 0
    assert adapt(files, "-o", files / "b.npz", traffic="permuted.npz") == 0
    with np.load(files / "a.npz") as plain, np.load(files / "b.npz") as permuted:
        np.testing.assert_array_equal(
            permuted["probabilities"], plain["probabilities"][:, order]
        )  # fmt: skip
        assert permuted["class_names"].tolist() == names.tolist()
        np.testing.assert_array_equal(
            names[permuted["prediction"]], np.array(NAMES)[plain["prediction"]]
        )


def test_a_dash_is_the_plain_softmax(files, capsys):
    with np.load(files / "cal.npz") as rows:
        np.savez(files / "right.npz", logits=rows["logits"] / 2, labels=rows["labels"])
    with np.load(files / "traffic.npz") as rows:
        np.save(files / "right.npy", rows["logits"] / 2)
    capsys.readouterr()
    options = {"calibrator": "-", "labelled": "right.npz", "traffic": "right.npy"}
    assert adapt(files, "--json", **options) == 0
    document = json.loads(capsys.readouterr().out)
    assert document["calibrator"].startswith("identity-")
    with np.load(files / "right.npz") as rows:
        mean = softmax(rows["logits"]).astype(np.float64).mean(axis=0)
    np.testing.assert_allclose(document["source"], mean, rtol=1e-6)


def test_one_map_for_all_classes_that_fails_names_the_class_wise_methods(files, capsys):
    bias = np.array([4.0, 0, 0, 0], np.float32)
    for name in ("fit", "cal", "traffic"):
        with np.load(files / f"{name}.npz") as rows:
            arrays = dict(rows) | {"logits": rows["logits"] + bias}
        np.savez(files / f"{name}_biased.npz", **arrays)
    assert main(["fit", str(files / "fit_biased.npz"), "-o", str(files / "one.json")]) == 0
    options = {"labelled": "cal_biased.npz", "traffic": "traffic_biased.npz"}
    capsys.readouterr()
    assert adapt(files, calibrator="one.json", **options) == 1
    output = capsys.readouterr().out
    assert "no: a change of the mix does not explain the scores" in output
    assert "smart has one map for all classes: try vector, smart-vector" in output


@pytest.mark.parametrize(
    ("options", "more", "message"),
    [
        ({"labelled": "fit.npz"}, (), "keep some rows back from the fit"),
        ({"labelled": "calm.npz"}, (), "has no labels"),
        ({"traffic": "nothing.npz"}, (), "cannot be read"),
        ({}, ("-o", "probs.txt"), "output must end in"),
        ({}, ("--traffic-split", "test"), "no array that begins with test_"),
        ({"traffic": "few.npz"}, (), "traffic must have at least 200 rows, got 20"),
        ({"traffic": "wide.npz"}, (), "must have shape"),
    ],
)
def test_bad_input_is_one_line_and_exit_code_2(files, capsys, options, more, message):
    np.savez(files / "few.npz", logits=np.zeros((20, 4)))
    np.savez(files / "wide.npz", logits=np.zeros((300, 5)))
    capsys.readouterr()
    assert adapt(files, *more, **options) == 2
    output = capsys.readouterr()
    assert output.out == ""
    assert output.err.startswith("trueprob: error: ")
    assert output.err.count("\n") == 1
    assert message in output.err
