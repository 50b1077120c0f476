"""Half precision, clipping, compilation and memory."""

import copy
from collections.abc import Iterator
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

from tests.trueprob_trainer.small_problems import adam, batches, closure_of, distance, sgd, small
from trueprob_trainer.sharpness_aware import (
    ASAM,
    OPTIMISERS,
    SAM,
    FisherSAM,
    LookSAM,
    PreconditionedSAM,
)
from trueprob_trainer.sharpness_aware.wrapper import WrappedOptimizer

pytestmark = pytest.mark.slow

IMAGES, LABELS = batches(1)[0]
ALL = list(OPTIMISERS)


def steps(optimiser: WrappedOptimizer, model: nn.Module, data: list[tuple[Tensor, Tensor]]) -> None:
    for images, labels in data:
        optimiser.step(closure_of(model, images, labels))


def optimiser_of(name: str, model: nn.Module, **more: Any) -> WrappedOptimizer:
    return OPTIMISERS[name](sgd(model), model=model, **more)


@pytest.mark.parametrize("name", ALL)
def test_a_scaled_loss_changes_nothing_but_an_overflow_skips_the_step(name: str) -> None:
    model, control = small(), small()
    scaler = torch.amp.GradScaler("cpu", init_scale=2.0**10)
    scaled, plain = optimiser_of(name, model, scaler=scaler), optimiser_of(name, control)
    for k, (images, labels) in enumerate(batches(9)):
        if k == 6:  # in the middle of LookSAM's cycle, and at its beginning below
            skipped_and_lowered(scaled, model, scaler)
        scaled.step(closure_of(model, images, labels))
        plain.step(closure_of(control, images, labels))
    assert distance(model, control) < 1e-10
    fresh = small()
    skipped_and_lowered(optimiser_of(name, fresh, scaler=scaler), fresh, scaler)


def skipped_and_lowered(
    optimiser: WrappedOptimizer, model: nn.Module, scaler: torch.amp.GradScaler
) -> None:
    start, scale = [p.detach().clone() for p in model.parameters()], scaler.get_scale()
    statistics = copy.deepcopy(model.state_dict())
    position = getattr(optimiser, "_position", None)
    optimiser.step(closure_of(model, IMAGES * float("inf"), LABELS))
    assert all(torch.equal(p, s) for p, s in zip(model.parameters(), start, strict=True))
    assert scaler.get_scale() == scale / 2
    model.load_state_dict(statistics)
    if position is not None:
        optimiser._position = position  # type: ignore[attr-defined]


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize("name", ALL)
def test_autocast_trains(name: str, dtype: torch.dtype) -> None:
    model = small().float()
    scaler = torch.amp.GradScaler("cpu", enabled=dtype == torch.float16, init_scale=256.0)
    optimiser = optimiser_of(name, model, scaler=scaler)
    plain = closure_of(model, IMAGES.float(), LABELS)

    def closure(rows: Tensor | None = None) -> tuple[Tensor, Tensor]:
        with torch.autocast("cpu", dtype=dtype):
            return plain(rows=rows)

    assert closure()[0].dtype == dtype
    losses = [optimiser.step(closure) for _ in range(12)]
    assert all(loss.dtype == torch.float32 for loss in losses)
    assert losses[-1] < losses[0]


@pytest.mark.parametrize("scale", [None, 1024.0])
def test_the_gradient_is_clipped_once_where_the_base_takes_it(scale: float | None) -> None:
    model, control = small(), small()
    scaler = None if scale is None else torch.amp.GradScaler("cpu", init_scale=scale)
    made = [torch.optim.SGD(m.parameters(), lr=1.0) for m in (model, control)]
    start = [p.detach().clone() for p in model.parameters()]
    clipped = SAM(made[0], 0.3, model=model, clip_norm=0.01, scaler=scaler)
    SAM(made[1], 0.3, model=control).step(closure_of(control, IMAGES, LABELS))
    clipped.step(closure_of(model, IMAGES, LABELS))
    moves = [
        [p.detach() - s for p, s in zip(m.parameters(), start, strict=True)]
        for m in (model, control)
    ]
    length, whole = (float(torch.cat([m.flatten() for m in move]).norm()) for move in moves)
    assert length == pytest.approx(0.01, rel=1e-4)
    for a, b in zip(*moves, strict=True):
        torch.testing.assert_close(a, b * length / whole)


@pytest.mark.parametrize("name", ["sam", "csam", "functional-sam", "looksam"])
def test_a_compiled_network_takes_the_same_steps(name: str) -> None:
    torch.compiler.reset()
    model, control = small(), small()
    compiled = torch.compile(model, backend="eager")
    optimiser = OPTIMISERS[name](sgd(model), model=compiled)
    steps(optimiser, compiled, batches(3))  # type: ignore[arg-type]
    steps(OPTIMISERS[name](sgd(control), model=control), control, batches(3))
    for key, value in control.state_dict().items():
        torch.testing.assert_close(model.state_dict()[key], value, rtol=0, atol=1e-12)


class Allocations(TorchDispatchMode):
    """Bytes of the large tensors that operations return and did not get."""

    def __init__(self) -> None:
        super().__init__()
        self.n_bytes = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        given = {t.data_ptr() for t in tensors_in((args, kwargs))}
        for tensor in tensors_in(result):
            if tensor.numel() > 1 and tensor.data_ptr() not in given:
                self.n_bytes += tensor.nbytes
        return result


def tensors_in(value: Any) -> Iterator[Tensor]:
    leaves, _ = torch.utils._pytree.tree_flatten(value)
    return (leaf for leaf in leaves if isinstance(leaf, Tensor))


@pytest.mark.parametrize(
    ("build", "base", "copies", "transient"),
    [
        (SAM, sgd, 1, 0),
        (ASAM, sgd, 1, 1),
        (FisherSAM, sgd, 1, 1),
        (PreconditionedSAM, adam, 1, 1),
        (LookSAM, sgd, 2, 0),
    ],
)
def test_an_ascent_takes_one_copy_of_the_weights_and_keeps_it(
    build: Any, base: Any, copies: int, transient: int
) -> None:
    model = small()
    for p in (model.unused, model.body[1].weight, model.body[1].bias):
        p.requires_grad_(False)
    size = sum(p.nbytes for p in model.parameters() if p.requires_grad)
    optimiser = build(base(model))
    if base is adam:
        loss = nn.functional.cross_entropy(model(IMAGES), LABELS)
        loss.backward()  # type: ignore[no-untyped-call]
        optimiser.base.step()
        optimiser.zero_grad()
    for expected in ((copies + transient) * size, transient * size):
        if isinstance(optimiser, LookSAM):
            optimiser._position = 0
        nn.functional.cross_entropy(model(IMAGES), LABELS).backward()  # type: ignore[no-untyped-call]
        with Allocations() as taken:
            optimiser.ascend()
        assert expected <= taken.n_bytes <= expected + 8 * 64, "one norm a tensor aside"
        nn.functional.cross_entropy(model(IMAGES), LABELS).backward()  # type: ignore[no-untyped-call]
        with Allocations() as taken:
            optimiser.restore()
        assert taken.n_bytes == 0
