"""Reads Parquet files with a column of encoded pictures and one of labels.

Pictures are in ``image`` or ``img``: binary, or a structure with ``bytes`` as Hugging Face writes
it. Labels are in ``label``, ``fine_label`` or ``labels``: integers or names. A folder is one data
set; files whose names begin with ``test`` are its test set. Class names come from the metadata of
Hugging Face, if present.
"""

import json
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from trueprob_trainer.data.decoding import decode
from trueprob_trainer.data.stored import StoredRows
from trueprob_trainer.errors import BadInput

IMAGES, LABELS = ("image", "img"), ("label", "fine_label", "labels")


def read_parquet(path: Path, *, image_size: int = 0) -> StoredRows:
    """Read a Parquet file, or a folder of them."""
    try:
        import pyarrow as pa
        import pyarrow.parquet as pq
    except ImportError as problem:
        raise BadInput("Parquet needs pyarrow: install the extra cli") from problem
    files = sorted(path.rglob("*.parquet")) if path.is_dir() else [path]
    encoded: list[NDArray[np.uint8]] = []
    labels: list[Any] = []
    is_test: list[bool] = []
    class_names: tuple[str, ...] = ()
    for file in files:
        try:
            table = pq.read_table(file)
        except (OSError, pa.ArrowException) as problem:
            raise BadInput(f"{file.name} cannot be read as Parquet") from problem
        image, label = (_column(file.name, table.column_names, n) for n in (IMAGES, LABELS))
        for value in table[image].to_pylist():
            content = value.get("bytes") if isinstance(value, dict) else value
            if not isinstance(content, bytes):
                raise BadInput(f"{file.name}: {image} must hold the bytes of a picture in each row")
            encoded.append(np.frombuffer(content, dtype=np.uint8))
        labels += table[label].to_pylist()
        is_test += [file.name.startswith("test")] * len(table)
        class_names = class_names or _names(table.schema.metadata or {}, label)
    indices, class_names = _indices(path.name, labels, class_names)
    images = decode(encoded, source=path.name, image_size=image_size)
    given_test = np.array(is_test) if any(is_test) else None
    return StoredRows(path, images, indices, class_names, given_test, encoded)


def _column(file: str, columns: list[str], names: tuple[str, ...]) -> str:
    for name in names:
        if name in columns:
            return name
    raise BadInput(f"{file} must have a column {' or '.join(names)}, it has {', '.join(columns)}")


def _names(metadata: dict[bytes, bytes], label: str) -> tuple[str, ...]:
    try:
        document = json.loads(metadata.get(b"huggingface", b"{}"))
        return tuple(document["info"]["features"][label]["names"])
    except (ValueError, KeyError, TypeError):
        return ()  # optional metadata


def _indices(
    source: str, labels: list[Any], class_names: tuple[str, ...]
) -> tuple[NDArray[np.int64], tuple[str, ...]]:
    if all(isinstance(label, int) for label in labels):
        names = class_names or tuple(map(str, range(max(labels, default=-1) + 1)))
        return np.array(labels, dtype=np.int64), names
    if not all(isinstance(label, str) for label in labels):
        raise BadInput(f"{source}: labels must be all integers or all names, none missing")
    names = class_names or tuple(sorted(set(labels)))
    if set(labels) - set(names):
        raise BadInput(f"{source}: a label is none of the {len(names)} class names")
    places = {name: index for index, name in enumerate(names)}
    return np.array([places[label] for label in labels], dtype=np.int64), names
