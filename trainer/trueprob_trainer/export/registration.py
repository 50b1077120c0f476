"""Registers a finished run as the next version of a model in the model repository.

All numbers come from the exported graph, which the service will run. The factory calibrator is
fitted on its logits of the calibration split, and the scores are computed from its logits of the
test split. If the parity check or the precision check fails, nothing is written.
"""

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

import trueprob
from trueprob.arrays.calibration_set import CalibrationSet
from trueprob.arrays.labels import as_labels
from trueprob.arrays.logits import as_logits
from trueprob.calibrators import FittedOn, dumps_calibrator
from trueprob.repository.baseline import Baseline
from trueprob.repository.manifest import InputSpec, Manifest
from trueprob.repository.model_repository import ModelRepository
from trueprob.repository.model_version import ModelVersion
from trueprob_trainer.data import Split
from trueprob_trainer.evaluation.network_scores import Evaluation, evaluate
from trueprob_trainer.export.graph import INPUT, OUTPUT, export, onnx_logits
from trueprob_trainer.export.model_card import model_card
from trueprob_trainer.export.variants import check_loss, compare_precisions, in_precision
from trueprob_trainer.training.finished_run import Training

# A value of --calibrator → its key in an Evaluation.
FACTORY_CALIBRATORS = {"smart": "smart", "temperature": "temperature", "identity": "uncalibrated"}


@dataclass(frozen=True)
class Registration:
    """A registered version and its measurements."""

    version: ModelVersion
    evaluation: Evaluation
    largest_difference: float  # of a logit between onnxruntime and torch, nats


def register(
    training: Training,
    name: str,  # of the model
    models: Path,  # root of the model repository
    *,
    created_at: datetime,  # with a time zone; stored with the calibrator
    calibrator: str = "smart",  # a key of FACTORY_CALIBRATORS
    precision: str = "fp32",
    notes: Sequence[str] = (),  # sentences on the data for the model card: origin, licence
) -> Registration:
    """Export, calibrate, score and write the next version of a model."""
    noted = dataclasses.replace(training.data, notes=(*training.data.notes, *notes))
    training = dataclasses.replace(training, data=noted)
    data, k = training.data, len(training.data.class_names)
    calibration_images, calibration_labels = data.of(Split.CALIBRATION)
    test_images, test_labels = data.of(Split.TEST)
    exported = export(training.model, calibration_images)
    content = exported.content
    if precision != "fp32":
        content = in_precision(content, precision, calibration_images)
        both = {"fp32": exported.content, precision: content}
        check_loss(compare_precisions(both, calibration_images, calibration_labels))
    logits = as_logits(onnx_logits(content, calibration_images), n_classes=k)
    labels = as_labels(calibration_labels, n_classes=k)
    test = as_logits(onnx_logits(content, test_images), n_classes=k)
    evaluation = evaluate((logits, labels), (test, as_labels(test_labels, n_classes=k)))
    chosen = FACTORY_CALIBRATORS[calibrator]
    factory = evaluation.calibrators[chosen].with_class_names(data.class_names)
    fitted_on = None
    if calibrator != "identity":
        fitted_on = FittedOn.of(
            CalibrationSet(logits, labels, class_names=data.class_names),
            created_at.isoformat(timespec="seconds"),
        )
    repository = ModelRepository(models)
    scores = evaluation.to_dict()
    manifest = Manifest(
        name=name,
        version=repository.next_version(name),
        n_classes=k,
        class_names=data.class_names,
        input=InputSpec(
            name=INPUT,
            dtype="uint8",
            shape=("batch", *test_images.shape[1:]),
            layout="NHWC",
            preprocessing={
                "mode": data.mode,
                "resize": list(test_images.shape[1:3]),
                "resample": data.resample,
            },
        ),
        output_name=OUTPUT,
        training={
            "dataset": data.description,
            "optimiser": training.config.optimiser,
            "rho": training.config.rho,
            "seed": training.config.seed,
            "code_version": trueprob.__version__,
            "config": training.config.published(),
            **({} if precision == "fp32" else {"precision": precision}),
        },
        scores={
            "test": {
                "n": len(test_labels),
                "uncalibrated": scores["uncalibrated"],
                "temperature": scores["temperature"],
                "calibrated": scores[chosen],
            }
        },
    )
    files = {
        "model.onnx": content,
        "calibrator.json": dumps_calibrator(factory, fitted_on),
        "baseline.npz": Baseline.of(factory, logits, labels).to_bytes(),
        "MODEL_CARD.md": model_card(
            manifest, training, evaluation, factory, exported.largest_difference
        ).encode(),
    }
    return Registration(repository.add(manifest, files), evaluation, exported.largest_difference)
