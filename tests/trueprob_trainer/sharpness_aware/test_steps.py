"""Accumulation, m-sharpness, running statistics, checkpoints, freezing."""

import copy
import io
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from tests.trueprob_trainer.small_problems import batches, closure_of, distance, sgd, small
from trueprob_trainer.sharpness_aware import (
    OPTIMISERS,
    SAM,
    checkpointed,
    frozen_running_statistics,
)
from trueprob_trainer.sharpness_aware.wrapper import WrappedOptimizer

pytestmark = pytest.mark.slow

IMAGES, LABELS = batches(1)[0]
SPLITS = ([slice(0, 8), slice(8, 16)], [slice(0, 5), slice(5, 9), slice(9, 16)])
ALL = list(OPTIMISERS)


def optimiser_of(name: str, model: nn.Module, **more: Any) -> WrappedOptimizer:
    if name == "esam":
        more = {"gamma": 1.0, **more}  # of two halves, half each is not half of the whole
    return OPTIMISERS[name](sgd(model), model=model, **more)


def steps(optimiser: WrappedOptimizer, model: nn.Module, data: list[tuple[Tensor, Tensor]]) -> None:
    for images, labels in data:
        optimiser.step(closure_of(model, images, labels))


@pytest.mark.parametrize("split", SPLITS)
@pytest.mark.parametrize("name", ALL)
def test_accumulated_micro_batches_are_the_large_batch(name: str, split: list[slice]) -> None:
    model, whole = small().eval(), small().eval()
    by_parts, at_once = optimiser_of(name, model), optimiser_of(name, whole)
    for images, labels in batches(6):
        loss = by_parts.step([closure_of(model, images[p], labels[p]) for p in split])
        assert float(loss) == pytest.approx(float(at_once.step(closure_of(whole, images, labels))))
    assert distance(model, whole) < 1e-12


def test_under_m_sharpness_each_micro_batch_climbs_by_itself() -> None:
    model, by_hand, pair = small(), small(), small()
    split = SPLITS[1]
    optimiser = SAM(sgd(model), model=model, m_sharpness=True)
    collecting = SAM(sgd(pair))
    sums: dict[Tensor, Tensor] = {}
    closures = [closure_of(model, IMAGES[p], LABELS[p]) for p in split]
    optimiser.step(closures)
    for part in split:
        share = len(IMAGES[part]) / 16
        for target in (by_hand, pair):
            slow = SAM(sgd(target)) if target is by_hand else collecting
            for climb in (True, False):
                with frozen_running_statistics(target):
                    nn.functional.cross_entropy(target(IMAGES[part]), LABELS[part]).backward()  # type: ignore[no-untyped-call]
                if climb:
                    slow.ascend()
            if target is pair:
                collecting.collect(share)
            else:
                found = {p: p.grad for p in by_hand.parameters() if p.grad is not None}
                slow.restore()
                for p, g in found.items():
                    sums[p] = sums.get(p, torch.zeros_like(p)) + share * g
    collecting.descend()
    for p, g in sums.items():
        p.grad = g
    sgd(by_hand).step()
    assert distance(model, by_hand) < 1e-12
    assert distance(pair, by_hand) < 1e-12


@pytest.mark.parametrize("name", ALL)
def test_statistics_move_once_a_step_with_and_without_checkpointing(name: str) -> None:
    for stages in ([], ["body"]):
        model, control = small(), small()
        with checkpointed([getattr(model, stage) for stage in stages]):
            optimiser_of(name, model).step(closure_of(model, IMAGES, LABELS))
        control(IMAGES)
        for key, value in control.body[1].state_dict().items():
            if "running" in key or "tracked" in key:
                assert torch.equal(model.body[1].state_dict()[key], value), key
        assert model.body[1].track_running_stats


@pytest.mark.parametrize("name", ALL)
def test_resumed_bit_for_bit_in_the_middle_of_a_cycle(name: str) -> None:
    data = batches(14)
    straight, first, resumed = small(), small(), small(seed=9)
    steps(optimiser_of(name, straight), straight, data)
    optimiser = optimiser_of(name, first)
    steps(optimiser, first, data[:7])
    file = io.BytesIO()
    torch.save((first.state_dict(), optimiser.state_dict()), file)
    file.seek(0)
    saved = torch.load(file, weights_only=True)
    more: dict[str, Any] = {"seed": 3} if name == "esam" else {}
    other = optimiser_of(name, resumed, **more)
    steps(other, resumed, data[:1])
    resumed.load_state_dict(saved[0])
    other.load_state_dict(saved[1])
    steps(other, resumed, data[7:])
    for key, value in straight.state_dict().items():
        assert torch.equal(resumed.state_dict()[key], value), key


def test_frozen_tensors_and_entries_stay_where_they_are() -> None:
    model = small()
    mask = (torch.rand(7, 5, generator=torch.Generator().manual_seed(0)) < 0.5).double()
    first = model.body[0].weight
    first.register_hook(lambda gradient: gradient * mask)
    optimiser = SAM(torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9), 5.0, model=model)
    start = copy.deepcopy(model.state_dict())
    for k, (images, labels) in enumerate(batches(6)):
        model.head.weight.requires_grad_(k % 2 == 0)
        frozen = model.head.weight.detach().clone()
        optimiser.step(closure_of(model, images, labels))
        assert k % 2 == 0 or torch.equal(model.head.weight, frozen)
    assert torch.equal(first * (1 - mask), start["body.0.weight"] * (1 - mask))
    assert float(((first - start["body.0.weight"]) * mask).detach().abs().max()) > 0.01


def test_a_parameter_frozen_between_the_passes_is_restored() -> None:
    model = small()
    optimiser = SAM(torch.optim.SGD(model.parameters(), lr=0.1), rho=5.0)
    frozen = model.head.weight.detach().clone()
    nn.functional.cross_entropy(model(IMAGES), LABELS).backward()  # type: ignore[no-untyped-call]
    optimiser.ascend()
    model.head.weight.requires_grad_(False)
    with frozen_running_statistics(model):
        nn.functional.cross_entropy(model(IMAGES), LABELS).backward()  # type: ignore[no-untyped-call]
    optimiser.descend()
    assert torch.equal(model.head.weight, frozen)
