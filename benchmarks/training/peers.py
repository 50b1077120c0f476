"""Ours and other packages in the same loop: whole steps, and what each adds to its passes.

A loop is given a function that leaves gradients in place, and the others' loops are those of their
documentation. Whole steps run the network there; :mod:`own` hands out gradients that are ready.
"""

from __future__ import annotations

import functools
import importlib
import importlib.util
import statistics
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from benchmarks.calibration.report import table
from benchmarks.training.cost import seconds
from benchmarks.training.networks import NETWORKS, built
from benchmarks.training.usual import UsualSAM, hold_statistics, release_statistics
from trueprob_trainer.sharpness_aware import ASAM, SAM, LookSAM, frozen_running_statistics

OPTIONS: dict[str, Any] = {"lr": 1e-3, "momentum": 0.9, "weight_decay": 5e-4}
Passes = Callable[[], object]
"""Forward and backward."""
Step = Callable[[], object]
Maker = Callable[[nn.Module, Passes], Step]


def ours(build: type[Any], *, foreach: bool | None = None, **options: Any) -> Maker:
    def make(network: nn.Module, passes: Passes) -> Step:
        base = torch.optim.SGD(network.parameters(), foreach=foreach, **OPTIONS)
        optimiser = build(base, 1e-3, **options)

        def step() -> None:
            passes()
            if optimiser.ascend():
                with frozen_running_statistics(network):
                    passes()
            optimiser.descend()

        return step

    return make


def usual(network: nn.Module, passes: Passes) -> Step:
    optimiser = UsualSAM(network.parameters(), torch.optim.SGD, 1e-3, **OPTIONS)

    def step() -> None:
        passes()
        optimiser.first_step()
        hold_statistics(network)
        passes()
        release_statistics(network)
        optimiser.second_step()

    return step


def theirs(name: str, *, held: bool = False, **options: Any) -> Maker:
    """The loop of pytorch-optimizer: a closure that runs forward and backward, and one call before.

    ``foreach`` goes on to the base. ``held`` adds the package's own functions that keep BatchNorm's
    statistics still, which the documented loop does without.
    """

    def make(network: nn.Module, passes: Passes) -> Step:
        package: Any = importlib.import_module("pytorch_optimizer")
        build = getattr(package, name)
        optimiser = build(network.parameters(), torch.optim.SGD, rho=1e-3, **options, **OPTIONS)

        def closure() -> object:
            optimiser.zero_grad()
            return passes()

        def step() -> None:
            closure()
            if held:
                package.disable_running_stats(network)
            optimiser.step(closure)
            if held:
                package.enable_running_stats(network)

        return step

    return make


PAIRS: list[tuple[str, Maker, str, Maker, int]] = [
    ("SAM", ours(SAM), "the same again", ours(SAM), 1),
    ("SAM", ours(SAM), "usual sam.py", usual, 1),
    ("SAM", ours(SAM), "pytorch-optimizer SAM", theirs("SAM"), 1),
    ("SAM", ours(SAM), "pytorch-optimizer SAM, statistics held", theirs("SAM", held=True), 1),
    (
        *("SAM, foreach SGD", ours(SAM, foreach=True)),
        *("pytorch-optimizer SAM, foreach", theirs("SAM", foreach=True), 1),
    ),
    ("ASAM", ours(ASAM), "pytorch-optimizer SAM, adaptive", theirs("SAM", adaptive=True), 1),
    ("LookSAM(5)", ours(LookSAM, k=5), "pytorch-optimizer LookSAM(5)", theirs("LookSAM", k=5), 5),
]
"""Our name and loop, theirs, and the steps of a cycle."""


def installed(other: str) -> bool:
    """Whether the package of this name is installed."""
    found = importlib.util.find_spec("pytorch_optimizer") is not None
    return found or not other.startswith("pytorch-optimizer")


def in_turn(mine: Step, other: Step, *, rounds: int, steps: int) -> list[float]:
    """Ratio of their seconds to ours in each round; the two take turns to be first."""
    ratios = []
    for number in range(rounds):
        taken = {}
        for which in (mine, other) if number % 2 == 0 else (other, mine):
            taken[which] = sum(seconds(which) for _ in range(steps))
        ratios.append(taken[other] / taken[mine])
    return ratios


def compared(
    network: str, pair: tuple[Maker, Maker], *, steps: int, small: bool, builds: int = 4
) -> list[float]:
    """Ratios of whole steps.

    Networks and optimisers are built more than once: where their memory happens to lie, and what
    of it the allocator gives back and fetches again in a step, is worth some per cent.
    """
    ratios = []
    for number in range(builds):
        turned = number % 2 == 1
        made = []
        for maker in reversed(pair) if turned else pair:
            own, images, labels = built(network, small=small)
            made.append(maker(own, functools.partial(_passes, own, images, labels)))
            for _ in range(steps + 1):
                made[-1]()
        mine, other = reversed(made) if turned else made
        ratios += in_turn(mine, other, rounds=6 if steps == 1 else 2, steps=steps)
    return ratios


def _passes(network: nn.Module, images: Tensor, labels: Tensor) -> Tensor:
    loss = nn.functional.cross_entropy(network(images), labels)
    loss.backward()  # type: ignore[no-untyped-call]
    return loss


def peers_report(*, small: bool = False) -> str:
    """A table of ratios; above 1 ours is faster."""
    body, missing = [], []
    for mine, own, other, peer, steps in PAIRS:
        if not installed(other):
            missing.append(f"{other}: not installed")
            continue
        row = [mine, other]
        for network in NETWORKS:
            found = compared(network, (own, peer), steps=steps, small=small)
            row.append(f"{statistics.median(found):.3f} ({min(found):.2f} – {max(found):.2f})")
        body.append(row)
    text = table(["ours", "theirs", *(f"theirs / ours, {name}" for name in NETWORKS)], body)
    return "\n\n".join([text, *missing])
