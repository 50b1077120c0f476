"""Honest sets with drift, none of which should be held."""

from __future__ import annotations

import functools
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np

from benchmarks.calibration.sets import ROOT, LogitSet, of_arrays
from benchmarks.drift.networks import newest
from benchmarks.set_check.broken import Generator, rows_of
from trueprob.arrays.calibration_set import CalibrationSet
from trueprob.arrays.labels import Labels
from trueprob.arrays.logit_functions import Logits, log_softmax, prediction, softmax

IMBALANCE = 100.0  # the commonest class over the rarest
KAPPA = 1.0 / 3.0  # agreement of labels and predictions beyond chance
RARE = 0.01  # share of the event
PICTURES, BATCH = 1_200, 200
# One or two of each family: noise, blur, weather, contrast and compression.
CORRUPTED = ("gaussian-noise", "impulse-noise", "gaussian-blur", "defocus-blur", "fog", "contrast")
SEVERITIES = (1, 2, 3, 4, 5)

Maker = Callable[[LogitSet, int, Generator], CalibrationSet | None]


def plain(data: LogitSet, n: int, generator: Generator) -> CalibrationSet | None:
    drawn = rows_of(data, n, generator)
    return None if drawn is None else CalibrationSet(*drawn)


def logarithms(data: LogitSet, n: int, generator: Generator) -> CalibrationSet | None:
    """Log-probabilities as logits: their softmax is the same."""
    drawn = rows_of(data, n, generator)
    return None if drawn is None else CalibrationSet(log_softmax(drawn[0]), drawn[1])


def class_mix(data: LogitSet, n: int, generator: Generator) -> CalibrationSet | None:
    k = data.n_classes
    share = IMBALANCE ** (-generator.permutation(k)[data.val_labels] / (k - 1))
    kept = np.flatnonzero(generator.random(share.size) < share)
    if kept.size < n:
        return None
    chosen = generator.choice(kept, n, replace=False)
    return CalibrationSet(data.val_logits[chosen], data.val_labels[chosen])


def weak(data: LogitSet, n: int, generator: Generator) -> CalibrationSet | None:
    """Noise on the scores until the agreement has fallen to a third."""
    drawn = rows_of(data, n, generator)
    if drawn is None:
        return None
    scores, labels = log_softmax(drawn[0]), drawn[1]
    noise = generator.normal(size=scores.shape) * scores.std()
    low, high = 0.0, 64.0
    for _ in range(12):
        middle = 0.5 * (low + high)
        value = kappa((scores + middle * noise).astype(np.float32), labels)
        low, high = (middle, high) if value > KAPPA else (low, middle)
    return CalibrationSet((scores + low * noise).astype(np.float32), labels)


def kappa(logits: Logits, labels: Labels) -> float:
    predicted, k = prediction(logits), logits.shape[1]
    chance = float(np.bincount(predicted, minlength=k) @ np.bincount(labels, minlength=k))
    chance /= labels.size**2
    return (float((predicted == labels).mean()) - chance) / max(1.0 - chance, 1e-9)


def rare_event(data: LogitSet, n: int, generator: Generator) -> CalibrationSet | None:
    """One class against all others, thinned to 1 % of the rows."""
    event = generator.integers(data.n_classes)
    is_event = data.val_labels == event
    count = generator.binomial(n, RARE)
    if is_event.sum() < count or (~is_event).sum() < n - count:
        return None
    chosen = np.concatenate(
        [
            generator.choice(np.flatnonzero(is_event), count, replace=False),
            generator.choice(np.flatnonzero(~is_event), n - count, replace=False),
        ]
    )
    p = np.clip(softmax(data.val_logits[chosen])[:, event].astype(np.float64), 1e-12, 1 - 1e-7)
    return CalibrationSet(np.stack([np.log1p(-p), np.log(p)], axis=1), is_event[chosen].astype(int))


HONEST: dict[str, Maker] = {
    "as given": plain,
    "log-probabilities as logits": logarithms,
    "class mix 1:100": class_mix,
    "agreement a third": weak,
    "an event of 1 %": rare_event,
}


def corrupted_pictures(data: Path, *, small: bool) -> Iterator[tuple[int, list[LogitSet]]]:
    """Severity, and the shipped CIFAR-10 network's logits of test pictures for each corruption."""
    from trueprob_trainer.data import Split, load
    from trueprob_trainer.evaluation.corruptions import corrupt

    file, version = data / "images" / "cifar10_jpeg.npz", newest(ROOT / "models", "cifar10")
    if version is None or version.manifest.input is None or not file.is_file():
        print("corrupted pictures are left out: no model cifar10, or no pictures", file=sys.stderr)
        return
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(str(version.onnx_path), options)
    run = functools.partial(session.run, [version.manifest.output_name])
    images, labels = load(f"npz:{file}").of(Split.TEST)
    chosen = np.random.default_rng(0).permutation(labels.size)[: 200 if small else PICTURES]
    images, labels = images[chosen], labels[chosen]
    for severity in SEVERITIES:
        sets = []
        for name in CORRUPTED:
            pictures = corrupt(images, name, severity)
            parts = range(0, labels.size, BATCH)
            name_of_input = version.manifest.input.name
            logits = [run({name_of_input: pictures[i : i + BATCH]})[0] for i in parts]
            whole = np.concatenate(logits).astype(np.float32)
            sets.append(of_arrays(f"pictures_{name}", whole, labels, whole, labels))
        yield severity, sets
