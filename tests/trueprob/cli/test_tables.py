"""The same rows give the same results in every file format."""

import json
import subprocess
import sys

import numpy as np
import pyarrow as pa
import pytest
from pyarrow import parquet

from trueprob import IdentityCalibrator, loads_calibrator
from trueprob.calibrators.document import dumps_calibrator
from trueprob.cli.__main__ import main

NAMES = ["cat", "dog, big", "yak", "7th", "é"]


@pytest.fixture
def rows(overconfident):
    return overconfident(120)


@pytest.fixture
def expected(rows, tmp_path, capsys):
    np.savez(tmp_path / "rows.npz", logits=rows[0], labels=rows[1])
    return answer(capsys, "evaluate", tmp_path / "rows.npz")


def answer(capsys, *arguments):
    assert main([*map(str, arguments), "--json"]) == 0
    return json.loads(capsys.readouterr().out)


def fails(capsys, *arguments):
    assert main([str(a) for a in arguments]) == 2
    output = capsys.readouterr()
    assert output.out == ""
    assert output.err.startswith("trueprob: error: ")
    assert output.err.count("\n") == 1
    return output.err


def write_csv(path, header, *columns):
    lines = [",".join(f'"{name}"' for name in header)]
    lines += [",".join(str(cell) for cell in row) for row in zip(*columns, strict=True)]
    path.write_text("\n".join(lines) + "\n", "utf-8")
    return path


def test_a_pair_of_npy_files(rows, expected, tmp_path, capsys):
    np.save(tmp_path / "x.npy", rows[0])
    np.save(tmp_path / "y.npy", rows[1])
    pair = (tmp_path / "x.npy", tmp_path / "y.npy")
    assert answer(capsys, "evaluate", *pair) == expected
    assert answer(capsys, "evaluate", pair[0], "--labels", pair[1]) == expected
    assert answer(capsys, "fit", *pair)["n"] == 120
    assert "given twice" in fails(capsys, "fit", *pair, "--labels", pair[1])
    assert "has labels already: leave out" in fails(capsys, "fit", tmp_path / "rows.npz", pair[1])
    assert "must be an .npy of labels" in fails(capsys, "fit", pair[0], tmp_path / "rows.npz")


@pytest.mark.parametrize("prefix", ["", "logit_"])
@pytest.mark.parametrize("by_name", [True, False])
def test_a_csv(rows, expected, tmp_path, capsys, prefix, by_name):
    logits, labels = rows
    written = [f'"{NAMES[label]}"' if by_name else label for label in labels]
    header = [prefix + name for name in NAMES]
    path = write_csv(tmp_path / "rows.CSV", ["label", *header], written, *logits.T)
    assert answer(capsys, "evaluate", path) == expected


def test_classes_with_numbers_for_names_are_put_in_order(rows, expected, tmp_path, capsys):
    logits, labels = rows
    order = [3, 0, 4, 1, 2]
    header = [f"logit_{i}" for i in order]
    path = write_csv(tmp_path / "rows.csv", [*header, "label"], *logits.T[order], labels)
    assert answer(capsys, "evaluate", path) == expected


def test_names_that_are_numbers_are_names_and_no_indices(rows, expected, tmp_path, capsys):
    logits, labels = rows
    header = [f"{i + 1}" for i in range(5)]
    path = write_csv(tmp_path / "rows.csv", [*header, "label"], *logits.T, labels + 1)
    assert answer(capsys, "evaluate", path) == expected
    path = write_csv(tmp_path / "rows.csv", [*header, "label"], *logits.T, labels)
    assert "must be among the 5 class names" in fails(capsys, "evaluate", path)


def test_weights_and_groups_are_columns(rows, tmp_path, capsys):
    logits, labels = rows
    weights, groups = np.arange(120.0), np.arange(120) // 10
    named = {"logits": logits, "labels": labels, "weights": weights, "groups": groups}
    np.savez(tmp_path / "w.npz", **named)
    expected = answer(capsys, "fit", tmp_path / "w.npz", "--method", "temperature")["scores"]
    header = ["weight", "group", "label", *NAMES]
    path = write_csv(tmp_path / "w.csv", header, weights, groups, labels, *logits.T)
    assert answer(capsys, "fit", path, "--method", "temperature")["scores"] == expected
    columns = {"weight": weights, "group": groups, "label": labels}
    columns |= dict(zip(NAMES, logits.T, strict=True))
    parquet.write_table(pa.table(columns), tmp_path / "w.parquet")
    got = answer(capsys, "fit", tmp_path / "w.parquet", "--method", "temperature")
    assert got["scores"] == expected


@pytest.mark.parametrize("lists", [True, False])
def test_a_parquet(rows, expected, tmp_path, capsys, lists):
    logits, labels = rows
    columns = {"id": [f"row {i}" for i in range(120)]}
    if lists:
        columns |= {"logits": logits.tolist(), "label": labels}
    else:
        columns |= {f"logit_{name}": c for name, c in zip(NAMES, logits.T, strict=True)}
        columns["label"] = [NAMES[label] for label in labels]
    parquet.write_table(pa.table(columns), tmp_path / "rows.parquet")
    assert answer(capsys, "evaluate", tmp_path / "rows.parquet") == expected


def test_what_the_numbers_are_is_said_and_never_guessed(rows, tmp_path, capsys):
    logits, labels = rows
    p = np.exp(logits.astype(np.float64))
    p /= p.sum(axis=1, keepdims=True)
    np.savez(tmp_path / "p.npz", probabilities=p, labels=labels)
    expected = answer(capsys, "evaluate", tmp_path / "p.npz")
    bare = write_csv(tmp_path / "bare.csv", [*NAMES, "label"], *p.T, labels)
    assert answer(capsys, "evaluate", bare, "--input", "probabilities") == expected
    assert answer(capsys, "evaluate", bare) != expected  # taken for logits, as documented
    named = [f"prob_{name}" for name in NAMES]
    path = write_csv(tmp_path / "named.csv", [*named, "label"], *p.T, labels)
    assert answer(capsys, "evaluate", path) == expected
    assert "--input says logits" in fails(capsys, "evaluate", path, "--input", "logits")
    np.save(tmp_path / "p.npy", p)
    np.save(tmp_path / "y.npy", labels)
    pair = (tmp_path / "p.npy", tmp_path / "y.npy")
    assert answer(capsys, "evaluate", *pair, "--input", "probabilities") == expected
    np.savez(tmp_path / "both.npz", logits=logits, probabilities=p, labels=labels)
    assert "exactly one of" in fails(capsys, "evaluate", tmp_path / "both.npz")
    both = (tmp_path / "both.npz", "--input", "probabilities")
    assert answer(capsys, "evaluate", *both) == expected


@pytest.mark.parametrize("suffix", [".csv", ".parquet"])
def test_answers_in_a_table_are_read_back_exactly(rows, tmp_path, capsys, suffix):
    logits, labels = rows
    data = write_csv(tmp_path / "rows.csv", [*NAMES, "label"], *logits.T, labels)
    calibrator, table = tmp_path / "c.json", tmp_path / f"out{suffix}"
    main(["fit", str(data), "-o", str(calibrator)])
    for target in (table, tmp_path / "out.npz", tmp_path / "out.npy"):
        assert main(["apply", str(calibrator), str(data), "-o", str(target)]) == 0
    if suffix == ".csv":
        from pyarrow import csv

        got = csv.read_csv(table)
    else:
        got = parquet.read_table(table)
    numbers = [f"prob_{name}" for name in NAMES]
    extra = ["prediction", "class", "confidence", "temperature"]
    assert got.column_names == [*numbers, *extra]
    with np.load(tmp_path / "out.npz") as arrays:
        p = np.stack([got[name].to_numpy() for name in numbers], axis=1).astype(np.float32)
        assert np.array_equal(p, arrays["probabilities"])
        assert np.array_equal(np.load(tmp_path / "out.npy"), p)
        assert np.array_equal(got["prediction"].to_numpy(), arrays["prediction"])
        assert got["class"].to_pylist() == [NAMES[i] for i in arrays["prediction"]]
        assert np.array_equal(got["temperature"].to_numpy(), arrays["temperature"])
        confidence = got["confidence"].to_numpy().astype(np.float32)
        assert np.array_equal(confidence, arrays["confidence"])
    again = tmp_path / "again.npy"
    identity = tmp_path / "identity.json"
    main(["fit", str(data), "--method", "identity", "-o", str(identity)])
    assert main(["apply", str(identity), str(table), "-o", str(again)]) == 0
    assert np.load(again) == pytest.approx(p, abs=1e-6)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "must begin with a header row"),
        ("a,b,label\n", "at least one row below its header"),
        ("a,label\n1,0\n", "at least two classes, got 1"),
        ("a,b,label\n1,2,0\n1,2\n", "must have 3 cells in each row, row 1 has 2"),
        ("a,b,label\n1,2,0\n\n1,x,0\n", "numbers in column 'b', row 1 has something else"),
        ("a,b,label\n1,nan,0\n", "must be finite as float32, row 0 is not"),
        ("a,b,label\n1,1e99,0\n", "must be finite as float32, row 0 is not"),
        ("a,b,label\n1,2,\n", "must have a label in each row, row 0 has none"),
        ("a,b,label\n1,2,c\n", "must be among the 2 class names, row 0 is not"),
        ("a,b,label\n1,2,2\n", "must lie in 0 … 1, row 0 does not"),
        ("a,b\n1,2\n", "has no labels"),
        ("a,a,label\n1,2,0\n", "two columns for the same class"),
        ("a,b,label,labels\n1,2,0,0\n", "two columns for labels"),
        ("logit_a,prob_a,label\n1,2,0\n", "one kind of numbers"),
        ("a,b,label,weight\n1,2,0,heavy\n", "numbers as weights"),
        ('a,b,label\n1,"2,0\n', "is not a table with commas"),
        ("a|b|label\n1|2|0\n", "two classes, got 0; taken as ids: a|b|label"),
    ],
)
def test_a_bad_csv_is_one_line(tmp_path, capsys, text, message):
    path = tmp_path / "bad.csv"
    path.write_text(text, "utf-8")
    assert message in fails(capsys, "fit", path)


def test_a_file_that_is_no_table_is_one_line(tmp_path, capsys):
    (tmp_path / "bad.csv").write_bytes(b"a,b,label\n\xff\xfe,1,0\n")
    assert "must be UTF-8 text" in fails(capsys, "fit", tmp_path / "bad.csv")
    (tmp_path / "bad.parquet").write_bytes(b"PAR1 and nothing else")
    assert "damaged .parquet" in fails(capsys, "fit", tmp_path / "bad.parquet")
    assert "cannot be read" in fails(capsys, "fit", tmp_path / "no.parquet")
    assert "No such file" in fails(capsys, "fit", tmp_path / "no.csv")
    assert "--split is for .npz" in fails(capsys, "fit", tmp_path / "no.csv", "--split", "val")


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        ({"logits": [[1.0, 2.0], [3.0]], "label": [0, 1]}, "lists of equal length"),
        ({"logits": [[1.0, 2.0], None], "label": [0, 1]}, "must not have nulls"),
        ({"logits": ["1", "2"], "label": [0, 1]}, "must hold lists of numbers"),
        ({"a": [1.0, None], "b": [1.0, 2.0], "label": [0, 1]}, "must not have nulls"),
        ({"logit_a": ["x"], "logit_b": [1.0], "label": [0]}, "must hold numbers, got string"),
        ({"a": [1.0, 2.0], "b": [1.0, 2.0], "label": [0, None]}, "row 1 has none"),
    ],
)
def test_a_bad_parquet_is_one_line(tmp_path, capsys, columns, message):
    parquet.write_table(pa.table(columns), tmp_path / "bad.parquet")
    assert message in fails(capsys, "fit", tmp_path / "bad.parquet")


def test_without_pyarrow_the_extra_is_named(rows, tmp_path):
    parquet.write_table(pa.table({"logits": rows[0].tolist()}), tmp_path / "rows.parquet")
    # None in sys.modules is Python's own way to say that a module is not to be had.
    program = (
        "import sys; sys.modules['pyarrow'] = None\n"
        "from trueprob.cli.__main__ import main; sys.exit(main(sys.argv[1:]))"
    )
    command = [sys.executable, "-c", program, "fit", str(tmp_path / "rows.parquet")]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert "pip install 'trueprob[cli]'" in done.stderr
    assert done.stderr.count("\n") == 1


def test_apply_writes_intervals_on_request(rows, tmp_path, capsys):
    np.savez(tmp_path / "rows.npz", logits=rows[0], labels=rows[1])
    calibrator = tmp_path / "c.json"
    answer(capsys, "fit", tmp_path / "rows.npz", "-o", calibrator)
    command = ["apply", calibrator, tmp_path / "rows.npz", "--interval", "0.9", "-o"]
    for suffix in (".npz", ".csv", ".parquet"):
        answer(capsys, *command, tmp_path / f"out{suffix}")
    arrays = np.load(tmp_path / "out.npz")
    low, high = arrays["confidence_low"], arrays["confidence_high"]
    assert (low <= arrays["confidence"]).all()
    assert (arrays["confidence"] <= high).all()
    expected = loads_calibrator(calibrator.read_bytes()).predict_interval(rows[0], 0.9)
    assert np.array_equal(low, expected.low)
    assert np.array_equal(high, expected.high)
    table = parquet.read_table(tmp_path / "out.parquet")
    assert table.column_names[-3:] == ["temperature", "confidence_low", "confidence_high"]
    assert np.array_equal(table["confidence_high"].to_numpy(), high)
    lines = (tmp_path / "out.csv").read_text("utf-8").splitlines()
    assert lines[0].split(",")[-2:] == ["confidence_low", "confidence_high"]
    assert [float(line.split(",")[-2]) for line in lines[1:]] == low.tolist()

    assert "--interval needs an output with columns" in fails(
        capsys, *command, tmp_path / "out.npy"
    )
    bare = json.loads(calibrator.read_text("utf-8"))
    del bare["uncertainty"]
    calibrator.write_text(json.dumps(bare), "utf-8")
    assert "must have an uncertainty" in fails(capsys, *command, tmp_path / "out.npz")


@pytest.mark.parametrize("suffix", [".csv", ".parquet"])
def test_apply_keeps_ids_and_the_order_of_the_rows(rows, tmp_path, capsys, suffix):
    logits, labels = rows
    np.savez(tmp_path / "rows.npz", logits=logits, labels=labels)
    answer(capsys, "fit", tmp_path / "rows.npz", "-o", tmp_path / "c.json")
    ids = [f"00{i}, é" for i in range(120)][::-1]
    order = np.random.default_rng(4).permutation(120)
    quoted = [f'"{text}"' for text in ids]
    data = write_csv(tmp_path / "rows.csv", ["", "key", *NAMES], order, quoted, *logits.T)
    out, alone = tmp_path / f"out{suffix}", tmp_path / "alone.npz"
    assert main([*map(str, ("apply", tmp_path / "c.json", data, "-o", out))]) == 0
    said = capsys.readouterr().err
    assert "column '' is taken as an id" in said
    assert "column 'key' is taken as an id" in said
    answer(capsys, "apply", tmp_path / "rows.npz", "-o", alone, tmp_path / "c.json")
    if suffix == ".csv":
        from pyarrow import csv

        convert = csv.ConvertOptions(column_types={"": pa.int64()})
        got = csv.read_csv(out, convert_options=convert)
    else:
        got = parquet.read_table(out)
    assert got.column_names[:3] == ["", "key", "prob_cat"]
    assert got[""].to_pylist() == order.tolist()
    assert got["key"].to_pylist() == ids
    p = np.stack([got[f"prob_{name}"].to_numpy() for name in NAMES], axis=1)
    assert np.array_equal(p.astype(np.float32), np.load(alone)["probabilities"])
    again = tmp_path / f"again{suffix}"
    answer(capsys, "apply", tmp_path / "c.json", out, "-o", again)  # its answers are no ids
    header = answer(capsys, "apply", tmp_path / "c.json", again, "-o", out)
    assert header["n"] == 120


@pytest.mark.parametrize("suffix", [".csv", ".parquet"])
@pytest.mark.parametrize(
    ("ids", "expected"),
    [
        ({"id": [7, 3, 5]}, [7, 3, 5]),
        ({"": [-2, 0, 2**59]}, [-2, 0, 2**59]),
        ({"key_id": ["7", "3", "x"]}, ["7", "3", "x"]),
        ({"id": ["007", "003", "005"]}, ["007", "003", "005"]),
        ({"sample_id": ["a, b", "", "é"]}, ["a, b", "", "é"]),
        ({"id": ["9" * 30, "1", "2"]}, ["9" * 30, "1", "2"]),
        ({"id": [7, 3, 5], "n": [4, 5, 6]}, [[7, 4], [3, 5], [5, 6]]),
        ({"id": [7, 3, 5], "key": ["a", "b", "c"]}, [["7", "a"], ["3", "b"], ["5", "c"]]),
    ],
)
def test_apply_keeps_ids_in_an_npz(tmp_path, capsys, suffix, ids, expected):
    logits = np.array([[0.5, 1.5, 0.25], [2.5, 0.5, 0.75], [0.5, 3.5, 0.125]])
    classes = dict(zip(("logit_a", "logit_b", "logit_c"), logits.T, strict=True))
    data, out = tmp_path / f"rows{suffix}", tmp_path / "out.npz"
    if suffix == ".csv":
        cells = [[f'"{value}"' for value in values] for values in ids.values()]
        write_csv(data, [*ids, *classes], *cells, *logits.T)
    else:
        parquet.write_table(pa.table(ids | classes), data)
    calibrator = tmp_path / "c.json"
    calibrator.write_bytes(dumps_calibrator(IdentityCalibrator(3)))
    answer(capsys, "apply", calibrator, data, "-o", out)
    with np.load(out) as written:
        assert written["ids"].tolist() == expected
        assert written["id_columns"].tolist() == [*ids]
        order = np.argsort(written["probabilities"], axis=1)
    assert order.tolist() == np.argsort(logits, axis=1).tolist()


@pytest.mark.parametrize(
    ("column", "expected"),
    [
        (pa.array([7, None, 5]), ["7", "", "5"]),
        (pa.array([2**63, 1, 2], pa.uint64()), [2**63, 1, 2]),
        (pa.array([-(2**63), 1, 2]), [-(2**63), 1, 2]),
        (pa.array([[1, 2], [3, 4], [5]]), ["[1, 2]", "[3, 4]", "[5]"]),
        (pa.array([[1, 2], [3, 4], [5, 6]]), ["[1, 2]", "[3, 4]", "[5, 6]"]),
        (pa.array([True, False, True]), ["True", "False", "True"]),
        (pa.array([0, 1, 2], pa.timestamp("s")), [f"1970-01-01 00:00:0{s}" for s in range(3)]),
    ],
)
def test_apply_keeps_ids_of_any_type_in_an_npz(tmp_path, capsys, column, expected):
    classes = {"logit_a": [0.5, 1.5, 2.5], "logit_b": [1.5, 0.5, 0.25]}
    parquet.write_table(pa.table({"id": column} | classes), tmp_path / "rows.parquet")
    calibrator, out = tmp_path / "c.json", tmp_path / "out.npz"
    calibrator.write_bytes(dumps_calibrator(IdentityCalibrator(2)))
    answer(capsys, "apply", calibrator, tmp_path / "rows.parquet", "-o", out)
    with np.load(out) as written:
        assert written["ids"].tolist() == expected


def test_apply_writes_no_ids_where_there_are_none(tmp_path, capsys):
    np.save(tmp_path / "rows.npy", np.array([[0.5, 1.5], [2.5, 0.5]]))
    calibrator = tmp_path / "c.json"
    calibrator.write_bytes(dumps_calibrator(IdentityCalibrator(2)))
    answer(capsys, "apply", calibrator, tmp_path / "rows.npy", "-o", tmp_path / "out.npz")
    with np.load(tmp_path / "out.npz") as written:
        assert not {"ids", "id_columns"} & {*written}


def test_columns_are_chosen_by_options(rows, expected, tmp_path, capsys):
    logits, labels = rows
    quoted = [f'"{name}"' for name in NAMES]
    path = write_csv(
        tmp_path / "rows.csv", ["fold", *NAMES, "truth"], labels % 3, *logits.T, labels
    )
    chosen = ["--label-column", "truth", "--score-columns", ",".join(quoted)]
    assert answer(capsys, "evaluate", path, *chosen, "--id-column", "fold") == expected
    assert "no labels" in fails(capsys, "evaluate", path, *chosen[2:])
    assert "are for .csv and .parquet" in fails(capsys, "evaluate", tmp_path / "rows.npz", *chosen)
    plot = ["plot", path, *chosen, "-o", tmp_path / "d.svg", "--input", "logits"]
    assert answer(capsys, *plot)["n"] == 120


def test_files_and_options_in_any_order(rows, expected, tmp_path, capsys):
    x, y, out = (tmp_path / name for name in ("x.npy", "y.npy", "c.json"))
    np.save(x, rows[0])
    np.save(y, rows[1])
    for words in (
        ["fit", x, y, "-o", out],
        ["fit", x, "-o", out, y],
        ["fit", "-o", out, x, y],
        ["fit", y, x, "-o", out],
        ["fit", y, "--method", "smart", "-o", out, x],
    ):
        out.unlink(missing_ok=True)
        assert answer(capsys, *words)["n"] == 120
        assert out.is_file()
    assert answer(capsys, "evaluate", y, x) == expected
    assert "unrecognized arguments: " in fails(capsys, "fit", x, "--seed", "1", y, "z")


def test_labels_of_an_npz_as_text(rows, expected, tmp_path, capsys):
    logits, labels = rows
    texts = np.array(NAMES)[labels]
    np.savez(tmp_path / "t.npz", logits=logits, labels=texts, class_names=np.array(NAMES))
    assert answer(capsys, "evaluate", tmp_path / "t.npz") == expected
    np.savez(tmp_path / "t.npz", logits=logits, labels=texts)
    assert "no class names are given" in fails(capsys, "evaluate", tmp_path / "t.npz")


def test_a_lone_score_is_fitted_and_applied(tmp_path, capsys):
    rng = np.random.default_rng(7)
    z = rng.normal(0, 3, 400)
    labels = (rng.random(400) < 1 / (1 + np.exp(-z / 2))).astype(int)
    p = 1 / (1 + np.exp(-z))
    np.savez(tmp_path / "two.npz", probabilities=np.stack([1 - p, p], axis=1), labels=labels)
    path = write_csv(tmp_path / "one.csv", ["id", "score", "label"], range(400), p, labels)
    expected = answer(capsys, "evaluate", tmp_path / "two.npz")
    got = answer(capsys, "evaluate", path)
    assert got["uncalibrated"]["nll"] == pytest.approx(expected["uncalibrated"]["nll"], abs=1e-6)
    named = np.where(labels, "yes", "no")
    path = write_csv(tmp_path / "named.csv", ["prob_yes", "label"], p, named)
    answer(capsys, "fit", path, "-o", tmp_path / "c.json")
    assert loads_calibrator((tmp_path / "c.json").read_bytes()).class_names == ("no", "yes")
    bare = write_csv(tmp_path / "bare.csv", ["id", "prob_yes"], range(400), p)
    answer(capsys, "apply", tmp_path / "c.json", bare, "-o", tmp_path / "out.csv")
    lines = (tmp_path / "out.csv").read_text("utf-8").splitlines()
    assert lines[0].startswith("id,prob_no,prob_yes,")
    yes = np.array([float(line.split(",")[2]) for line in lines[1:]])
    assert (np.diff(yes[np.argsort(p)]) >= 0).all()  # the order of the scores, not its reverse
    both = write_csv(tmp_path / "no.csv", ["prob_no"], 1 - p)
    answer(capsys, "apply", tmp_path / "c.json", both, "-o", tmp_path / "out.npy")
    assert np.load(tmp_path / "out.npy")[:, 1] == pytest.approx(yes, abs=1e-5)
    assert "the classes must be no, yes" in fails(
        capsys, "apply", tmp_path / "c.json", write_csv(tmp_path / "x.csv", ["prob_x"], p),
        "-o", tmp_path / "out.npy",
    )  # fmt: skip
