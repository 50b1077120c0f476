"""The effect of each part of `smart`, and of the strengths of other priors."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np

from benchmarks.calibration.paired import by_family
from benchmarks.calibration.peers import Ours
from benchmarks.calibration.report import nats, percent, table
from benchmarks.calibration.scoring import rows_of, scores_of
from benchmarks.calibration.sets import LogitSet
from trueprob.calibrators.linear.fit import STRENGTHS
from trueprob.calibrators.smart.objective import Terms

FEW = 200
SCORES = ("ece", "adaptive_ece", "nll", "auroc")
VARIANTS: dict[str, dict[str, Any]] = {
    "smart": {},
    "top-label term: none": {"terms": Terms(top_weight=0.0)},
    "top-label term: weight 1": {"terms": Terms(top_weight=1.0)},
    "top-label term: weight 10": {"terms": Terms(top_weight=10.0)},
    "smoothness prior: a hundredth": {"terms": Terms(smoothness=0.2)},
    "smoothness prior: ten times": {"terms": Terms(smoothness=200.0)},
    "scale prior: none": {"terms": Terms(scale_prior=0.0)},
    "scale prior: ten times": {"terms": Terms(scale_prior=80.0)},
    "one interval (one temperature)": {"n_intervals": 1},
    "4 intervals": {"n_intervals": 4},
    "16 intervals": {"n_intervals": 16},
    "uniform mixture: none": {"uniform_share": 0.0},
    "uniform mixture: 1/(n + 1)": {"uniform_share": 1.0},
    "second stage: none": {"second_stage": False},
    "soft ECE added: weight ½": {"terms": Terms(soft_ece=0.5)},
    "soft ECE: weight ½ instead of the top-label term": {
        "terms": Terms(top_weight=0.0, soft_ece=0.5)
    },
}

PRIOR_SIZES = (20, 50, 100, 200, 500, 1_000)
PRIOR_DRAWS = 3
MATRIX_CLASSES = 20  # 100 classes take minutes and look the same
METHODS_OF_PRIORS: dict[str, tuple[str, dict[str, Any]]] = {
    **{
        f"`temperature`, scale prior {strength:g}": ("temperature", {"scale_prior": strength})
        for strength in (0.5, 1.0, 2.0, 4.0, 8.0)
    },
    **{
        f"`{method}`, λ {name}": (method, {"strengths": strengths})
        for method in ("smart-vector", "smart-matrix")
        for name, strengths in {
            "∞: `smart`": (math.inf,),
            "30": (30.0,),
            "3": (3.0,),
            "1": (1.0,),
            "0.3": (0.3,),
            "by cross-validation": STRENGTHS,
        }.items()
    },
}


def ablations_report(sets: Iterable[LogitSet]) -> str:
    """The parts of `smart`, then the strengths of priors."""
    kept = [data for data in sets if data.has_real_tail]
    return f"{smart_report(kept)}\n\n{priors_report(kept)}"


def priors_report(
    sets: Iterable[LogitSet],
    methods: Mapping[str, tuple[str, dict[str, Any]]] = METHODS_OF_PRIORS,
    sizes: tuple[int, ...] = PRIOR_SIZES,
) -> str:
    """Mean NLL by number of rows, within the calibration halves: test halves choose nothing."""
    found: dict[int, list[np.ndarray]] = {size: [] for size in sizes}
    for data in (d for d in sets if d.n_classes <= MATRIX_CLASSES):
        for size in (s for s in sizes if 1.4 * s <= data.val_labels.size):
            for draw in range(PRIOR_DRAWS):
                order = np.random.default_rng([size, draw]).permutation(data.val_labels.size)
                logits, labels = data.val_logits[order], data.val_labels[order]
                held, truth = logits[size : size + 3_000], labels[size : size + 3_000]
                losses = []
                for method, options in methods.values():
                    p = Ours(method, **options)(logits[:size], labels[:size])(held)
                    losses.append(rows_of(p, truth, held.argmax(axis=1))[0].nll.mean())
                found[size].append(np.array(losses))
    means = {size: np.mean(losses, axis=0) for size, losses in found.items() if losses}
    rows = [
        [name, *(nats(mean[index]) for mean in means.values())]
        for index, name in enumerate(methods)
    ]
    header = ["prior", *(f"{size} rows" for size in means)]
    counts = ", ".join(str(len(found[size]) // PRIOR_DRAWS) for size in means)
    return (
        f"NLL of the other rows of the calibration half, mean of {PRIOR_DRAWS} draws of {counts} "
        f"sets:\n\n{table(header, rows)}"
    )


def smart_report(sets: Iterable[LogitSet]) -> str:
    """Mean scores of each variant, and differences of ECE and NLL to `smart` with errors."""
    found: list[np.ndarray] = []
    families = []
    for data in sets:
        predicted = data.test_logits.argmax(axis=1)
        few = np.random.default_rng(0).choice(
            data.val_labels.size, min(FEW, data.val_labels.size), replace=False
        )
        measured = np.empty((2, len(VARIANTS), len(SCORES)))
        for index, options in enumerate(VARIANTS.values()):
            for part, rows in enumerate((slice(None), few)):
                fit = Ours("smart", **options)
                predict = fit(data.val_logits[rows], data.val_labels[rows])
                scores, _ = scores_of(predict(data.test_logits), data.test_labels, predicted)
                measured[part, index] = [scores[name] for name in SCORES]
        found.append(measured)
        families.append(data.family)
    stacked = np.array(found)
    parts = []
    for part, title in enumerate(("All validation rows", f"{FEW} validation rows")):
        rows = []
        for index, name in enumerate(VARIANTS):
            ece, adaptive, nll, auroc = stacked[:, part, index].mean(axis=0)
            row = [name, percent(ece), percent(adaptive), nats(nll), nats(auroc)]
            for score, scale, digits in ((0, 100.0, 2), (2, 1.0, 4)):
                paired = stacked[:, part, index, score] - stacked[:, part, 0, score]
                change = by_family(paired, families)
                mean, error = scale * change.mean, scale * change.standard_error
                row.append(f"{mean:+.{digits}f} ± {error:.{digits}f}" if index else "")
            rows.append(row)
        header = [
            "variant",
            "ECE %",
            "adaptive ECE %",
            "NLL",
            "AUROC",
            "ECE − smart",
            "NLL − smart",
        ]
        parts.append(f"{title}:\n\n{table(header, rows)}")
    return "\n\n".join(parts)
