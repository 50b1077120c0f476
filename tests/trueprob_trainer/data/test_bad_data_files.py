"""Damaged or wrong files are refused in one sentence; pickles run no code."""

import pickle
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from trueprob_trainer.data import load
from trueprob_trainer.errors import BadInput

IMAGES = np.zeros((4, 8, 8, 3), dtype=np.uint8)
LABELS = np.array([0, 1, 0, 1])


@pytest.mark.parametrize(
    ("arrays", "sentence"),
    [
        ({"images": IMAGES}, "must hold an array labels, it has images"),
        ({"images": IMAGES / 255, "labels": LABELS}, "images must be an array of integers"),
        ({"images": IMAGES.astype(np.int32), "labels": LABELS}, "images must be uint8, got int32"),
        ({"images": IMAGES[..., :2], "labels": LABELS}, r"shape \(n, height, width, 1 or 3\)"),
        ({"images": IMAGES, "labels": LABELS[:3]}, r"labels must have shape \(4,\)"),
        ({"images": IMAGES, "labels": LABELS * 0}, "at least two classes, got 1"),
        ({"images": IMAGES, "labels": LABELS - 1}, "labels must be between 0 and|two classes"),
        (
            {"images": IMAGES, "labels": LABELS * 7, "class_names": np.array(["a", "b"])},
            "labels must be between 0 and 1, got 0 to 7",
        ),
        (
            {"jpeg": np.arange(9, dtype=np.uint8), "offsets": np.array([0, 5, 4, 9]),
             "labels": LABELS[:3]},
            "offsets must rise from 0 to 9",
        ),
        (
            {"jpeg": np.arange(9, dtype=np.uint8), "offsets": np.array([0, 5, 9]),
             "labels": LABELS[:2]},
            "image 0 cannot be decoded",
        ),
    ],
)  # fmt: skip
def test_wrong_arrays_are_refused(
    tmp_path: Path, arrays: dict[str, np.ndarray], sentence: str
) -> None:
    np.savez(tmp_path / "a.npz", **arrays)
    with pytest.raises(BadInput, match=sentence):
        load(f"npz:{tmp_path / 'a.npz'}")


def test_a_missing_or_damaged_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "half").write_bytes(b"PK\x03\x04 half a file")
    (tmp_path / "empty").mkdir()
    for name, sentence in (
        ("npz:{}/none", "does not exist"),
        ("npz:{}/half", "cannot be read as .npz"),
        ("parquet:{}/half", "cannot be read as Parquet"),
        ("cifar10:{}/half", "must be a folder or an archive of CIFAR"),
        ("cifar10:{}/empty", "must hold data_batch_1"),
        ("folder:{}/half", "must be a folder of folders"),
        ("folder:{}/empty", "there are no images"),
        ("idx:{}/empty", "must hold train-images-idx3-ubyte"),
        ("lmdb:{}/half", "KIND:PATH with a kind of npz, cifar10"),
    ):
        with pytest.raises(BadInput, match=sentence):
            load(name.format(tmp_path))


class Malicious:
    def __reduce__(self) -> tuple[object, tuple[str]]:
        return Path.touch, (Path("owned"),)  # type: ignore[return-value]


def test_a_pickle_that_would_run_code_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "c").mkdir()
    (tmp_path / "c" / "data_batch_1").write_bytes(pickle.dumps(Malicious()))
    with pytest.raises(BadInput, match="data_batch_1 is not a batch of CIFAR"):
        load(f"cifar10:{tmp_path / 'c'}")
    assert not (tmp_path / "owned").exists()


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        (b"\0\0\x0d\x01\0\0\0\x01\0", "must be an idx file of uint8"),
        (b"\0\0\x08\x01\0\0\0\x05\0", "must hold 5 values, has 1"),
    ],
)
def test_a_wrong_idx_file_is_refused(tmp_path: Path, content: bytes, sentence: str) -> None:
    for what in ("images-idx3", "labels-idx1"):
        (tmp_path / f"train-{what}-ubyte").write_bytes(content)
    with pytest.raises(BadInput, match=sentence):
        load(f"idx:{tmp_path}")


@pytest.mark.parametrize(
    ("table", "sentence"),
    [
        ({"picture": [b"x"], "label": [0]}, "must have a column image or img, it has picture"),
        ({"image": [None], "label": [0]}, "must hold the bytes of a picture"),
        ({"image": [b"x", b"x"], "label": ["a", None]}, "all integers or all names"),
    ],
)
def test_a_wrong_table_is_refused(
    tmp_path: Path, table: dict[str, list[object]], sentence: str
) -> None:
    pq.write_table(pa.table(table), tmp_path / "t.parquet")
    with pytest.raises(BadInput, match=sentence):
        load(f"parquet:{tmp_path / 't.parquet'}")


def test_shares_that_do_not_fit_the_data_are_refused(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    images, labels = rng.integers(0, 256, (8, 4, 4, 1), dtype=np.uint8), np.arange(8) % 2
    parts = {"train_images": images, "train_labels": labels}
    np.savez(tmp_path / "a.npz", **parts, test_images=images[:2], test_labels=labels[:2])
    name = f"npz:{tmp_path / 'a.npz'}"
    with pytest.raises(BadInput, match="has its own test set"):
        load(name, test_share=0.2)
    with pytest.raises(BadInput, match=r"test_share must be 0 for digits, got 0\.2"):
        load("digits", test_share=0.2)
    with pytest.raises(BadInput, match="must leave rows to train on"):
        load(name, calibration_share=1.0)
