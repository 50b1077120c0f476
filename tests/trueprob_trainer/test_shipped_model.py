"""``models/digits/1`` and ``examples/`` agree with what the trainer makes and states."""

import functools
import io
import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from trueprob.admission.decision import admit
from trueprob.arrays.calibration_set import load_calibration_set
from trueprob.arrays.logit_functions import prediction, softmax
from trueprob.repository.model_repository import ModelRepository
from trueprob.repository.model_version import ModelVersion
from trueprob.scores.score import score
from trueprob_trainer.config import TrainConfig
from trueprob_trainer.data import LabelledImages, Split, load
from trueprob_trainer.examples import make_examples
from trueprob_trainer.export.graph import onnx_logits

ROOT = Path(__file__).parents[2]
EXAMPLES = ROOT / "examples"


@functools.cache
def shipped() -> ModelVersion:
    return ModelRepository(ROOT / "models").get("digits", 1)


@functools.cache
def data() -> LabelledImages:
    return load(TrainConfig.from_dict(dict(shipped().manifest.training["config"])).data)


def logits_of(split: Split) -> np.ndarray:
    assert shipped().onnx_path is not None
    return onnx_logits((shipped().path / "model.onnx").read_bytes(), data().of(split)[0])


def test_the_shipped_version_verifies_and_is_small() -> None:
    shipped().verify()
    assert (shipped().path / "model.onnx").stat().st_size < 300_000


def test_its_graph_reproduces_the_scores_of_its_manifest() -> None:
    logits, (_, labels) = logits_of(Split.TEST), data().of(Split.TEST)
    stated = shipped().manifest.scores["test"]
    assert stated["n"] == len(labels)
    calibrated = shipped().calibrator().predict_proba(logits)
    for state, probabilities in (("uncalibrated", softmax(logits)), ("calibrated", calibrated)):
        for name, value in score(probabilities, labels).to_dict().items():
            assert value == pytest.approx(stated[state][name], abs=2e-6), (state, name)


def test_the_calibration_error_is_visible_before_and_near_its_floor_after() -> None:
    test = shipped().manifest.scores["test"]
    before, after = test["uncalibrated"], test["calibrated"]
    assert before["ece"] > 1.5 * before["ece_floor"]
    assert after["ece"] < 1.5 * after["ece_floor"]
    assert after["nll"] < before["nll"]


def test_files_name_no_place_on_the_machine_that_made_them() -> None:
    for file in shipped().path.iterdir():
        content = file.read_bytes()
        for place in (b"/home/", b"/root/", b"/work/", b"/tmp/", b"runs/"):
            assert place not in content, file.name


def test_examples_are_made_again_to_the_last_bit() -> None:
    made = make_examples(shipped())
    for name in ("seven.png", "digits_logits.json"):
        assert (EXAMPLES / name).read_bytes() == made.files()[name], name
    for name in ("digits_calibration.npz", "digits_test.npz", "digits_drifted.npz"):
        with np.load(EXAMPLES / name) as kept, np.load(io.BytesIO(made.files()[name])) as new:
            assert np.array_equal(kept["labels"], new["labels"]), name
            np.testing.assert_allclose(kept["logits"], new["logits"], atol=1e-4, err_msg=name)
    name = "digits_pictures.npz"
    with np.load(EXAMPLES / name) as kept, np.load(io.BytesIO(made.files()[name])) as new:
        assert set(kept) == set(new)
        assert all(np.array_equal(kept[part], new[part]) for part in new)


def test_the_seven_is_a_reserved_row_that_the_model_reads_as_seven() -> None:
    picture = Image.open(EXAMPLES / "seven.png")
    assert picture.mode == "L"
    assert min(picture.size) >= 64
    images, labels = data().of(Split.EXAMPLES)
    sevens = {image.tobytes() for image in images[labels == 7]}
    content = (shipped().path / "model.onnx").read_bytes()
    for resample in (Image.Resampling.BOX, Image.Resampling.BILINEAR, Image.Resampling.BICUBIC):
        small = np.asarray(picture.resize((8, 8), resample), dtype=np.uint8)[None, ..., None]
        if resample is Image.Resampling.BOX:
            assert small.tobytes() in sevens
        assert prediction(onnx_logits(content, small)).tolist() == [7], resample


def test_example_rows_are_in_no_other_split() -> None:
    reserved = {image.tobytes() for image in data().of(Split.EXAMPLES)[0]}
    for split in (Split.TRAIN, Split.CALIBRATION, Split.TEST):
        assert reserved.isdisjoint(image.tobytes() for image in data().of(split)[0])
    for name in ("digits_calibration.npz", "digits_drifted.npz"):
        assert load_calibration_set(EXAMPLES / name, n_classes=10).n == len(reserved)


def test_the_drifted_set_is_off_and_its_candidate_admitted() -> None:
    kept = load_calibration_set(EXAMPLES / "digits_drifted.npz", n_classes=10)
    factory = shipped().calibrator()
    before = score(factory.predict_proba(kept.logits), kept.labels)
    assert before.ece > 2 * before.ece_floor
    verdict = admit(factory, "smart", kept)
    assert verdict.admitted, verdict.reasons
    assert verdict.scores["candidate"].nll < verdict.scores["incumbent"].nll - 0.02


def test_the_example_body_has_two_rows_of_ten() -> None:
    rows = json.loads((EXAMPLES / "digits_logits.json").read_text())["logits"]
    assert [len(row) for row in rows] == [10, 10]
