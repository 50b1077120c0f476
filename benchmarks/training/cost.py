"""Seconds per step relative to plain SGD, with all methods in turn in one run."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable

import torch

from benchmarks.calibration.report import table
from benchmarks.training.methods import METHODS, optimiser_of, stepping
from benchmarks.training.networks import NETWORKS, built
from trueprob_trainer.sharpness_aware import PeriodicSAM


def seconds(step: Callable[[], object]) -> float:
    """Seconds by the clock on a GPU, else of processor time, since others may use the machine."""
    if torch.cuda.is_available():
        torch.cuda.synchronize()
        start = time.perf_counter()
        step()
        torch.cuda.synchronize()
        return time.perf_counter() - start
    start = time.process_time()
    step()
    return time.process_time() - start


def measure(name: str, *, rounds: int, small: bool) -> dict[str, list[float]]:
    """Ratios per round; a round has a step of every method, with SGD before and after each.

    What comes before and after makes a ratio immune to a machine that others slow down for a
    while. Of a cycle the first step and one other are timed and weighed as they occur.
    """
    optimisers, steps = {}, {}
    for method in METHODS:
        network, images, labels = built(name, small=small)
        optimisers[method.name] = optimiser_of(method, network)
        steps[method.name] = stepping(optimisers[method.name], network, images, labels)
    ratios: dict[str, list[float]] = {method.name: [] for method in METHODS[1:]}
    for step in [*steps.values()] * 2:
        step()  # warms up, both kinds of step
    for _ in range(rounds):
        before = seconds(steps["SGD"])
        for method in METHODS[1:]:
            optimiser, step = optimisers[method.name], steps[method.name]
            if isinstance(optimiser, PeriodicSAM):
                optimiser._position = 0
            taken = seconds(step)
            if method.cycle > 1:
                taken += (method.cycle - 1) * seconds(step)
            after = seconds(steps["SGD"])
            ratios[method.name].append(taken / method.cycle / ((before + after) / 2))
            before = after
    return ratios


def cost_report(*, small: bool = False) -> str:
    """One table per network."""
    rounds = 5 if small else 15
    tables = []
    for name, (_, rows) in NETWORKS.items():
        ratios = measure(name, rounds=rounds, small=small)
        body = []
        for method in METHODS[1:]:
            found = statistics.median(ratios[method.name])
            limit = "" if method.limit is None else f"{method.limit:.2f}"
            over = "" if method.limit is None or found <= method.limit else "over"
            spread = f"{min(ratios[method.name]):.2f} – {max(ratios[method.name]):.2f}"
            body.append([method.name, f"{found:.2f}", spread, limit, over])
        header = ["optimiser", "cost of a step / SGD", "range", "limit", ""]
        batch = rows // 8 if small else rows
        tables.append(f"{name}, batches of {batch}\n\n{table(header, body)}")
    return "\n\n".join(tables)
