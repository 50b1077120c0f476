import io

import numpy as np
import pytest

from trueprob import CalibrationSet, InvalidInput, load_calibration_set
from trueprob.arrays.class_names import as_class_names, class_order, require_order

NAMES = ("cat", "dog", "bird")
LOGITS = np.array([[3.0, 1, 0], [0, 2, 1], [1, 0, 4], [2, 3, 0]], dtype=np.float32)
LABELS = [0, 1, 2, 0]
ORDER = [2, 0, 1]  # bird, cat, dog
PERMUTED = {
    "logits": LOGITS[:, ORDER],
    "labels": [1, 2, 0, 1],
    "class_names": np.array(NAMES)[ORDER],
}


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        (["a", "b"], ("a", "b")),
        (np.array(["a", "bb"]), ("a", "bb")),
        (np.array([b"a", "é".encode()]), ("a", "é")),
        (np.array([3, -1]), ("3", "-1")),
    ],
)
def test_names_are_texts(values, expected):
    assert as_class_names(values, n_classes=2) == expected


@pytest.mark.parametrize(
    ("values", "message"),
    [
        (["a", "b", "c"], "must name 2 classes, got 3: a, b, c"),
        ("ab", "must name 2 classes"),
        (["a", "a"], "a occurs twice"),
        (["a", ""], "non-empty texts"),
        (["a", "b\0c"], "without NUL"),
        (["a", 7], "non-empty texts"),
        (np.array([1.0, 2.0]), "non-empty texts"),
        (np.array([["a", "b"]]), r"must name 2 classes, got shape \(1, 2\)"),
        ([f"name {i}" for i in range(1000)], r"name 9, … \(1000 in all\)$"),
    ],
)
def test_what_names_no_classes_is_refused(values, message):
    with pytest.raises(InvalidInput, match=message):
        as_class_names(values, n_classes=2)


def test_names_are_matched_whatever_their_order():
    assert class_order(("bird", "cat", "dog"), NAMES).tolist() == [1, 2, 0]
    # As texts 10 comes before 2; as names each is itself.
    numbers = [str(i) for i in range(12)]
    as_texts = sorted(numbers)
    assert [as_texts[i] for i in class_order(as_texts, numbers)] == numbers


def test_indices_stand_for_classes_that_have_other_names():
    assert class_order(("2", "0", "1"), NAMES).tolist() == [1, 2, 0]
    for other in (("1", "2", "3"), ("a", "b", "7")):  # where an index could be taken for a name
        with pytest.raises(InvalidInput, match="got 0, 1, 2"):
            class_order(("0", "1", "2"), other)


def test_other_classes_are_refused_with_both_lists():
    with pytest.raises(InvalidInput) as error:
        class_order(("cat", "cow", "bird\n"), NAMES, name="columns")
    assert str(error.value) == (
        "columns must be cat, dog, bird, got cat, cow, 'bird\\n' "
        "(missing: dog, bird; not expected: cow, 'bird\\n')"
    )
    with pytest.raises(InvalidInput, match="the same classes in another order"):
        require_order(("dog", "cat", "bird"), NAMES, name="x")
    require_order(NAMES, NAMES, name="x")


def test_a_set_is_put_in_the_order_that_is_asked_for():
    plain = CalibrationSet.from_arrays({"logits": LOGITS, "labels": LABELS}, class_names=NAMES)
    put = CalibrationSet.from_arrays(PERMUTED, class_names=NAMES)
    assert np.array_equal(put.logits, LOGITS)
    assert put.labels.tolist() == LABELS
    assert (put.class_names, put.digest) == (NAMES, plain.digest)
    by_name = {**PERMUTED, "labels": ["cat", "dog", "bird", "cat"]}
    assert CalibrationSet.from_arrays(by_name, class_names=NAMES).digest == plain.digest
    by_index = {**by_name, "class_names": ["2", "0", "1"]}
    assert CalibrationSet.from_arrays(by_index, class_names=NAMES).digest == plain.digest
    by_index["labels"] = [1, 2, 0, 1]  # integers are indices of the set's own columns
    assert CalibrationSet.from_arrays(by_index, class_names=NAMES).digest == plain.digest
    assert CalibrationSet.from_arrays(PERMUTED).class_names == ("bird", "cat", "dog")


@pytest.mark.parametrize(
    ("names", "message"),
    [
        (["cat", "dog", "cow"], r"must be cat, dog, bird, got cat, dog, cow \(missing: bird"),
        (["cat", "dog"], r"must be cat, dog, bird, got cat, dog \(missing: bird\)"),
        (["cat", "dog", "cat"], "cat occurs twice"),
    ],
)
def test_a_set_of_other_classes_is_refused(names, message):
    arrays = {"logits": LOGITS, "labels": LABELS, "class_names": names}
    with pytest.raises(InvalidInput, match=message):
        CalibrationSet.from_arrays(arrays, class_names=NAMES)
    with pytest.raises(InvalidInput, match="must name 3 classes, got 2: a, b"):
        CalibrationSet.from_arrays({**arrays, "class_names": ["a", "b"]})


def test_names_are_saved_and_change_the_digest_if_they_say_more_than_the_order():
    bare = CalibrationSet.from_arrays({"logits": LOGITS, "labels": LABELS})
    named, indexed = bare.in_order_of(NAMES), bare.in_order_of(("0", "1", "2"))
    for data in (bare, named, indexed):
        buffer = io.BytesIO()
        data.save(buffer)
        again = load_calibration_set(buffer.getvalue())
        assert (again.class_names, again.digest) == (data.class_names, data.digest)
        assert again.subset(np.arange(2)).class_names == data.class_names
    assert bare.digest == indexed.digest != named.digest
    assert np.array_equal(bare.row_digests, named.row_digests)
