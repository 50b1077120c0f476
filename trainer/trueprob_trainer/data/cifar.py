"""Reads CIFAR-10 and CIFAR-100 as their authors distribute them, unpacked or as ``.tar.gz``.

The "binary" version has one or two label bytes and 3 072 bytes of planes per row. The "python"
version has pickled dictionaries. A pickle can run any code, so the unpickler here accepts only
arrays and plain values. CIFAR-100 is read with its fine labels.
"""

import io
import pickle
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from trueprob_trainer.data.stored import StoredRows
from trueprob_trainer.errors import BadInput

PIXELS = 3 * 32 * 32
TRAIN = {10: [f"data_batch_{i}" for i in range(1, 6)], 100: ["train"]}
TEST = {10: "test_batch", 100: "test"}
NAMES = {10: ("batches.meta", "label_names"), 100: ("meta", "fine_label_names")}
TEXT_NAMES = {10: "batches.meta.txt", 100: "fine_label_names.txt"}
ALLOWED = {  # what pickled arrays refer to, by the names in old and new versions of NumPy
    ("numpy.core.multiarray", "_reconstruct"): np.empty(0).__reduce__()[0],
    ("numpy._core.multiarray", "_reconstruct"): np.empty(0).__reduce__()[0],
    ("numpy", "ndarray"): np.ndarray,
    ("numpy", "dtype"): np.dtype,
    ("_codecs", "encode"): lambda text, encoding: text.encode(encoding),  # bytes in protocol 2
}

Files = Callable[[str], bytes | None]


def read_cifar10(path: Path, *, image_size: int = 0) -> StoredRows:
    """Read CIFAR-10; see :func:`read_cifar`."""
    return read_cifar(path, 10, image_size=image_size)


def read_cifar100(path: Path, *, image_size: int = 0) -> StoredRows:
    """Read CIFAR-100; see :func:`read_cifar`."""
    return read_cifar(path, 100, image_size=image_size)


def read_cifar(path: Path, n_classes: int, *, image_size: int = 0) -> StoredRows:
    """Read an original archive or folder, with its test set."""
    if image_size not in (0, 32):
        raise BadInput(f"image_size must be 0 or 32 for CIFAR, got {image_size}")
    file = _reader(path)
    batches = [_batch(file, name, n_classes, path.name) for name in TRAIN[n_classes]]
    n_train = sum(len(labels) for _, labels in batches)
    batches.append(_batch(file, TEST[n_classes], n_classes, path.name))
    planes = np.concatenate([data for data, _ in batches])
    images = planes.reshape(-1, 3, 32, 32).transpose(0, 2, 3, 1)
    labels = np.concatenate([labels for _, labels in batches])
    return StoredRows(
        path,
        np.ascontiguousarray(images),
        labels,
        _class_names(file, n_classes, path.name),
        np.arange(len(labels)) >= n_train,
    )


def _reader(path: Path) -> Files:
    if path.is_dir():
        found = {file.name: file for file in sorted(path.rglob("*")) if file.is_file()}
        return lambda name: found[name].read_bytes() if name in found else None
    try:
        with tarfile.open(path) as archive:
            contents = {
                Path(member.name).name: file.read()
                for member in archive
                if (file := archive.extractfile(member)) is not None
            }
    except (OSError, tarfile.TarError, EOFError) as problem:
        raise BadInput(f"{path.name} must be a folder or an archive of CIFAR") from problem
    return contents.get


def _batch(
    file: Files, name: str, n_classes: int, source: str
) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
    binary = file(name + ".bin")
    if binary is not None:
        n_labels = 1 if n_classes == 10 else 2  # coarse, fine
        if not binary or len(binary) % (n_labels + PIXELS):
            raise BadInput(f"{source}: {name}.bin must hold whole rows only")
        rows = np.frombuffer(binary, dtype=np.uint8).reshape(-1, n_labels + PIXELS)
        return rows[:, n_labels:], rows[:, n_labels - 1].astype(np.int64)
    document = _unpickled(file, name, source)
    data = document.get(b"data")
    labels = document.get(b"labels" if n_classes == 10 else b"fine_labels")
    if not isinstance(data, np.ndarray) or data.dtype != np.uint8 or data.shape[1:] != (PIXELS,):
        raise BadInput(f"{source}: {name} must hold data of shape (n, {PIXELS}), uint8")
    if not isinstance(labels, list) or len(labels) != len(data):
        raise BadInput(f"{source}: {name} must hold a label for each of its {len(data)} rows")
    return data, np.array(labels, dtype=np.int64)


def _class_names(file: Files, n_classes: int, source: str) -> tuple[str, ...]:
    text = file(TEXT_NAMES[n_classes])
    if text is not None:
        return tuple(text.decode().split())
    name, key = NAMES[n_classes]
    names = _unpickled(file, name, source).get(key.encode(), [])
    return tuple(each.decode() if isinstance(each, bytes) else str(each) for each in names)


class _ArraysOnly(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        if (module, name) not in ALLOWED:
            raise pickle.UnpicklingError(f"{module}.{name} is not allowed")
        return ALLOWED[module, name]


def _unpickled(file: Files, name: str, source: str) -> dict[bytes, Any]:
    content = file(name)
    if content is None:
        raise BadInput(f"{source} must hold {name} or {name}.bin")
    try:
        document = _ArraysOnly(io.BytesIO(content), encoding="bytes").load()
    except (pickle.UnpicklingError, EOFError, ValueError, TypeError, IndexError) as problem:
        raise BadInput(f"{source}: {name} is not a batch of CIFAR") from problem
    if not isinstance(document, dict):
        raise BadInput(f"{source}: {name} must hold a dictionary, got {type(document).__name__}")
    return {k.encode() if isinstance(k, str) else k: v for k, v in document.items()}
