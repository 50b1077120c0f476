"""Losses as people have them: means, ignored labels, tokens, torch's closures, overflow."""

import copy
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from tests.trueprob_trainer.small_problems import batches, closure_of, distance, sgd, small
from trueprob_trainer.sharpness_aware import (
    CSAM,
    ESAM,
    OPTIMISERS,
    SAM,
    FisherSAM,
    Plain,
    frozen_running_statistics,
)

pytestmark = pytest.mark.slow

IMAGES, LABELS = batches(1)[0]
UNEVEN = [slice(0, 9), slice(9, 11), slice(11, 16)]
ALL = list(OPTIMISERS)
BY_ROW = ("csam", "esam")
NEED_LOGITS = ("csam", "esam", "functional-sam", "preconditioned-functional-sam")


def linear(seed: int = 0, n_inputs: int = 5, k: int = 3) -> nn.Linear:
    """No layer that mixes rows: micro-batches must not matter."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return nn.Linear(n_inputs, k).double()


def after_steps(
    name: str, model: nn.Module, closures: list[Any], n: int = 3, **shared: Any
) -> nn.Module:
    optimiser = OPTIMISERS[name](torch.optim.SGD(model.parameters(), lr=0.3, momentum=0.9), 0.1,
                                 model=model, **shared)  # fmt: skip
    for _ in range(n):
        optimiser.step(closures)
    return model


@pytest.mark.parametrize("name", [n for n in ALL if n not in (*BY_ROW, "fisher-sam")])
def test_a_mean_loss_over_uneven_micro_batches_is_the_mean_over_all_rows(name: str) -> None:
    mean = nn.functional.cross_entropy
    whole, split, by_row = linear(), linear(), linear()
    after_steps(name, whole, [closure_of(whole, IMAGES, LABELS)])
    parts = [closure_of(split, IMAGES[p], LABELS[p]) for p in UNEVEN]
    after_steps(name, split, parts, loss=mean)
    after_steps(name, by_row, [closure_of(by_row, IMAGES[p], LABELS[p]) for p in UNEVEN])
    assert distance(whole, split) < 1e-12
    assert distance(whole, by_row) < 1e-12
    assert distance(whole, linear()) > 0.01


@pytest.mark.parametrize("build", [CSAM, ESAM, lambda b, **s: FisherSAM(b, fisher="samples", **s)])
def test_where_rows_are_compared_a_mean_loss_is_refused(build: Callable[..., Any]) -> None:
    model = small()
    optimiser = build(sgd(model), model=model, loss=nn.functional.cross_entropy)
    before = copy.deepcopy(model.state_dict())
    with pytest.raises(ValueError, match="loss must give one number for each row, got their mean"):
        optimiser.step(closure_of(model, IMAGES, LABELS))
    for p, (_, q) in zip(model.parameters(), small().named_parameters(), strict=True):
        assert torch.equal(p, q)
    assert before.keys() == model.state_dict().keys()


@pytest.mark.parametrize("index", [-100, 2])
@pytest.mark.parametrize("name", ALL)
def test_ignored_rows_do_not_exist(name: str, index: int) -> None:
    kept = torch.tensor([0, 1, 3, 4, 6, 8, 9, 10, 12, 13, 14, 15])
    images, labels = IMAGES, LABELS % 2  # classes 0 and 1, so 2 can be the ignored one
    masked = torch.full_like(labels, index).index_put((kept,), labels[kept])
    some, without = linear(), linear()
    more: dict[str, Any] = {"gamma": 1.0} if name == "esam" else {}
    parts = [closure_of(some, images[p], masked[p]) for p in UNEVEN]
    after_steps(name, some, parts, ignore_index=index, **more)
    after_steps(name, without, [closure_of(without, images[kept], labels[kept])], **more)
    assert distance(some, without) < 1e-12
    assert distance(some, linear()) > 0.01


@pytest.mark.parametrize("name", ALL)
def test_a_batch_of_nothing_but_ignored_rows_moves_nothing(name: str) -> None:
    model = linear()
    after_steps(name, model, [closure_of(model, IMAGES, torch.full_like(LABELS, -100))], n=1)
    assert distance(model, linear()) == 0


@pytest.mark.parametrize("name", ALL)
def test_tokens_are_rows(name: str) -> None:
    """Logits (n, t, k) and labels (n, t), some of them padding, as of a language model."""
    generator = torch.Generator().manual_seed(4)
    inputs = torch.randn(6, 4, 5, generator=generator, dtype=torch.float64)
    labels = torch.randint(0, 3, (6, 4), generator=generator)
    labels[0, 2:] = labels[3, 1:] = -100
    more: dict[str, Any] = {"gamma": 1.0} if name == "esam" else {}
    tokens, rows = linear(), linear()
    after_steps(name, tokens, [closure_of(tokens, inputs, labels)], **more)
    flat = closure_of(rows, inputs.flatten(0, 1), labels.flatten())
    after_steps(name, rows, [flat], **more)
    assert distance(tokens, rows) < 1e-12
    assert distance(tokens, linear()) > 0.01


def test_esam_takes_whole_sequences() -> None:
    generator = torch.Generator().manual_seed(4)
    inputs = torch.randn(6, 4, 5, generator=generator, dtype=torch.float64)
    labels = torch.randint(0, 3, (6, 4), generator=generator)
    model, taken = linear(), []

    def closure(rows: Tensor | None = None) -> tuple[Tensor, Tensor]:
        taken.append(6 if rows is None else len(rows))
        chosen = slice(None) if rows is None else rows
        return model(inputs[chosen]), labels[chosen]

    ESAM(sgd_of(model), model=model).step(closure)
    assert taken == [6, 6, 3]


def sgd_of(model: nn.Module) -> torch.optim.SGD:
    return torch.optim.SGD(model.parameters(), lr=0.3, momentum=0.9)


# ----- torch's closures -----


@pytest.mark.parametrize("backward", [True, False])
@pytest.mark.parametrize("name", [n for n in ALL if n not in NEED_LOGITS])
def test_torchs_closure_gives_the_same_step(name: str, backward: bool) -> None:
    ours, theirs = small(), small()
    optimiser = OPTIMISERS[name](sgd_of(theirs), 0.1, model=theirs)

    def closure() -> Tensor:
        optimiser.zero_grad()
        loss = nn.functional.cross_entropy(theirs(IMAGES), LABELS)
        if backward:
            loss.backward()  # type: ignore[no-untyped-call]
        return loss

    expected = OPTIMISERS[name](sgd_of(ours), 0.1, model=ours)
    for _ in range(3):
        mine = expected.step(closure_of(ours, IMAGES, LABELS))
        loss = optimiser.step(closure)
        assert float(loss) == pytest.approx(float(mine), rel=1e-12)
        assert not loss.requires_grad
    assert distance(ours, theirs) < 1e-12
    for a, b in zip(ours.buffers(), theirs.buffers(), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-12, atol=1e-12)
    plain = small()
    control = Plain(sgd_of(plain))
    for _ in range(3):
        control.step(closure_of(plain, IMAGES, LABELS))
    assert (distance(plain, theirs) > 1e-4) is (name != "sgd")


@pytest.mark.parametrize("name", NEED_LOGITS)
def test_a_loss_is_refused_where_the_logits_are_needed(name: str) -> None:
    model = small()
    optimiser = OPTIMISERS[name](sgd(model), model=model)
    with pytest.raises(TypeError, match=r"must return \(logits, labels\), got a loss"):
        optimiser.step(lambda: nn.functional.cross_entropy(model(IMAGES), LABELS))


def test_losses_of_several_micro_batches_and_losses_by_row_are_refused() -> None:
    model = small()
    optimiser = SAM(sgd(model), model=model)
    closures = [lambda: nn.functional.cross_entropy(model(IMAGES), LABELS)] * 2
    with pytest.raises(RuntimeError, match="the mean over all rows needs their number"):
        optimiser.step(closures)
    with pytest.raises(TypeError, match=r"one loss, got a tensor of shape \(16,\)"):
        optimiser.step(lambda: nn.functional.cross_entropy(model(IMAGES), LABELS, reduction="none"))


# ----- overflow in the first pass -----


@pytest.mark.parametrize("name", [n for n in ALL if n not in ("sgd", "momentum-sam")])
def test_an_overflow_in_the_first_pass_alone_lowers_the_scale_and_steps_nothing(name: str) -> None:
    model = small()
    scaler = torch.amp.GradScaler("cpu", init_scale=2.0**10)
    optimiser = OPTIMISERS[name](sgd(model), model=model, scaler=scaler, clip_norm=1.0)
    calls = 0

    def closure(rows: Tensor | None = None) -> tuple[Tensor, Tensor]:
        nonlocal calls
        calls += 1
        chosen = slice(None) if rows is None else rows
        logits = model(IMAGES[chosen])
        if calls == 1:  # gradients of the loss times the scale do not fit into float16
            logits.register_hook(lambda g: g * float("inf"))
        return logits, LABELS[chosen]

    before = [p.detach().clone() for p in model.parameters()]
    optimiser.step(closure)
    assert calls > 1 or name == "periodic-sam"
    assert scaler.get_scale() == 2.0**9
    for p, q in zip(model.parameters(), before, strict=True):
        assert torch.equal(p, q)
    optimiser.step(closure)
    assert scaler.get_scale() == 2.0**9
    assert any(not torch.equal(p, q) for p, q in zip(model.parameters(), before, strict=True))


def test_an_overflow_in_one_of_several_ascents_skips_the_step() -> None:
    model = small()
    scaler = torch.amp.GradScaler("cpu", init_scale=2.0**10)
    optimiser = SAM(sgd(model), model=model, scaler=scaler, m_sharpness=True)
    calls = 0

    def closure() -> tuple[Tensor, Tensor]:
        nonlocal calls
        calls += 1
        logits = model(IMAGES)
        if calls == 1:
            logits.register_hook(lambda g: g * float("inf"))
        return logits, LABELS

    before = [p.detach().clone() for p in model.parameters()]
    optimiser.step([closure, closure])
    assert scaler.get_scale() == 2.0**9
    assert all(torch.equal(p, q) for p, q in zip(model.parameters(), before, strict=True))
    optimiser.step([closure, closure])
    assert not all(torch.equal(p, q) for p, q in zip(model.parameters(), before, strict=True))


# ----- what others write -----


@pytest.mark.parametrize("name", ALL)
def test_the_constructor_of_other_programs_is_told_what_to_write(name: str) -> None:
    kind, model = OPTIMISERS[name], small()
    advice = rf"write {kind.__name__}\(torch.optim.SGD\(parameters, lr=...\), rho=...\)"
    with pytest.raises(TypeError, match=f"base must be a built optimiser, got .*: {advice}"):
        kind(model.parameters(), torch.optim.SGD, rho=0.05, lr=0.1, momentum=0.9)
    with pytest.raises(TypeError, match=advice):
        kind(model.parameters(), lr=0.1)
    with pytest.raises(TypeError, match=advice):
        kind(params=model.parameters(), base_optimizer=torch.optim.SGD, rho=0.05, lr=0.1)
    with pytest.raises(TypeError, match=r"write .*\(torch.optim.AdamW\(parameters"):
        kind(model.parameters(), base_optimizer=torch.optim.AdamW)


def test_the_pair_holds_a_buffer_that_is_no_part_of_torch() -> None:
    class Centred(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer = nn.Linear(5, 3).double()
            self.register_buffer("seen", torch.zeros((), dtype=torch.int64))

        def forward(self, rows: Tensor) -> Tensor:
            self.seen += len(rows)
            return self.layer(rows)  # type: ignore[no-any-return]

    model = Centred()
    optimiser = SAM(sgd_of(model))
    nn.functional.cross_entropy(model(IMAGES), LABELS).backward()  # type: ignore[no-untyped-call]
    optimiser.ascend()
    with frozen_running_statistics(model):
        nn.functional.cross_entropy(model(IMAGES), LABELS).backward()  # type: ignore[no-untyped-call]
    optimiser.descend()
    assert int(model.seen) == 16
