"""What other packages call an array, as a NumPy array: pandas, polars, PyArrow, torch and others.

`plain_array` turns an object into an `ndarray` of an ordinary type, `number_array` into one of
numbers. What cannot be converted without a guess is an error that names the call to make. An
object is known by what it can do (`detach`, `toarray`, `__array__`, `__dlpack__`), so no package is
imported here: whoever has the object has its package.

A table has names. If they are those of the classes, `class_columns` puts the columns in the order
of the classes; others are columns in their order.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence, Set
from decimal import Decimal
from fractions import Fraction
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from trueprob.arrays.class_names import shown
from trueprob.errors import InvalidInput

__all__ = [
    "class_columns",
    "column_names",
    "names_of_columns",
    "number_array",
    "plain_array",
    "relative_error",
    "require_same_rows",
]

NO_CLASS: Final = re.compile(
    r"unnamed: \d+|index|id|labels?|weights?|groups?|__index_level_\d+__", re.IGNORECASE
)
COUNTED: Final = re.compile(r"column_\d+|[0-9]+")  # as polars and pandas count columns
PREFIX: Final = re.compile(r"(?:logit|prob|logprob)_(?=.)")  # as in tables of the command line
# What NumPy or a package raises for an object that it cannot convert.
FAILURES: Final = (AttributeError, BufferError, NotImplementedError, OverflowError, RuntimeError,
                   TypeError, ValueError)  # fmt: skip
# Type of array → half the distance of 1 from the next number: the rounding error of a number.
ROUNDING: Final = {"bfloat16": 2.0**-8, "float16": 2.0**-11, "float32": 2.0**-24}


def plain_array(values: Any, name: str = "values") -> NDArray[Any]:
    """An array-like as an `ndarray`: numbers, booleans, texts, dates, or objects.

    Objects are plain Python values, None for a missing one; rows of sequences become a matrix.
    Raises InvalidInput that names the call which converts the values.
    """
    array = values if isinstance(values, np.ndarray) else _from_others(values, name)
    if isinstance(array, np.ma.MaskedArray):
        array = _unmasked(array, name)
    array = np.asarray(array)  # no subclass
    if array.dtype.names is not None:
        raise InvalidInput(
            f"{name} must have one type for all columns, got a structured array with the fields "
            f"{shown(array.dtype.names)}: convert it with "
            "numpy.lib.recfunctions.structured_to_unstructured",
            field=name,
        )
    if array.dtype.kind in "Vf" and array.dtype.type.__module__ != "numpy":
        return array.astype(np.float32)  # bfloat16 and others of ml_dtypes, which float32 holds
    if array.dtype.kind == "V":
        raise InvalidInput(f"{name} must be numbers or texts, got {array.dtype}", field=name)
    return _of_objects(array, name) if array.dtype.kind == "O" else array


def number_array(values: Any, name: str) -> NDArray[Any]:
    """`plain_array` of integers or floats; InvalidInput for anything else."""
    array = plain_array(values, name)
    kind = array.dtype.kind
    if kind in "iuf":
        return array
    got = f"{name} must be numbers, got {array.dtype}"
    remedy = {
        "b": "if True stands for 1, convert with .astype(float)",
        "U": "if the texts are numbers, convert with .astype(float)",
        "c": "take the real part with .real",
    }
    if kind == "O":
        for place, value in enumerate(array.reshape(-1).tolist()):
            if type(value) not in (int, float):
                where = _place(place, array.shape, column_names(values))
                what = "missing" if value is None else _kind_of(value)
                fill = ": fill it or leave the row out" if value is None else ""
                raise InvalidInput(f"{got}: {where} is {what}{fill}", field=name)
        try:
            return array.astype(np.float64)
        except OverflowError:
            raise InvalidInput(f"{got}: one is beyond the range of float64", field=name) from None
    advice = remedy.get("U" if kind in "ST" else kind)
    raise InvalidInput(got + (f": {advice}" if advice else ""), field=name)


def relative_error(values: Any) -> float:
    """Largest relative rounding error of numbers of the type in which they were given.

    0 for float64 and types without rounding. The name of the type is the same in all packages.
    """
    kind = getattr(values, "dtype", None)
    text = "" if kind is None else str(kind).rpartition(".")[2].strip("<>' ")
    return ROUNDING.get({"half": "float16"}.get(text, text), 0.0)


# ----- Tables -----


def column_names(values: Any) -> tuple[str, ...] | None:
    """The names of a table's columns, integers as texts; None for other objects and other names."""
    if isinstance(values, np.ndarray | Sequence | Mapping) or _is_lazy(values):
        return None
    names = getattr(values, "column_names", None)  # PyArrow, whose `columns` are arrays
    names = getattr(values, "columns", None) if names is None else names
    try:
        listed = tuple(names)  # type: ignore[arg-type]
    except TypeError:  # None, or a method
        return None
    if not listed or not all(isinstance(text, str | int | np.integer) for text in listed):
        return None
    texts = tuple(map(str, listed))
    return texts if len(set(texts)) == len(texts) else None


def names_of_columns(values: Any) -> tuple[str, ...] | None:
    """The classes that the columns of a table are named by, without `logit_`, `prob_`, `logprob_`.

    None if there are none, or if they are numbers, which could be taken for indices.
    """
    names = column_names(values) or ()
    if names and all(map(PREFIX.match, names)):
        names = tuple(PREFIX.sub("", text, count=1) for text in names)
    usable = len(names) > 1 and all(text and "\0" not in text for text in names)
    return names if usable and not any(map(COUNTED.fullmatch, names)) else None


def class_columns(values: Any, class_names: Sequence[str] | None, name: str) -> Any:
    """A table with its columns in the order of the classes; other objects as they are.

    A table that names all classes is matched by name: its other columns (an id, the label) are left
    out. One that names some of them is an error. One that names none has its classes in order: that
    of the numbers if the names are 0 to k − 1.
    """
    names = column_names(values)
    if names is None:
        return values
    bare = tuple(PREFIX.sub("", text, count=1) for text in names)
    given = bare if class_names is not None and set(bare) & set(class_names) else names
    if class_names is not None and (both := set(given) & set(class_names)):
        if both == set(class_names) and len(set(given)) == len(given):
            return _columns(values, [given.index(text) for text in class_names])
        if len(both) < len(class_names) and not all(map(COUNTED.fullmatch, bare)):
            raise InvalidInput(
                f"{name} must have a column for each of the classes {shown(class_names)}, got "
                f"{shown(given)}",
                field=name,
            )
    indices = [str(index) for index in range(len(names))]
    if set(bare) == set(indices):
        return _columns(values, [bare.index(text) for text in indices])
    strays = [text for text in names if NO_CLASS.fullmatch(text)]
    if strays and len(names) > 1:
        raise InvalidInput(
            f"{name} must be a column for each class, and {shown(strays)} look like none: select "
            "the columns of the classes, or name them with class_names=",
            field=name,
        )
    return values


def require_same_rows(values: Any, labels: Any) -> None:
    """Raise InvalidInput if two pandas objects have the same index in different orders.

    An index that only counts the rows says nothing about them.
    """
    first, second = _index(values), _index(labels)
    if first is None or second is None or len(first) != len(second) or first.equals(second):
        return
    if first.sort_values().equals(second.sort_values()):
        raise InvalidInput(
            "labels must be in the order of the scores, and have the same index in another order: "
            "use labels.loc[scores.index], or reset both indices if the rows do belong together",
            field="labels",
        )


def _index(values: Any) -> Any:
    if type(values).__module__.partition(".")[0] != "pandas":
        return None
    index = getattr(values, "index", None)
    return None if index is None or type(index).__name__ == "RangeIndex" else index


def _columns(values: Any, places: list[int]) -> Any:
    names = column_names(values) or ()
    if places == list(range(len(names))):
        return values
    if hasattr(values, "iloc"):
        return values.iloc[:, places]
    return values.select([names[place] for place in places])


# ----- Objects of other packages -----


def _is_lazy(values: Any) -> bool:
    """Whether values are a query that has not run, as polars' LazyFrame."""
    return type(values).__name__ == "LazyFrame"


def _from_others(values: Any, name: str) -> NDArray[Any]:
    if isinstance(values, list | tuple):
        return _from_list(values, name)
    if hasattr(values, "detach") and hasattr(values, "cpu"):
        return _from_torch(values, name)
    kind = type(values).__name__
    advice = None
    if isinstance(values, Mapping):
        advice = "give a table, or numpy.column_stack(list(values.values()))"
    elif isinstance(values, Set | Iterator) or kind in ("dict_values", "dict_items"):
        advice = "a set has no order" if isinstance(values, Set) else "give list(values)"
    elif _is_lazy(values):
        advice = "give values.collect()"
    if advice is not None:
        raise InvalidInput(f"{name} must be an array, got {kind}: {advice}", field=name)
    if callable(getattr(values, "toarray", None)):  # sparse
        return plain_array(values.toarray(), name)
    try:
        array = np.asarray(values)
    except FAILURES:
        array = None
    if array is not None and not (array.dtype.kind == "O" and array.ndim == 0):
        return array
    return _by_dlpack(values, name)


def _by_dlpack(values: Any, name: str) -> NDArray[Any]:
    """An object that NumPy cannot read by itself, copied from its device if the package does so."""
    for options in ({"device": "cpu"}, {}):
        if hasattr(values, "__dlpack__"):
            try:
                return np.from_dlpack(values, **options)  # type: ignore[arg-type]
            except FAILURES:
                continue
    advice = "give an array, a table, or a list of rows"
    if hasattr(values, "get") and not isinstance(values, Mapping):
        advice = "copy it from its device with .get()"
    elif hasattr(values, "cpu"):
        advice = "copy it from its device with .cpu()"
    elif hasattr(values, "__dlpack__") or hasattr(values, "__array_namespace__"):
        advice = "copy it from its device to the CPU"
    elif hasattr(values, "__arrow_c_stream__"):
        advice = "convert it with pyarrow.table"
    elif hasattr(values, "__arrow_c_array__"):
        advice = "convert it with pyarrow.array"
    elif hasattr(values, "numpy"):
        advice = "convert it with .numpy()"
    elif hasattr(values, "to_numpy"):
        advice = "convert it with .to_numpy()"
    raise InvalidInput(
        f"{name} must be an array, got {type(values).__name__}, which NumPy cannot read: {advice}",
        field=name,
    )


def _from_torch(tensor: Any, name: str) -> NDArray[Any]:
    """A tensor on any device, with gradients, sparse, quantised, bfloat16 or of eight bits."""
    try:
        plain = tensor.detach().cpu()
        if getattr(plain, "is_quantized", False):
            plain = plain.dequantize()
        if "strided" not in str(getattr(plain, "layout", "strided")):
            plain = plain.to_dense()
        if hasattr(plain, "resolve_neg"):
            plain = plain.resolve_conj().resolve_neg()
        # float32 holds each of their numbers.
        if re.search(r"bfloat16|float[48]_", str(plain.dtype)):
            plain = plain.float()
        return np.asarray(plain)
    except FAILURES:
        device = getattr(tensor, "device", "unknown")
        raise InvalidInput(
            f"{name} must be an array, got a {type(tensor).__name__} on the device {device} that "
            "has no values NumPy can read: give a dense tensor, copied with .cpu()",
            field=name,
        ) from None


def _from_list(values: Sequence[Any], name: str) -> NDArray[Any]:
    """A list; one of arrays (a tensor for each row or batch element) is converted one by one."""
    plain = (int, float, str, bytes, list, tuple, np.generic, Decimal, Fraction, type(None))
    others = [value for value in values[:1] if not isinstance(value, plain)]
    if others and not isinstance(others[0], Mapping):
        values = [
            value if isinstance(value, plain) or _is_missing(value) else plain_array(value, name)
            for value in values
        ]
    try:
        return np.asarray(values)
    except FAILURES:
        rows = all(isinstance(value, list | tuple) for value in values)
        if rows and len(set(map(len, values))) == 1:
            return np.asarray([_from_list(value, name) for value in values])
        raise InvalidInput(
            f"{name} must be rows of equal length, got ragged rows", field=name
        ) from None


def _unmasked(array: np.ma.MaskedArray[Any, Any], name: str) -> NDArray[Any]:
    masked = np.count_nonzero(np.ma.getmaskarray(array))
    if masked:
        raise InvalidInput(
            f"{name} must have no masked entries, got {masked} of {array.size}: fill them with "
            ".filled(value), or leave those rows out",
            field=name,
        )
    return np.asarray(array.data)


# ----- Arrays of objects -----


def _of_objects(array: NDArray[Any], name: str) -> NDArray[Any]:
    """The objects as Python values, None for missing ones; rows of sequences as a matrix."""
    flat = array.reshape(-1)
    if array.ndim == 1 and array.size and _is_row(flat[0]):
        return _stacked(flat, name)
    values = np.empty(array.size, dtype=object)
    values[:] = [_python_value(value) for value in flat]
    return values.reshape(array.shape)


def _is_row(value: Any) -> bool:
    if isinstance(value, str | bytes):
        return False
    return isinstance(value, Sequence) or (hasattr(value, "__array__") and np.ndim(value) > 0)


def _stacked(rows: NDArray[Any], name: str) -> NDArray[Any]:
    """Rows that are arrays, as in a column of lists."""
    for row, value in enumerate(rows):
        if _is_missing(value):
            raise InvalidInput(f"{name} must be rows of numbers, row {row} is missing", field=name)
    matrix = [plain_array(row, name) for row in rows]
    if len({row.shape for row in matrix}) != 1:
        raise InvalidInput(f"{name} must be rows of equal length, got ragged rows", field=name)
    return plain_array(np.stack(matrix), name)


def _python_value(value: Any) -> Any:
    """A number, text or boolean as Python has it; None if it is missing."""
    if value is None or type(value) in (int, str, bool):
        return value
    if _is_missing(value):
        return None
    if isinstance(value, Decimal | Fraction):
        number = float(value)
        return int(value) if number.is_integer() and value == int(value) else number
    if isinstance(value, str | np.floating):  # long double has no Python value of its own
        return str(value) if isinstance(value, str) else float(value)
    if not isinstance(value, float | bytes) and callable(getattr(value, "item", None)):
        return value.item() if getattr(value, "ndim", 1) == 0 else value
    return value


def _is_missing(value: Any) -> bool:
    if isinstance(value, float | np.floating):
        return False  # NaN is a number, which a later check names
    if isinstance(value, Decimal):
        return value.is_nan()
    return value is None or type(value).__name__ in ("NAType", "NaTType")


def _kind_of(value: Any) -> str:
    return {str: "text", bytes: "text", bool: "boolean"}.get(type(value), type(value).__name__)


def _place(position: int, shape: tuple[int, ...], names: Sequence[str] | None) -> str:
    """Where an entry is, by row and column."""
    if len(shape) < 2:
        return f"row {position}"
    row, column = divmod(position, int(np.prod(shape[1:])))
    if names is not None and len(names) == shape[1]:
        return f"row {row}, column {shown([names[column]])}"
    return f"row {row}, column {column}"
