import io
import json

import numpy as np
import pytest

from trueprob import loads_calibrator, softmax
from trueprob.cli.__main__ import main
from trueprob.cli.output import print_scores
from trueprob.scores.binned import BinnedCalibration
from trueprob.scores.score import score

SCORES = [
    "accuracy", "ece", "ece_floor", "adaptive_ece", "classwise_ece", "mce", "nll", "brier", "auroc",
]  # fmt: skip


@pytest.fixture
def files(tmp_path, overconfident):
    logits, labels = overconfident(200)
    np.savez(tmp_path / "cal.npz", logits=logits[:100], labels=labels[:100])
    np.savez(tmp_path / "test.npz", logits=logits[100:], labels=labels[100:])
    np.save(tmp_path / "logits.npy", logits[100:])
    np.savez(
        tmp_path / "both.npz",
        val_logits=logits[:100],
        val_labels=labels[:100],
        test_logits=logits[100:],
        test_labels=labels[100:],
    )
    return tmp_path


def document(capsys):
    """The one JSON document on standard output."""
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 1
    return json.loads(lines[0])


def fails(capsys, *arguments):
    assert main([str(a) for a in arguments]) == 2
    output = capsys.readouterr()
    assert output.out == ""
    assert output.err.startswith("trueprob: error: ")
    assert output.err.count("\n") == 1
    return output.err


def test_fit_apply_and_evaluate_work_together(files, capsys):
    target = files / "calibrator.json"
    assert main(["fit", str(files / "cal.npz"), "-o", str(target), "--json"]) == 0
    answer = document(capsys)
    assert list(answer) == [
        "calibrator",
        "method",
        "outcome",
        "n",
        "k",
        "seconds",
        "scores",
        "findings",
    ]
    assert (answer["calibrator"], answer["method"]) == (str(target), "smart")
    assert (answer["n"], answer["k"], answer["outcome"]) == (100, 5, "converged")
    assert list(answer["scores"]["before"]) == SCORES
    assert list(answer["scores"]["after"]) == SCORES
    calibrator = loads_calibrator(target.read_bytes())

    probabilities = files / "p.npy"
    arguments = ["apply", str(target), str(files / "logits.npy"), "-o", str(probabilities)]
    assert main([*arguments, "--json"]) == 0
    assert document(capsys)["n"] == 100
    expected = calibrator.predict_proba(np.load(files / "logits.npy"))
    assert np.array_equal(np.load(probabilities), expected)

    arguments = ["evaluate", str(files / "test.npz"), "--calibrator", str(target), "--json"]
    assert main(arguments) == 0
    answer = document(capsys)
    assert list(answer) == ["n", "k", "uncalibrated", "calibrated", "findings"]
    assert answer["findings"] == []
    labels = np.load(files / "test.npz")["labels"]
    assert answer["calibrated"]["nll"] == score(expected, labels).nll
    assert answer["calibrated"]["ece"] < answer["uncalibrated"]["ece"]
    assert not [entry for entry in files.iterdir() if entry.name.endswith(".partial")]


def test_npz_output_holds_everything(files, capsys):
    main(["fit", str(files / "cal.npz"), "-o", str(files / "c.json")])
    arguments = ["apply", str(files / "c.json"), str(files / "test.npz"), "-o"]
    assert main([*arguments, str(files / "p.npz")]) == 0
    assert "100 rows, 5 classes, written to" in capsys.readouterr().out
    with np.load(files / "p.npz") as arrays:
        assert set(arrays) == {"probabilities", "prediction", "confidence", "temperature"}
        assert np.array_equal(arrays["confidence"], arrays["probabilities"].max(axis=1))


def test_splits_of_a_file_are_chosen_by_an_option(files, capsys):
    assert main(["fit", str(files / "both.npz"), "--split", "val", "--json"]) == 0
    split = document(capsys)
    assert split["calibrator"] is None
    assert main(["fit", str(files / "cal.npz"), "--json"]) == 0
    assert document(capsys)["scores"] == split["scores"]
    assert main(["evaluate", str(files / "both.npz"), "--split", "test", "--json"]) == 0
    assert document(capsys)["calibrated"] is None
    assert "choose one with --split" in fails(capsys, "fit", files / "both.npz")
    assert "no array that begins with val_" in fails(
        capsys, "fit", files / "cal.npz", "--split", "val"
    )


def test_tables_are_for_people(files, capsys):
    assert main(["evaluate", str(files / "test.npz")]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "100 rows, 5 classes"
    assert lines[1].split() == ["score", "uncalibrated"]
    assert len(lines) == 2 + len(SCORES)
    assert len({len(line) for line in lines[1:]}) == 1


@pytest.fixture
def two_classes(tmp_path):
    generator = np.random.default_rng(0)
    logits = generator.normal(0, 2, (600, 2))
    labels = (logits + generator.gumbel(size=(600, 2))).argmax(axis=1)
    logits[:, 1] += 1.0
    path = tmp_path / "two.npz"
    np.savez(path, logits=logits, labels=labels, class_names=np.array(["no", "yes"]))
    return path


def test_two_classes_show_the_probability_of_class_1(two_classes, capsys):
    for command in ("fit", "evaluate"):
        assert main([command, str(two_classes)]) == 0
        lines = capsys.readouterr().out.splitlines()
        assert [line.split("  ")[0] for line in lines[-3:]] == [
            "ECE of P(yes)",
            "mean P(yes)",
            "share of yes",
        ]
    assert main(["fit", str(two_classes), "--json"]) == 0
    fitted = document(capsys)["scores"]
    assert main(["evaluate", str(two_classes), "--json"]) == 0
    binary = document(capsys)["uncalibrated"]["binary"]
    assert binary == fitted["before"]["binary"]
    with np.load(two_classes) as arrays:
        labels, p = arrays["labels"], softmax(arrays["logits"].astype(np.float32))[:, 1]
    assert binary["ece"] == pytest.approx(BinnedCalibration.of(p, labels).ece())
    assert binary["probability"] - binary["frequency"] == pytest.approx(p.mean() - labels.mean())
    assert fitted["after"]["binary"]["ece"] < 0.04
    assert main(["fit", str(two_classes), "--json", "--keep-prediction"]) == 0
    kept = document(capsys)["scores"]
    assert kept["after"]["binary"]["ece"] > 0.05  # one map for both classes cannot repair it
    both = ["--keep-prediction", "--allow-prediction-change"]
    assert main(["fit", str(two_classes), *both]) == 2


def test_evaluate_scores_each_class_on_request(two_classes, capsys, files):
    assert main(["fit", str(two_classes), "--keep-prediction", "-o", str(files / "c.json")]) == 0
    capsys.readouterr()
    arguments = ["evaluate", str(two_classes), "--calibrator", str(files / "c.json"), "--classes"]
    assert main(arguments) == 0
    lines = capsys.readouterr().out.splitlines()
    titles = [line for line in lines if line.endswith(": classes, the worst first")]
    assert [title.partition(":")[0].partition("-")[0] for title in titles] == [
        "uncalibrated",
        "smart",
    ]
    assert main([*arguments, "--json"]) == 0
    answer = document(capsys)
    rows = [line.split() for line in lines if line.startswith(("no ", "yes "))]
    for scores in (answer["uncalibrated"], answer["calibrated"]):
        for each in scores["classes"]:
            name, n, confidence, _, right, _, gap, *_ = rows.pop(0)
            assert (name, int(n)) == (each["class_name"], each["n"])
            shown = [100 * each[key] for key in ("confidence", "accuracy", "gap")]
            assert [float(confidence), float(right), float(gap)] == pytest.approx(shown, abs=0.01)
            assert (each["gap"] > 0) == (name == "yes")


class Terminal(io.StringIO):
    def isatty(self):
        return True


def test_a_terminal_gets_a_drawn_table():
    stream = Terminal()
    print_scores({"now": score(np.array([[0.9, 0.1]]), [0])}, stream)
    assert "┃" in stream.getvalue()
    assert "undefined" in stream.getvalue()  # the AUROC of one row


def test_warnings_go_to_standard_error(files, capsys, overconfident):
    logits, labels = overconfident(20)
    np.savez(files / "few.npz", logits=logits, labels=labels)
    assert main(["fit", str(files / "few.npz"), "--json"]) == 0
    assert "trueprob: warning: only 20 rows" in capsys.readouterr().err


def test_bad_input_is_one_line_and_exit_code_2(files, capsys):
    assert "cannot be read: No such file" in fails(capsys, "fit", files / "nothing.npz")
    assert "logits.npy has no labels" in fails(capsys, "fit", files / "logits.npy")
    assert "invalid choice" in fails(capsys, "fot")
    assert "required" in fails(capsys)
    assert "invalid choice" in fails(capsys, "fit", files / "cal.npz", "--method", "magic")
    broken = files / "broken.json"
    broken.write_text("{")
    assert "calibrator must be JSON" in fails(
        capsys, "evaluate", files / "test.npz", "--calibrator", broken
    )
    assert "missing.json cannot be read" in fails(
        capsys, "apply", files / "missing.json", files / "logits.npy", "-o", files / "p.npy"
    )
    assert "cannot be written" in fails(
        capsys, "fit", files / "cal.npz", "-o", files / "no" / "such" / "folder.json"
    )


def test_nothing_is_written_when_something_is_wrong(files, capsys):
    main(["fit", str(files / "cal.npz"), "-o", str(files / "c.json")])
    capsys.readouterr()
    np.save(files / "wide.npy", np.zeros((3, 9)))
    before = sorted(files.iterdir())
    message = fails(capsys, "apply", files / "c.json", files / "wide.npy", "-o", files / "p.npy")
    assert "logits must have shape (n, 5), got (3, 9)" in message
    message = fails(capsys, "apply", files / "c.json", files / "logits.npy", "-o", files / "p.txt")
    assert "must end in .npy, .npz, .csv, .parquet, got" in message
    assert sorted(files.iterdir()) == before


def test_an_existing_file_is_replaced_whole(files):
    target = files / "c.json"
    target.write_text("old")
    assert main(["fit", str(files / "cal.npz"), "-o", str(target)]) == 0
    assert loads_calibrator(target.read_bytes()).kind == "smart"


@pytest.mark.slow
def test_auto_says_what_it_chose_from(files, capsys):
    assert main(["fit", str(files / "cal.npz"), "--method", "auto", "--json"]) == 0
    kept = [candidate["method"] for candidate in document(capsys)["candidates"]]
    assert kept == ["identity", "temperature", "smart", "isotonic"]
    free = ["fit", str(files / "cal.npz"), "--method", "auto", "--allow-prediction-change"]
    assert main(free) == 0
    lines = capsys.readouterr().out.splitlines()
    members = [line.split()[0] for line in lines if line.endswith(" %") and "nats" in line]
    assert lines[0].startswith("stack-" if len(members) > 1 else f"{members[0]}-")
    assert any(line.startswith("isotonic ") for line in lines)
    assert main([*free, "--select", "simplest"]) == 0
    lines = capsys.readouterr().out.splitlines()
    (chosen,) = (line.split()[0] for line in lines if line.endswith(" 100 %"))
    assert lines[0].startswith(f"{chosen}-")


def test_zeros_and_masks_go_from_fit_to_apply(tmp_path, capsys):
    generator = np.random.default_rng(0)
    votes = generator.integers(0, 4, (300, 5))
    p = np.stack([(votes == c).mean(axis=1) for c in range(4)], axis=1)
    labels = np.where(generator.random(300) < 0.2, generator.integers(0, 4, 300), votes[:, 0])
    np.savez(tmp_path / "cal.npz", probabilities=p, labels=labels)
    fit = ["fit", str(tmp_path / "cal.npz"), "-o", str(tmp_path / "c.json")]
    assert main(fit) == 0
    assert "classes with a probability of 0 share" in capsys.readouterr().out
    assert main([*fit, "--json"]) == 0
    stage = document(capsys)["input_stage"]
    assert len(stage["zeros"]["mass"]) == 5
    assert stage["clip"] is None

    rows = np.log(p[:5], where=p[:5] > 0, out=np.full((5, 4), -np.inf))
    for name, values in {"p": p[:5], "masked": rows}.items():
        np.save(tmp_path / f"{name}.npy", values)
        kind = "logits" if name == "masked" else "probabilities"
        apply = ["apply", str(tmp_path / "c.json"), str(tmp_path / f"{name}.npy")]
        assert main([*apply, "--input", kind, "-o", str(tmp_path / f"{name}.out.npy")]) == 0
    found, masked = (np.load(tmp_path / f"{name}.out.npy") for name in ("p", "masked"))
    assert (found[p[:5] == 0] > 0.01).all()
    assert (masked[p[:5] == 0] == 0.0).all()


@pytest.mark.parametrize("kind", ["logits", "probabilities"])
def test_other_masks_go_from_fit_to_apply(kind, tmp_path, capsys, overconfident):
    logits, labels = overconfident(200, 4)
    masked = np.random.default_rng(0).random(logits.shape) < 0.5
    masked[np.arange(200), labels] = False
    rows, option = np.where(masked, -1e9, logits), ["--mask-below", "-1e9"]
    if kind == "probabilities":
        rows, option = softmax(np.where(masked, -np.inf, logits)), ["--zeros", "mask"]
    np.savez(tmp_path / "cal.npz", **{kind: rows, "labels": labels})
    np.savez(tmp_path / "exact.npz", logits=np.where(masked, -np.inf, logits), labels=labels)
    fit = ["fit", str(tmp_path / "cal.npz"), "-o", str(tmp_path / "c.json")]
    assert main([*fit, *option]) == 0
    assert "masked" in capsys.readouterr().out
    assert main([*fit, *option, "--json"]) == 0
    found = document(capsys)
    assert main(["fit", str(tmp_path / "exact.npz"), "--json"]) == 0
    exact = document(capsys)
    assert found["findings"] == exact["findings"]
    # Certain rows of probabilities are equal, and share a fold: after is not the same.
    for side in ["before", "after"] if kind == "logits" else ["before"]:
        assert found["scores"][side] == pytest.approx(exact["scores"][side], abs=1e-6)
    apply = ["apply", str(tmp_path / "c.json"), str(tmp_path / "cal.npz")]
    assert main([*apply, "-o", str(tmp_path / "out.npy")]) == 0
    p = np.load(tmp_path / "out.npy")
    assert ((p == 0.0) == masked).all()
    assert (p[masked.sum(axis=1) == 3].max(axis=1) == 1.0).all()
    capsys.readouterr()
    evaluate = ["evaluate", str(tmp_path / "cal.npz"), "--calibrator", str(tmp_path / "c.json")]
    assert main([*evaluate, "--json"]) == 0
    result = document(capsys)
    assert result["findings"] == []
    assert result["uncalibrated"] == pytest.approx(exact["scores"]["before"], abs=1e-6)


def test_masks_of_the_command_line_are_checked(files, capsys, overconfident):
    data = files / "cal.npz"
    assert "mask_below must be finite" in fails(capsys, "fit", data, "--mask-below", "-inf")
    assert "in row 47 all are masked" in fails(capsys, "fit", data, "--mask-below", "0")
    assert main(["fit", str(data), "--mask-below", "-1e9"]) == 0
    assert "mask_below -1e+09 masks nothing in this set" in capsys.readouterr().err
