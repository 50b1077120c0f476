"""Splits by digest: disjoint, repeatable, and the same for an image that occurs twice."""

import numpy as np
import pytest

from trueprob_trainer.data import DATA, Split, assign, load
from trueprob_trainer.data.scikit_digits import SHARES, with_noise
from trueprob_trainer.errors import BadInput


def as_keys(images: np.ndarray) -> set[bytes]:
    return {image.tobytes() for image in images}


@pytest.mark.parametrize("name", DATA)
def test_every_row_is_in_exactly_one_split(name: str) -> None:
    data = load(name)
    parts = [as_keys(data.of(split)[0]) for split in Split]
    assert sum(len(data.of(split)[1]) for split in Split) == len(data.labels) == 1797
    assert len(set().union(*parts)) == sum(map(len, parts)), "an image is in two splits"
    for split, share in SHARES.items():
        assert len(data.of(split)[1]) == pytest.approx(share * 1797, rel=0.1)
        assert set(data.of(split)[1]) == set(range(10))


@pytest.mark.parametrize("name", DATA)
def test_images_are_uint8_nhwc_over_the_whole_range(name: str) -> None:
    data = load(name)
    assert data.images.shape == (1797, 8, 8, 1)
    assert data.images.dtype == np.uint8
    assert (data.images.min(), data.images.max()) == (0, 255)


def test_noise_changes_neither_rows_nor_splits_and_is_the_same_each_time() -> None:
    clean, noisy = load("digits"), load("noisy-digits")
    assert np.array_equal(clean.split, noisy.split)
    assert np.array_equal(clean.labels, noisy.labels)
    assert np.array_equal(noisy.images, load("noisy-digits").images)


def test_noise_has_the_stated_deviation() -> None:
    grey = np.full((200, 200), 128, dtype=np.uint8)
    noise = with_noise(grey, 20.0, "test").astype(float) - 128
    assert noise.std() == pytest.approx(20, rel=0.02)
    assert noise.mean() == pytest.approx(0, abs=0.3)
    assert not np.array_equal(with_noise(grey, 20.0, "other") - 128.0, noise)


def test_the_split_follows_the_bytes_not_the_place() -> None:
    images = load("digits").images
    shuffled = np.random.default_rng(0).permutation(len(images))
    twice = np.concatenate([images[shuffled], images])
    split = assign(twice, SHARES)
    assert np.array_equal(split[len(images) :], assign(images, SHARES))
    assert np.array_equal(split[: len(images)], assign(images, SHARES)[shuffled])
    assert not np.array_equal(assign(images, SHARES, seed=1), assign(images, SHARES))


def test_shares_that_do_not_sum_to_one_are_refused() -> None:
    with pytest.raises(ValueError, match="sum to 1"):
        assign(np.zeros((1, 2, 2, 1), dtype=np.uint8), {Split.TRAIN: 0.5})


def test_an_unknown_name_is_refused_with_the_known_ones() -> None:
    with pytest.raises(
        BadInput, match=r"data must be one of digits, noisy-digits, or KIND:PATH .*, got cifar"
    ):
        load("cifar")
