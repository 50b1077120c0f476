"""Label noise, long tails and corruptions: their strength, seeds and the rows they change."""

import dataclasses
import functools

import numpy as np
import pytest

from trueprob_trainer.config import TrainConfig
from trueprob_trainer.data import LabelledImages, Split, load
from trueprob_trainer.data.recipe import (
    asymmetric_neighbours,
    prepare,
    with_label_noise,
    with_long_tail,
    with_train_rows,
)
from trueprob_trainer.errors import BadInput
from trueprob_trainer.evaluation.corruptions import CORRUPTIONS, SEVERITIES, corrupt

pytestmark = pytest.mark.slow

CIFAR = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")


@functools.cache
def many(class_names: tuple[str, ...] = CIFAR) -> LabelledImages:
    rng = np.random.default_rng(0)
    return LabelledImages(
        images=rng.integers(0, 256, (6000, 2, 2, 1), dtype=np.uint8),
        labels=np.arange(6000) % len(class_names),
        split=np.where(np.arange(6000) < 5000, int(Split.TRAIN), int(Split.TEST)),
        class_names=class_names,
        mode="L",
        resample="box",
        description="random",
    )


def test_symmetric_noise_has_its_rate_and_spreads_over_the_other_classes() -> None:
    noisy = with_label_noise(many(), 0.4)
    wrong = noisy.labels != many().labels
    assert np.mean(wrong[:5000]) == pytest.approx(0.4, abs=0.03)
    assert not wrong[5000:].any(), "a test label was changed"
    moved = (noisy.labels - many().labels)[wrong] % 10
    assert np.bincount(moved, minlength=10)[1:] / wrong.sum() == pytest.approx(1 / 9, abs=0.02)


def test_more_noise_contains_less_and_seeds_differ() -> None:
    less, more = (with_label_noise(many(), rate) for rate in (0.2, 0.4))
    wrong = less.labels != many().labels
    assert np.array_equal(less.labels[wrong], more.labels[wrong])
    assert not np.array_equal(less.labels, with_label_noise(many(), 0.2, seed=1).labels)


def test_asymmetric_noise_follows_the_published_pairs() -> None:
    noisy = with_label_noise(many(), 0.4, kind="asymmetric")
    for name, other in (("truck", "automobile"), ("cat", "dog"), ("dog", "cat"), ("ship", "ship")):
        rows = noisy.labels[:5000][many().labels[:5000] == CIFAR.index(name)]
        assert set(rows) == {CIFAR.index(name), CIFAR.index(other)}
    assert asymmetric_neighbours(("a", "b", "c")) == (1, 2, 0)


def test_the_tail_is_exponential_and_the_last_class_has_a_hundredth() -> None:
    tail = with_long_tail(many(), 100.0)
    kept = np.bincount(tail.labels[tail.split == Split.TRAIN])
    assert kept.tolist() == [round(500 * 100 ** (-c / 9)) for c in range(10)]
    assert (kept[0], kept[-1]) == (500, 5)
    assert np.array_equal(tail.split[5000:], many().split[5000:])
    assert np.sum(tail.split == Split.UNUSED) == 5000 - kept.sum()
    with pytest.raises(BadInput, match="leaves none of some"):
        with_long_tail(many(), 2000.0)


def test_fewer_train_rows_are_some_of_more() -> None:
    fewer, more = (with_train_rows(many(), n) for n in (100, 1000))
    few, lot = (set(np.flatnonzero(d.split == Split.TRAIN)) for d in (fewer, more))
    assert (len(few), len(lot)) == (100, 1000)
    assert few < lot
    with pytest.raises(BadInput, match="train_rows must be at most 5000, got 5001"):
        with_train_rows(many(), 5001)


def test_a_recipe_says_in_its_notes_what_was_done_to_the_data() -> None:
    plain = TrainConfig(data="digits")
    data = prepare(plain)
    assert np.array_equal(data.split, load("digits").split)
    harder = dataclasses.replace(plain, label_noise=0.2, long_tail=10.0, train_rows=120)
    notes = " ".join(prepare(harder).notes)
    for said in ("wrong label on purpose", "exponential tail on purpose", "Only 120 of"):
        assert said in notes
    assert np.sum(prepare(harder).split == Split.TRAIN) == 120


def smooth(channels: int) -> np.ndarray:
    """Pictures with edges and gradients and a mean of mid grey."""
    y, x = np.mgrid[:32, :32] / 31
    rows = [
        80 + 90 * x * y + 60 * ((x - 0.5) ** 2 + (y - 0.5) ** 2 < 0.02 * (i + 2)) for i in range(8)
    ]
    return np.repeat(np.rint(rows).astype(np.uint8)[..., None], channels, axis=3)


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("name", CORRUPTIONS)
def test_corruptions_grow_with_severity_and_repeat(name: str, channels: int) -> None:
    images = smooth(channels)
    distances = []
    for severity in SEVERITIES:
        corrupted = corrupt(images, name, severity)
        assert corrupted.shape == images.shape
        assert corrupted.dtype == np.uint8
        assert np.array_equal(corrupted, corrupt(images, name, severity))
        distances.append(np.sqrt(np.mean((corrupted.astype(float) - images) ** 2)))
    assert distances[0] > 0
    assert distances[4] > 1.3 * distances[0], distances
    assert distances[4] < 110, "nothing is left of the picture"


def test_noise_has_the_published_deviation() -> None:
    grey = np.full((20, 32, 32, 3), 128, dtype=np.uint8)
    for severity, deviation in ((1, 0.04), (5, 0.10)):
        noise = corrupt(grey, "gaussian-noise", severity) / 255.0 - 128 / 255
        assert noise.std() == pytest.approx(deviation, rel=0.02)
    salt = corrupt(grey, "impulse-noise", 5)
    assert np.mean((salt == 0) | (salt == 255)) == pytest.approx(0.07, abs=0.005)


def test_an_unknown_corruption_or_severity_is_refused() -> None:
    with pytest.raises(BadInput, match="corruption must be one of gaussian-noise"):
        corrupt(smooth(1), "rain", 1)
    with pytest.raises(BadInput, match="severity must be 1 to 5, got 6"):
        corrupt(smooth(1), "fog", 6)
    with pytest.raises(BadInput, match="label_noise_kind must be one of"):
        with_label_noise(many(), 0.1, kind="open")
