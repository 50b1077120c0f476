"""Ten mistakes that published guides to these optimisers contain: one test each that they fail."""

import copy
import inspect

import pytest
import torch
from torch import Tensor

from tests.trueprob_trainer.small_problems import (
    CURVATURE,
    Bowl,
    batches,
    bowl_loss,
    closure_of,
    distance,
    sgd,
    small,
)
from trueprob_trainer.sharpness_aware import (
    CSAM,
    ESAM,
    SAM,
    LookSAM,
    MomentumSAM,
    Plain,
    checkpointed,
    frozen_running_statistics,
)
from trueprob_trainer.sharpness_aware.methods.csam import calibrating_weight
from trueprob_trainer.sharpness_aware.wrapper import Closure

IMAGES, LABELS = batches(1)[0]


def counted(closure: Closure, calls: list[object]) -> Closure:
    def call(rows: Tensor | None = None) -> tuple[Tensor, Tensor]:
        calls.append(rows)
        return closure(rows=rows)

    return call


def test_1_the_second_gradient_is_not_added_to_the_first() -> None:
    bowl = Bowl()
    optimiser = SAM(torch.optim.SGD([bowl.body, bowl.head], lr=1.0), rho=0.1)
    assert isinstance(bowl.turn, Tensor)
    hessian = bowl.turn.T @ torch.diag(CURVATURE) @ bowl.turn
    w = torch.cat([bowl.body, bowl.head]).detach()
    slope = hessian @ w
    rows = torch.arange(4)
    bowl_loss(bowl(rows), rows).mean().backward()
    optimiser.ascend()
    assert bowl.body.grad is None
    bowl_loss(bowl(rows), rows).mean().backward()
    optimiser.descend()
    expected = w - hessian @ (w + 0.1 * slope / slope.norm())
    torch.testing.assert_close(torch.cat([bowl.body, bowl.head]).detach(), expected)


def test_2_weights_come_back_when_a_parameter_has_no_gradient() -> None:
    model = small()
    start = [p.detach().clone() for p in model.parameters()]
    optimiser = SAM(torch.optim.SGD(model.parameters(), lr=0.0), rho=10.0, model=model)
    calls: list[object] = []

    def closure(rows: Tensor | None = None) -> tuple[Tensor, Tensor]:
        calls.append(rows)
        with_head = len(calls) % 4 in (1, 0)  # has, has not; has not, has; and "unused" never
        features = model.body(IMAGES)
        return (model.head(features) if with_head else features), LABELS

    for _ in range(2):
        optimiser.step(closure)
        assert all(torch.equal(p, s) for p, s in zip(model.parameters(), start, strict=True))
    assert len(calls) == 4


def test_3_the_momentum_of_the_base_is_in_the_checkpoint() -> None:
    model = small()
    optimiser = SAM(sgd(model), model=model)
    optimiser.step(closure_of(model, IMAGES, LABELS))
    other_model = small()
    other_model.load_state_dict(model.state_dict())
    other = SAM(sgd(other_model), model=other_model)
    other.load_state_dict(copy.deepcopy(optimiser.state_dict()))
    optimiser.step(closure_of(model, IMAGES, LABELS))
    other.step(closure_of(other_model, IMAGES, LABELS))
    assert distance(model, other_model) == 0.0


def test_4_batch_norm_keeps_its_momentum() -> None:
    model = small()
    norm = model.body[1]
    assert isinstance(norm, torch.nn.BatchNorm1d)
    SAM(sgd(model), model=model).step(closure_of(model, IMAGES, LABELS))
    assert norm.momentum == 0.3
    first = small().body[0](IMAGES)
    torch.testing.assert_close(norm.running_mean, 0.3 * first.mean(0).detach())


def test_5_the_second_pass_goes_over_all_micro_batches() -> None:
    model, whole = small().eval(), small().eval()
    calls: list[object] = []
    parts = [slice(0, 3), slice(3, 9), slice(9, 16)]
    closures = [counted(closure_of(model, IMAGES[p], LABELS[p]), calls) for p in parts]
    SAM(sgd(model), model=model).step(closures)
    SAM(sgd(whole), model=whole).step(closure_of(whole, IMAGES, LABELS))
    assert len(calls) == 6
    assert distance(model, whole) < 1e-12


def test_6_looksam_reuses_what_it_found() -> None:
    model, plain = small(), small()
    calls: list[object] = []
    optimiser = LookSAM(sgd(model), k=4, alpha=0.5, model=model)
    closure = counted(closure_of(model, IMAGES, LABELS), calls)
    for _ in range(8):
        optimiser.step(closure)
    assert len(calls) == 10, "two SAM steps and six of one pass"
    plain.load_state_dict(model.state_dict())
    control = Plain(sgd(plain))
    control.base.load_state_dict(copy.deepcopy(optimiser.base.state_dict()))
    optimiser._position = 1  # a step that reuses
    optimiser.step(closure)
    control.step(closure_of(plain, IMAGES, LABELS))
    assert distance(model, plain) > 1e-4, "g alone would have been plain SGD"


def test_7_esam_draws_tensors_without_looking_at_the_gradient() -> None:
    moved: list[list[bool]] = []
    for scale in (1.0, 1e3):
        parameters = [torch.nn.Parameter(torch.zeros(3)) for _ in range(6)]
        optimiser = ESAM(torch.optim.SGD(parameters, lr=0.0), rho=1.0, beta=0.6, seed=1)
        hits = []
        for _ in range(300):
            for i, p in enumerate(parameters):
                p.grad = torch.full((3,), scale if i == 0 else 1.0)
            optimiser._ascend()
            hits.append([bool(p.abs().sum() > 0) for p in parameters])
            optimiser.restore()
        moved.append([bool(x) for hit in hits for x in hit])
        share = torch.tensor(hits, dtype=torch.float64).mean(0)
        assert float((share - 0.6).abs().max()) < 0.1, share
    assert moved[0] == moved[1]


def test_7_the_expected_perturbation_of_esam_is_that_of_sam() -> None:
    parameter = torch.nn.Parameter(torch.zeros(2, dtype=torch.float64))
    optimiser = ESAM(torch.optim.SGD([parameter], lr=0.0), rho=1.0, beta=0.5)
    seen = set()
    for _ in range(20):
        parameter.grad = torch.tensor([3.0, 4.0], dtype=torch.float64)
        optimiser._ascend()
        seen.add(tuple(round(x, 9) for x in parameter.tolist()))
        optimiser.restore()
    assert seen == {(0.0, 0.0), (1.2, 1.6)}


def test_8_momentum_sam_has_one_pass() -> None:
    model = small()
    calls: list[object] = []
    optimiser = MomentumSAM(sgd(model), rho=0.5)
    for _ in range(5):
        optimiser.step(counted(closure_of(model, IMAGES, LABELS), calls))
    assert len(calls) == 5
    torch.nn.functional.cross_entropy(model(IMAGES), LABELS).backward()
    with pytest.raises(RuntimeError, match="has one pass"):
        optimiser.ascend()


def test_9_a_checkpointed_step_calls_the_closure_and_is_the_same_step() -> None:
    model, control = small(dropout=0.4), small(dropout=0.4)
    calls: list[object] = []
    forwards: list[object] = []
    model.body[0].register_forward_hook(lambda *_: forwards.append(0))
    optimiser, plain = SAM(sgd(model), model=model), SAM(sgd(control), model=control)
    for images, labels in batches(3):
        with checkpointed([model.body]), torch.random.fork_rng():
            optimiser.step(counted(closure_of(model, images, labels), calls))
        with torch.random.fork_rng():
            plain.step(closure_of(control, images, labels))
    assert len(calls) == 6
    assert len(forwards) == 12, "each forward is run again in its backward"
    for name, value in control.state_dict().items():
        assert torch.equal(model.state_dict()[name], value), name


def test_9_checkpointed_layers_keep_their_statistics_in_any_loop() -> None:
    model, control = small(), small()
    with checkpointed([model.body]):
        torch.nn.functional.cross_entropy(model(IMAGES), LABELS).backward()  # type: ignore[no-untyped-call]
    control(IMAGES)
    for name, value in control.state_dict().items():
        assert torch.equal(model.state_dict()[name], value), name


def test_10_csam_weighs_rows_and_penalises_no_entropy() -> None:
    assert set(inspect.signature(CSAM).parameters) == {"base", "rho", "gamma", "shared"}
    logits = torch.log(torch.tensor([[0.8, 0.2], [0.5, 0.5], [0.3, 0.7]], dtype=torch.float64))
    weights = torch.tensor([1.8**-2, 1.0, 1.0], dtype=torch.float64)
    own = torch.tensor([0, 0, 0])
    torch.testing.assert_close(calibrating_weight(logits, own, 2.0), weights)
    parameter = torch.nn.Parameter(logits.clone())
    optimiser = CSAM(
        torch.optim.SGD([parameter], lr=1.0), 0.0, gamma=2.0, model=torch.nn.Identity()
    )
    optimiser.step(lambda rows=None: (parameter, own))
    z = logits.clone().requires_grad_()
    p = z.softmax(1)[:, 0]
    first = -((1 + p[0]) ** -2) * p[0].log()
    ((first - p[1].log() - p[2].log()) / 3).backward()  # type: ignore[no-untyped-call]
    assert z.grad is not None
    torch.testing.assert_close(parameter.detach(), logits - z.grad)


def test_the_second_pass_sees_the_batch_and_not_the_averages() -> None:
    model = small()
    model(IMAGES)
    with frozen_running_statistics(model):
        in_second = model(IMAGES)
    assert torch.equal(in_second, model(IMAGES))
