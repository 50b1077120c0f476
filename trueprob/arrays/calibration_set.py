"""A calibration set: held-out logits with their labels, checked, with content digests.

The digests cover the numbers, not the file. The same numbers have the same digest on every
machine, whether they came as `.npz`, as JSON or as probabilities. The digest of a set also covers
class names that say more than the order of the classes; those of its rows do not.
"""

from __future__ import annotations

import difflib
import hashlib
import os
import zipfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import IO, Any, BinaryIO, Final

import numpy as np
from numpy.typing import ArrayLike, NDArray

from trueprob.arrays.array_types import names_of_columns, require_same_rows
from trueprob.arrays.class_names import as_class_names, class_order, say_more_than_order
from trueprob.arrays.files import read_arrays
from trueprob.arrays.labels import Labels, as_labels, mark_ignored
from trueprob.arrays.logit_functions import Logits
from trueprob.arrays.logits import (
    as_logits,
    logits_from_log_probabilities,
    logits_from_probabilities,
)
from trueprob.arrays.weights_and_groups import Groups, as_groups, as_weights
from trueprob.errors import InvalidInput

__all__ = [
    "PIECE_BYTES",
    "CalibrationSet",
    "content_digest",
    "load_calibration_set",
    "row_digests",
]

# Arrays are hashed and written in pieces of this size. One copy of 100 MB would hold the
# GIL for 0.1 s, and all other requests of a service would wait for it.
PIECE_BYTES: Final = 1 << 20

INPUTS: Final = {
    "logits": as_logits,
    "probabilities": logits_from_probabilities,
    "log_probabilities": logits_from_log_probabilities,
}
NAMES: Final = (*INPUTS, "labels", "weights", "groups", "class_names")


@dataclass(frozen=True, eq=False)
class CalibrationSet:
    """Labelled logits that the network was not trained on.

    Attributes
    ----------
    logits : ndarray of shape (n, k), float32
        Minus infinity masks a class.
    labels : ndarray of shape (n,), int64
        Never a masked class.
    weights : ndarray of shape (n,), float64, or None
        Non-negative, not all zero; only their ratios matter.
    groups : ndarray of shape (n,), int64 or str, or None
        Rows of one group (a patient, a video) are not independent: folds and resampling keep
        them together. Without groups, copies of a row are kept together.
    class_names : tuple of k strings, or None
        In the order of the columns; None if they are unknown.

    Raises
    ------
    InvalidInput
        On construction, naming the array.
    """

    logits: Logits
    labels: Labels
    weights: NDArray[np.float64] | None = None
    groups: Groups | None = None
    class_names: tuple[str, ...] | None = None

    def __post_init__(self) -> None:
        logits = as_logits(self.logits)
        n, k = logits.shape
        labels = as_labels(self.labels, n_classes=k, n_rows=n)
        if np.minimum.reduce(logits, axis=None) == -np.inf:
            _require_possible(logits, labels)
        object.__setattr__(self, "logits", logits)
        object.__setattr__(self, "labels", labels)
        if self.weights is not None:
            object.__setattr__(self, "weights", as_weights(self.weights, n_rows=n))
        if self.groups is not None:
            object.__setattr__(self, "groups", as_groups(self.groups, n_rows=n))
        if self.class_names is not None:
            names = as_class_names(self.class_names, n_classes=k)
            object.__setattr__(self, "class_names", names)

    @classmethod
    def from_arrays(
        cls,
        mapping: Mapping[str, ArrayLike],
        *,
        n_classes: int | None = None,
        class_names: Sequence[str] | None = None,
        ignore_label: float | str | None = None,
    ) -> CalibrationSet:
        """Build a set from named arrays, as in an `.npz` file.

        Parameters
        ----------
        mapping : mapping of str to array_like
            `labels` and exactly one of `logits`, `probabilities`, `log_probabilities`; optionally
            `weights`, `groups` and `class_names`.
        n_classes : int, optional
            The k that is required.
        class_names : sequence of str, optional
            The classes that are required, in this order. If the mapping names its classes, its
            columns and labels are put in this order; otherwise these are their names. Strings as
            labels need names from either side; the columns of a table have them too.
        ignore_label : float or str, optional
            What stands for "no label", such as −100, or NaN for missing values: rows with it are
            left out.

        Returns
        -------
        CalibrationSet

        Raises
        ------
        InvalidInput
            An array is missing, unknown or invalid, or the classes are not those required.
        """
        _require_known(mapping)
        given = [name for name in INPUTS if name in mapping]
        if len(given) != 1:
            got = " and ".join(given) if given else "none of them"
            raise InvalidInput(
                f"exactly one of {', '.join(INPUTS)} is needed, got {got}",
                field=given[-1] if given else "logits",
            )
        if "labels" not in mapping:
            raise InvalidInput("labels are missing", field="labels")
        values, names, labels = mapping[given[0]], class_names, mapping["labels"]
        if not isinstance(values, np.ndarray):
            require_same_rows(values, labels)
        ignored = None
        if ignore_label is not None:
            labels, ignored = mark_ignored(labels, ignore_label)
        if "class_names" in mapping:
            array = np.asarray(mapping["class_names"])
            names = as_class_names(array, n_classes=max(array.size, 2))
            if class_names is not None:
                class_order(names, class_names)  # before the width: it shows both lists
                labels = _in_names(labels, names, class_names)
        logits = INPUTS[given[0]](values, n_classes=n_classes, class_names=names)
        n, k = logits.shape
        if names is None and not isinstance(values, np.ndarray):
            names = names_of_columns(values)
        labels = as_labels(labels, n_classes=k, n_rows=n, class_names=names)
        weights = as_weights(mapping["weights"], n_rows=n) if "weights" in mapping else None
        groups = as_groups(mapping["groups"], n_rows=n) if "groups" in mapping else None
        if ignored is not None and ignored.any():
            if ignored.all():
                raise InvalidInput(
                    f"labels must not all be the ignore_label {ignore_label!r}", field="labels"
                )
            kept = ~ignored
            logits, labels = logits[kept], labels[kept]
            weights = None if weights is None else as_weights(weights[kept], n_rows=len(labels))
            groups = None if groups is None else groups[kept]
        found = cls(logits, labels, weights, groups, None if names is None else tuple(names))
        return found if class_names is None else found.in_order_of(class_names)

    def in_order_of(self, class_names: Sequence[str]) -> CalibrationSet:
        """The set with its classes in this order, matched by name; InvalidInput for other names.

        A set without names is taken to be in this order already.
        """
        names = as_class_names(class_names, n_classes=self.n_classes)
        if self.class_names is None or self.class_names == names:
            return replace(self, class_names=names)
        order = class_order(self.class_names, names)
        return replace(
            self,
            logits=self.logits[:, order],
            labels=np.argsort(order)[self.labels],
            class_names=names,
        )

    @property
    def n(self) -> int:
        """Number of rows."""
        return int(self.logits.shape[0])

    @property
    def n_classes(self) -> int:
        """Number of classes."""
        return int(self.logits.shape[1])

    @cached_property
    def digest(self) -> str:
        """Digest of all arrays: ``sha256:`` and 64 hex digits."""
        names = ("logits", "labels", "weights", "groups")
        arrays: dict[str, Any] = {name: getattr(self, name) for name in names}
        if say_more_than_order(self.class_names):
            arrays["class_names"] = np.array(self.class_names)
        return content_digest(arrays)

    @cached_property
    def row_digests(self) -> NDArray[np.uint8]:
        """Digest of each row's logits and label, shape (n, 16), uint8.

        Weights, groups and class names are left out: a row with another weight is the same row.
        """
        return row_digests(self.logits, self.labels)

    def subset(self, rows: NDArray[np.int64] | NDArray[np.bool_]) -> CalibrationSet:
        """The calibration set of some rows, given as indices or a mask of shape (n,)."""
        weights = None if self.weights is None else self.weights[rows]
        if weights is not None and not weights.any():
            weights = None  # if all weights are 0, the rows count equally
        return CalibrationSet(
            self.logits[rows],
            self.labels[rows],
            weights,
            None if self.groups is None else self.groups[rows],
            self.class_names,
        )

    def save(self, path_or_file: str | os.PathLike[str] | BinaryIO) -> None:
        """Write an `.npz` file that `load_calibration_set` reads."""
        names = None if self.class_names is None else np.array(self.class_names)
        optional = {"weights": self.weights, "groups": self.groups, "class_names": names}
        arrays: dict[str, NDArray[Any]] = {"logits": self.logits, "labels": self.labels}
        arrays |= {name: array for name, array in optional.items() if array is not None}
        with zipfile.ZipFile(path_or_file, "w", zipfile.ZIP_STORED, allowZip64=True) as archive:
            for name, array in arrays.items():
                with archive.open(zipfile.ZipInfo(f"{name}.npy"), "w", force_zip64=True) as member:
                    _write_npy(member, array)


def load_calibration_set(
    path: str | os.PathLike[str] | bytes | BinaryIO,
    *,
    n_classes: int | None = None,
    class_names: Sequence[str] | None = None,
    max_bytes: int | None = None,
) -> CalibrationSet:
    """Read a calibration set from an `.npz` file.

    Parameters
    ----------
    path : path, bytes or binary file
    n_classes, class_names
        As in `CalibrationSet.from_arrays`.
    max_bytes : int, optional
        As in `read_arrays`.

    Returns
    -------
    CalibrationSet

    Raises
    ------
    InvalidInput
        The file or an array in it cannot be used.
    """
    arrays = read_arrays(path, max_bytes=max_bytes)
    return CalibrationSet.from_arrays(arrays, n_classes=n_classes, class_names=class_names)


def content_digest(arrays: Mapping[str, NDArray[Any] | None]) -> str:
    """``sha256:…`` of named arrays in this order; None for an array that the set lacks."""
    state = hashlib.sha256(b"trueprob calibration set 1\n")
    for name, array in arrays.items():
        if array is None:
            continue
        if array.dtype.kind == "U":
            parts = [text.encode("utf-8", "surrogatepass") for text in array.tolist()]
            lengths = np.array([len(part) for part in parts], dtype="<i8")
            state.update(f"{name} text {len(parts)}\n".encode())
            state.update(lengths.tobytes())
            state.update(b"".join(parts))
            continue
        state.update(f"{name} {array.dtype.name} {array.shape}\n".encode())
        for piece in _canonical(array):
            state.update(piece)
    return f"sha256:{state.hexdigest()}"


def row_digests(logits: Logits, labels: Labels) -> NDArray[np.uint8]:
    """16-byte BLAKE2b digest of each row's logits and label, shape (n, 16)."""
    n, k = logits.shape
    label_bytes = np.ascontiguousarray(labels, "<i8").view(np.uint8).data
    digests, i = bytearray(16 * n), 0
    for piece in _canonical(logits):
        for start in range(0, len(piece), 4 * k):
            state = hashlib.blake2b(piece[start : start + 4 * k], digest_size=16)
            state.update(label_bytes[8 * i : 8 * (i + 1)])
            digests[16 * i : 16 * (i + 1)] = state.digest()
            i += 1
    result = np.frombuffer(digests, dtype=np.uint8).reshape(n, 16)
    result.flags.writeable = False
    return result


def _canonical(array: NDArray[np.generic]) -> Iterator[memoryview]:
    """The bytes of an array, little-endian, in pieces of whole rows."""
    step = max(1, PIECE_BYTES // max(1, array[:1].nbytes))
    for start in range(0, len(array), step):
        rows = array[start : start + step]
        if rows.dtype.kind == "f":
            rows = np.add(rows, 0.0)  # −0 and 0 are the same number
        rows = np.ascontiguousarray(rows, dtype=rows.dtype.newbyteorder("<"))
        yield rows.reshape(-1).view(np.uint8).data


def _require_possible(logits: Logits, labels: Labels) -> None:
    impossible = np.isneginf(logits[np.arange(labels.size), labels])
    if impossible.any():
        row = int(np.argmax(impossible))
        raise InvalidInput(
            f"labels must be classes that are not masked: those of {impossible.sum()} of "
            f"{labels.size} rows are, such as row {row} with the label {labels[row]}, whose logit "
            "is minus infinity: if the logits are logarithms of probabilities, give "
            "those as probabilities or log_probabilities, where a zero is no mask",
            field="labels",
        )


def _in_names(labels: Any, names: Sequence[str], wanted: Sequence[str]) -> Any:
    """Labels that are among the wanted names, but columns are named by index: as those indices."""
    if set(names) == set(wanted):
        return labels
    index = {text: str(position) for position, text in enumerate(wanted)}
    listed = labels.tolist() if isinstance(labels, np.ndarray) else list(labels)
    return [index.get(value, value) if isinstance(value, str) else value for value in listed]


def _require_known(mapping: Mapping[str, ArrayLike]) -> None:
    for name in mapping:
        if name in NAMES:
            continue
        if name == "images":
            raise InvalidInput(
                "images need a model that turns them into logits: send them to the service, "
                "or give logits",
                field=name,
            )
        nearest = difflib.get_close_matches(name, NAMES, n=1, cutoff=0.0)[0]
        raise InvalidInput(
            f"array {name[:40]!r} is unknown, expected {', '.join(NAMES)}; "
            f"the nearest is {nearest!r}",
            field=name,
        )


def _write_npy(member: IO[bytes], array: NDArray[Any]) -> None:
    """Write as `numpy.save` does, but in pieces; `numpy.save` holds the GIL for 16 MB at a time."""
    array = np.ascontiguousarray(array)
    header = np.lib.format.header_data_from_array_1_0(array)
    np.lib.format.write_array_header_1_0(member, header)
    data = array.reshape(-1).view(np.uint8).data
    for start in range(0, len(data), PIECE_BYTES):
        member.write(data[start : start + PIECE_BYTES])
