"""Agreement of a repeated training with the shipped version, within the noise of the test rows."""

import dataclasses

import pytest

from trueprob.repository.manifest import InputSpec, Manifest
from trueprob_trainer.errors import BadInput
from trueprob_trainer.evaluation.report import compare


def manifest(ece: float = 0.05, accuracy: float = 0.9, n: int = 500) -> Manifest:
    scores = {"ece": ece, "ece_floor": 0.02, "accuracy": accuracy}
    return Manifest(
        name="digits",
        version=1,
        n_classes=2,
        class_names=("0", "1"),
        input=InputSpec("image", "uint8", ("batch", 8, 8, 1), "NHWC"),
        training={"dataset": "digits"},
        scores={
            "test": {
                "n": n,
                "uncalibrated": scores,
                "calibrated": {**scores, "ece": 0.02},
            }
        },
    )


@pytest.mark.parametrize(
    ("ours", "holds"),
    [
        (manifest(), True),
        (manifest(ece=0.069), True),
        (manifest(ece=0.071), False),
        (manifest(ece=0.029), False),
        (manifest(accuracy=0.92), True),
        (manifest(accuracy=0.87), False),
    ],
)
def test_differences_are_held_to_the_floor(ours: Manifest, holds: bool) -> None:
    agreement = compare(ours, manifest())
    assert agreement.holds is holds
    assert agreement.table().endswith(f"agree within the noise floor: {'yes' if holds else 'no'}")


def test_other_data_cannot_be_compared() -> None:
    with pytest.raises(BadInput, match="one data set only"):
        compare(manifest(n=400), manifest())
    with pytest.raises(BadInput, match="no entry 'test'"):
        compare(manifest(), dataclasses.replace(manifest(), scores={}))
