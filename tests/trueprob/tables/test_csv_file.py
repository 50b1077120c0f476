"""Tables as people have them are understood, or refused with what to do."""

import math

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pyarrow import parquet

from trueprob.errors import InvalidInput
from trueprob.tables import ColumnChoice, read_csv, read_parquet


@pytest.fixture
def read(tmp_path):
    def call(text, **choice):
        path = tmp_path / "rows.csv"
        path.write_text(text, "utf-8")
        return read_csv(path, name="rows.csv", choice=ColumnChoice(**choice))

    return call


def values(rows):
    return rows.arrays["values"].tolist()


@pytest.mark.parametrize(
    ("text", "notes"),
    [
        ("a,b,label\n0.5,-1.25,a\n1,2,b\n", []),
        ("a;b;label\n0.5;-1.25;a\n1;2;b\n", ["semicolons"]),
        ("a\tb\tlabel\n0.5\t-1.25\ta\n1\t2\tb\n", ["tabs"]),
        ("a;b;label\n0,5;-1,25;a\n1;2;b\n", ["semicolons", "decimal commas"]),
        ("a\tb\tlabel\r\n0,5\t-1,25\ta\r\n1\t2\tb\r\n", ["tabs", "decimal commas"]),
        ('a,b,label\n"0,5","-1,25",a\n1,2,b\n', ["decimal commas"]),
        ("sep=;\na;b;label\n0,5;-1,25;a\n1;2;b\n", ["semicolons", "decimal commas"]),
        ("\ufeffa;b;label\n\n0.5;-1.25;a\n1;2;b\n", ["semicolons"]),
    ],
)
def test_separators_and_decimal_commas_are_found_and_said(read, text, notes):
    rows = read(text)
    assert values(rows) == [[0.5, -1.25], [1, 2]]
    assert rows.arrays["labels"] == ["a", "b"]
    assert rows.class_names == ("a", "b")
    assert len(rows.notes) == len(notes)
    assert all(what in note for what, note in zip(notes, rows.notes, strict=True))


def test_another_separator_within_a_name_is_part_of_it(read):
    rows = read("a;x,b;y,label\n1,2,0\n")
    assert rows.class_names == ("a;x", "b;y")
    assert rows.notes == ()
    assert read("a,x;b,y;label\n1;2;0\n").class_names == ("a,x", "b,y")
    # Texts in the rows have it as often as the header, and only one of them leaves numbers.
    rows = read('c,c;"c;d";label\n0.5;1.5;c,c\n')
    assert rows.class_names == ("c,c", "c;d")
    assert values(rows) == [[0.5, 1.5]]
    rows = read('c;c,"c,d",label\n0.5,1.5,c;c\n')
    assert rows.class_names == ("c;c", "c,d")
    assert values(rows) == [[0.5, 1.5]]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a,b,label\n1,2,0\n1_000,2,0\n", "column 'a', row 1 has something else: '1_000'"),
        ("a,b,label\n1,٣,0\n1,2,0\n", "column 'b', row 0"),
        ('a,b,label\n"1,234","5,678",0\n', "could be decimal commas or separate thousands"),
        ("a;b;label\n1.234,5;2;0\n", "decimals have commas in other cells"),
        ("a;b;label\n0,5;0.5;0\n", "column 'b', row 0 has something else: '0.5'"),
        ("a,b,label\n1,,0\n2,3,0\n", "column 'b', row 0"),
        ("a,b,label\n1,,0\n2,,0\n", "column 'b', row 0"),
        ("a,b,y_true\n.1,.9,1\n", "give --label-column y_true"),
        (",Unnamed: 0,a,b\n0,0,1,2\n1,1,3,4\n", None),
        ("id,id,a,b,label\n1,2,.1,.2,0\n", "two columns 'id' that are ids"),
    ],
)
def test_what_is_no_number_or_not_clear_is_refused(read, text, message):
    if message is None:
        assert [*read(text).ids] == ["", "Unnamed: 0"]
        return
    with pytest.raises(InvalidInput) as raised:
        read(text)
    assert message in str(raised.value)


@pytest.mark.parametrize("first", ["", "Unnamed: 0", "id", "ID", "sample_id", "index"])
@pytest.mark.parametrize("numbers", [["7", "3", "5"], ["007", "008", "009"]])
def test_an_index_is_carried_and_no_class(read, first, numbers):
    lines = [f"{number},{row}.5,2.5,b" for row, number in enumerate(numbers)]
    rows = read("\n".join([f"{first},a,b,label", *lines]))
    assert rows.class_names == ("a", "b")
    assert values(rows) == [[0.5, 2.5], [1.5, 2.5], [2.5, 2.5]]
    assert rows.ids == {first: numbers}
    assert "taken as an id, not as a class" in rows.notes[0]


def test_ids_are_known_by_their_cells_too(read):
    text = "file,n,a,b,label\n" + "".join(f"{i}.png,{i + 5},{i}.5,1.5,a\n" for i in range(3))
    rows = read(text)
    assert rows.class_names == ("a", "b")
    assert rows.ids == {"file": ["0.png", "1.png", "2.png"], "n": ["5", "6", "7"]}
    shuffled = "".join(f"{7 * i % 23},{i % 3}.5,1.5\n" for i in range(23))
    assert [*read("customer,a,b\n" + shuffled).ids] == ["customer"]
    # with a prefix the other columns need no name, and numbers among them stay ignored
    rows = read("code,age,logit_a,logit_b,class\nx7,31.5,1,2,a\ny8,44.5,2,1,b\n")
    assert rows.ids == {"code": ["x7", "y8"]}
    assert rows.arrays["logits"].tolist() == [[1, 2], [2, 1]]


def test_scores_that_look_like_ids_stay_classes(read):
    # `id` is also a language, and a reference class has the logit 0
    rows = read("en,id,label\n0.5,1.25,id\n2.5,0.75,en\n")
    assert rows.class_names == ("en", "id")
    text = "a,b,zero\n" + "".join(f"{i}.5,{i % 4}.25,0\n" for i in range(25))
    rows = read(text)
    assert rows.class_names == ("a", "b", "zero")
    assert "whole numbers only (1 values in 25 rows)" in rows.notes[0]
    assert read("a,b,label\n3,5,0\n1,4,1\n").class_names == ("a", "b")


def test_columns_can_be_chosen(read):
    text = "key,b,a,fold,y\n1,2.5,1.5,0,b\n5,0.5,3.5,1,a\n"
    rows = read(text, label="y", scores=("a", "b"), ids=("key",))
    assert rows.class_names == ("a", "b")
    assert values(rows) == [[1.5, 2.5], [3.5, 0.5]]
    assert rows.arrays["labels"] == ["b", "a"]
    assert rows.ids == {"key": ["1", "5"]}
    assert rows.notes == ()
    for chosen, message in [
        ({"label": "z"}, "label_column must be one column of rows.csv, which has key, b, a"),
        ({"scores": ("a", "q")}, "score_columns must be one column"),
        ({"ids": ("q",)}, "id_column must be one column"),
        ({"label": "y", "ids": ("y",)}, "y is chosen for two"),
        ({"label": "y", "scores": ("y", "a")}, "y is chosen for two"),
    ]:
        with pytest.raises(InvalidInput, match=message):
            read(text, **chosen)
    rows = read("prob_b,prob_a,prob_c\n.2,.3,.5\n", scores=("prob_a", "prob_b", "prob_c"))
    assert rows.class_names == ("a", "b", "c")
    assert rows.arrays["probabilities"].tolist() == [[0.3, 0.2, 0.5]]


@pytest.mark.parametrize(
    ("header", "cells", "labels", "kind", "expected", "names"),
    [
        ("score", [0.8, 0.1], ["1", "0"], "probabilities", [[0.2, 0.8], [0.9, 0.1]], ("0", "1")),
        ("p", [0.8, 0.1], ["1.0", "0.0"], "probabilities", [[0.2, 0.8], [0.9, 0.1]], ("0", "1")),
        ("y_prob", [0.5, 1], ["True", "False"], "probabilities", [[0.5, 0.5], [0, 1]], ("0", "1")),
        ("prob_1", [0.8, 0.1], ["1", "0"], "probabilities", [[0.2, 0.8], [0.9, 0.1]], ("0", "1")),
        ("prob_0", [0.8, 0.1], ["1", "0"], "probabilities", [[0.8, 0.2], [0.1, 0.9]], ("0", "1")),
        ("prob_yes", [0.75, 0], ["no", "yes"], "probabilities", [[0.25, 0.75], [1, 0]],
         ("no", "yes")),
        ("logit_1", [1.5, -2], ["1", "0"], "logits", [[0, 1.5], [0, -2]], ("0", "1")),
        ("logit", [1.5, -2], ["1", "0"], "logits", [[0, 1.5], [0, -2]], ("0", "1")),
        ("logprob_1", [math.log(0.25)], ["0"], "log_probabilities",
         [[math.log(0.75), math.log(0.25)]], ("0", "1")),
        ("prob_yes", [0.75, 0.5], ["0", "1"], "probabilities", [[0.25, 0.75], [0.5, 0.5]], None),
    ],
)  # fmt: skip
@pytest.mark.parametrize("suffix", [".csv", ".parquet"])
def test_a_lone_score_is_of_two_classes(
    tmp_path, suffix, header, cells, labels, kind, expected, names
):
    path = tmp_path / f"rows{suffix}"
    if suffix == ".csv":
        lines = [f"{cell!r},{label}" for cell, label in zip(cells, labels, strict=True)]
        path.write_text("\n".join([f"{header},label", *lines]), "utf-8")
        rows = read_csv(path)
    else:
        parquet.write_table(pa.table({header: [*map(float, cells)], "label": labels}), path)
        rows = read_parquet(path)
    assert [*rows.arrays] == [kind, "labels"]
    assert rows.arrays[kind] == pytest.approx(np.array(expected), abs=1e-15)
    assert rows.class_names == names
    wanted = [{"True": "1", "False": "0"}.get(label, label.removesuffix(".0")) for label in labels]
    assert [*map(str, rows.arrays["labels"])] == wanted
    assert "is the only one of scores and is read as" in rows.notes[-1]


def test_a_lone_score_follows_the_order_of_the_model(read):
    rows = read("prob_yes\n0.75\n", class_names=("yes", "no"))
    assert rows.class_names == ("yes", "no")
    assert rows.arrays["probabilities"].tolist() == [[0.75, 0.25]]
    with pytest.raises(InvalidInput, match="the classes must be cat, dog"):
        read("prob_yes\n0.75\n", class_names=("cat", "dog"))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("score,label\n0.5,1\n-3.5,0\n", "from -3.5 to 0.5, which are no probabilities"),
        ("prob_1,label\n0.5,1\n1.5,0\n", "row 1 has another number"),
        ("prob_yes,label\n0.5,a\n0.5,b\n", "one of them 'yes'"),
        ("a,b,label\n1,3,a\n2,2,b\n3,0,b\n", "taken as ids: a .--score-columns says"),
        ("a,label\n0.5,1\n", "is named prob_CLASS, logit_CLASS, p or score"),
    ],
)
def test_a_score_that_is_not_clear_is_refused(read, text, message):
    with pytest.raises(InvalidInput, match=message):
        read(text)


def test_what_a_lone_score_is_can_be_said(read):
    text = "score,label\n0.5,1\n-3.5,0\n"
    assert read(text, numbers="logits").arrays["logits"].tolist() == [[0, 0.5], [0, -3.5]]
    rows = read("a,label\n0.25,1\n", numbers="probabilities", scores=("a",))
    assert rows.arrays["probabilities"].tolist() == [[0.75, 0.25]]


NUMBERS = st.floats(-1e6, 1e6).map(lambda x: x + 0.123 if x == round(x) else x)
NAMES = st.text(st.sampled_from("ab é;,\t'\"xyz"), min_size=1, max_size=6).map(lambda s: f"c{s}c")
ID_TEXTS = st.text(st.sampled_from("ab é;,\t'\"_-"), min_size=1, max_size=6).map(lambda s: f"k{s}k")


@st.composite
def tables(draw):
    """The arrays of a table, and the ways in which it is written."""
    prefix = draw(st.sampled_from(["", "logit_", "prob_"]))
    names = draw(
        st.one_of(
            st.lists(NAMES, min_size=2, max_size=5, unique=True),
            st.integers(2, 12).map(lambda k: [str(i) for i in range(k)]),
        )
    )
    k, n = len(names), draw(st.integers(1, 6))
    numbers = draw(st.lists(st.lists(NUMBERS, min_size=k, max_size=k), min_size=n, max_size=n))
    if prefix == "prob_":
        numbers = [[abs(x) / sum(map(abs, row)) for x in row] for row in numbers]
    indices = draw(st.lists(st.integers(0, k - 1), min_size=n, max_size=n))
    id_name = draw(st.sampled_from([None, "", "Unnamed: 0", "id", "index", "sample_id", "key"]))
    texts = st.lists(ID_TEXTS, min_size=n, max_size=n)
    start = draw(st.integers(0, 100))
    ids = [str(start + 3 * row) for row in range(n)]
    if id_name == "key" or (id_name not in (None, "index") and draw(st.booleans())):
        ids = draw(texts)
    columns = (
        [("class", i) for i in range(k)] + [("label", 0)] + [("id", 0)] * (id_name is not None)
    )
    return {
        "prefix": prefix,
        "names": names,
        "numbers": numbers,
        "indices": indices,
        "by_index": draw(st.booleans()),
        "id_name": id_name,
        "ids": ids,
        "columns": draw(st.permutations(columns)),
        "separator": draw(st.sampled_from(",;\t")),
        "point": draw(st.sampled_from(".,")),
        "quote_all": draw(st.booleans()),
        "mark": draw(st.sampled_from(["", "\ufeff"])),
        "end": draw(st.sampled_from(["\n", "\r\n"])),
        "blank": draw(st.lists(st.integers(0, n + 1), max_size=3)),
        "last_end": draw(st.booleans()),
    }


def write_slowly(table):
    """The text of a table, a cell at a time."""

    def cell(text):
        special = any(c in text for c in (table["separator"], '"', "\n", "\r"))
        if table["quote_all"] or special:
            return '"' + text.replace('"', '""') + '"'
        return text

    def value(kind, index, row):
        if row is None:
            name = {"label": "label", "id": table["id_name"]}
            return name.get(kind, table["prefix"] + table["names"][index])
        if kind == "class":
            return repr(table["numbers"][row][index]).replace(".", table["point"])
        if kind == "id":
            return table["ids"][row]
        label = table["indices"][row]
        return str(label) if table["by_index"] else table["names"][label]

    lines = []
    for row in [None, *range(len(table["numbers"]))]:
        cells = [cell(value(kind, index, row)) for kind, index in table["columns"]]
        lines.append(table["separator"].join(cells))
    for position in table["blank"]:
        lines.insert(position, "")
    return table["mark"] + table["end"].join(lines) + table["end"] * table["last_end"]


@given(tables())
def test_any_table_is_read_as_the_arrays_that_it_was_written_from(tmp_path_factory, table):
    path = tmp_path_factory.getbasetemp() / "any.csv"
    path.write_bytes(write_slowly(table).encode())
    got = read_csv(path)
    names = table["names"]
    order = [index for kind, index in table["columns"] if kind == "class"]
    if names[0] == "0":
        order.sort()  # names that count are in numerical order
    kind = {"": "values", "logit_": "logits", "prob_": "probabilities"}[table["prefix"]]
    assert got.class_names == tuple(names[i] for i in order)
    assert got.arrays[kind].tolist() == [[row[i] for i in order] for row in table["numbers"]]
    labels = [str(i) if table["by_index"] else names[i] for i in table["indices"]]
    assert [*map(str, got.arrays["labels"])] == labels
    assert got.ids == ({} if table["id_name"] is None else {table["id_name"]: table["ids"]})


def test_a_parquet_has_ids_of_any_type(tmp_path):
    path = tmp_path / "rows.parquet"
    columns = {"__index_level_0__": [4, 2], "when": ["x", None], "ok": [True, False]}
    parquet.write_table(pa.table(columns | {"a": [0.5, 1.5], "b": [1.5, 2.5]}), path)
    rows = read_parquet(path)
    assert rows.class_names == ("a", "b")
    assert rows.ids == columns
    parquet.write_table(pa.table(columns | {"logits": [[0.5, 1.0], [2.0, 3.0]]}), path)
    rows = read_parquet(path)
    assert rows.ids == columns
    assert rows.arrays["logits"].tolist() == [[0.5, 1.0], [2.0, 3.0]]
