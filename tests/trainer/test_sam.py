"""SAM against an independent, slow reference; plain SGD has to fail the same comparison."""

import copy
from collections.abc import Callable, Iterator

import pytest
import torch
from torch import Tensor, nn

from trainer.sharpness_aware import SAM, frozen_running_statistics
from trainer.sharpness_aware.wrapper import cross_entropy_per_sample

N_STEPS = 20
CURVATURE = torch.diag(torch.tensor([9.0, 1.0, 0.1, 4.0], dtype=torch.float64))


class Bowl(nn.Module):
    """L(w) = wᵀAw/2."""

    def __init__(self) -> None:
        super().__init__()
        self.w = nn.Parameter(torch.tensor([1.0, -2.0, 3.0, 0.5], dtype=torch.float64))

    def forward(self) -> Tensor:
        return self.w @ CURVATURE @ self.w / 2


class Small(nn.Module):
    """Two groups, BatchNorm, and a parameter that no output depends on."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(nn.Linear(5, 7), nn.BatchNorm1d(7, momentum=0.3), nn.Tanh())
        self.head = nn.Linear(7, 3)
        self.unused = nn.Parameter(torch.ones(4))

    def forward(self, rows: Tensor) -> Tensor:
        return self.head(self.body(rows))


def small(seed: int = 0) -> Small:
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return Small().double()


def batches(n: int = N_STEPS) -> list[tuple[Tensor, Tensor]]:
    generator = torch.Generator().manual_seed(3)
    return [
        (
            torch.randn(16, 5, generator=generator, dtype=torch.float64),
            torch.randint(0, 3, (16,), generator=generator),
        )
        for _ in range(n)
    ]


def groups_of(model: Small) -> list[dict[str, object]]:
    return [
        {"params": list(model.body.parameters()), "rho": 0.2, "weight_decay": 0.0},
        {"params": [*model.head.parameters(), model.unused]},
    ]


def sgd(groups: object) -> torch.optim.SGD:
    return torch.optim.SGD(groups, lr=0.1, momentum=0.9, weight_decay=0.01)  # type: ignore[arg-type]


def loss_of(model: Small, batch: tuple[Tensor, Tensor]) -> Tensor:
    return nn.functional.cross_entropy(model(batch[0]), batch[1])


def sam_steps(model: Small, optimiser: SAM, data: list[tuple[Tensor, Tensor]]) -> None:
    for batch in data:
        loss_of(model, batch).backward()
        optimiser.ascend()
        with frozen_running_statistics(model):
            loss_of(model, batch).backward()
        optimiser.descend()


def reference_steps(model: Small, data: list[tuple[Tensor, Tensor]], rhos: Callable[[str], float]):
    """SAM and SGD with momentum, one parameter at a time, from the papers' formulas."""
    buffers: dict[str, Tensor] = {}
    for batch in data:
        used = {n: p for n, p in model.named_parameters() if n != "unused"}
        gradient = dict(
            zip(used, torch.autograd.grad(loss_of(model, batch), list(used.values())), strict=True)
        )
        length = sum(float((g**2).sum()) for g in gradient.values()) ** 0.5
        climbed = copy.deepcopy(model)
        for name, p in climbed.named_parameters():
            if name in gradient:
                p.data = p.data + rhos(name) * gradient[name] / length
        up = {n: p for n, p in climbed.named_parameters() if n != "unused"}
        used_gradient = dict(
            zip(up, torch.autograd.grad(loss_of(climbed, batch), list(up.values())), strict=True)
        )
        for name, p in model.named_parameters():
            if name in used_gradient:
                decay = 0.0 if name.startswith("body") else 0.01
                d = used_gradient[name] + decay * p.data
                buffers[name] = d if name not in buffers else 0.9 * buffers[name] + d
                p.data = p.data - 0.1 * buffers[name]


def distance(a: nn.Module, b: nn.Module) -> float:
    pairs = zip(a.parameters(), b.parameters(), strict=True)
    return max(float((p - q).detach().abs().max()) for p, q in pairs)


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


def test_flags_come_back_after_an_exception_and_only_those_switched_off() -> None:
    model = nn.Sequential(
        nn.BatchNorm1d(3),
        nn.BatchNorm1d(3, track_running_stats=False),
        nn.BatchNorm1d(3).eval(),
        nn.InstanceNorm1d(3, track_running_stats=True),
    )

    def flags() -> Iterator[bool]:
        return (layer.track_running_stats for layer in model)

    def fail_inside() -> None:
        with frozen_running_statistics(model):
            assert list(flags()) == [False, False, True, False]
            with frozen_running_statistics(model):
                pass
            assert list(flags()) == [False, False, True, False]
            raise ZeroDivisionError

    before = list(flags())
    with pytest.raises(ZeroDivisionError):
        fail_inside()
    assert list(flags()) == before


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
    assert optimiser.state_dict()["ascent"] == {"optimiser": "SAM"}


def test_a_checkpoint_of_another_class_is_refused() -> None:
    model = small()
    base = sgd(groups_of(model))
    with pytest.raises(ValueError, match="written by SAM, got None"):
        SAM(base).load_state_dict(base.state_dict())


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
    with pytest.raises(RuntimeError, match="descend\\(\\) without ascend"):
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
