"""Makes the files in ``examples/``: inputs for the demo model.

- ``seven.png``: a picture of a seven, enlarged so that a person can see it.
- ``digits_logits.json``: two rows of logits, the body of a first request.
- ``digits_calibration.npz``: logits and labels of the reserved rows, to fit a calibrator on.
- ``digits_test.npz``: logits and labels of the *test split*, under the same conditions; nothing was
  fitted or chosen on them.
- ``digits_drifted.npz``: the reserved rows *blurred and with more noise*, as if from another
  camera. The strength was chosen on these rows, so that the factory calibrator is visibly off on
  them and a refit has an effect.
- ``digits_pictures.npz``: the digits of the test split and the reserved rows *before* any noise;
  ``make demo`` rotates them and adds noise.
"""

import io
import json
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from trueprob.arrays.logit_functions import prediction, softmax
from trueprob.repository.model_version import ModelVersion
from trueprob_trainer.config import TrainConfig
from trueprob_trainer.data import Split, load
from trueprob_trainer.data.scikit_digits import digits, with_noise
from trueprob_trainer.errors import BadInput
from trueprob_trainer.export.graph import onnx_logits

ENLARGED = 16  # side on the screen of one pixel of the image
EXTRA_NOISE = 70.0  # grey levels after the blur; makes the model overconfident


@dataclass(frozen=True)
class Examples:
    """Contents of the example files."""

    seven_png: bytes
    calibration_npz: bytes
    test_npz: bytes
    drifted_npz: bytes
    pictures_npz: bytes
    logits_json: bytes

    def files(self) -> dict[str, bytes]:
        """The contents by file name."""
        return {
            "seven.png": self.seven_png,
            "digits_calibration.npz": self.calibration_npz,
            "digits_test.npz": self.test_npz,
            "digits_drifted.npz": self.drifted_npz,
            "digits_pictures.npz": self.pictures_npz,
            "digits_logits.json": self.logits_json,
        }


def make_examples(version: ModelVersion) -> Examples:
    """Make the examples for a registered model of 8x8 digits; always the same for one version."""
    if version.onnx_path is None:
        raise BadInput(f"{version.name}/{version.version} has no model.onnx")
    data = load(TrainConfig.from_dict(dict(version.manifest.training.get("config", {}))).data)
    if "7" not in data.class_names or data.mode != "L":
        raise BadInput(f"{version.name}/{version.version} does not classify digits")
    content = version.onnx_path.read_bytes()
    images, labels = data.of(Split.EXAMPLES)
    logits = onnx_logits(content, images)
    test_images, test_labels = data.of(Split.TEST)
    drifted = onnx_logits(content, np.stack([another_camera(image) for image in images]))
    return Examples(
        seven_png=_png(images[_clearest(logits, labels, data.class_names.index("7"))]),
        calibration_npz=_npz(logits=logits, labels=labels),
        test_npz=_npz(logits=onnx_logits(content, test_images), labels=test_labels),
        drifted_npz=_npz(logits=drifted, labels=labels),
        pictures_npz=_clean_pictures(),
        logits_json=_body(logits[:2]),
    )


def another_camera(image: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """The image out of focus and with additional noise."""
    wide = np.pad(image.astype(float), ((1, 1), (1, 1), (0, 0)), mode="edge")
    rows = (wide[:-2] + 4 * wide[1:-1] + wide[2:]) / 6
    blurred = (rows[:, :-2] + 4 * rows[:, 1:-1] + rows[:, 2:]) / 6
    return with_noise(np.rint(blurred).astype(np.uint8), EXTRA_NOISE, "another-camera")


def _clean_pictures() -> bytes:
    clean = digits()  # the clean picture decides the split of a row, so the splits are the same
    test_images, test_labels = clean.of(Split.TEST)
    reserved_images, reserved_labels = clean.of(Split.EXAMPLES)
    return _npz(
        test_images=test_images,
        test_labels=test_labels,
        reserved_images=reserved_images,
        reserved_labels=reserved_labels,
    )


def _clearest(logits: NDArray[np.float32], labels: NDArray[np.int64], class_index: int) -> int:
    """The row of a class that the model recognises with the highest confidence."""
    confidence = softmax(logits)[:, class_index].astype(float)
    confidence[(labels != class_index) | (prediction(logits) != class_index)] = -1
    return int(confidence.argmax())


def _png(image: NDArray[np.uint8]) -> bytes:
    enlarged = image[..., 0].repeat(ENLARGED, axis=0).repeat(ENLARGED, axis=1)
    buffer = io.BytesIO()
    Image.fromarray(enlarged).save(buffer, format="PNG", optimize=True)
    return buffer.getvalue()


def _npz(**arrays: NDArray[np.generic]) -> bytes:
    buffer = io.BytesIO()
    np.savez_compressed(buffer, **arrays)  # type: ignore[arg-type]  # numpy types the names, too
    return buffer.getvalue()


def _body(logits: NDArray[np.float32]) -> bytes:
    rows = [[round(float(value), 3) for value in row] for row in logits]
    return (json.dumps({"logits": rows}) + "\n").encode()
