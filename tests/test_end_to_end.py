"""The whole path through real HTTP: from an untrained network to a monitored answer."""

import base64
import io
import threading
import time
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from PIL import Image
from prometheus_client.parser import text_string_to_metric_families

from tests.running_service import RunningService, running_service
from trueprob.repository.model_repository import ModelRepository
from trueprob.scores.binned import BinnedCalibration
from trueprob.scores.score import score
from trueprob_trainer.__main__ import main as trainer
from trueprob_trainer.data import LabelledImages, Split, load

pytestmark = pytest.mark.integration
MODEL = "/v1/models/tiny"


@pytest.fixture(scope="module")
def data() -> LabelledImages:
    return load("noisy-digits")


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model repository with a network trained a moment ago, its calibrator the identity."""
    folder = tmp_path_factory.mktemp("trained")
    run, repository = str(folder / "run"), folder / "models"
    # Enough epochs to be overconfident, few enough to take seconds.
    assert trainer(["train", "--epochs", "25", "--seed", "3", "--run", run]) == 0
    options = ["--name", "tiny", "--models", str(repository), "--calibrator", "identity"]
    assert trainer(["register", "--run", run, *options]) == 0
    return repository


def png(image: np.ndarray) -> bytes:
    stream = io.BytesIO()
    Image.fromarray(image[:, :, 0] if image.shape[2] == 1 else image).save(stream, "PNG")
    return stream.getvalue()


def npz(**arrays: np.ndarray) -> bytes:
    stream = io.BytesIO()
    np.savez(stream, **arrays)
    return stream.getvalue()


def predict(client: httpx.Client, images: np.ndarray) -> dict[str, Any]:
    pictures = [base64.b64encode(png(image)).decode() for image in images]
    answer = client.post(f"{MODEL}/probabilities", json={"images": pictures})
    assert answer.status_code == 200, answer.text
    return answer.json()


def exported(service: RunningService, name: str) -> dict[tuple[str, str], float]:
    """Samples of a metric by (calibrator, bin)."""
    return {
        (sample.labels.get("calibrator", ""), sample.labels.get("bin", "")): sample.value
        for family in text_string_to_metric_families(service.client.get("/metrics").text)
        for sample in family.samples
        if sample.name == name
    }


class Traffic:
    """Logits posted over and over from a thread, each answer kept."""

    def __init__(self, url: str) -> None:
        logits = np.random.default_rng(5).normal(0, 4, (4, 10)).round(3)
        self.logits: list[list[float]] = logits.tolist()
        self.answers: list[dict[str, Any]] = []
        self.failures: list[str] = []
        self._url, self._stop = url, threading.Event()
        self._thread = threading.Thread(target=self._post)

    def __enter__(self) -> "Traffic":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join(10)

    def _post(self) -> None:
        with httpx.Client(base_url=self._url) as client:
            while not self._stop.is_set():
                answer = client.post(f"{MODEL}/probabilities", json={"logits": self.logits})
                if answer.status_code != 200:
                    self.failures.append(answer.text)
                    return
                self.answers.append(answer.json())


def test_the_whole_path(models: Path, data: LabelledImages, tmp_path: Path) -> None:
    state = tmp_path / "state"
    calibration_images, calibration_labels = data.of(Split.CALIBRATION)
    test_images, test_labels = data.of(Split.TEST)
    upload = npz(images=calibration_images, labels=calibration_labels)

    with running_service(state, models) as service:
        client = service.client
        before = predict(client, test_images[:8])
        assert before["calibrator"].startswith("identity-")
        assert before["revision"] == 1
        assert before["temperature"] == [1.0] * 8

        # A calibration set is uploaded and its calibrator promoted while traffic flows.
        with Traffic(service.url) as traffic:
            report = client.post(
                f"{MODEL}/calibration-sets",
                content=upload,
                headers={"content-type": "application/x-npz", "prefer": "wait=60"},
            )
            assert report.status_code == 201, report.text
            done = report.json()
            assert done["verdict"]["admitted"], done["verdict"]["reasons"]
            assert (done["promoted"], done["revision"]) == (True, 2)
            deadline = time.monotonic() + 20
            while not traffic.answers or traffic.answers[-1]["revision"] != 2:
                assert not traffic.failures
                assert time.monotonic() < deadline, "no answer names the promoted calibrator"
        assert not traffic.failures
        by_pair: dict[tuple[str, int], list[Any]] = {}
        for answer in traffic.answers:
            pair = (answer["calibrator"], answer["revision"])
            by_pair.setdefault(pair, []).append(answer["probabilities"])
        assert set(by_pair) == {(before["calibrator"], 1), (done["calibrator"], 2)}
        # Every answer is exactly that of the calibrator that it names: none is a mixture.
        for answers in by_pair.values():
            assert all(probabilities == answers[0] for probabilities in answers)
        first, second = (answers[0] for answers in by_pair.values())
        assert first != second

        # The truth comes later, by receipt.
        answers = [predict(client, test_images[i : i + 100]) for i in range(0, 500, 100)]
        ids = [i for answer in answers for i in answer["prediction_ids"]]
        confidence = np.float32([c for answer in answers for c in answer["confidence"]])
        predicted = np.array([p for answer in answers for p in answer["prediction"]])
        n = len(ids)
        labels = test_labels[:n].tolist()
        counted = client.post(f"{MODEL}/labels", json={"prediction_ids": ids, "labels": labels})
        assert counted.status_code == 200, counted.text
        assert counted.json() == {"accepted": n, "duplicate": 0, "rejected": 0, "outcomes": []}
        ours = BinnedCalibration.of(confidence.astype(np.float64), predicted == test_labels[:n])
        live = client.get(f"{MODEL}/calibration").json()
        assert (live["labels"], live["revision"]) == (n, 2)
        assert live["ece"] == pytest.approx(ours.ece(), abs=1e-12)
        assert live["ece_floor"] == pytest.approx(ours.ece_floor(), abs=1e-12)

    # (running_service ends with SIGKILL: nothing was flushed on purpose.)
    with running_service(state, models) as service:
        client = service.client
        again = predict(client, test_images[:8])
        assert (again["calibrator"], again["revision"]) == (done["calibrator"], 2)
        assert again["probabilities"] == answers[0]["probabilities"][:8]
        # What was counted is counted still, and only once.
        resent = client.post(f"{MODEL}/labels", json={"prediction_ids": ids, "labels": labels})
        assert (resent.json()["accepted"], resent.json()["duplicate"]) == (0, n)
        scraped = {
            name: exported(service, f"trueprob_bin_{name}_total")
            for name in ("labels", "confidence", "correct", "variance")
        }
        sums = zip(
            scraped.values(), (ours.count, ours.confidence, ours.correct, ours.variance),
            strict=True,
        )  # fmt: skip
        for samples, expected in sums:
            got = [samples[done["calibrator"], str(b)] for b in range(15)]
            np.testing.assert_allclose(got, expected, rtol=0, atol=1e-9)


def test_the_answers_have_the_scores_that_the_manifest_states(
    models: Path, data: LabelledImages, tmp_path: Path
) -> None:
    images, labels = data.of(Split.TEST)
    with running_service(tmp_path / "state", models) as service:
        answers = [predict(service.client, images[i : i + 128]) for i in range(0, len(images), 128)]
    probabilities = np.array([row for answer in answers for row in answer["probabilities"]])
    stated = ModelRepository(models).get("tiny", 1).manifest.scores["test"]["calibrated"]
    for name, value in score(probabilities, labels).to_dict().items():
        assert value == pytest.approx(stated[name], abs=1e-5), name


def test_coloured_pictures_of_a_file_are_trained_on_and_served(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 3, 900)
    images = rng.integers(0, 160, (900, 8, 8, 3))
    images[np.arange(900), :, :, labels] += 30  # which colour is a little brighter
    images = images.astype(np.uint8)
    np.savez(tmp_path / "colours.npz", images=images, labels=labels, class_names=["r", "g", "b"])
    run, repository = str(tmp_path / "run"), tmp_path / "models"
    recipe = [
        "--network",
        "resnet-8",
        "--optimiser",
        "csam",
        "--epochs",
        "3",
        "--bf16",
        "--crop",
        "1",
    ]
    source = f"npz:{tmp_path / 'colours.npz'}"
    assert trainer(["train", "--data", source, *recipe, "--run", run]) == 0
    assert trainer(["register", "--run", run, "--name", "tiny", "--models", str(repository)]) == 0
    version = ModelRepository(repository).get("tiny", 1)
    assert str(tmp_path) not in (version.path / "MODEL_CARD.md").read_text("utf-8")
    with running_service(tmp_path / "state", repository) as service:
        answer = predict(service.client, images[:300])
    assert answer["calibrator"].startswith("smart-")
    assert answer["class"][0] in ("r", "g", "b")
    assert np.mean(np.array(answer["prediction"]) == labels[:300]) > 0.8
    np.testing.assert_allclose(np.sum(answer["probabilities"], axis=1), 1, atol=1e-6)


def test_ctrl_c_stops_it_cleanly(models: Path, tmp_path: Path) -> None:
    state = tmp_path / "state"
    with running_service(state, models) as service:
        assert service.client.get("/v2/health/ready").json()["ready"] is True
        assert service.interrupt() == 0
    log = (tmp_path / "state.log").read_text()
    assert "Traceback" not in log
