"""What the papers promise, checked where it can be checked exactly."""

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from tests.trueprob_trainer.small_problems import batches, closure_of, distance, problem, sgd, small
from trueprob_trainer.sharpness_aware import (
    ASAM,
    CSAM,
    ESAM,
    SAM,
    FisherSAM,
    FunctionalSAM,
    LookSAM,
    MomentumSAM,
    PeriodicSAM,
    PreconditionedSAM,
)
from trueprob_trainer.sharpness_aware.wrapper import WrappedOptimizer

IMAGES, LABELS = batches(1)[0]


def run(optimiser: WrappedOptimizer, model: nn.Module, n: int = 20) -> None:
    for images, labels in batches(n):
        optimiser.step(closure_of(model, images, labels))


@pytest.mark.parametrize("kind", ["quadratic", "network"])
def test_csam_without_gamma_is_sam(kind: str) -> None:
    made = problem(kind)
    model, control = made.build(), made.build()
    csam = CSAM(sgd(model), model=model, loss=made.loss, gamma=0.0)
    sam = SAM(sgd(control), model=control, loss=made.loss)
    for a, b in zip(made.closures(model), made.closures(control), strict=True):
        csam.step(a)
        sam.step(b)
    assert distance(model, control) < 1e-12


def climbed_loss(network: nn.Sequential, optimiser: ASAM | SAM) -> float:
    def loss() -> Tensor:
        return nn.functional.cross_entropy(network(IMAGES), LABELS)

    loss().backward()  # type: ignore[no-untyped-call]
    optimiser.ascend()
    climbed = float(loss().detach())
    optimiser.restore()
    return climbed


@pytest.mark.parametrize(
    ("build", "options", "invariant"),
    [(ASAM, {"eta": 0.0}, True), (ASAM, {"eta": 0.1}, False), (SAM, {}, False)],
)
def test_adaptive_perturbations_ignore_a_rescaling_that_the_function_does_not_see(
    build: type[ASAM], options: dict[str, Any], invariant: bool
) -> None:
    losses = []
    for factor in (1.0, 8.0):
        with torch.random.fork_rng():
            torch.manual_seed(0)
            network = nn.Sequential(nn.Linear(5, 6), nn.ReLU(), nn.Linear(6, 3)).double()
        with torch.no_grad():
            for p in network[0].parameters():
                p.mul_(factor)
            network[2].weight.div_(factor)
        optimiser = build(torch.optim.SGD(network.parameters(), lr=0.1), rho=0.5, **options)
        losses.append(climbed_loss(network, optimiser))
    assert (abs(losses[0] - losses[1]) < 1e-12) is invariant


def test_functional_sam_takes_the_jacobian_there_and_the_slope_here() -> None:
    model = small(dropout=0.5)
    model.body[1] = nn.Identity()
    optimiser = FunctionalSAM(torch.optim.SGD(model.parameters(), lr=1.0), rho=0.7, model=model)
    named = {n: p.detach().clone() for n, p in model.named_parameters() if n != "unused"}
    with torch.random.fork_rng():
        torch.manual_seed(1)
        mask = nn.functional.dropout(torch.ones(16, 7, dtype=torch.float64), 0.5)

    def logits(w: dict[str, Tensor]) -> Tensor:
        return (torch.tanh(IMAGES @ w["body.0.weight"].T) * mask) @ w["head.weight"].T + w[
            "head.bias"
        ]

    z = logits(named).requires_grad_()
    (slope,) = torch.autograd.grad(nn.functional.cross_entropy(z, LABELS), z)
    jacobian = torch.func.jacrev(logits)(named)
    first = {n: torch.tensordot(slope, j, dims=2) for n, j in jacobian.items()}
    length = torch.sqrt(torch.stack([(g**2).sum() for g in first.values()]).sum())
    there = torch.func.jacrev(logits)({n: w + 0.7 * first[n] / length for n, w in named.items()})
    with torch.random.fork_rng():
        torch.manual_seed(1)
        optimiser.step(closure_of(model, IMAGES, LABELS))
    for name, w in named.items():
        found = w - model.get_parameter(name).detach()
        torch.testing.assert_close(
            found, torch.tensordot(slope, there[name], dims=2), rtol=0, atol=1e-12
        )


def test_the_same_dropout_masks_do_not_hold_up_the_generator() -> None:
    model, control = small(dropout=0.5), small(dropout=0.5)
    with torch.random.fork_rng():
        torch.manual_seed(4)
        FunctionalSAM(sgd(model), model=model).step(closure_of(model, IMAGES, LABELS))
        after = torch.rand(1)
        torch.manual_seed(4)
        control(IMAGES)
        assert torch.equal(after, torch.rand(1))


def test_esam_looks_again_at_the_rows_whose_loss_rose_most() -> None:
    model = small()
    seen: list[Tensor | None] = []

    def closure(rows: Tensor | None = None) -> tuple[Tensor, Tensor]:
        seen.append(rows)
        chosen = slice(None) if rows is None else rows
        return model(IMAGES[chosen]), LABELS[chosen]

    def losses() -> Tensor:
        return nn.functional.cross_entropy(model(IMAGES), LABELS, reduction="none").detach()

    optimiser = ESAM(
        torch.optim.SGD(model.parameters(), lr=0.0), rho=0.5, beta=1.0, gamma=0.26, model=model
    )
    before = losses()
    optimiser.step(closure)
    assert [r is None for r in seen] == [True, True, False]
    assert isinstance(seen[2], Tensor)
    nn.functional.cross_entropy(model(IMAGES), LABELS).backward()  # type: ignore[no-untyped-call]
    optimiser._ascend()
    rise = losses() - before
    optimiser.restore()
    assert sorted(seen[2].tolist()) == sorted(rise.argsort(descending=True)[:4].tolist())


def test_momentum_sam_looks_back_along_the_momentum_and_stands_still_without() -> None:
    model = small()
    optimiser = MomentumSAM(torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9), rho=0.5)
    start = [p.detach().clone() for p in model.parameters()]
    optimiser.ascend()
    assert all(torch.equal(p, s) for p, s in zip(model.parameters(), start, strict=True))
    nn.functional.cross_entropy(model(IMAGES), LABELS).backward()  # type: ignore[no-untyped-call]
    optimiser.descend()
    start = [p.detach().clone() for p in model.parameters()]
    optimiser.ascend()
    moves = [p.detach() - s for p, s in zip(model.parameters(), start, strict=True)]
    assert float(torch.sqrt(torch.stack([(m**2).sum() for m in moves]).sum())) == pytest.approx(0.5)
    for p, m in zip(model.parameters(), moves, strict=True):
        if p in optimiser.state:
            v = optimiser.state[p]["momentum_buffer"]
            assert float((m * v).sum()) == pytest.approx(-float(m.norm() * v.norm()), rel=1e-6)
    with pytest.raises(RuntimeError, match="weights are perturbed"):
        optimiser.state_dict()
    optimiser.restore()
    assert all(torch.equal(p, s) for p, s in zip(model.parameters(), start, strict=True))


def test_undamped_fisher_information_would_explode_and_the_papers_does_not() -> None:
    parameter = nn.Parameter(torch.zeros(2, dtype=torch.float64))
    optimiser = FisherSAM(torch.optim.SGD([parameter], lr=0.1), rho=0.1)
    parameter.grad = torch.tensor([1.0, 1e-9], dtype=torch.float64)
    optimiser.ascend()
    assert float(parameter.detach().norm()) < 0.2
    optimiser.restore()


def test_sam_every_k_steps_begins_with_one() -> None:
    model = small()
    optimiser = PeriodicSAM(sgd(model), k=3, model=model)
    due = []
    for images, labels in batches(7):
        due.append(optimiser.second_pass_due)
        optimiser.step(closure_of(model, images, labels))
    assert due == [True, False, False, True, False, False, True]


@pytest.mark.parametrize("build", [PeriodicSAM, LookSAM])
def test_a_cycle_of_one_is_sam(build: type[PeriodicSAM]) -> None:
    model, control = small(), small()
    run(build(sgd(model), 0.05, k=1, model=model), model)
    run(SAM(sgd(control), 0.05, model=control), control)
    assert distance(model, control) == 0.0


def test_a_bases_own_second_moment_is_taken_once_there_is_one() -> None:
    model = small()
    optimiser = PreconditionedSAM(torch.optim.RMSprop(model.parameters(), lr=0.01), model=model)
    run(optimiser, model, 1)
    assert len(optimiser.state_dict()["ascent"]["kept"]["squares"]) == 5
    run(optimiser, model, 1)
    assert optimiser.state_dict()["ascent"] == {
        "optimiser": "PreconditionedSAM",
        "kept": {"squares": {}, "n_squares": {}},
    }
