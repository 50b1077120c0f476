"""Ours and other packages on the same loop, step by step in turn."""

from __future__ import annotations

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
from trainer.sharpness_aware import ASAM, SAM, LookSAM, frozen_running_statistics

OPTIONS: dict[str, Any] = {"lr": 1e-3, "momentum": 0.9, "weight_decay": 5e-4}
Step = Callable[[], object]
Maker = Callable[[nn.Module, Tensor, Tensor], Step]


def ours(build: type[Any], **options: Any) -> Maker:
    def make(network: nn.Module, images: Tensor, labels: Tensor) -> Step:
        optimiser = build(torch.optim.SGD(network.parameters(), **OPTIONS), 1e-3, **options)

        def step() -> None:
            nn.functional.cross_entropy(network(images), labels).backward()
            if optimiser.ascend():
                with frozen_running_statistics(network):
                    nn.functional.cross_entropy(network(images), labels).backward()
            optimiser.descend()

        return step

    return make


def usual(network: nn.Module, images: Tensor, labels: Tensor) -> Step:
    optimiser = UsualSAM(network.parameters(), torch.optim.SGD, 1e-3, **OPTIONS)

    def step() -> None:
        nn.functional.cross_entropy(network(images), labels).backward()
        optimiser.first_step()
        hold_statistics(network)
        nn.functional.cross_entropy(network(images), labels).backward()
        release_statistics(network)
        optimiser.second_step()

    return step


def theirs(name: str, **options: Any) -> Maker:
    """pytorch-optimizer's, as its documentation says: a closure that does forward and backward."""

    def make(network: nn.Module, images: Tensor, labels: Tensor) -> Step:
        import pytorch_optimizer

        build = getattr(pytorch_optimizer, name)
        optimiser = build(network.parameters(), torch.optim.SGD, rho=1e-3, **options, **OPTIONS)

        def closure() -> Tensor:
            optimiser.zero_grad()
            loss = nn.functional.cross_entropy(network(images), labels)
            loss.backward()
            return loss

        def step() -> None:
            closure()
            optimiser.step(closure)

        return step

    return make


PAIRS: list[tuple[str, Maker, str, Maker, int]] = [
    ("SAM", ours(SAM), "usual sam.py", usual, 1),
    ("SAM", ours(SAM), "pytorch-optimizer SAM", theirs("SAM"), 1),
    ("SAM", ours(SAM), "pytorch-optimizer SAM, foreach", theirs("SAM", foreach=True), 1),
    ("ASAM", ours(ASAM), "pytorch-optimizer SAM, adaptive", theirs("SAM", adaptive=True), 1),
    ("LookSAM(5)", ours(LookSAM, k=5), "pytorch-optimizer LookSAM(5)", theirs("LookSAM", k=5), 5),
]
"""Our name and loop, theirs, and the steps of a cycle."""


def compared(network: str, pair: tuple[Maker, Maker], *, steps: int, small: bool) -> list[float]:
    """Seconds of theirs over ours, a value each time both have taken their steps."""
    made = []
    for maker in pair:
        own, images, labels = built(network, small=small)
        made.append(maker(own, images, labels))
    for step in made:
        for _ in range(steps):
            step()
    ratios = []
    for _ in range(5 if small else 15):
        mine, other, again = (
            sum(seconds(made[which]) for _ in range(steps)) for which in (0, 1, 0)
        )
        ratios.append(other / ((mine + again) / 2))
    return ratios


def peers_report(*, small: bool = False) -> str:
    """Ratios above 1 are in our favour."""
    installed = importlib.util.find_spec("pytorch_optimizer") is not None
    body, missing = [], []
    for mine, own, other, peer, steps in PAIRS:
        if other.startswith("pytorch-optimizer") and not installed:
            missing.append(f"{other}: not installed")
            continue
        row = [mine, other]
        for network in NETWORKS:
            found = compared(network, (own, peer), steps=steps, small=small)
            row.append(f"{statistics.median(found):.2f} ({min(found):.2f} – {max(found):.2f})")
        body.append(row)
    text = table(["ours", "theirs", *(f"theirs / ours, {name}" for name in NETWORKS)], body)
    return "\n\n".join([text, *missing])
