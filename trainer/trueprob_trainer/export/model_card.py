"""Writes ``MODEL_CARD.md``: purpose, data, training, scores and limits of a version."""

import numpy as np

from trueprob.calibrators import Calibrator
from trueprob.repository.manifest import Manifest
from trueprob_trainer.config import ALWAYS_LISTED, TrainConfig
from trueprob_trainer.data import Split
from trueprob_trainer.evaluation.network_scores import Evaluation
from trueprob_trainer.export.graph import OPSET, PARITY_BATCHES, TOLERANCE
from trueprob_trainer.training.finished_run import Training


def model_card(
    manifest: Manifest,
    training: Training,
    evaluation: Evaluation,
    factory: Calibrator,
    largest_difference: float,  # of a logit between the exported graph and torch, nats
) -> str:
    """Text of the card in Markdown."""
    return (
        "\n\n".join(
            [
                f"# {manifest.name}, version {manifest.version}",
                _purpose(manifest, training, factory),
                "## Data\n\n" + _data(training),
                "## Training\n\n" + _recipe(training),
                "## Scores\n\n" + evaluation.table() + "\n\n" + _reading(manifest),
                "## Reliability\n\n" + _reliability(evaluation, factory),
                "## Where the calibration error comes from\n\n" + _cause(training, evaluation),
                "## Export\n\n" + _parity(manifest, largest_difference),
                "## Limits\n\n" + _limits(training, evaluation),
            ]
        )
        + "\n"
    )


def _purpose(manifest: Manifest, training: Training, factory: Calibrator) -> str:
    height, width, channels = training.data.images.shape[1:]
    return (
        f"Classifies images of {height}x{width} pixels with {channels} channel(s) into "
        f"{manifest.n_classes} classes ({', '.join(manifest.class_names)}). Input `image`: uint8, "
        f"NHWC, any batch size. Output `logits`. The factory calibrator is `{factory.id}`."
    )


def _data(training: Training) -> str:
    sizes = {split: int(np.sum(training.data.split == split)) for split in Split}
    counts = ", ".join(f"{split.name.lower()} {n}" for split, n in sizes.items() if n)
    notes = "".join(f"\n- {note}" for note in training.data.notes)
    others = "; the example rows are in none of these" if sizes[Split.EXAMPLES] else ""
    return (
        f"{training.data.description}.\n\nRows: {counts}. A row's split is decided by a digest of "
        "its own bytes, so no image is in two. The network saw the train rows only; the factory "
        "calibrator was fitted on the calibration rows; the table below is from the test rows"
        f"{others}.\n{notes}"
    )


def _recipe(training: Training) -> str:
    c = training.config
    ascent = f" inside {c.optimiser.upper()} with rho {c.rho:g}" if c.optimiser != "sgd" else ""
    base = "SGD with momentum" if c.base == "sgd" else "AdamW with first beta"
    return (
        f"Network `{c.network}`, {sum(p.numel() for p in training.model.parameters())} weights. "
        f"{base} {c.momentum:g}{ascent}, learning rate {c.learning_rate:g} "
        f"({c.schedule}), weight decay {c.weight_decay:g}, batches of {c.batch_size}, {c.epochs} "
        f"epochs, seed {c.seed}, {_options(c)}. Loss at the end "
        f"{training.history[-1]['loss']:.5f} nats on the train rows. The whole recipe is "
        "`training.config` in manifest.json."
    )


def _options(config: TrainConfig) -> str:
    on = {name: value for name, value in config.published().items() if name not in ALWAYS_LISTED}
    named = [f"{name.replace('_', ' ')} {value}" for name, value in on.items()]
    off = [] if {"crop", "flip", "cutout", "mixup"} & set(on) else ["no augmentation"]
    off += [] if config.label_smoothing else ["no label smoothing"]
    return ", ".join(named + off)


def _reading(manifest: Manifest) -> str:
    n = manifest.scores["test"]["n"]
    return (
        f"{n} test rows; fractions in percent, NLL in nats. The noise floor is the ECE that a "
        "perfectly calibrated model with these confidences would show on as many rows. An ECE near "
        "its floor shows no miscalibration, and a difference below the floor is not significant. "
        "`smart` and `temperature` were fitted on the calibration rows."
    )


def _reliability(evaluation: Evaluation, factory: Calibrator) -> str:
    shown = {"uncalibrated": "without a calibrator"}
    if factory.kind != evaluation.calibrators["uncalibrated"].kind:
        name = next(n for n, c in evaluation.calibrators.items() if c.kind == factory.kind)
        shown[name] = f"after `{factory.id}`"
    tables = []
    for panel in evaluation.panels:
        if panel.title not in shown:
            continue
        lines = [
            f"Confidence of the network {shown[panel.title]}, in bins, and how often it was right:",
            "",
            "| confidence | share of rows % | mean confidence % | right % | a calibrated model % |",
            "|---|---:|---:|---:|---:|",
        ]
        lines += [
            f"| {b.lower:.2f} to {b.upper:.2f} | {100 * b.share:.1f} | {100 * b.confidence:.1f} "
            f"| {100 * b.accuracy:.1f} | {100 * b.band_low:.1f} to {100 * b.band_high:.1f} |"
            for b in panel.bins
        ]
        tables.append("\n".join(lines))
    return "\n\n".join(tables)


def _cause(training: Training, evaluation: Evaluation) -> str:
    before, after = evaluation.scores["uncalibrated"], evaluation.scores["smart"]
    n_train = int(np.sum(training.data.split == Split.TRAIN))
    visible = "visible above" if before.ece > 1.5 * before.ece_floor else "not far from"
    loss = training.history[-1]["loss"]
    reason = (
        "It is as confident on new rows as on the train rows, which it has memorised: "
        if loss < 0.1 * before.nll
        else "The loss is lower on the train rows, and its confidence corresponds to that loss: "
        if loss < before.nll
        else "It has not memorised the train rows, which were augmented: "
    )
    return (
        f"The network was fitted to {n_train} rows until its loss on them was "
        f"{loss:.5f} nats; on new rows it is {before.nll:.2f} nats. {reason}ECE "
        f"{100 * before.ece:.1f} %, {visible} its floor of {100 * before.ece_floor:.1f} %. After "
        f"SMART it is {100 * after.ece:.1f} % with a floor of {100 * after.ece_floor:.1f} %."
    )


def _parity(manifest: Manifest, largest_difference: float) -> str:
    precision = manifest.training.get("precision")
    reduced = ""
    if precision is not None:
        reduced = (
            f" What is registered is that graph converted to {precision}; all figures here are of "
            "the converted one."
        )
    return (
        f"ONNX, opset {OPSET}, preprocessing inside the graph. onnxruntime and torch agree on "
        f"real images in batches of {', '.join(map(str, PARITY_BATCHES))}: largest difference "
        f"of a logit {largest_difference:.1e} nats, at most {TOLERANCE:.0e} is allowed.{reduced}"
    )


def _limits(training: Training, evaluation: Evaluation) -> str:
    n_test = int(np.sum(training.data.split == Split.TEST))
    accuracy = evaluation.scores["uncalibrated"].accuracy
    uncertain = 200 * (accuracy * (1 - accuracy) / n_test) ** 0.5
    return (
        '- Every image is given one of the classes: there is no answer "none of these", and the '
        "confidence on pictures of anything else means nothing.\n"
        "- The calibration holds for images like those of the calibration split. On blurred, "
        "shifted, cleaner or noisier ones it does not; that is what labels, monitoring and "
        "recalibration are for.\n"
        f"- {n_test} test rows leave the accuracy uncertain by {uncertain:.1f} points (two "
        "standard errors), and a class by itself far more."
    )
