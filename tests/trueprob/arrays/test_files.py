import io
import struct
import zipfile

import numpy as np
import pytest

from trueprob import InvalidInput, read_arrays
from trueprob.arrays.files import read_array_headers


def npy(array, **options):
    buffer = io.BytesIO()
    np.save(buffer, array, **options)
    return buffer.getvalue()


def npz(**arrays):
    buffer = io.BytesIO()
    np.savez_compressed(buffer, **arrays)
    return buffer.getvalue()


def archive(members, compression=zipfile.ZIP_DEFLATED):
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", compression) as file:
        for name, data in members:
            file.writestr(name, data)
    return buffer.getvalue()


def header(text, version=(1, 0)):
    """An .npy header with any text."""
    data = text.encode().ljust(117) + b"\n"
    length = struct.pack("<H" if version == (1, 0) else "<I", len(data))
    return b"\x93NUMPY" + bytes(version) + length + data


@pytest.mark.parametrize("order", ["C", "F"])
@pytest.mark.parametrize("dtype", ["<f4", ">f8", "i1", "U3", "S2", "?"])
def test_arrays_come_back(order, dtype, tmp_path):
    array = np.asarray(np.arange(12).reshape(3, 4), dtype=dtype, order=order)
    path = tmp_path / "set.npz"
    path.write_bytes(npz(logits=array))
    with path.open("rb") as file:
        for source in (path, str(path), path.read_bytes(), file):
            assert np.array_equal(read_arrays(source)["logits"], array)
    assert np.array_equal(read_arrays(npy(array))["arr_0"], array)


def test_empty_and_scalar_arrays_come_back():
    arrays = read_arrays(npz(empty=np.zeros((0, 3)), scalar=np.float64(2.0)))
    assert arrays["empty"].shape == (0, 3)
    assert arrays["scalar"] == 2.0


def test_content_decides_and_not_the_name(tmp_path):
    path = tmp_path / "set.npz"
    path.write_text("label,logit\n0,1\n")
    with pytest.raises(InvalidInput, match=r"must be a NumPy \.npz or \.npy file") as caught:
        read_arrays(path)
    assert caught.value.field == "file"
    path.write_bytes(npy(np.ones(3)))
    assert list(read_arrays(path)) == ["arr_0"]


def test_a_missing_file_is_said_to_be_missing(tmp_path):
    with pytest.raises(InvalidInput, match="file cannot be read: No such file"):
        read_arrays(tmp_path / "nothing.npz")


def test_pickled_objects_are_refused():
    array = np.array([{"a": 1}, None], dtype=object)
    with pytest.raises(InvalidInput, match="arr_0 as pickled objects"):
        read_arrays(npy(array, allow_pickle=True))
    with pytest.raises(InvalidInput, match="labels as pickled objects"):
        read_arrays(npz(labels=array))


@pytest.mark.parametrize("dtype", [[("a", "f4")], "c8", "M8[s]"])
def test_other_types_are_refused(dtype):
    with pytest.raises(InvalidInput, match="than numbers or strings"):
        read_arrays(npz(logits=np.zeros(2, dtype=dtype)))


def test_a_bomb_is_refused_before_it_is_inflated():
    data = npz(logits=np.zeros(1_000_000))  # 8 MB in 8 kB
    assert len(data) < 20_000
    with pytest.raises(InvalidInput, match="must have at most 100000 bytes, got 8000128"):
        read_arrays(data, max_bytes=100_000)
    assert read_arrays(data, max_bytes=9_000_000)["logits"].shape == (1_000_000,)


def test_a_large_file_is_refused_by_its_size():
    with pytest.raises(InvalidInput, match="must have at most 10 bytes"):
        read_arrays(npy(np.zeros(100)), max_bytes=10)


class Pipe(io.RawIOBase):
    """A stream that cannot seek."""

    def __init__(self, data):
        self.data = io.BytesIO(data)

    def read(self, size=-1):
        return self.data.read(size)

    def seekable(self):
        return False


def test_streams_that_cannot_seek_are_read_within_the_limit():
    data = npy(np.arange(10))
    assert read_arrays(Pipe(data), max_bytes=1_000)["arr_0"].tolist() == list(range(10))
    with pytest.raises(InvalidInput, match="must have at most 50 bytes"):
        read_arrays(Pipe(data), max_bytes=50)


@pytest.mark.parametrize(
    "text",
    [
        "{'descr': '<f4', 'fortran_order': False, 'shape': (1000000000000,), }",
        "{'descr': '<f4', 'fortran_order': False, 'shape': (3,), }",
        "{'descr': '<f4', 'fortran_order': False, 'shape': (-1, -4), }",
        "{'descr': '<f4', 'fortran_order': False, 'shape': (9999999999999999999999,), }",
        "{'descr': '<f4', 'fortran_order': False}",
        "{'descr': 'nonsense', 'fortran_order': False, 'shape': (4,), }",
        "{'descr': '|V0', 'fortran_order': False, 'shape': (4,), }",
        "{'descr': '<f4', 'fortran_order': False, 'shape': 4, }",
        "{'descr': '<f4', 'fortran_order': 0, 'shape': (4,), }",
        "{'descr': '<f4', 'fortran_order': False, 'shape': (4L,), }",
        "{'descr': '<f1', 'fortran_order': False, 'shape': (4,), }",
        "__import__('os').getcwd()",
        "((((((((((",
    ],
)
def test_wrong_headers_are_refused(text):
    data = header(text) + bytes(16)
    with pytest.raises(InvalidInput, match="arr_0"):
        read_arrays(data)
    with pytest.raises(InvalidInput, match="logits"):
        read_arrays(archive([("logits.npy", data)]))


def test_unknown_npy_versions_are_refused():
    data = header("{'descr': '<f4', 'fortran_order': False, 'shape': (1,), }", (4, 0)) + bytes(4)
    with pytest.raises(InvalidInput, match=r"NPY version 4\.0, expected 1\.0 to 3\.0"):
        read_arrays(data)


@pytest.mark.parametrize(
    ("members", "message"),
    [
        ([("notes.txt", b"hello")], "one member is something else"),
        ([("inner.zip", archive([("a.npy", b"")]))], "one member is something else"),
        ([("../logits.npy", npy(np.ones(2)))], "one member is something else"),
        ([("folder/", b"")], "one member is something else"),
        ([("logits.npy", b"text")], "damaged header"),
        ([("logits.npy", b"")], "damaged header"),
        ([(f"a{i}.npy", npy(np.ones(1))) for i in range(65)], "at most 64 arrays, got 65"),
    ],
)
def test_archives_with_other_things_are_refused(members, message):
    with pytest.raises(InvalidInput, match=message):
        read_arrays(archive(members))


def test_two_arrays_of_one_name_are_refused():
    with pytest.warns(UserWarning, match="Duplicate name"):
        data = archive([("a.npy", npy(np.ones(1))), ("a.npy", npy(np.ones(2)))])
    with pytest.raises(InvalidInput, match="two arrays of the same name"):
        read_arrays(data)


@pytest.mark.parametrize("compression", [zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])
def test_other_compressions_are_refused(compression):
    with pytest.raises(InvalidInput, match="must be stored or deflated"):
        read_arrays(archive([("a.npy", npy(np.ones(2)))], compression))


def test_encrypted_archives_are_refused():
    data = bytearray(archive([("a.npy", npy(np.ones(2)))]))
    central = data.index(b"PK\x01\x02")
    data[central + 8] |= 1
    with pytest.raises(InvalidInput, match="must not be encrypted"):
        read_arrays(bytes(data))


def test_a_size_that_deflate_cannot_reach_is_refused():
    data = bytearray(archive([("a.npy", npy(np.ones(2)))]))
    central = data.index(b"PK\x01\x02")
    data[central + 24 : central + 28] = struct.pack("<I", 2_000_000_000)
    with pytest.raises(InvalidInput, match="declares more data"):
        read_arrays(bytes(data))


def test_every_truncation_and_every_flipped_byte_is_refused_or_harmless():
    array = np.arange(6, dtype=np.float32)
    data = npz(logits=array)
    for length in range(len(data)):
        with pytest.raises(InvalidInput, match="file"):
            read_arrays(data[:length])
    for position in range(len(data)):
        broken = bytearray(data)
        broken[position] ^= 0x55
        try:
            arrays = read_arrays(bytes(broken), max_bytes=10_000_000)
        except InvalidInput:
            continue
        assert all(np.array_equal(value, array) for value in arrays.values())


def test_a_truncated_npy_is_refused():
    with pytest.raises(InvalidInput, match="its header says 24"):
        read_arrays(npy(np.arange(3))[:-1])


def test_every_header_is_read_before_any_array_is_inflated() -> None:
    """The numbers of the first array are damaged: whoever inflates them finds that out."""
    content = bytearray(npz(first=np.arange(50_000) * 7919, second=np.zeros((3, 2))))
    content[len(content) // 2] ^= 0xFF
    with pytest.raises(InvalidInput, match="damaged"):
        read_arrays(bytes(content))
    headers = read_array_headers(io.BytesIO(content))
    assert {name: header.shape for name, header in headers.items()} == {
        "first": (50_000,),
        "second": (3, 2),
    }
    assert headers["second"].nbytes == 48
    assert read_array_headers(io.BytesIO(npy(np.zeros((2, 3), "<f2"))))["arr_0"].shape == (2, 3)


@pytest.mark.parametrize("order", ["C", "F"])
@pytest.mark.parametrize("dtype", ["<f8", ">f8", "<i8", "<u8"])
def test_wide_numbers_are_cast_while_they_are_read(order: str, dtype: str) -> None:
    """More than one piece, and pieces that do not end where a number does."""
    wide = np.asarray(np.arange(300_003).reshape(-1, 3) * 7919, dtype=dtype, order=order)
    read = read_arrays(npz(logits=wide, labels=wide), narrow=("logits",))
    assert read["logits"].dtype == np.float32
    assert np.array_equal(read["logits"], wide.astype(np.float32))
    assert read["labels"].dtype == wide.dtype

    class Slow(io.BytesIO):
        def read(self, size: int | None = -1) -> bytes:
            return super().read(size if size is None or size < 0 else min(size, 1001))

    alone = read_arrays(Slow(npy(wide)), narrow=("arr_0",))["arr_0"]
    assert np.array_equal(alone, wide.astype(np.float32))


def test_what_float32_cannot_hold_is_no_infinity_and_narrow_numbers_stay() -> None:
    given = np.array([[1e39, -1e39, np.inf, -np.inf, np.nan, 1.5]])
    read = read_arrays(npz(logits=given), narrow=("logits",))["logits"]
    expected = np.array([[np.nan, np.nan, np.inf, -np.inf, np.nan, 1.5]], np.float32)
    assert np.array_equal(read, expected, equal_nan=True)
    for dtype in ("<f4", "<f2", "|i1", "|b1"):
        same = read_arrays(npz(logits=np.ones((2, 2), dtype)), narrow=("logits",))["logits"]
        assert same.dtype == np.dtype(dtype)
