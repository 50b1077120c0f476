"""Classes are matched by name: a permuted table gives the permuted answer, of every kind."""

import json

import numpy as np
import pyarrow as pa
import pytest
from pyarrow import csv, parquet

from tests.trueprob.every_kind import cases, width
from trueprob.calibrators import IdentityCalibrator, dumps_calibrator
from trueprob.cli.__main__ import main
from trueprob.fitting.methods import METHODS

NAMES = ["cat", "dog", "yak", "7th", "é"]
ORDER = [3, 0, 4, 1, 2]


@pytest.fixture
def rows(overconfident):
    return overconfident(400)


def write(path, names, logits, labels=None):
    """A table with a column for each class, or an .npz that names them."""
    if path.suffix == ".npz":
        arrays = {} if labels is None else {"labels": labels}
        np.savez(path, logits=logits, class_names=np.array(names), **arrays)
        return path
    columns = {f"logit_{name}": c for name, c in zip(names, logits.T, strict=True)}
    columns |= {} if labels is None else {"label": [names[label] for label in labels]}
    writer = csv.write_csv if path.suffix == ".csv" else parquet.write_table
    writer(pa.table(columns), path)
    return path


def run(*arguments):
    assert main([str(a) for a in arguments]) == 0


def fails(capsys, *arguments):
    capsys.readouterr()
    assert main([str(a) for a in arguments]) == 2
    output = capsys.readouterr()
    assert output.err.startswith("trueprob: error: ")
    assert output.err.count("\n") == 1
    return output.err


def by_name(path):
    """Name of a class → its probabilities; and the name of each predicted class."""
    if path.suffix == ".npz":
        with np.load(path) as arrays:
            names = arrays["class_names"].tolist()
            columns = dict(zip(names, arrays["probabilities"].T, strict=True))
            return columns, [names[index] for index in arrays["prediction"]]
    table = csv.read_csv(path) if path.suffix == ".csv" else parquet.read_table(path)
    names = [c.removeprefix("prob_") for c in table.column_names if c.startswith("prob_")]
    predicted = [names[index] for index in table["prediction"].to_pylist()]
    assert predicted == list(map(str, table["class"].to_pylist()))
    columns = {name: table[f"prob_{name}"].to_numpy().astype(np.float32) for name in names}
    return columns, predicted


@pytest.mark.parametrize("kind", cases(METHODS))
def test_a_permuted_table_gives_the_permuted_answer(kind, overconfident, tmp_path):
    k = width(kind, 5)
    logits, labels = overconfident(400, k)
    known = NAMES[:k]
    calibrator = tmp_path / "c.json"
    run("fit", write(tmp_path / "fit.csv", known, logits, labels), "--method", kind,
        "-o", calibrator)  # fmt: skip
    assert json.loads(calibrator.read_text())["class_names"] == known
    answers = []
    for suffix in (".csv", ".parquet", ".npz"):
        for order in (range(k), ORDER if k == 5 else [1, 0]):
            names = [NAMES[i] for i in order]
            data = write(tmp_path / f"data{suffix}", names, logits[:, list(order)])
            target = tmp_path / f"answer{suffix}"
            run("apply", calibrator, data, "-o", target)
            columns, predicted = by_name(target)
            assert list(columns) == names  # in the order of the table
            answers.append(([columns[name] for name in known], predicted))
    for columns, predicted in answers[1:]:
        assert np.array_equal(columns, answers[0][0])
        assert predicted == answers[0][1]


def test_log_odds_are_of_the_second_column_of_the_output(overconfident, tmp_path):
    logits, labels = overconfident(400, 2)
    calibrator = tmp_path / "c.json"
    run("fit", write(tmp_path / "fit.csv", NAMES[:2], logits, labels), "-o", calibrator)
    for suffix in (".csv", ".parquet", ".npz"):
        for order in ([0, 1], [1, 0]):
            data = write(tmp_path / f"d{suffix}", [NAMES[i] for i in order], logits[:, order])
            target = tmp_path / f"answer{suffix}"
            run("apply", calibrator, data, "-o", target)
            if suffix == ".npz":
                with np.load(target) as arrays:
                    odds = arrays["log_odds"]
            else:
                table = csv.read_csv(target) if suffix == ".csv" else parquet.read_table(target)
                odds = table["log_odds"].to_numpy()
            second = by_name(target)[0][NAMES[order[1]]].astype(np.float64)
            assert 1.0 / (1.0 + np.exp(-odds)) == pytest.approx(second, abs=1e-6)


@pytest.mark.parametrize("command", ["evaluate", "plot", "fit"])
def test_permuted_labelled_rows_have_the_same_scores(command, rows, tmp_path, capsys):
    logits, labels = rows
    first = write(tmp_path / "a.csv", NAMES, logits, labels)
    run("fit", first, "--method", "vector", "-o", tmp_path / "c.json")
    places = np.argsort(ORDER)[labels]
    extra = {
        "evaluate": ["--calibrator", tmp_path / "c.json"],
        "plot": ["--calibrator", tmp_path / "c.json", "--title", "x", "-o", tmp_path / "d.svg"],
        "fit": ["--method", "vector"],
    }[command]
    documents = []
    for suffix in (".csv", ".parquet", ".npz"):
        names = [NAMES[i] for i in ORDER]
        second = write(tmp_path / f"b{suffix}", names, logits[:, ORDER], places)
        for path in (first, second):
            capsys.readouterr()
            run(command, path, *extra, "--json")
            documents.append(json.loads(capsys.readouterr().out) | {"seconds": None})
    if command != "fit":
        assert all(document == documents[0] for document in documents)
    else:  # the order of the columns changes the last digits of sums over them
        nll = [document["scores"]["after"]["nll"] for document in documents]
        assert nll == pytest.approx([nll[0]] * len(nll), rel=1e-4)


def test_other_classes_are_an_error_that_shows_both_lists(rows, tmp_path, capsys):
    logits, labels = rows
    calibrator, target = tmp_path / "c.json", tmp_path / "out.csv"
    run("fit", write(tmp_path / "a.csv", NAMES, logits, labels), "-o", calibrator)
    foreign = ["cat", "dog", "yak", "8th", "é"]
    expected = "must be cat, dog, yak, 7th, é, got cat, dog, yak, 8th, é (missing: 7th; not"
    for suffix in (".csv", ".parquet", ".npz"):
        data = write(tmp_path / f"f{suffix}", foreign, logits, labels)
        assert expected in fails(capsys, "apply", calibrator, data, "-o", target)
        assert expected in fails(capsys, "evaluate", data, "--calibrator", calibrator)
        plot = ["plot", data, "--calibrator", calibrator, "-o", tmp_path / "d.svg"]
        assert expected in fails(capsys, *plot)
    few = write(tmp_path / "few.csv", NAMES[:4], logits[:, :4])
    assert "(missing: é)" in fails(capsys, "apply", calibrator, few, "-o", target)
    many = [f"class {i}" for i in range(300)]
    wide = write(tmp_path / "wide.csv", many, np.zeros((2, 300)))
    assert "class 9, … (300 in all)" in fails(capsys, "apply", calibrator, wide, "-o", target)
    assert not target.exists()
    twice = write(tmp_path / "twice.npz", ["a", "b", "a", "d", "e"], logits)
    assert "a occurs twice" in fails(capsys, "apply", calibrator, twice, "-o", target)


@pytest.mark.parametrize("first", [0, 1])
def test_names_that_are_integers_are_not_sorted_as_texts(first, tmp_path, overconfident):
    logits, labels = overconfident(900, 12)
    names = [str(i) for i in range(first, first + 12)]
    as_texts = sorted(range(12), key=lambda i: names[i])
    assert as_texts != list(range(12))
    fitted = write(tmp_path / "fit.csv", names, logits, labels)
    shuffled = [names[i] for i in as_texts]
    data = write(tmp_path / "data.csv", shuffled, logits[:, as_texts])
    answers = []
    np.savez(tmp_path / "bare.npz", logits=logits, labels=labels)
    for source in (fitted, tmp_path / "bare.npz"):  # a calibrator with names, and one without
        run("fit", source, "--method", "vector", "-o", tmp_path / "c.json")
        run("apply", tmp_path / "c.json", data, "-o", tmp_path / "out.csv")
        run("apply", tmp_path / "c.json", tmp_path / "bare.npz", "-o", tmp_path / "straight.npy")
        columns, _ = by_name(tmp_path / "out.csv")
        answers.append(np.stack([columns[name] for name in names], axis=1))
        assert np.array_equal(answers[-1], np.load(tmp_path / "straight.npy"))
    assert np.array_equal(*answers)


def test_without_names_on_one_side_the_position_counts(rows, tmp_path, capsys):
    logits, labels = rows
    bare, named = tmp_path / "bare.json", tmp_path / "named.json"
    np.savez(tmp_path / "bare.npz", logits=logits, labels=labels)
    table = write(tmp_path / "a.csv", NAMES, logits, labels)
    run("fit", tmp_path / "bare.npz", "-o", bare)
    run("fit", table, "-o", named)
    assert "class_names" not in json.loads(bare.read_text())
    for calibrator, data in ((bare, table), (named, tmp_path / "bare.npz")):
        run("apply", calibrator, data, "-o", tmp_path / "out.csv")
        columns, _ = by_name(tmp_path / "out.csv")
        assert list(columns) == NAMES  # from the side that has them
    (tmp_path / "c3.json").write_bytes(dumps_calibrator(IdentityCalibrator(3)))
    wrong = fails(capsys, "apply", tmp_path / "c3.json", table, "-o", tmp_path / "x.npy")
    assert "must have shape (n, 3), got (400, 5)" in wrong
