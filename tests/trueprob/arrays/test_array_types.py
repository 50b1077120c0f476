"""Arrays and tables of other packages: the right numbers, or the call that converts them."""

import subprocess
import sys
from collections import deque
from decimal import Decimal
from fractions import Fraction

import ml_dtypes
import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pytest
import scipy.sparse
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays

from trueprob import (
    CalibrationSet,
    InvalidInput,
    as_labels,
    as_logits,
    bootstrap_interval,
    estimate_class_prior,
    fit,
    logits_from_log_probabilities,
    logits_from_probabilities,
    score,
)
from trueprob.arrays.array_types import plain_array
from trueprob.arrays.weights_and_groups import as_groups, as_weights

ROWS = [[1.0, -2.0, 0.5], [0.25, 0.0, -1.0]]  # exact in bfloat16
NAMES = ["ant", "cow", "dog"]


class OnlyArray:
    """What has `__array__`, as JAX and many others."""

    def __init__(self, values):
        self.values = np.asarray(values)

    def __array__(self, dtype=None, copy=None):
        return self.values if dtype is None else self.values.astype(dtype)


class OnlyDlpack:
    """An array of the array API, without `__array__`, on a device that copies to the CPU."""

    def __init__(self, values):
        self.values = np.asarray(values)

    def __dlpack__(self, **options):
        options.pop("dl_device", None)
        return self.values.__dlpack__(**options)

    def __dlpack_device__(self):
        return self.values.__dlpack_device__()


class OnGpu:
    """As CuPy: NumPy may not copy it by itself."""

    def __array__(self, dtype=None, copy=None):
        raise TypeError("Implicit conversion to a NumPy array is not allowed.")

    def __dlpack__(self, **options):
        raise BufferError("CUDA array cannot be exported to the CPU")

    def __dlpack_device__(self):
        return (2, 0)

    def get(self):
        raise NotImplementedError


class OnOtherDevice:
    """As a tensor on a device, which `detach().cpu()` brings here."""

    def __init__(self, tensor):
        self.tensor = tensor

    def __array__(self, dtype=None, copy=None):
        raise TypeError("can't convert cuda:0 device type tensor to numpy")

    def detach(self):
        return self

    def cpu(self):
        return self.tensor


def padded(rows):
    """A view of every second row and column."""
    wide = np.full((2 * len(rows), 2 * len(rows[0])), 9.0, dtype=np.float32)
    wide[::2, ::2] = rows
    return wide[::2, ::2]


def read_only(rows):
    array = np.array(rows, dtype=np.float32)
    array.flags.writeable = False
    return array


def of_numpy(rows):
    for dtype in ("f2", "f4", "f8", "g", ">f4", ">f8", ml_dtypes.bfloat16, ml_dtypes.float8_e5m2):
        yield np.dtype(dtype).name, np.array(rows).astype(dtype)
    yield "objects", np.array(rows, dtype=object)
    yield "scalars", np.array([[np.float32(x) for x in row] for row in rows], dtype=object)
    yield "decimals", [[Decimal(x) for x in row] for row in rows]
    yield "fractions", [[Fraction(x) for x in row] for row in rows]
    yield "rows as objects", pd.Series([np.array(row) for row in rows]).to_numpy()
    yield "Fortran", np.asfortranarray(np.array(rows, dtype=np.float32))
    yield "read-only", read_only(rows)
    yield "strided", padded(rows)
    yield "matrix", np.array(rows).view(np.matrix)
    yield "no masks", np.ma.masked_array(rows)
    yield "lists", rows
    yield "tuples", tuple(map(tuple, rows))
    yield "arrays in a list", [np.array(row) for row in rows]
    yield "deque", deque(rows)
    yield "memoryview", memoryview(np.array(rows))
    yield "sparse", scipy.sparse.csr_array(np.array(rows))


def of_frames(rows):
    frame = pd.DataFrame(rows, columns=NAMES)
    yield "pandas", frame
    yield "pandas, nullable", frame.astype("Float64")
    yield "pandas, Arrow", frame.astype("float64[pyarrow]")
    yield "pandas, float16", frame.astype(np.float16)
    yield "pandas, column of lists", pd.Series(rows)
    yield "pandas, integers as names", pd.DataFrame(rows)
    yield "pandas, other index", frame.set_index(pd.Index([7, 3]))
    table = pl.DataFrame(dict(zip(NAMES, zip(*rows, strict=True), strict=True)))
    yield "polars", table
    yield "polars, float32", table.cast(pl.Float32)
    yield "polars, lists", pl.Series(rows)
    yield "polars, arrays", pl.Series(rows, dtype=pl.Array(pl.Float32, 3))
    yield "polars, decimals", table.cast(pl.Decimal(10, 3))
    yield "Arrow", table.to_arrow()
    yield "Arrow, batch", pa.RecordBatch.from_pandas(frame)
    yield "Arrow, lists", pa.array(rows)
    yield "Arrow, chunks", pa.chunked_array([pa.array(rows[:1]), pa.array(rows[1:])])
    flat = pa.array(np.array(rows, dtype=np.float32).ravel())
    yield "Arrow, fixed-size lists", pa.FixedSizeListArray.from_arrays(flat, 3)
    yield "Arrow, tensors", pa.FixedShapeTensorArray.from_numpy_ndarray(np.array(rows))


def of_torch(rows):
    plain = torch.tensor(rows)
    yield "torch", plain
    for dtype in (torch.float64, torch.float16, torch.bfloat16, torch.float8_e5m2):
        yield str(dtype), plain.to(dtype)
    yield "parameter", torch.nn.Parameter(plain.clone())
    yield "bfloat16 with gradients", plain.bfloat16().requires_grad_()
    yield "transposed", torch.tensor(np.array(rows).T.copy()).T
    yield "strided", torch.tensor(padded(rows).repeat(2, axis=1))[:, ::2]
    yield "expanded and cut", torch.cat([plain, plain])[:2]
    yield "torch, sparse", plain.to_sparse()
    yield "negative view", torch.complex(plain, -plain).conj().imag
    yield "rows in a list", [row.requires_grad_() for row in plain.clone()]
    yield "bfloat16 rows", list(plain.bfloat16())
    numbers = [[x.requires_grad_() for x in row] for row in plain.double()]
    yield "numbers in lists", numbers
    yield "on a device", OnOtherDevice(plain)


def of_protocols(rows):
    yield "__array__", OnlyArray(rows)
    yield "__array__, bfloat16", OnlyArray(np.array(rows).astype(ml_dtypes.bfloat16))
    yield "__dlpack__", OnlyDlpack(rows)


SOURCES = (of_numpy, of_frames, of_torch, of_protocols)
KINDS = {kind: values for source in SOURCES for kind, values in source(ROWS)}


@pytest.mark.parametrize("kind", KINDS)
def test_logits_are_the_same_from_every_kind_of_array(kind):
    logits = as_logits(KINDS[kind])
    assert logits.tolist() == ROWS
    assert (logits.dtype, logits.flags.c_contiguous, type(logits)) == (
        np.float32, True, np.ndarray,
    )  # fmt: skip


@pytest.mark.parametrize("dtype", "bBhHiIlLqQ")
def test_integers_of_every_width_are_numbers(dtype):
    values = np.array([[1, 2], [3, 0]], dtype=dtype)
    assert as_logits(values).tolist() == values.tolist()
    assert as_logits(torch.tensor(values.astype("i8"))).tolist() == values.tolist()
    assert as_weights(values[0], n_rows=2).tolist() == [1.0, 2.0]


@settings(deadline=None, max_examples=60)
@given(
    arrays(
        st.sampled_from(["f2", "f4", "f8", ">f4", "i1", "u2", "i4", "u8", "g"]),
        array_shapes(min_dims=2, max_dims=2, min_side=2, max_side=5),
        elements=st.integers(0, 100),
    ),
    st.sampled_from(["as it is", "objects", "transposed", "reversed", "zero stride", "masked"]),
)
def test_any_layout_of_any_type_has_the_numbers_that_a_loop_reads(values, layout):
    forms = {
        "as it is": values,
        "objects": values.astype(object),
        "transposed": np.asfortranarray(values.T),
        "reversed": values[::-1, ::-1],
        "zero stride": np.broadcast_to(values[:1], (3, values.shape[1])),
        "masked": np.ma.masked_array(values),
    }
    given_ = forms[layout]
    slow = [[float(given_[i, j]) for j in range(given_.shape[1])] for i in range(len(given_))]
    assert as_logits(given_).tolist() == slow


REFUSED = {
    "structured": (
        np.array([(1.0, 2.0)], dtype=[("a", float), ("b", float)]), "structured_to_unstructured"
    ),
    "record": (np.rec.array([(1.0, 2.0)], dtype=[("a", float), ("b", "i4")]), "fields a, b"),
    "masked": (np.ma.masked_array([[1.0, 2.0]], [[False, True]]), r"1 of 2: fill them with .fill"),
    "masked rows": ([np.ma.masked_array([1.0, 2.0], [False, True])], r"\.filled\(value\)"),
    "boolean": ([[True, False]], r"got bool: .*\.astype\(float\)"),
    "text": ([["1", "2"]], r"got <U1: .*\.astype\(float\)"),
    "text objects": (np.array([["1", 2.0]], dtype=object), "row 0, column 0 is text"),
    "StringDType": (np.array([["1", "2"]], dtype=np.dtypes.StringDType()), r"\.astype\(float\)"),
    "complex": (np.array([[1j, 2]]), r"\.real"),
    "dates": (np.array([["2024-01-01"] * 2], dtype="M8[D]"), "must be numbers, got datetime64"),
    "bytes": (np.zeros((2, 3), dtype="V4"), "must be numbers or texts"),
    "boolean objects": (np.array([[1.0, True]], dtype=object), "row 0, column 1 is boolean"),
    "None": ([[1.0, None]], "row 0, column 1 is missing: fill it or leave the row out"),
    "NA": (pd.DataFrame({"a": [1.0, None], "b": 0.0}, dtype="Float64"), "row 1, column a is miss"),
    "Arrow NA": (
        pd.DataFrame({"a": [0.5, 1.0], "b": [1.0, None]}, dtype="double[pyarrow]"), "column b is mi"
    ),
    "null in polars": (pl.DataFrame({"a": [1.0, None], "b": [0.0, 0.0]}), "finite .* row 1 is not"),
    "null in Arrow": (pa.table({"a": [1.0, None], "b": [0.0, 0.0]}), "finite .* row 1 is not"),
    "missing row": (pd.Series([[1.0, 2.0], None]), "row 1 is missing"),
    "ragged rows": (pd.Series([[1.0, 2.0], [1.0]]), "rows of equal length"),
    "ragged list": ([torch.ones(2), torch.ones(3)], "rows of equal length"),
    "huge integer": ([[10**400, 0]], "beyond the range of float64"),
    "column of text": (pd.DataFrame({"a": [1.0], "b": ["x"]}), "row 0, column b is text"),
    "column of text in polars": (pl.DataFrame({"a": ["x"], "b": [1.0]}), "column a is text"),
    "column of text in Arrow": (pa.table({"a": ["x"], "b": [1.0]}), "column a is text"),
    "an id": (pd.DataFrame({"id": [1], "a": [1.0], "b": [0.0]}), "id look like none: select"),
    "a saved index": (pd.DataFrame({"Unnamed: 0": [1], "a": [1.0]}), "Unnamed: 0 look like none"),
    "a label": (pl.DataFrame({"a": [1.0], "b": [0.0], "label": [1]}), "label look like none"),
    "lazy": (pl.LazyFrame({"a": [1.0]}), r"values.collect\(\)"),
    "generator": ((x for x in ROWS), r"got generator: give list\(values\)"),
    "map": (map(list, ROWS), r"got map: give list\(values\)"),
    "dict": ({"a": [1.0], "b": [2.0]}, "got dict: give a table, or numpy.column_stack"),
    "dict values": ({"a": [1.0]}.values(), r"give list\(values\)"),
    "set": ({1.0, 2.0}, "a set has no order"),
    "object": (object(), "got object, which NumPy cannot read: give an array"),
    "nothing": (None, "got NoneType"),
    "meta": (torch.ones(2, 2, device="meta"), r"device meta .* copied with \.cpu\(\)"),
    "complex tensor": (torch.ones(2, 2, dtype=torch.complex64), r"\.real"),
    "on a GPU": (OnGpu(), r"got OnGpu, which NumPy cannot read: copy it .* with \.get\(\)"),
}  # fmt: skip


@pytest.mark.parametrize("kind", REFUSED)
def test_what_is_no_array_of_numbers_is_refused_with_the_remedy(kind):
    values, message = REFUSED[kind]
    with pytest.raises(InvalidInput, match=message) as caught:
        as_logits(values)
    assert caught.value.field == "logits"
    assert str(caught.value).startswith("logits must ")


P = [[0.5, 0.25, 0.25], [0.125, 0.75, 0.125]]


@pytest.mark.parametrize(
    "values",
    [values for source in SOURCES for kind, values in source(P) if kind != "rows in a list"],
)
def test_probabilities_are_taken_from_every_kind_of_array(values):
    expected = np.log(np.array(P))
    assert logits_from_probabilities(values) == pytest.approx(expected, abs=1e-6)


@pytest.mark.parametrize("k", [3, 100, 1000])
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_softmax_in_half_precision_is_taken(k, dtype):
    logits = torch.tensor(np.random.default_rng(k).normal(size=(50, k)) * 3)
    p, log_p = logits.softmax(1).to(dtype), logits.log_softmax(1).to(dtype)
    exact = logits.log_softmax(1).numpy()
    assert logits_from_log_probabilities(log_p) == pytest.approx(exact, rel=4e-3, abs=0.01)
    if dtype == torch.bfloat16:
        sums = p.float().sum(1)
        assert float(abs(sums - 1).max()) > 1e-4  # what rounding did
        rounded = logits_from_probabilities(p)
        assert rounded == pytest.approx(exact, abs=0.01)
    with pytest.raises(InvalidInput, match="does not explain"):
        logits_from_probabilities(p.float() * 0.99)


# ----- Tables: what has names is matched by name -----

FRAMES = {
    "pandas": pd.DataFrame,
    "polars": pl.DataFrame,
    "Arrow": pa.table,
    "batch": pa.RecordBatch.from_pydict,
}


@pytest.fixture(scope="module")
def animals():
    rng = np.random.default_rng(0)
    logits = 3 * rng.normal(size=(300, 3)).astype(np.float32)
    labels = (logits + rng.gumbel(size=logits.shape)).argmax(axis=1)
    return logits, labels


@pytest.mark.parametrize("make", FRAMES.values(), ids=FRAMES)
def test_columns_are_matched_with_class_names(make, animals):
    logits, labels = animals
    expected = fit(logits, labels, "vector", class_names=NAMES).calibrator
    columns = {name: logits[:, i] for i, name in enumerate(NAMES)}
    swapped = make({name: columns[name] for name in ("dog", "ant", "cow")})
    beside = make({"id": list(range(300)), **columns, "label": np.array(NAMES)[labels]})
    prefixed = make({f"logit_{name}": columns[name] for name in ("cow", "dog", "ant")})
    for table in (swapped, beside, prefixed):
        assert fit(table, labels, "vector", class_names=NAMES).calibrator == expected
        assert np.array_equal(expected.predict_proba(table), expected.predict_proba(logits))
        assert np.array_equal(expected.prediction(table), expected.prediction(logits))
    p = {name: expected.predict_proba(logits)[:, i] for i, name in enumerate(NAMES)}
    arrays_ = {"probabilities": make({n: p[n] for n in reversed(NAMES)}), "labels": labels}
    by_name = CalibrationSet.from_arrays(arrays_, class_names=NAMES)
    assert np.array_equal(by_name.logits.argmax(axis=1), expected.prediction(logits))
    for names in (("ant", "cow", "emu"), ("ant", "x", "y")):
        other = make(dict(zip(names, columns.values(), strict=True)))
        with pytest.raises(InvalidInput, match="each of the classes ant, cow, dog, got ant"):
            expected.predict_proba(other)
    unrelated = make(dict(zip("xyz", columns.values(), strict=True)))
    assert np.array_equal(expected.predict_proba(unrelated), expected.predict_proba(logits))


@pytest.mark.parametrize("make", FRAMES.values(), ids=FRAMES)
def test_columns_name_the_classes_if_nothing_else_does(make, animals):
    logits, labels = animals
    table = make({name: logits[:, i] for i, name in enumerate(NAMES)})
    texts = np.array(NAMES)[labels]
    found = fit(table, texts).calibrator
    assert found == fit(logits, labels, class_names=NAMES).calibrator
    counted = make({f"logit_{i}": logits[:, i] for i in (2, 0, 1)})  # in the order of the numbers
    assert fit(counted, labels).calibrator == fit(logits, labels).calibrator
    with pytest.raises(InvalidInput, match="no class names are given"):
        fit(make({f"column_{i}": logits[:, i] for i in range(3)}), texts)


def test_integers_as_names_of_columns_are_their_order(animals):
    logits, labels = animals
    frame = pd.DataFrame(logits)
    calibrator = fit(frame[[2, 0, 1]], labels).calibrator
    assert calibrator == fit(logits, labels).calibrator
    assert calibrator.class_names is None
    shuffled = frame.iloc[:, [1, 2, 0]]
    assert np.array_equal(calibrator.predict_proba(shuffled), calibrator.predict_proba(logits))


def test_rows_of_pandas_are_not_put_beside_labels_in_another_order(animals):
    logits, labels = animals
    frame = pd.DataFrame(logits, index=np.arange(300) + 5)
    y = pd.Series(labels, index=frame.index)
    assert fit(frame, y).calibrator == fit(logits, labels).calibrator
    with pytest.raises(InvalidInput, match=r"use labels.loc\[scores.index\]"):
        fit(frame, y.sample(frac=1, random_state=0))
    order = np.random.default_rng(1).permutation(300)
    moved = y.iloc[order]
    assert fit(frame.loc[moved.index], moved).report.before == fit(frame, y).report.before
    counted = pd.DataFrame(logits[order])  # a new index says nothing about the rows
    assert fit(counted, moved).calibrator == fit(logits[order], labels[order]).calibrator


# ----- Labels -----

INDICES = [0, 2, 1, 2]
TEXTS = ["ant", "dog", "cow", "dog"]


def label_kinds():
    for dtype in ("b", "B", "h", "i", "q", "Q", ">i4", "e", "f", "d", "g", "O"):
        yield np.array(INDICES, dtype=dtype)
    yield np.array(INDICES, dtype=np.int64)[:, None]
    yield np.ma.masked_array(INDICES)
    yield [np.int64(0), 2, np.float32(1), "dog"]
    yield np.array([np.int8(i) for i in INDICES], dtype=object)
    yield [Decimal(i) for i in INDICES]
    yield [*range(1), 2.0, Decimal(1), "dog"]
    yield [torch.tensor(i) for i in INDICES]
    yield torch.tensor(INDICES)
    yield torch.tensor(INDICES, dtype=torch.bfloat16)
    yield torch.tensor(INDICES, dtype=torch.float32, requires_grad=True)
    yield torch.nn.functional.one_hot(torch.tensor(INDICES), 3)
    yield scipy.sparse.csr_array(np.eye(3)[INDICES])
    for dtype in ("int64", "Int64", "Int8", "Float64", "int64[pyarrow]", "category", "object"):
        yield pd.Series(INDICES).astype(dtype)
    yield pd.DataFrame({"label": INDICES})
    yield pd.Index(INDICES)
    yield pl.Series(INDICES)
    yield pl.Series(INDICES, dtype=pl.UInt8)
    yield pl.DataFrame({"label": INDICES})
    yield pa.array(INDICES)
    yield pa.array(INDICES, pa.float16())
    yield pa.chunked_array([INDICES[:2], INDICES[2:]])
    yield OnlyArray(INDICES)
    yield OnlyDlpack(INDICES)


def text_kinds():
    yield TEXTS
    yield np.array(TEXTS)
    yield np.array(TEXTS, dtype=object)
    yield np.array(TEXTS, dtype="S")
    yield np.array(TEXTS, dtype=np.dtypes.StringDType())
    yield [text.encode() for text in TEXTS]
    yield np.array(TEXTS)[:, None]
    yield list(np.array(TEXTS))
    for dtype in ("str", "object", "string", "category", "string[pyarrow]"):
        yield pd.Series(TEXTS).astype(dtype)
    yield pd.Categorical(TEXTS, categories=["dog", "ant", "cow", "emu"])  # by value, not by code
    yield pl.Series(TEXTS)
    yield pl.Series(TEXTS, dtype=pl.Categorical)
    yield pl.Series(TEXTS, dtype=pl.Enum(["dog", "cow", "ant"]))
    yield pa.array(TEXTS)
    yield pa.array(TEXTS).dictionary_encode()
    yield pa.chunked_array(
        [pa.array(TEXTS[:2]).dictionary_encode(), pa.array(TEXTS[2:]).dictionary_encode()]
    )
    yield pa.array(TEXTS, pa.large_string())


@pytest.mark.parametrize("values", [*label_kinds(), *text_kinds()], ids=lambda v: type(v).__name__)
def test_labels_are_the_same_from_every_kind_of_array(values):
    labels = as_labels(values, n_classes=3, n_rows=4, class_names=NAMES)
    assert labels.tolist() == INDICES
    assert (labels.dtype, type(labels)) == (np.int64, np.ndarray)


@pytest.mark.parametrize("values", list(text_kinds()), ids=lambda v: type(v).__name__)
def test_texts_need_class_names(values):
    with pytest.raises(InvalidInput, match="no class names are given"):
        as_labels(values, n_classes=3)


def test_one_hot_columns_are_matched_by_name():
    dummies = pd.get_dummies(pd.Series(TEXTS))
    for one_hot in (
        dummies[["dog", "ant", "cow"]], dummies.astype(float), pl.from_pandas(dummies),
        pa.table(dummies[["cow", "dog", "ant"]]), dummies.to_numpy(),
    ):  # fmt: skip
        assert as_labels(one_hot, n_classes=3, class_names=NAMES).tolist() == INDICES
    four = [*NAMES, "emu"]  # no row of which is there
    assert as_labels(dummies, n_classes=4, class_names=four).tolist() == INDICES
    with pytest.raises(InvalidInput, match=r"one-hot, a single 1 .* row 0 is not"):
        as_labels(dummies * 0, n_classes=3, class_names=NAMES)


@pytest.mark.parametrize(
    "values",
    [
        [True, False], np.array([True, False]), pd.Series([True, False]),
        pd.Series([True, False], dtype="boolean"), pd.Series([True, False], dtype="bool[pyarrow]"),
        pl.Series([True, False]), pa.array([True, False]), torch.tensor([True, False]),
    ],
    ids=lambda v: type(v).__name__,
)  # fmt: skip
def test_booleans_are_the_labels_of_two_classes(values):
    assert as_labels(values, n_classes=2, class_names=["no", "yes"]).tolist() == [1, 0]
    with pytest.raises(InvalidInput, match="labels must be integers"):
        as_labels(values, n_classes=3)


MISSING = [
    [1, None], [1.0, float("nan")], np.array([1.0, np.nan]), pd.Series([1, None], dtype="Int64"),
    pd.Series([1, None], dtype="int64[pyarrow]"), pd.Series([True, None], dtype="boolean"),
    pd.Series(["1", None]), pd.Series(["1", None], dtype="object"), ["1", pd.NA],
    pd.Series(["1", None]).astype("category"), pd.Series([1, None]).astype("category"),
    pl.Series([1, None]), pl.Series(["1", None]), pl.Series([True, None]), pa.array([1, None]),
    pa.array(["1", None]), pa.array([True, None]), torch.tensor([1.0, torch.nan]),
    [Decimal(1), Decimal("NaN")],
]  # fmt: skip


@pytest.mark.parametrize("values", MISSING, ids=lambda v: type(v).__name__)
def test_missing_labels_are_named_and_left_out_only_when_asked(values):
    with pytest.raises(InvalidInput, match="row 1 is missing: fill it or leave the row out"):
        as_labels(values, n_classes=2)
    arrays_ = {"logits": [[0.0, 1.0], [2.0, 0.0]], "labels": values}
    with pytest.raises(InvalidInput, match="row 1 is missing"):
        CalibrationSet.from_arrays(arrays_, ignore_label=-100)
    kept = CalibrationSet.from_arrays(arrays_, ignore_label=float("nan"))
    assert (kept.n, kept.labels.tolist()) == (1, [1])


@pytest.mark.parametrize(
    "values",
    [
        [1, -100], [1.0, -100.0], np.array([1, -100]), torch.tensor([1, -100]),
        pl.Series([1, -100]),
        pd.Series([1, -100], dtype="Int64"), pd.Series([1, -100]).astype("category"),
        pa.array([1, -100]), [[1], [-100]], OnlyArray([1, -100]), torch.tensor([1.0, -100.0]),
    ],
    ids=lambda v: type(v).__name__,
)  # fmt: skip
def test_no_label_is_said_by_a_number_only_when_asked(values):
    arrays_ = {"logits": [[0.0, 1.0], [2.0, 0.0]], "labels": values}
    with pytest.raises(InvalidInput, match="must lie in 0 … 1, row 1 does not"):
        CalibrationSet.from_arrays(arrays_)
    kept = CalibrationSet.from_arrays(arrays_, ignore_label=-100)
    assert (kept.n, kept.labels.tolist()) == (1, [1])


REFUSED_LABELS = {
    "dates": (np.array(["2024-01-01"], dtype="M8[D]"), "got datetime64"),
    "complex": (np.array([1j]), "got complex128"),
    "structured": (np.array([(1,)], dtype=[("a", int)]), "structured_to_unstructured"),
    "masked": (np.ma.masked_array([1, 0], [True, False]), "1 of 2"),
    "booleans": (np.array([True]), r"got bool: booleans are for two classes.*\.astype\(int\)"),
    "fractions": (pd.Series([0.5], dtype="Float64"), "row 0 is 0.5"),
    "meta": (torch.ones(2, device="meta"), r"\.cpu\(\)"),
    "bytes of no text": (np.array([b"\xff"]), "no class names are given"),
    "a generator": ((i for i in [1]), r"give list\(values\)"),
    "a dict": ({0: 1}, "got dict"),
    "nothing": (None, "got NoneType"),
}


@pytest.mark.parametrize("kind", REFUSED_LABELS)
def test_what_is_no_label_is_refused_with_the_remedy(kind):
    values, message = REFUSED_LABELS[kind]
    with pytest.raises(InvalidInput, match=message):
        as_labels(values, n_classes=3)


def test_floats_that_cannot_tell_the_classes_apart_are_refused():
    few, many = torch.arange(256), torch.arange(300)
    assert as_labels(few.bfloat16(), n_classes=256).tolist() == few.tolist()
    assert as_labels(many.half(), n_classes=300).tolist() == many.tolist()
    for labels in (many.bfloat16(), many.numpy().astype(ml_dtypes.bfloat16)):
        with pytest.raises(InvalidInput, match="bfloat16 does not tell 300 classes apart"):
            as_labels(labels, n_classes=300)
    with pytest.raises(InvalidInput, match="float16 does not tell 3000 classes apart"):
        as_labels(np.float16([1.0]), n_classes=3000)


# ----- Weights, groups and scores -----


@pytest.mark.parametrize(
    "values",
    [
        [1, 0.5], np.float16([1, 0.5]), pd.Series([1, 0.5], dtype="Float64"), pl.Series([1.0, 0.5]),
        pa.array([1.0, 0.5]), torch.tensor([1, 0.5], requires_grad=True),
        pd.DataFrame({"w": [1, 0.5]}),
        torch.tensor([1, 0.5]).bfloat16(), np.array([1, 0.5], dtype=object), OnlyArray([1, 0.5]),
    ],
    ids=lambda v: type(v).__name__,
)  # fmt: skip
def test_weights_are_taken_from_every_kind_of_array(values):
    assert as_weights(values, n_rows=2).tolist() == [1.0, 0.5]


def test_weights_may_say_which_rows_count():
    assert as_weights(np.array([True, False]), n_rows=2).tolist() == [1.0, 0.0]
    for values, message in (
        (np.array([1.0, None]), "row 1 is missing"),
        (pd.Series([1, None], dtype="Float64"), "weights must be finite"),
        (pl.Series([1.0, None]), "weights must be finite"),
        (["1", "2"], "weights must be numbers"),
        ([[1.0], [1.0, 2.0]], "equal length"),
    ):
        with pytest.raises(InvalidInput, match=message):
            as_weights(values, n_rows=2)


@pytest.mark.parametrize(
    "values",
    [
        [7, 3], torch.tensor([7, 3]), pd.Series([7, 3], dtype="Int64"), pl.Series([7, 3]),
        pa.array([7, 3]), np.array([7, 3], dtype=object), pd.Series([7, 3]).astype("category"),
    ],
    ids=lambda v: type(v).__name__,
)  # fmt: skip
def test_groups_are_taken_from_every_kind_of_array(values):
    assert as_groups(values, n_rows=2).tolist() == [7, 3]
    texts = [str(value) for value in np.asarray(values)]
    for column in (pd.Series(texts), pl.Series(texts), pa.array(texts), np.array(texts, dtype="S")):
        assert as_groups(column, n_rows=2).tolist() == ["7", "3"]
    with pytest.raises(InvalidInput, match="groups must be integers or strings"):
        as_groups(pd.Series(["a", None]), n_rows=2)


def test_scores_take_what_fits_take():
    p, labels = np.array(P, dtype=np.float32), [0, 1]
    expected = score(p, labels)
    for given_ in (
        torch.tensor(p).requires_grad_(),
        pd.DataFrame(P, columns=NAMES),
        pl.DataFrame(P, orient="row"),
        pa.table(pd.DataFrame(P, columns=NAMES)),
    ):
        assert score(given_, torch.tensor(labels)) == expected
        difference = bootstrap_interval("nll", given_, labels, other=given_)
        assert (difference.low, difference.high) == (0.0, 0.0)
        prior = estimate_class_prior(given_, [0.4, 0.3, 0.3]).target
        assert prior == pytest.approx(estimate_class_prior(p, [0.4, 0.3, 0.3]).target, abs=1e-6)
    nullable = pd.DataFrame(P, columns=NAMES).astype("Float64")
    assert score(nullable, pd.Series(labels, dtype="Int64")) == expected


def test_no_package_is_imported_for_what_is_not_its_own():
    program = (
        "import sys, numpy as np, trueprob\n"
        "z = [[0.0, 1.0], [2.0, 0.0]] * 8\n"
        "trueprob.fit(z, [1, 0] * 8, 'temperature').calibrator.predict_proba(np.array(z))\n"
        "trueprob.as_labels(['1', '0'], n_classes=2)\n"
        "names = 'pandas', 'polars', 'pyarrow', 'torch', 'jax', 'ml_dtypes', 'sklearn'\n"
        "sys.exit(', '.join(name for name in names if name in sys.modules) or 0)"
    )
    found = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert (found.returncode, found.stderr) == (0, "")


def test_arrays_of_numpy_are_not_copied():
    values = read_only(ROWS)
    assert plain_array(values) is values
    assert as_logits(values) is values
