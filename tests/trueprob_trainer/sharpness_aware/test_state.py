"""SAM: checkpoints, wrong use, accumulation, schedulers and other bases."""

import copy

import pytest
import torch
from torch import Tensor, nn

from tests.trueprob_trainer.sharpness_aware.sam_problem import (
    Bowl,
    batches,
    distance,
    groups_of,
    loss_of,
    sam_steps,
    sgd,
    small,
)
from tests.trueprob_trainer.small_problems import closure_of
from trueprob_trainer.sharpness_aware import ASAM, OPTIMISERS, SAM


def test_a_resumed_run_continues_bit_for_bit() -> None:
    data = batches()
    straight = small()
    sam_steps(straight, SAM(sgd(groups_of(straight)), rho=0.1), data)
    first = small()
    optimiser = SAM(sgd(groups_of(first)), rho=0.1)
    sam_steps(first, optimiser, data[:7])
    saved = copy.deepcopy((first.state_dict(), optimiser.state_dict()))
    resumed = small(seed=9)
    other = SAM(sgd(groups_of(resumed)), rho=0.7)
    resumed.load_state_dict(saved[0])
    other.load_state_dict(saved[1])
    sam_steps(resumed, other, data[7:])
    for a, b in zip(straight.state_dict().values(), resumed.state_dict().values(), strict=True):
        assert torch.equal(a, b)
    forgetful = small()
    forgetful.load_state_dict(saved[0])
    sam_steps(forgetful, SAM(sgd(groups_of(forgetful)), rho=0.1), data[7:])
    assert distance(forgetful, straight) > 1e-6, "without the base's momentum it must differ"


def test_momentum_is_in_the_state_dict() -> None:
    model = small()
    optimiser = SAM(sgd(groups_of(model)))
    sam_steps(model, optimiser, batches(1))
    buffers = [s["momentum_buffer"] for s in optimiser.state_dict()["state"].values()]
    assert len(buffers) == len(list(model.parameters())) - 1


def test_checkpoints_are_refused_while_the_weights_are_perturbed() -> None:
    model, batch = small(), batches(1)[0]
    optimiser = SAM(sgd(groups_of(model)))
    saved = optimiser.state_dict()
    loss_of(model, batch).backward()
    optimiser.ascend()
    with pytest.raises(RuntimeError, match="between ascend"):
        optimiser.state_dict()
    with pytest.raises(RuntimeError, match="between ascend"):
        optimiser.load_state_dict(saved)
    optimiser.restore()
    assert optimiser.state_dict()["ascent"] == {"optimiser": "SAM", "kept": {}}


def test_a_checkpoint_of_another_class_is_refused() -> None:
    model = small()
    saved = ASAM(sgd(groups_of(model))).state_dict()
    with pytest.raises(ValueError, match="written by SAM, got ASAM"):
        SAM(sgd(groups_of(model))).load_state_dict(saved)


@pytest.mark.parametrize("name", OPTIMISERS)
def test_the_state_of_a_plain_optimiser_is_that_of_the_base(name: str) -> None:
    """A run that SGD began goes on with SAM: momentum is taken over, ``rho`` stays."""
    model = small()
    plain = sgd([{"params": list(model.body.parameters())}, {"params": [*model.head.parameters()]}])
    for batch in batches(3):
        plain.zero_grad()
        loss_of(model, batch).backward()
        plain.step()
    body = {"params": list(model.body.parameters()), "rho": 0.2}
    fresh = sgd([body, {"params": [*model.head.parameters()]}])
    optimiser = OPTIMISERS[name](fresh, 0.07, model=model)
    optimiser.load_state_dict(plain.state_dict())
    assert [group["rho"] for group in optimiser.param_groups] == [0.2, 0.07]
    for p, state in plain.state.items():
        assert torch.equal(optimiser.state[p]["momentum_buffer"], state["momentum_buffer"])
    optimiser.step(closure_of(model, *batches(1)[0]))


def test_a_zero_gradient_moves_nothing() -> None:
    bowl = Bowl()
    with torch.no_grad():
        bowl.w.zero_()
    optimiser = SAM(torch.optim.SGD(bowl.parameters(), lr=0.1), rho=0.5)
    bowl().backward()
    optimiser.ascend()
    assert torch.equal(bowl.w, torch.zeros(4, dtype=torch.float64))
    bowl().backward()
    optimiser.descend()
    assert torch.equal(bowl.w, torch.zeros(4, dtype=torch.float64))


def test_calls_out_of_order_raise_with_a_sentence() -> None:
    model, batch = small(), batches(1)[0]
    optimiser = SAM(sgd(groups_of(model)))
    with pytest.raises(RuntimeError, match="descend\\(\\) needs ascend"):
        optimiser.descend()
    with pytest.raises(RuntimeError, match="no gradient"):
        optimiser.ascend()
    loss_of(model, batch).backward()
    optimiser.ascend()
    with pytest.raises(RuntimeError, match="called twice"):
        optimiser.ascend()
    optimiser.restore()
    with pytest.raises(RuntimeError, match="model="):
        optimiser.step(lambda rows=None: (model(batch[0]), batch[1]))
    with pytest.raises(RuntimeError, match="needs closure"):
        SAM(sgd(groups_of(model)), model=model).step()


def test_a_failing_second_pass_leaves_the_start_behind() -> None:
    model, (images, labels) = small(), batches(1)[0]
    start = [p.detach().clone() for p in model.parameters()]
    optimiser = SAM(sgd(groups_of(model)), model=model)
    calls = []

    def closure(rows: Tensor | None = None) -> tuple[Tensor, Tensor]:
        calls.append(rows)
        if len(calls) == 2:
            raise ZeroDivisionError
        return model(images), labels

    with pytest.raises(ZeroDivisionError):
        optimiser.step(closure)
    for p, s in zip(model.parameters(), start, strict=True):
        assert torch.equal(p, s)
    assert all(layer.track_running_stats for layer in model.body if hasattr(layer, "momentum"))


def test_accumulated_micro_batches_equal_the_large_batch() -> None:
    model, whole, (images, labels) = small().eval(), small().eval(), batches(1)[0]
    optimiser, other = SAM(sgd(groups_of(model))), SAM(sgd(groups_of(whole)))
    for leave in (optimiser.ascend, optimiser.descend):
        for part in (slice(0, 8), slice(8, 16)):
            (loss_of(model, (images[part], labels[part])) / 2).backward()
        leave()
    sam_steps(whole, other, [(images, labels)])
    assert distance(model, whole) < 1e-12


@pytest.mark.parametrize("on_base", [True, False])
def test_a_scheduler_on_either_moves_the_base(on_base: bool) -> None:
    model = small()
    optimiser = SAM(sgd(groups_of(model)))
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimiser.base if on_base else optimiser, max_lr=0.4, total_steps=4
    )
    rates = []
    for batch in batches(3):
        sam_steps(model, optimiser, [batch])
        schedule.step()
        rates.append(optimiser.base.param_groups[0]["lr"])
    assert len(set(rates)) == 3
    assert optimiser.param_groups is optimiser.base.param_groups
    optimiser.load_state_dict(copy.deepcopy(optimiser.state_dict()))
    assert optimiser.param_groups is optimiser.base.param_groups


@pytest.mark.parametrize(
    "build", [torch.optim.SGD, torch.optim.Adam, torch.optim.AdamW, torch.optim.RMSprop]
)
def test_any_base_takes_a_step(build: type[torch.optim.Optimizer]) -> None:
    model = small()
    start = [p.detach().clone() for p in model.parameters()]
    optimiser = SAM(build(model.parameters(), lr=0.01), rho=0.1)  # type: ignore[call-arg]
    sam_steps(model, optimiser, batches(2))
    assert not torch.equal(model.head.weight, start[4])
    assert torch.isfinite(model.head.weight).all()


def test_mixed_precisions_share_one_norm() -> None:
    wide = nn.Parameter(torch.zeros(2, dtype=torch.float64))
    narrow = nn.Parameter(torch.zeros(2, dtype=torch.bfloat16))
    optimiser = SAM(torch.optim.SGD([wide, narrow], lr=0.1), rho=1.0)
    wide.grad = torch.full((2,), 3.0, dtype=torch.float64)
    narrow.grad = torch.full((2,), 4.0, dtype=torch.bfloat16)
    optimiser.ascend()
    assert wide.tolist() == pytest.approx([3 / 50**0.5] * 2, rel=1e-12)
    assert narrow.tolist() == pytest.approx([4 / 50**0.5] * 2, rel=1e-2)


def test_a_group_added_later_gets_the_radius() -> None:
    model = small()
    optimiser = SAM(torch.optim.SGD(model.body.parameters(), lr=0.1), rho=0.3)
    optimiser.add_param_group({"params": list(model.head.parameters())})
    assert [g["rho"] for g in optimiser.base.param_groups] == [0.3, 0.3]


@pytest.mark.parametrize("rho", [-0.1, float("nan"), float("inf")])
def test_an_impossible_radius_is_refused(rho: float) -> None:
    with pytest.raises(ValueError, match="rho must be finite and at least 0"):
        SAM(torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=0.1), rho=rho)
