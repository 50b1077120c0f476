"""The published SMART recipe and the authors' variant in torch on the CPU (arXiv:2506.23492).

h = softplus(network(x)) + 0.1, x the clipped and standardised gap; p = softmax(z / h); loss the
Charbonnier soft ECE over 15 fixed centres. As published: one hidden layer of 16, 2 000
full-batch steps of Adam at 5e-3. The authors' code: two hidden layers of 16, at most 2 000
steps, stopped after 200 without an improvement by 1e-4, best state kept.
"""

from __future__ import annotations

import copy
import itertools
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from trueprob.arrays.labels import Labels
from trueprob.arrays.logit_functions import Logits, logit_gap

LEARNING_RATE = 5e-3
EPOCHS = 2_000
PATIENCE = 200
MIN_DELTA = 1e-4
H_FLOOR = 0.1
BANDWIDTH = 0.05
CHARBONNIER = 0.001
CENTRES = (torch.arange(15) + 0.5) / 15


class GapTemperature(torch.nn.Module):
    """h(g) with the calibration set's clipping and scaling."""

    def __init__(self, gap: torch.Tensor, hidden: tuple[int, ...]) -> None:
        super().__init__()
        self.low, self.high = gap.min(), gap.max()
        self.mean, self.deviation = gap.mean(), gap.std() + 1e-8
        sizes = (1, *hidden, 1)
        layers: list[torch.nn.Module] = []
        for inner, outer in itertools.pairwise(sizes):
            layers += [torch.nn.Linear(inner, outer), torch.nn.ReLU()]
        self.layers = torch.nn.Sequential(*layers[:-1])

    def forward(self, gap: torch.Tensor) -> torch.Tensor:
        x = (gap.clamp(self.low, self.high) - self.mean) / self.deviation
        h: torch.Tensor = torch.nn.functional.softplus(self.layers(x[:, None])) + H_FLOOR
        return h


def soft_ece(confidence: torch.Tensor, correct: torch.Tensor) -> torch.Tensor:
    weight = torch.softmax(-((confidence[:, None] - CENTRES) ** 2) / (2 * BANDWIDTH**2), dim=1)
    mass = weight.sum(dim=0) + 1e-12
    mean_confidence = (weight * confidence[:, None]).sum(dim=0) / mass
    mean_correct = (weight * correct[:, None]).sum(dim=0) / mass
    error = torch.sqrt((mean_confidence - mean_correct) ** 2 + CHARBONNIER**2)
    return (mass / mass.sum() * error).sum()


def fit_network(
    logits: Logits,
    labels: Labels,
    *,
    hidden: tuple[int, ...],
    patience: int | None,
    epochs: int = EPOCHS,
) -> GapTemperature:
    """Train one network; `patience` None runs all steps and keeps the last state."""
    torch.manual_seed(0)
    z, gap = torch.from_numpy(logits), torch.from_numpy(logit_gap(logits))
    correct = torch.from_numpy((logits.argmax(axis=1) == labels).astype(np.float32))
    network = GapTemperature(gap, hidden)
    optimiser = torch.optim.Adam(network.parameters(), lr=LEARNING_RATE)
    best, best_state, waited = float("inf"), copy.deepcopy(network.state_dict()), 0
    for _ in range(epochs):
        optimiser.zero_grad()
        loss = soft_ece(torch.softmax(z / network(gap), dim=1).amax(dim=1), correct)
        if patience is not None:
            if loss.item() < best - MIN_DELTA:
                best, waited = loss.item(), 0
                best_state = copy.deepcopy(network.state_dict())
            else:
                waited += 1
            if waited >= patience:
                break
        loss.backward()
        optimiser.step()
    if patience is not None:
        network.load_state_dict(best_state)
    return network


def fit_authors_variant(logits: Logits, labels: Labels) -> Any:
    """1 → 16 → 16 → 1 with early stopping; a function from logits to probabilities."""
    network = fit_network(logits, labels, hidden=(16, 16), patience=PATIENCE)

    def predict(z: Logits) -> NDArray[np.float64]:
        with torch.no_grad():
            h = network(torch.from_numpy(logit_gap(z))).double()
            result: NDArray[np.float64] = torch.softmax(torch.from_numpy(z) / h, dim=1).numpy()
            return result

    return predict
