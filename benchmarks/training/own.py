"""What an optimiser adds to the two passes: the same loops with prepared gradients.

A few hundred microseconds beside passes of many milliseconds, whose own noise is larger: whole
steps cannot tell two optimisers apart where this can. Weights, gradients and copies of a large
network are memory that is asked for and given back, so each pair runs in processes with the C
library's allocator as it comes, and in others where it keeps what it has. In which of the two's
favour memory lies is drawn with the process: there are several, each second one built the other way
round.
"""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys

import torch
from torch import Tensor, nn

from benchmarks.calibration.report import table
from benchmarks.calibration.sets import ROOT
from benchmarks.training.cost import seconds
from benchmarks.training.networks import NETWORKS, built
from benchmarks.training.peers import PAIRS, Step, installed

KEEPING = {"MALLOC_MMAP_THRESHOLD_": str(2**31), "MALLOC_TRIM_THRESHOLD_": str(2**31)}
ALLOCATORS: dict[str, dict[str, str]] = {"": {}, ", memory kept": KEEPING}


class ReadyGradients:
    """Replaces forward and backward: copies of one gradient, and the seconds they take."""

    def __init__(self, network: nn.Module, images: Tensor, labels: Tensor) -> None:
        nn.functional.cross_entropy(network(images), labels).backward()  # type: ignore[no-untyped-call]
        self.parameters = [p for p in network.parameters() if p.grad is not None]
        self.gradients = [p.grad.clone() for p in self.parameters if p.grad is not None]
        self.seconds = 0.0
        network.zero_grad()

    def __call__(self) -> None:
        self.seconds += seconds(self._hand_out)

    def _hand_out(self) -> None:
        for parameter, gradient in zip(self.parameters, self.gradients, strict=True):
            parameter.grad = gradient.clone()


def own_seconds(step: Step, passes: ReadyGradients) -> float:
    passes.seconds = 0.0
    return seconds(step) - passes.seconds


def measure(number: int, network: str, *, turned: bool) -> tuple[list[float], list[float]]:
    """Seconds of our step, and the ratio of theirs to ours per round, in a process of its own."""
    torch.set_num_threads(1)
    _, mine, _, peer, steps = PAIRS[number]
    made = []
    for maker in (peer, mine) if turned else (mine, peer):
        own, images, labels = built(network, small=True)  # the batch does not matter here
        passes = ReadyGradients(own, images, labels)
        made.append((maker(own, passes), passes))
    made = made[::-1] if turned else made
    rounds = 16 * (5 if network == "ResNet-8" else 1)
    taken: tuple[list[float], list[float]] = ([], [])
    for turn in range(3 + rounds):
        for which in (0, 1) if turn % 2 == 0 else (1, 0):
            taken[which].append(sum(own_seconds(*made[which]) for _ in range(steps)) / steps)
    first, second = (one[3:] for one in taken)
    return first, [b / a for a, b in zip(first, second, strict=True)]


def in_own_process(
    number: int, network: str, environment: dict[str, str], *, turned: bool
) -> tuple[list[float], list[float]]:
    code = "import json, sys; from benchmarks.training.own import measure; "
    code += "print(json.dumps(measure(int(sys.argv[1]), sys.argv[2], turned=sys.argv[3] == '1')))"
    command = [sys.executable, "-c", code, str(number), network, str(int(turned))]
    run = subprocess.run(
        command,
        cwd=ROOT,
        env={**os.environ, **environment},
        check=True,
        capture_output=True,
        text=True,
    )
    ours, ratios = json.loads(run.stdout)
    return ours, ratios


def own_report(*, small: bool = False) -> str:
    """A table of our milliseconds and of ratios; above 1 ours is faster."""
    body = []
    for number, (mine, _, other, _, _) in enumerate(PAIRS):
        if not installed(other):
            continue
        row = [mine, other]
        for network in NETWORKS:
            for environment in ALLOCATORS.values():
                ours, ratios = [], []
                for process in range(2 if small else 6):
                    turned = process % 2 == 1
                    found = in_own_process(number, network, environment, turned=turned)
                    ours += found[0]
                    ratios += found[1]
                low, _, high = statistics.quantiles(ratios, n=4)
                spread = f"{statistics.median(ratios):.2f} ({low:.2f} – {high:.2f})"
                row.append(f"{1e3 * statistics.median(ours):.2f} ms, {spread}")
        body.append(row)
    header = [f"{network}{kept}" for network in NETWORKS for kept in ALLOCATORS]
    return table(["ours", "theirs", *header], body)
