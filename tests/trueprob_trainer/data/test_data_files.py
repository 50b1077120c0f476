"""Every kind of file gives the same rows and keeps its own test set."""

import gzip
import io
import json
import pickle
import tarfile
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from tests.trueprob.pictures.made_pictures import turned
from trueprob_trainer.data import READERS, LabelledImages, Split, load
from trueprob_trainer.data.decoding import decode
from trueprob_trainer.errors import BadInput

NAMES = ("cat", "dog", "eel")
RNG = np.random.default_rng(0)
TRAIN, TEST = (RNG.integers(0, 256, (n, 32, 32, 3), dtype=np.uint8) for n in (60, 12))
TRAIN_LABELS, TEST_LABELS = np.arange(60) % 3, np.arange(12) % 3


def png(image: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(image.squeeze()).save(buffer, "PNG")
    return buffer.getvalue()


def write_arrays(at: Path) -> str:
    parts = {"train_images": TRAIN, "train_labels": TRAIN_LABELS, "class_names": np.array(NAMES)}
    np.savez(at / "a.npz", **parts, test_images=TEST, test_labels=TEST_LABELS)
    return f"npz:{at / 'a.npz'}"


def write_encoded(at: Path) -> str:
    arrays = {"class_names": np.array(NAMES)}
    for part, images, labels in (("train", TRAIN, TRAIN_LABELS), ("test", TEST, TEST_LABELS)):
        files = [png(image) for image in images]
        arrays[f"{part}_jpeg"] = np.frombuffer(b"".join(files), dtype=np.uint8)
        arrays[f"{part}_offsets"] = np.cumsum([0, *map(len, files)])
        arrays[f"{part}_labels"] = labels
    np.savez(at / "encoded.npz", **arrays)
    return f"npz:{at / 'encoded.npz'}"


def write_folder(at: Path) -> str:
    for part, images, labels in (("train", TRAIN, TRAIN_LABELS), ("test", TEST, TEST_LABELS)):
        for row, (image, label) in enumerate(zip(images, labels, strict=True)):
            folder = at / "pictures" / part / NAMES[label]
            folder.mkdir(parents=True, exist_ok=True)
            (folder / f"{row:03}.png").write_bytes(png(image))
    (at / "pictures" / "train" / "cat" / ".hidden").write_text("not a picture")
    return f"folder:{at / 'pictures'}"


def write_parquet(at: Path) -> str:
    features = {"label": {"names": list(NAMES), "_type": "ClassLabel"}}
    metadata = {"huggingface": json.dumps({"info": {"features": features}})}
    for part, images, labels in (("train", TRAIN, TRAIN_LABELS), ("test", TEST, TEST_LABELS)):
        rows = [{"bytes": png(image), "path": None} for image in images]
        table = pa.table({"image": rows, "label": labels}).replace_schema_metadata(metadata)
        (at / "pq").mkdir(exist_ok=True)
        pq.write_table(table, at / "pq" / f"{part}-00000.parquet")
    return f"parquet:{at / 'pq'}"


def planes(images: np.ndarray) -> np.ndarray:
    return images.transpose(0, 3, 1, 2).reshape(len(images), -1)


def cifar_files(version: str) -> dict[str, bytes]:
    parts = [(f"data_batch_{i + 1}", TRAIN[12 * i :][:12], TRAIN_LABELS[:12]) for i in range(5)]
    files = {}
    for name, images, labels in [*parts, ("test_batch", TEST, TEST_LABELS)]:
        if version == "binary":
            rows = np.concatenate([labels[:, None].astype(np.uint8), planes(images)], axis=1)
            files[name + ".bin"] = rows.tobytes()
        else:
            batch = {b"data": planes(images), b"labels": labels.tolist()}
            files[name] = pickle.dumps(batch, protocol=2)
    if version == "binary":
        return {**files, "batches.meta.txt": "\n".join(NAMES).encode() + b"\n\n"}
    meta = {b"label_names": [name.encode() for name in NAMES]}
    return {**files, "batches.meta": pickle.dumps(meta, protocol=2)}


def write_cifar(at: Path, version: str) -> str:
    with tarfile.open(at / f"cifar-{version}.tar.gz", "w:gz") as archive:
        for name, content in cifar_files(version).items():
            member = tarfile.TarInfo(f"cifar-10-batches/{name}")
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
    return f"cifar10:{at / f'cifar-{version}.tar.gz'}"


def idx(array: np.ndarray) -> bytes:
    shape = np.array(array.shape, dtype=">i4").tobytes()
    return bytes([0, 0, 8, array.ndim]) + shape + array.astype(np.uint8).tobytes()


def write_idx(at: Path) -> str:
    (at / "idx").mkdir()
    for prefix, images, labels in (("train", TRAIN, TRAIN_LABELS), ("t10k", TEST, TEST_LABELS)):
        (at / "idx" / f"{prefix}-images-idx3-ubyte").write_bytes(idx(images[..., 0]))
        (at / "idx" / f"{prefix}-labels-idx1-ubyte.gz").write_bytes(gzip.compress(idx(labels)))
    return f"idx:{at / 'idx'}"


WRITERS = {
    "arrays": write_arrays,
    "encoded": write_encoded,
    "folder": write_folder,
    "parquet": write_parquet,
    "cifar, python": lambda at: write_cifar(at, "python"),
    "cifar, binary": lambda at: write_cifar(at, "binary"),
    "idx": write_idx,
}


def as_pairs(images: np.ndarray, labels: np.ndarray) -> set[tuple[bytes, int]]:
    return {(image.tobytes(), int(label)) for image, label in zip(images, labels, strict=True)}


def without_test(data: LabelledImages) -> tuple[np.ndarray, np.ndarray]:
    parts = [data.of(split) for split in (Split.TRAIN, Split.CALIBRATION)]
    return tuple(np.concatenate(arrays) for arrays in zip(*parts, strict=True))  # type: ignore[return-value]


@pytest.mark.parametrize("kind", WRITERS)
def test_every_kind_of_file_gives_its_rows_and_keeps_its_test_set(
    tmp_path: Path, kind: str
) -> None:
    data = load(WRITERS[kind](tmp_path))
    channels = slice(0, 1) if kind == "idx" else slice(None)
    assert as_pairs(*data.of(Split.TEST)) == as_pairs(TEST[..., channels], TEST_LABELS)
    assert as_pairs(*without_test(data)) == as_pairs(TRAIN[..., channels], TRAIN_LABELS)
    assert 0 < np.sum(data.split == Split.CALIBRATION) < 20
    assert data.class_names == (("0", "1", "2") if kind == "idx" else NAMES)
    assert data.images.dtype == np.uint8
    assert data.images.flags.c_contiguous
    assert str(tmp_path) not in data.description


def test_every_kind_is_tested() -> None:
    written = {"npz", "folder", "parquet", "cifar10", "idx"}
    assert set(READERS) - written == {"cifar100"}, "below"


def test_cifar_100_has_its_fine_labels(tmp_path: Path) -> None:
    for name, images, labels in (("train", TRAIN, TRAIN_LABELS), ("test", TEST, TEST_LABELS)):
        coarse = np.full(len(images), 9, dtype=np.uint8)
        rows = [coarse[:, None], labels[:, None].astype(np.uint8), planes(images)]
        (tmp_path / f"{name}.bin").write_bytes(np.concatenate(rows, axis=1).tobytes())
    (tmp_path / "fine_label_names.txt").write_text("\n".join(NAMES))
    data = load(f"cifar100:{tmp_path}")
    assert as_pairs(*data.of(Split.TEST)) == as_pairs(TEST, TEST_LABELS)


def test_without_a_given_test_set_the_digest_decides_all_three(tmp_path: Path) -> None:
    np.savez(tmp_path / "one.npz", images=TRAIN, labels=TRAIN_LABELS)
    name = f"npz:{tmp_path / 'one.npz'}"
    data = load(name, calibration_share=0.3, test_share=0.3)
    counts = [int(np.sum(data.split == split)) for split in Split]
    assert sum(counts[:3]) == 60
    assert min(counts[:3]) > 8
    assert not np.array_equal(data.split, load(name, seed=1).split)
    shuffled = np.random.default_rng(1).permutation(60)
    np.savez(tmp_path / "two.npz", images=TRAIN[shuffled], labels=TRAIN_LABELS[shuffled])
    again = load(f"npz:{tmp_path / 'two.npz'}", calibration_share=0.3, test_share=0.3)
    assert np.array_equal(again.split, data.split[shuffled])


def test_a_train_row_that_is_also_a_test_row_is_used_nowhere(tmp_path: Path) -> None:
    both = {"train_images": TRAIN, "train_labels": TRAIN_LABELS}
    np.savez(tmp_path / "a.npz", **both, test_images=TRAIN[:5], test_labels=TRAIN_LABELS[:5])
    data = load(f"npz:{tmp_path / 'a.npz'}")
    assert np.flatnonzero(data.split == Split.UNUSED).tolist() == [0, 1, 2, 3, 4]
    assert np.sum(data.split == Split.TEST) == 5


def test_pictures_of_other_sizes_are_resized_when_asked_only(tmp_path: Path) -> None:
    files = [np.frombuffer(png(image), np.uint8) for image in (TRAIN[0], TRAIN[1][:20])]
    with pytest.raises(BadInput, match="image 1 has 32x20 pixels, the first 32x32"):
        decode(files, source="here")
    assert decode(files, source="here", image_size=16).shape == (2, 16, 16, 3)


def test_a_picture_that_cannot_be_read_is_named_by_its_path(tmp_path: Path) -> None:
    name = write_folder(tmp_path)
    bad = tmp_path / "pictures" / "test" / "dog" / "001.png"
    whole = bad.read_bytes()
    floats = io.BytesIO()
    Image.fromarray(np.zeros((32, 32), np.float32)).save(floats, "TIFF")
    for content, words in (
        (whole[:200], "it is damaged or truncated"),
        (b"Thumbs.db", "it is not a picture that Pillow can read"),
        (b"", "it: expected a picture that Pillow can read, got no bytes"),
        (floats.getvalue(), r"it has samples of a kind that is not read \(Pillow's mode F\)"),
    ):
        bad.write_bytes(content)
        with pytest.raises(
            BadInput, match=f"^pictures/test/dog/001.png cannot be decoded: {words}"
        ):
            load(name)
    bad.write_bytes(png(TEST[1][:9]))
    with pytest.raises(BadInput, match=r"pictures/test/dog/001.png has 32x9 pixels, the first"):
        load(name)


def test_a_turned_picture_has_the_size_that_it_is_shown_in() -> None:
    wide = turned(TRAIN[0][:20], "JPEG", 6)
    files = [np.frombuffer(each, np.uint8) for each in (png(TRAIN[0][:, :20]), wide)]
    assert decode(files, source="here").shape == (2, 32, 20, 3)


def test_images_that_do_not_fit_into_memory_are_mapped(tmp_path: Path) -> None:
    files = [np.frombuffer(png(image), np.uint8) for image in TRAIN]
    mapped = decode(files, source="here", in_memory_bytes=1000)
    assert isinstance(mapped, np.memmap)
    assert np.array_equal(mapped, decode(files, source="here"))
