"""What runs on a GPU, as far as it can be said without one.

torch's "meta" device has shapes and no values: whatever would wait for a GPU to read a number from
it raises there. The formulas that only a GPU takes are run on the CPU and compared with the CPU's.
"""

import copy
from typing import Any

import pytest
import torch
from torch import nn

from tests.trueprob_trainer.small_problems import adam, sgd, small
from trueprob_trainer.data import load
from trueprob_trainer.sharpness_aware import (
    ASAM,
    ESAM,
    OPTIMISERS,
    SAM,
    AscentOptimizer,
    FisherSAM,
    LookSAM,
    MomentumSAM,
    PeriodicSAM,
    PreconditionedSAM,
)
from trueprob_trainer.sharpness_aware.ascent import joint_norm, scale_to_radius
from trueprob_trainer.training.batches import TrainRows

META = torch.device("meta")


def with_gradients(model: nn.Module, seed: int = 0) -> nn.Module:
    generator = torch.Generator().manual_seed(seed)
    for p in model.parameters():
        drawn = torch.randn(p.shape, generator=generator, dtype=torch.float64)
        p.grad = torch.empty_like(p).copy_(drawn)  # in the parameter's memory order and precision
    return model


@pytest.mark.parametrize("build", [SAM, ASAM, FisherSAM, PeriodicSAM, LookSAM, PreconditionedSAM])
def test_neither_ascent_nor_descent_waits_for_a_value(build: Any) -> None:
    model = with_gradients(small().to(META))
    optimiser = build(sgd(model))
    for _ in range(2):
        with_gradients(model)
        if optimiser.ascend():
            assert all(p.grad is None for p in model.parameters())
            with_gradients(model)
        optimiser.descend()
    assert {p.device for p in model.parameters()} == {META}


def test_momentum_sam_does_not_wait_either() -> None:
    model = with_gradients(small().to(META))
    optimiser = MomentumSAM(sgd(model))
    optimiser.base.step()
    optimiser.zero_grad()
    optimiser.ascend()
    with_gradients(model)
    optimiser.descend()


@pytest.mark.parametrize("empty", [False, True])
def test_each_tensor_gets_its_radius_over_the_joint_norm(empty: bool) -> None:
    generator = torch.Generator().manual_seed(0)
    tensors = [torch.randn(n, generator=generator, dtype=torch.float64) for n in (3, 5, 2)]
    if empty:
        tensors = [torch.zeros_like(t) for t in tensors]
    radii = [0.5, 0.1, 0.5]
    norm = joint_norm(tensors)
    assert float(norm) == pytest.approx(float(torch.cat(tensors).norm()))
    scaled = [t.clone() for t in tensors]
    scale_to_radius(scaled, radii, norm)
    for t, s, radius in zip(tensors, scaled, radii, strict=True):
        torch.testing.assert_close(s, t if empty else t * radius / norm, rtol=1e-12, atol=0)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32])
def test_a_tiny_gradient_moves_weights_of_any_precision_by_the_radius(dtype: torch.dtype) -> None:
    weight = nn.Parameter(torch.zeros(4, dtype=dtype))
    optimiser = SAM(torch.optim.SGD([weight], lr=0.0), 0.5)
    weight.grad = torch.full_like(weight, 6e-7 if dtype is torch.float16 else 1e-12)
    assert optimiser.ascend()
    torch.testing.assert_close(weight.detach().float(), torch.full((4,), 0.25), rtol=5e-3, atol=0)
    optimiser.restore()
    assert not weight.any()


@pytest.mark.parametrize("build", [SAM, ASAM, FisherSAM, LookSAM])
# PreconditionedSAM has a second moment of its own, which as Adam's is not converted.
@pytest.mark.parametrize("form", [torch.channels_last, torch.float64, torch.bfloat16])
def test_weights_converted_between_steps_come_back_to_the_last_bit(build: Any, form: Any) -> None:
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4))
    optimiser = build(torch.optim.SGD(model.parameters(), lr=0.0), 0.5)
    for converted in (False, True):
        if converted and form is torch.channels_last:
            model.to(memory_format=form)  # type: ignore[call-overload]  # its stub
        elif converted:
            model.to(form)
        before = copy.deepcopy(model.state_dict())
        with_gradients(model)
        optimiser._position = 0
        assert optimiser.ascend()
        assert not torch.equal(model[0].weight, before["0.weight"])
        kept = optimiser._starts[model[0].weight]
        assert (kept.dtype, kept.stride()) == (model[0].weight.dtype, model[0].weight.stride())
        optimiser.restore()
        assert all(torch.equal(t, before[name]) for name, t in model.state_dict().items())


@pytest.mark.parametrize("scale", [2.0**-3, 2.0**16])
def test_the_pair_divides_by_the_scale_and_the_base_steps_unscaled(scale: float) -> None:
    scaler = torch.amp.GradScaler("cpu", init_scale=scale)
    scaled, plain = small(), small()
    pair = [
        ASAM(torch.optim.SGD(scaled.parameters(), lr=0.1), 0.5, scaler=scaler),
        ASAM(torch.optim.SGD(plain.parameters(), lr=0.1), 0.5),
    ]
    for optimiser, model in zip(pair, (scaled, plain), strict=True):
        by = 1.0 if optimiser.scaler is None else float(scaler.scale(torch.tensor(1.0)))
        for second in (False, True):
            with_gradients(model, seed=int(second))
            for p in model.parameters():
                p.grad.mul_(by)  # type: ignore[union-attr]
            if not second:
                assert optimiser.ascend()
        optimiser.descend()
    for p, q in zip(scaled.parameters(), plain.parameters(), strict=True):
        torch.testing.assert_close(p, q, rtol=1e-12, atol=1e-12)


def test_every_pair_that_needs_no_closure_is_among_these() -> None:
    """ESAM, CSAM and the Functional ones look at rows, whose losses are read."""
    pairs = set()
    for kind in OPTIMISERS.values():
        if issubclass(kind, AscentOptimizer):
            base = adam if kind is PreconditionedSAM else sgd
            if not kind(base(small()))._needs_closure:
                pairs.add(kind)
    assert ESAM not in pairs
    waitless = {SAM, ASAM, FisherSAM, PeriodicSAM, LookSAM, PreconditionedSAM}
    assert pairs == waitless | {MomentumSAM}


@pytest.mark.parametrize("resident", [True, False])
def test_rows_come_on_the_device_of_the_run(resident: bool) -> None:
    order = torch.randperm(400, generator=torch.Generator().manual_seed(0)).view(8, 50)
    found = list(TrainRows(load("digits"), META, resident=resident).batches(order))
    assert len(found) == 8
    for images, labels in found:
        assert (images.device, labels.device) == (META, META)
        assert (images.dtype, images.shape[:1], labels.shape) == (torch.uint8, (50,), (50,))
