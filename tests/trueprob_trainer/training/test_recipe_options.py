"""Options of a recipe: augmentation, losses, schedules, averages, accumulation."""

import dataclasses
import math

import numpy as np
import pytest
import torch
from torch import nn

from tests.trueprob_trainer.small_problems import closure_of
from trueprob_trainer.config import TrainConfig
from trueprob_trainer.data import Split, load
from trueprob_trainer.networks.classifier import ImageClassifier, predict_logits
from trueprob_trainer.sharpness_aware import OPTIMISERS
from trueprob_trainer.training.batches import (
    TrainRows,
    mixup,
    random_crop,
    random_cutout,
    random_flip,
)
from trueprob_trainer.training.building import (
    build_model,
    build_optimiser,
    build_schedule,
    cosine,
    cross_entropy,
    distillation,
    per_sample_loss,
    train_moments,
)
from trueprob_trainer.training.loop import train_with

CPU = torch.device("cpu")


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def numbered(n: int = 40, side: int = 6) -> torch.Tensor:
    """Images whose pixels are 1 and above, every one with its own values."""
    torch.manual_seed(0)
    return torch.randint(1, 256, (n, side, side, 2), dtype=torch.uint8)


def test_a_crop_moves_the_image_and_lets_black_in() -> None:
    images = numbered()
    moved = random_crop(images, 2, generator())
    seen = set()
    for before, after in zip(images, moved, strict=True):
        wide = nn.functional.pad(before, (0, 0, 2, 2, 2, 2))
        places = [
            (y, x) for y in range(5) for x in range(5)
            if torch.equal(wide[y : y + 6, x : x + 6], after)
        ]  # fmt: skip
        assert len(places) == 1, "not a window of the padded image"
        seen.add(places[0])
    assert len(seen) > 12, "moves are not drawn for each image"


def test_a_flip_mirrors_half_of_the_images_left_and_right() -> None:
    images = numbered(400)
    flipped = random_flip(images, generator())
    mirrored = (flipped == images.flip(2)).all(dim=(1, 2, 3))
    kept = (flipped == images).all(dim=(1, 2, 3))
    assert bool((mirrored ^ kept).all())
    assert float(mirrored.float().mean()) == pytest.approx(0.5, abs=0.08)


def test_a_cutout_is_one_square_of_the_mean() -> None:
    images = numbered(200)
    fill = torch.tensor([0.4, 0.0])  # rounds to a colour that no pixel has
    cut = random_cutout(images, 3, fill, generator())
    gone = (cut == 0).all(dim=3)
    assert torch.equal(cut[~gone], images[~gone])
    sizes = gone.sum(dim=(1, 2))
    assert int(sizes.max()) == 9
    assert int(sizes.min()) in (4, 6), "its centre may lie on the edge, never outside"
    rows, columns = gone.any(dim=2).sum(dim=1), gone.any(dim=1).sum(dim=1)
    assert torch.equal(rows * columns, sizes), "not a rectangle"


def test_mixup_weighs_images_and_targets_alike() -> None:
    images = numbered()
    targets = nn.functional.one_hot(torch.arange(40) % 4, 4).float()
    mixed, soft = mixup(images, targets, 1.0, generator())
    assert torch.allclose(soft.sum(dim=1), torch.ones(40))
    weight = float(soft[soft.max(dim=1).values < 1].max())
    share = max(weight, 1 - weight)
    explained = [
        any(
            torch.allclose(mixed[i], w * images[i].float() + (1 - w) * images[j].float(), atol=0.1)
            for j in range(40) for w in (share, 1 - share)
        )
        for i in range(40)
    ]  # fmt: skip
    assert all(explained)


def test_the_loss_of_soft_targets_is_that_of_their_mixture() -> None:
    torch.manual_seed(0)
    logits, labels = torch.randn(6, 4), torch.tensor([0, 1, 2, 3, 0, 1])
    hard = nn.functional.one_hot(labels, 4).float()
    assert torch.allclose(cross_entropy(logits, labels), cross_entropy(logits, hard))
    smoothed = cross_entropy(logits, labels, 0.2)
    assert torch.allclose(smoothed, cross_entropy(logits, 0.8 * hard + 0.05), atol=1e-6)


def test_distillation_is_zero_at_the_teacher_and_scaled_by_the_temperature() -> None:
    torch.manual_seed(0)
    logits, other = torch.randn(6, 4), torch.randn(6, 4)
    at = torch.softmax(logits / 3, dim=1)
    assert torch.allclose(distillation(logits, at, 3.0), torch.zeros(6), atol=1e-5)
    teacher = torch.softmax(other / 3, dim=1)
    by_hand = (teacher * (teacher.log() - at.log())).sum(dim=1) * 9
    assert torch.allclose(distillation(logits, teacher, 3.0), by_hand, atol=1e-5)
    config = TrainConfig(teacher="somewhere", distill_temperature=3.0, distill_alpha=0.7)
    loss = per_sample_loss(config)
    assert loss is not None
    labels = torch.zeros(6, dtype=torch.int64)
    hard = nn.functional.one_hot(labels, 4).float()
    expected = 0.7 * by_hand + 0.3 * cross_entropy(logits, labels)
    assert torch.allclose(loss(logits, torch.cat((hard, teacher), dim=1)), expected, atol=1e-5)
    assert per_sample_loss(TrainConfig()) is None


def test_the_cosine_rises_then_falls_to_nothing() -> None:
    rates = [cosine(step, 100, 0.1) for step in range(101)]
    assert rates[:10] == sorted(rates[:10])
    assert rates[9] < 1 == rates[10]
    assert rates[10:] == sorted(rates[10:], reverse=True)
    assert rates[55] == pytest.approx(0.5)
    assert rates[100] == pytest.approx(0, abs=1e-12)


@pytest.mark.parametrize("schedule", ["one-cycle", "cosine", "constant"])
def test_a_schedule_turns_the_base_optimisers_rate(schedule: str) -> None:
    config = TrainConfig(schedule=schedule, learning_rate=0.2)
    model = nn.Linear(2, 2)
    optimiser = build_optimiser(config, model)
    turning = build_schedule(config, optimiser.base, 10)
    rates = []
    for _ in range(10):
        rates.append(optimiser.param_groups[0]["lr"])
        optimiser.base.step()
        turning.step() if len(rates) < 10 else None
    assert max(rates) == pytest.approx(0.2)
    assert (rates[-1] < 0.01) == (schedule != "constant")


def two_layers() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Flatten(), nn.Linear(12, 8), nn.Tanh(), nn.Linear(8, 3))


@pytest.mark.parametrize("name", sorted(set(OPTIMISERS) - {"esam"}))  # it draws by micro-batch
def test_accumulated_micro_batches_step_as_the_whole_batch(name: str) -> None:
    torch.manual_seed(1)
    images, labels = torch.randn(12, 12), torch.randint(0, 3, (12,))
    after = []
    for parts in (1, 3):
        model = two_layers()
        base = torch.optim.SGD(model.parameters(), lr=0.5, momentum=0.9)
        optimiser = OPTIMISERS[name](base, rho=0.3, model=model)
        for _ in range(3):
            chunks = zip(images.chunk(parts), labels.chunk(parts), strict=True)
            loss = optimiser.step([closure_of(model, *chunk) for chunk in chunks])
        after.append((float(loss), [p.detach().clone() for p in model.parameters()]))
    assert after[0][0] == pytest.approx(after[1][0], rel=1e-5)
    for a, b in zip(after[0][1], after[1][1], strict=True):
        torch.testing.assert_close(a, b, atol=1e-5, rtol=1e-4)


def test_streamed_rows_are_the_resident_ones() -> None:
    data = load("digits")
    order = torch.randperm(400, generator=generator()).view(8, 50)
    parts = [TrainRows(data, CPU, resident=kept).batches(order) for kept in (True, False)]
    for (images, labels), (streamed, same) in zip(*parts, strict=True):
        assert torch.equal(images, streamed)
        assert torch.equal(labels, same)
    assert list(TrainRows(data, CPU, resident=False).batches(order[8:])) == []


@pytest.mark.slow
def test_memory_order_and_precision_change_little_and_are_gone_after_training() -> None:
    tiny = TrainConfig(data="digits", epochs=2, batch_size=64)
    images, _ = load("digits").of(Split.TEST)
    plain = predict_logits(train_with(tiny).model, images)
    options = {"channels_last": 0.05, "bf16": 2.0, "deterministic": 0.0, "checkpointing": 0.0}
    for option, tolerance in options.items():
        training = train_with(dataclasses.replace(tiny, **{option: True}))
        logits = predict_logits(training.model, images)
        assert logits.dtype == np.float32
        assert np.abs(logits - plain).max() <= tolerance, option
        assert np.mean(logits.argmax(axis=1) == plain.argmax(axis=1)) > 0.95
        assert not training.model.channels_last
        first = next(p for p in training.model.parameters() if p.ndim == 4)
        assert first.is_contiguous()
    assert not torch.are_deterministic_algorithms_enabled()


@pytest.mark.slow
def test_the_scored_network_is_the_average_of_the_weights() -> None:
    config = TrainConfig(data="digits", epochs=1, batch_size=212, schedule="constant")
    steps = []  # two steps: the average is that of their results, weighted
    for epochs in (1, 2):
        half = dataclasses.replace(config, batch_size=424, epochs=epochs)
        steps.append(train_with(half).model.state_dict()["network.11.weight"])
    averaged = train_with(dataclasses.replace(config, batch_size=424, epochs=2, ema=0.75)).model
    expected = 0.75 * steps[0] + 0.25 * steps[1]
    assert torch.allclose(averaged.state_dict()["network.11.weight"], expected, atol=1e-6)


def test_the_moments_are_those_of_the_train_split() -> None:
    data = load("digits")
    images, _ = data.of(Split.TRAIN)
    mean, deviation = train_moments(data)
    assert mean == pytest.approx(images.mean(axis=(0, 1, 2)), rel=1e-12)
    assert deviation == pytest.approx(images.std(axis=(0, 1, 2)), rel=1e-7)
    model = build_model(TrainConfig(data="digits"), data)
    assert isinstance(model, ImageClassifier)
    assert math.isclose(float(model.mean), float(mean[0]), rel_tol=1e-6)
