"""SAM compared with an independent, slow reference, which plain SGD must not match."""

import copy

import pytest
import torch
from torch import Tensor, nn

from tests.trueprob_trainer.sharpness_aware.sam_problem import (
    CURVATURE,
    N_STEPS,
    Bowl,
    batches,
    distance,
    groups_of,
    loss_of,
    reference_steps,
    sam_steps,
    sgd,
    small,
)
from trueprob_trainer.sharpness_aware import SAM, frozen_running_statistics
from trueprob_trainer.sharpness_aware.wrapper import cross_entropy_per_sample


def test_ascent_has_length_rho_along_the_gradient() -> None:
    model, batch = small(), batches(1)[0]
    optimiser = SAM(torch.optim.SGD(model.parameters(), lr=0.1), rho=0.3)
    start = [p.detach().clone() for p in model.parameters()]
    loss_of(model, batch).backward()
    direction = [None if p.grad is None else p.grad.clone() for p in model.parameters()]
    length = torch.sqrt(sum((g**2).sum() for g in direction if g is not None))
    optimiser.ascend()
    moved = [p.detach() - s for p, s in zip(model.parameters(), start, strict=True)]
    assert float(torch.sqrt(sum((m**2).sum() for m in moved))) == pytest.approx(0.3, rel=1e-12)
    for m, g in zip(moved, direction, strict=True):
        torch.testing.assert_close(m, torch.zeros_like(m) if g is None else 0.3 * g / length)
    assert all(p.grad is None for p in model.parameters())


def test_descend_restores_the_start_bit_for_bit_before_the_base_steps() -> None:
    model, batch = small().float(), batches(1)[0]
    batch = (batch[0].float(), batch[1])
    optimiser = SAM(torch.optim.SGD(model.parameters(), lr=0.0), rho=1e3)
    start = copy.deepcopy(model.state_dict())
    sam_steps(model, optimiser, [batch])
    for name, p in model.named_parameters():
        assert torch.equal(p, start[name]), name


@pytest.mark.parametrize("wrapped", [True, False])
def test_the_gradient_on_a_quadratic_is_that_of_the_climbed_point(wrapped: bool) -> None:
    bowl = Bowl()
    base = torch.optim.SGD(bowl.parameters(), lr=0.05)
    sam = SAM(base, rho=0.5)
    w = bowl.w.detach().clone()
    for _ in range(N_STEPS):
        bowl().backward()
        if wrapped:
            sam.ascend()
            bowl().backward()
            sam.descend()
        else:
            base.step()
            base.zero_grad()
        slope = CURVATURE @ w
        w = w - 0.05 * (CURVATURE @ (w + 0.5 * slope / slope.norm()))
    assert (float((bowl.w.detach() - w).abs().max()) < 1e-10) is wrapped


@pytest.mark.parametrize("wrapped", [True, False])
def test_twenty_steps_equal_the_slow_reference_and_plain_sgd_does_not(wrapped: bool) -> None:
    model, expected = small(), small()
    base = sgd(groups_of(model))
    sam = SAM(base, rho=0.05)
    if wrapped:
        sam_steps(model, sam, batches())
    else:
        for batch in batches():
            base.zero_grad()
            loss_of(model, batch).backward()
            base.step()
    reference_steps(expected, batches(), lambda name: 0.2 if name.startswith("body") else 0.05)
    assert (distance(model, expected) < 1e-10) is wrapped
    assert torch.equal(model.unused, torch.ones(4, dtype=torch.float64))


def test_one_call_equals_the_two() -> None:
    by_pair, by_call = small(), small()
    sam_steps(by_pair, SAM(sgd(groups_of(by_pair))), batches())
    optimiser = SAM(sgd(groups_of(by_call)), model=by_call)
    for images, labels in batches():

        def closure(rows: Tensor | None = None) -> tuple[Tensor, Tensor]:
            chosen = slice(None) if rows is None else rows
            return by_call(images[chosen]), labels[chosen]  # noqa: B023 - called in this turn

        loss = optimiser.step(closure)
        assert not loss.requires_grad
    for a, b in zip(by_pair.state_dict().values(), by_call.state_dict().values(), strict=True):
        assert torch.equal(a, b)


def test_a_per_sample_loss_of_the_callers_is_used() -> None:
    halved, plain = small(), small()
    half = SAM(
        sgd(groups_of(halved)), model=halved, loss=lambda z, y: cross_entropy_per_sample(z, y) / 2
    )
    whole = SAM(sgd(groups_of(plain)), model=plain)
    images, labels = batches(1)[0]
    assert float(half.step(lambda rows=None: (halved(images), labels))) == pytest.approx(
        float(whole.step(lambda rows=None: (plain(images), labels))) / 2
    )


def test_running_statistics_move_in_the_first_pass_only() -> None:
    model, batch = small(), batches(1)[0]
    norm = model.body[1]
    optimiser = SAM(sgd(groups_of(model)), rho=5.0)
    loss_of(model, batch).backward()
    after_first = {k: v.clone() for k, v in norm.state_dict().items()}
    optimiser.ascend()
    with frozen_running_statistics(model):
        loss_of(model, batch).backward()
    optimiser.descend()
    for name in ("running_mean", "running_var", "num_batches_tracked"):
        assert torch.equal(norm.state_dict()[name], after_first[name]), name
    assert int(norm.num_batches_tracked) == 1
    assert norm.momentum == 0.3
    assert norm.track_running_stats


def test_the_second_pass_still_normalises_by_the_batch() -> None:
    model, batch = small(), batches(1)[0]
    free = copy.deepcopy(model)
    with frozen_running_statistics(model):
        assert torch.equal(model(batch[0]), free(batch[0]))


class Counting(nn.Module):
    """Buffers of its own: one is moved in place, one is bound to a new tensor, one is None."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("mean", torch.zeros(3))
        self.register_buffer("count", torch.tensor(0))
        self.register_buffer("absent", None)

    def forward(self, rows: Tensor) -> Tensor:
        if self.training:
            self.mean.lerp_(rows.detach().mean(0), 0.1)
            self.count = self.count + 1
        return rows - self.mean


def moving() -> nn.Sequential:
    linear = nn.Linear(3, 3)
    with torch.no_grad():
        linear.weight.copy_(torch.diag(torch.tensor([1.0, 0.9, 0.8])))
    normed = nn.utils.parametrizations.spectral_norm(linear)
    normed.parametrizations.weight[0]._u.copy_(torch.tensor([0.6, 0.0, 0.8]))  # far from the end
    return nn.Sequential(
        nn.BatchNorm1d(3),
        nn.BatchNorm1d(3, track_running_stats=False),
        nn.BatchNorm1d(3).eval(),
        Counting(),
        normed,
    )


def test_buffers_come_back_after_an_exception_as_the_same_tensors() -> None:
    model, rows = moving(), torch.randn(5, 3)
    model(rows)
    before = {name: (t, t.clone()) for name, t in model.named_buffers()}

    def fail_inside() -> None:
        with frozen_running_statistics(model):
            with frozen_running_statistics(model):
                model(rows + 1)
            model(rows + 2)
            moved = {n for n, t in model.named_buffers() if not torch.equal(t, before[n][1])}
            assert {"0.running_mean", "0.running_var", "3.mean", "3.count"} < moved
            assert "4.parametrizations.weight.0._u" in moved
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fail_inside()
    for name, tensor in model.named_buffers():
        assert tensor is before[name][0], name
        assert torch.equal(tensor, before[name][1]), name


def test_any_buffer_moves_once_in_a_step() -> None:
    model, once, rows = moving(), moving(), torch.randn(5, 3)
    once.load_state_dict(model.state_dict())
    optimiser = SAM(torch.optim.SGD(model.parameters(), lr=0.1), 0.5, model=model)
    optimiser.step(lambda: (model(rows), torch.tensor([0, 1, 2, 0, 1])))
    once(rows)
    expected = dict(once.named_buffers())
    for name, tensor in model.named_buffers():
        assert torch.equal(tensor, expected[name]), name
