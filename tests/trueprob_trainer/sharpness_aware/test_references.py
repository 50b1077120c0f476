"""Twenty steps of each optimiser against a slow reference; plain SGD fails each comparison."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.trueprob_trainer.sharpness_aware import slow_references as slow
from tests.trueprob_trainer.small_problems import adam, problem, sgd
from trueprob_trainer.sharpness_aware import OPTIMISERS, Plain

CASES: dict[str, tuple[str, dict[str, Any], Callable[..., slow.Named], str]] = {
    "sgd": ("sgd", {}, slow.sgd, "sgd"),
    "sam": ("sam", {}, slow.sam, "sgd"),
    "sam, Adam": ("sam", {}, slow.sam, "adam"),
    "periodic": ("periodic-sam", {"k": 3}, slow.every_third, "sgd"),
    "asam": ("asam", {"eta": 0.01}, slow.asam, "sgd"),
    "fisher": ("fisher-sam", {}, slow.fisher, "sgd"),
    "fisher, of the paper": (
        "fisher-sam", {"fisher_unit": "one"}, slow.fisher_of_the_paper, "sgd",
    ),
    "fisher, running": ("fisher-sam", {"decay": 0.8}, slow.fisher_running, "sgd"),
    "fisher, rows": ("fisher-sam", {"fisher": "samples"}, slow.fisher_of_rows, "sgd"),
    "looksam": ("looksam", {"k": 3}, slow.look_sam, "sgd"),
    "momentum": ("momentum-sam", {}, slow.momentum_sam, "sgd"),
    "momentum, Adam": ("momentum-sam", {}, slow.momentum_sam, "adam"),
    "csam": ("csam", {"gamma": 2.0}, slow.csam, "sgd"),
    "functional": ("functional-sam", {}, slow.functional_sam, "sgd"),
    "preconditioned": ("preconditioned-sam", {}, slow.preconditioned_sam, "sgd"),
    "preconditioned, Adam": ("preconditioned-sam", {}, slow.preconditioned_sam, "adam"),
    "preconditioned, of the paper": (
        "preconditioned-sam", {"norm": "gradient"}, slow.preconditioned_by_gradient, "sgd",
    ),
    "preconditioned functional": (
        "preconditioned-functional-sam", {}, slow.preconditioned_functional_sam, "sgd",
    ),
    "esam": ("esam", {"seed": 5}, slow.SlowESAM, "sgd"),
}  # fmt: skip


def uniform(seed: int, sizes: tuple[int, ...]) -> Iterator[float]:
    """One draw a tensor, group by group, as the class documents."""
    generator = torch.Generator().manual_seed(seed)
    while True:
        for size in sizes:
            yield from torch.rand(size, generator=generator).tolist()


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["quadratic", "network"])
@pytest.mark.parametrize("case", CASES)
def test_twenty_steps_equal_the_slow_reference_and_plain_ones_do_not(case: str, kind: str) -> None:
    name, options, reference, base = CASES[case]
    made = problem(kind)
    model, control, expected = made.build(), made.build(), slow.Slow(made, base)
    if reference is slow.SlowESAM:
        reference = slow.SlowESAM(uniform(5, (2, 2) if kind == "quadratic" else (3, 2)))
    build = sgd if base == "sgd" else adam
    optimiser = OPTIMISERS[name](build(model), model=model, loss=made.loss, **options)
    plain = Plain(build(control), loss=made.loss)
    closures = zip(made.closures(model), made.closures(control), strict=True)
    for batch, (closure, control_closure) in zip(made.batches, closures, strict=True):
        optimiser.step(closure)
        plain.step(control_closure)
        expected.descend(reference(expected, batch))
    assert farthest(model, expected.w) < 1e-10
    # Where the logits are linear in w, their Jacobian is the same everywhere.
    plain_too = name == "sgd" or ("functional" in name and kind == "quadratic" and base == "sgd")
    assert (farthest(control, expected.w) < 1e-10) is plain_too
    assert torch.equal(model.get_parameter("unused"), torch.ones(4, dtype=torch.float64))


def farthest(model: torch.nn.Module, w: slow.Named) -> float:
    return max(float((p - w[n]).detach().abs().max()) for n, p in model.named_parameters())


def test_every_optimiser_has_a_reference() -> None:
    assert {name for name, *_ in CASES.values()} == set(OPTIMISERS)


def variants_of_the_document() -> dict[str, Any]:
    """The classes of the page's "A new variant in ten lines"."""
    text = (Path(__file__).parents[3] / "docs/sharpness-aware.md").read_text("utf-8")
    section = text.split("## A new variant in ten lines")[1]
    names: dict[str, Any] = {}
    exec(section.split("```python")[1].split("```")[0], names)
    return names


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["quadratic", "network"])
@pytest.mark.parametrize(
    ("name", "reference"), [("FriendlySAM", slow.friendly_sam), ("GSAM", slow.gsam)]
)
def test_the_documents_variants_equal_their_papers(
    name: str, reference: Callable[..., slow.Named], kind: str
) -> None:
    build, made = variants_of_the_document()[name], problem(kind)
    models = [made.build() for _ in range(3)]
    expected = slow.Slow(made, "sgd")
    scaler = torch.amp.GradScaler("cpu", init_scale=2.0**10)
    with_scaler = build(sgd(models[1]), model=models[1], loss=made.loss, scaler=scaler)
    optimiser = build(sgd(models[0]), model=models[0], loss=made.loss)
    control = OPTIMISERS["sam"](sgd(models[2]), model=models[2], loss=made.loss)
    closures = zip(*(made.closures(model) for model in models), strict=True)
    for i, (batch, closure) in enumerate(zip(made.batches, closures, strict=True)):
        if i == 5:  # what is kept is in the checkpoint
            saved = optimiser.state_dict()
            optimiser = build(sgd(models[0]), model=models[0], loss=made.loss)
            optimiser.load_state_dict(saved)
        optimiser.step(closure[0])
        with_scaler.step(closure[1])
        control.step(closure[2])
        expected.descend(reference(expected, batch))
    assert farthest(models[0], expected.w) < 1e-10
    assert farthest(models[1], expected.w) < 1e-9
    assert farthest(models[2], expected.w) > 1e-6
