"""What other SAMs compute differently: each difference that docs/benchmarks.md names, reproduced.

pytorch-optimizer is installed by `make bench-training` only.
"""

import copy
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from benchmarks.training.usual import UsualSAM, hold_statistics, release_statistics
from tests.trueprob_trainer.small_problems import batches, small
from trueprob_trainer.sharpness_aware import SAM

IMAGES, LABELS = batches(1)[0]


def loss_of(model: nn.Module) -> Tensor:
    return nn.functional.cross_entropy(model(IMAGES), LABELS)


def usual_step(optimiser: UsualSAM, model: nn.Module) -> None:
    loss_of(model).backward()  # type: ignore[no-untyped-call]
    optimiser.first_step()
    hold_statistics(model)
    loss_of(model).backward()  # type: ignore[no-untyped-call]
    release_statistics(model)
    optimiser.second_step()


def usual(model: nn.Module, **options: float) -> UsualSAM:
    return UsualSAM(model.parameters(), torch.optim.SGD, 0.5, **{"lr": 0.0, **options})


def test_the_usual_checkpoint_lacks_the_momentum() -> None:
    model = small()
    optimiser = usual(model, momentum=0.9)
    usual_step(optimiser, model)
    assert all("momentum_buffer" not in s for s in optimiser.state_dict()["state"].values())
    ours = SAM(torch.optim.SGD(model.parameters(), lr=0.0, momentum=0.9))
    loss_of(model).backward()  # type: ignore[no-untyped-call]
    ours.ascend()
    loss_of(model).backward()  # type: ignore[no-untyped-call]
    ours.descend()
    assert all("momentum_buffer" in s for s in ours.state_dict()["state"].values())


@pytest.mark.parametrize(("build", "stays"), [(usual, True), (None, False)])
def test_the_usual_one_leaves_a_parameter_without_second_gradient_perturbed(
    build: Callable[[nn.Module], UsualSAM] | None, stays: bool
) -> None:
    model = small()
    start = model.head.weight.detach().clone()
    if build is None:
        ours = SAM(torch.optim.SGD(model.parameters(), lr=0.0), 0.5)
        climb, back = ours.ascend, ours.descend
    else:
        theirs = build(model)
        climb, back = theirs.first_step, theirs.second_step  # type: ignore[assignment]
    loss_of(model).backward()  # type: ignore[no-untyped-call]
    climb()
    nn.functional.cross_entropy(model.body(IMAGES), LABELS).backward()  # type: ignore[no-untyped-call]
    back()
    assert torch.equal(model.head.weight, start) is not stays


def test_the_usual_one_fails_on_a_parameter_whose_gradient_comes_second() -> None:
    model = small()
    optimiser = usual(model)
    nn.functional.cross_entropy(model.body(IMAGES), LABELS).backward()  # type: ignore[no-untyped-call]
    optimiser.first_step()
    loss_of(model).backward()  # type: ignore[no-untyped-call]
    with pytest.raises(KeyError):
        optimiser.second_step()


@pytest.mark.parametrize("wrapped", [False, True])
def test_the_usual_one_leaves_behind_what_shares_a_weights_memory(wrapped: bool) -> None:
    model = small()
    start, shared = model.head.weight.detach().clone(), model.head.weight.detach()
    if wrapped:
        ours = SAM(torch.optim.SGD(model.parameters(), lr=0.0), 0.5)
        climb, back = ours.ascend, ours.descend
    else:
        theirs = usual(model)
        climb, back = theirs.first_step, theirs.second_step  # type: ignore[assignment]
    loss_of(model).backward()  # type: ignore[no-untyped-call]
    climb()
    loss_of(model).backward()  # type: ignore[no-untyped-call]
    back()
    assert torch.equal(model.head.weight, start)
    assert torch.equal(shared, start) is wrapped
    assert (shared.data_ptr() == model.head.weight.data_ptr()) is wrapped


def test_the_usual_one_counts_two_batches_a_step() -> None:
    model = small()
    usual_step(usual(model), model)
    assert int(model.body[1].num_batches_tracked) == 2


def theirs(name: str, model: nn.Module, **options: Any) -> tuple[Any, list[int]]:
    """An optimiser of pytorch-optimizer and its documented step, with the passes counted."""
    package = pytest.importorskip("pytorch_optimizer")
    optimiser = getattr(package, name)(model.parameters(), torch.optim.SGD, lr=0.0, **options)
    passes: list[int] = []

    def closure() -> Tensor:
        optimiser.zero_grad()
        passes.append(1)
        loss = loss_of(model)
        loss.backward()  # type: ignore[no-untyped-call]
        return loss

    def step() -> None:
        closure()
        optimiser.step(closure)

    optimiser.whole_step = step
    return optimiser, passes


def test_their_documented_loop_moves_the_statistics_twice() -> None:
    model, once = small(), small()
    theirs("SAM", model, rho=5.0)[0].whole_step()
    once(IMAGES)
    assert int(model.body[1].num_batches_tracked) == 2
    assert not torch.allclose(model.body[1].running_mean, once.body[1].running_mean)


def test_an_error_in_their_second_pass_leaves_the_weights_perturbed() -> None:
    model = small()
    start = model.head.weight.detach().clone()

    def failing(*_: object) -> Any:
        raise ZeroDivisionError

    optimiser, _ = theirs("SAM", model, rho=5.0)
    loss_of(model).backward()  # type: ignore[no-untyped-call]
    with pytest.raises(ZeroDivisionError):
        optimiser.step(failing)
    assert not torch.equal(model.head.weight, start)
    model = small()
    ours = SAM(torch.optim.SGD(model.parameters(), lr=0.0), 5.0, model=model)
    passes: list[int] = []

    def second_fails(rows: Tensor | None = None) -> tuple[Tensor, Tensor]:
        passes.append(1)
        return (model(IMAGES), LABELS) if len(passes) == 1 else failing(rows)

    with pytest.raises(ZeroDivisionError):
        ours.step(second_fails)
    assert torch.equal(model.head.weight, start)


def test_their_adaptive_sam_cannot_move_a_weight_at_zero() -> None:
    model = small()
    with torch.no_grad():
        model.head.bias.zero_()
    optimiser, _ = theirs("SAM", model, rho=5.0, adaptive=True)
    loss_of(model).backward()  # type: ignore[no-untyped-call]
    optimiser.first_step()
    assert torch.equal(model.head.bias, torch.zeros_like(model.head.bias))


def test_their_looksam_takes_two_passes_in_every_step() -> None:
    optimiser, passes = theirs("LookSAM", small(), k=5)
    for _ in range(10):
        optimiser.whole_step()
    assert len(passes) == 20


def test_their_looksam_projects_each_tensor_by_itself() -> None:
    model = small()
    copied = copy.deepcopy(model)
    optimiser, _ = theirs("LookSAM", model, rho=0.5, k=5)
    optimiser.whole_step()
    loss_of(copied).backward()  # type: ignore[no-untyped-call]
    for p, q in zip(model.parameters(), copied.parameters(), strict=True):
        if q.grad is not None:
            assert abs(float((optimiser.state[p]["gv"] * q.grad).sum())) < 1e-9
