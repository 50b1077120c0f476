import hashlib
import io
from pathlib import Path

import numpy as np
import pytest

from trueprob import CalibrationSet, InvalidInput, load_calibration_set, softmax

LOGITS = np.array([[1.0, 0.0], [0.0, 2.0], [0.5, 0.5]], dtype=np.float32)


def of(**changes):
    return CalibrationSet.from_arrays({"logits": LOGITS, "labels": [0, 1, 1], **changes})


def saved(data):
    buffer = io.BytesIO()
    data.save(buffer)
    return buffer.getvalue()


@pytest.mark.parametrize(
    "optional",
    [
        {},
        {"weights": [1, 2, 3]},
        {"groups": ["a", "b", "ü"]},
        {"weights": [1, 0, 3], "groups": [1, 1, 2]},
    ],
)
def test_a_saved_set_is_the_same_set(optional, tmp_path):
    data = of(**optional)
    again = load_calibration_set(saved(data))
    assert again.digest == data.digest
    assert (again.n, again.n_classes) == (3, 2)
    for name in ("logits", "labels", "weights", "groups"):
        assert np.array_equal(getattr(again, name), getattr(data, name))
    data.save(tmp_path / "set.npz")
    assert load_calibration_set(tmp_path / "set.npz").digest == data.digest


def test_the_digest_is_of_the_content():
    plain = of()
    assert plain.digest.startswith("sha256:")
    assert of(logits=LOGITS.astype(np.float64), labels=np.array([0, 1, 1], np.int8)).digest == (
        plain.digest
    )
    assert of(logits=LOGITS * -1.0 * -1.0 - 0.0).digest == plain.digest  # −0 is 0
    others = [
        of(labels=[0, 1, 0]),
        of(weights=[1, 1, 1]),
        of(groups=[1, 1, 1]),
        of(groups=["1", "1", "1"]),
        of(groups=["11", "", "1"]),
        of(logits=LOGITS + 1),
    ]
    assert len({data.digest for data in [plain, *others]}) == len(others) + 1


def test_rows_have_digests_of_logits_and_label():
    data = of()
    assert data.row_digests.shape == (3, 16)
    assert data.row_digests.dtype == np.uint8
    shuffled = data.subset(np.array([2, 0, 1]))
    assert np.array_equal(shuffled.row_digests, data.row_digests[[2, 0, 1]])
    assert np.array_equal(of(weights=[1, 2, 3]).row_digests, data.row_digests)
    assert not np.array_equal(of(labels=[0, 1, 0]).row_digests[2], data.row_digests[2])


def test_probabilities_and_their_logarithms_are_turned_into_logits():
    p = softmax(LOGITS).astype(np.float64)
    for arrays in ({"probabilities": p}, {"log_probabilities": np.log(p)}):
        data = CalibrationSet.from_arrays({**arrays, "labels": [0, 1, 1]})
        assert softmax(data.logits) == pytest.approx(p, abs=1e-6)


def test_labels_may_be_class_names():
    data = CalibrationSet.from_arrays(
        {"logits": LOGITS, "labels": np.array(["no", "yes", "yes"])}, class_names=["no", "yes"]
    )
    assert data.labels.tolist() == [0, 1, 1]


@pytest.mark.parametrize(
    ("arrays", "message", "field"),
    [
        (
            {"probabilities": LOGITS},
            "exactly one of logits, probabilities, .* is needed, got logits and probabilities",
            "probabilities",
        ),
        ({"labels": [0, 1]}, r"labels must have shape \(3,\), got \(2,\)", "labels"),
        ({"labels": [0, 1, 2]}, "labels must lie in 0 … 1, row 2 does not", "labels"),
        ({"label": [0, 1, 1]}, "array 'label' is unknown, .* the nearest is 'labels'", "label"),
        ({"images": LOGITS}, "images need a model", "images"),
        ({"weights": [1, 1]}, r"weights must have shape \(3,\)", "weights"),
        ({"weights": [1, -1, 1]}, "weights must be finite and not negative", "weights"),
        ({"weights": [1, np.nan, 1]}, "weights must be finite and not negative", "weights"),
        ({"weights": [0, 0, 0]}, "weights must not all be zero", "weights"),
        ({"weights": ["a", "b", "c"]}, "weights must be numbers", "weights"),
        ({"groups": [0.5, 1, 1]}, "groups must be integers or strings", "groups"),
        ({"groups": [1]}, r"groups must have shape \(3,\)", "groups"),
    ],
)
def test_arrays_that_cannot_be_used_are_refused(arrays, message, field):
    with pytest.raises(InvalidInput, match=message) as caught:
        CalibrationSet.from_arrays({"logits": LOGITS, "labels": [0, 1, 1], **arrays})
    assert caught.value.field == field


def test_missing_arrays_are_named():
    with pytest.raises(InvalidInput, match=r"exactly one of .* is needed, got none of them"):
        CalibrationSet.from_arrays({"labels": [0]})
    with pytest.raises(InvalidInput, match="labels are missing"):
        CalibrationSet.from_arrays({"logits": LOGITS})


def test_the_number_of_classes_can_be_required():
    with pytest.raises(InvalidInput, match=r"logits must have shape \(n, 10\), got \(3, 2\)"):
        CalibrationSet.from_arrays({"logits": LOGITS, "labels": [0, 1, 1]}, n_classes=10)


def test_construction_validates_too():
    with pytest.raises(InvalidInput, match="labels must lie in"):
        CalibrationSet(LOGITS, np.array([0, 1, 5]))


def test_a_large_set_is_hashed_and_written_in_pieces_as_if_whole(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    n, k = 3000, 200  # more than two pieces of a megabyte
    logits = rng.normal(size=(n, k)).astype(np.float32) * (rng.random((n, k)) > 0.1)
    rows = CalibrationSet(logits, rng.integers(0, k, n), groups=rng.integers(0, 9, n).astype(str))
    flat = np.add(rows.logits, 0.0)  # -0 is 0
    expected = [
        hashlib.blake2b(row.tobytes() + label.tobytes(), digest_size=16).digest()
        for row, label in zip(flat, rows.labels, strict=True)
    ]
    assert [digest.tobytes() for digest in rows.row_digests] == expected
    content = b"trueprob calibration set 1\n" + f"logits float32 {(n, k)}\n".encode()
    content += flat.tobytes() + f"labels int64 {(n,)}\n".encode() + rows.labels.tobytes()
    without_groups = CalibrationSet(rows.logits, rows.labels)
    assert without_groups.digest == f"sha256:{hashlib.sha256(content).hexdigest()}"
    rows.save(tmp_path / "a.npz")
    with np.load(tmp_path / "a.npz", allow_pickle=False) as archive:
        assert archive.files == ["logits", "labels", "groups"]
        assert np.array_equal(archive["logits"], rows.logits)
        assert np.array_equal(archive["groups"], rows.groups)
    assert load_calibration_set(tmp_path / "a.npz").digest == rows.digest
