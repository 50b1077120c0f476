"""What ``models/`` holds: verified, small, described, and served side by side."""

import io
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.running_service import running_service
from trueprob.repository.model_repository import ModelRepository
from trueprob_trainer.config import TrainConfig

ROOT = Path(__file__).parents[1]
MODELS = ModelRepository(ROOT / "models")
BYTES = 3_000_000  # of the whole version: what the image network was chosen to fit in


def test_the_image_network_is_whole_small_and_described() -> None:
    version = MODELS.get("cifar10", 1)
    version.verify()
    assert sum(file.stat().st_size for file in version.path.iterdir()) < BYTES
    manifest = version.manifest
    assert (manifest.input.shape, manifest.n_classes) == (("batch", 32, 32, 3), 10)
    recipe = TrainConfig.from_dict(dict(manifest.training["config"]))  # can be trained again
    assert recipe.network in (version.path / "MODEL_CARD.md").read_text("utf-8")
    test = manifest.scores["test"]
    assert test["n"] == 10_000
    assert test["uncalibrated"]["accuracy"] > 0.8
    assert test["calibrated"]["accuracy"] == test["uncalibrated"]["accuracy"]
    # Near what a perfectly calibrated network shows.
    assert test["calibrated"]["ece"] < 2 * test["calibrated"]["ece_floor"]


def test_the_card_says_where_the_images_are_from_and_no_file_names_a_machine() -> None:
    version = MODELS.get("cifar10", 1)
    card = (version.path / "MODEL_CARD.md").read_text("utf-8")
    for said in ("CIFAR-10", "Krizhevsky", "licence", "JPEG"):
        assert said in card, said
    for file in version.path.iterdir():
        content = file.read_bytes()
        for place in (b"/home/", b"/root/", b"/work/", b"/tmp/", b"runs/"):
            assert place not in content, file.name


@pytest.mark.integration
def test_both_shipped_models_are_served_side_by_side(tmp_path: Path) -> None:
    version = MODELS.get("cifar10", 1)
    shade = np.linspace(0, 255, 32).astype(np.uint8)
    picture = np.stack(np.broadcast_arrays(shade[:, None], shade, np.uint8(128)), axis=-1)
    with running_service(tmp_path / "state", ROOT / "models") as service:
        client = service.client
        there = {m["model"]: m for m in client.get("/v1/models").json()["items"]}
        assert set(there) == {"digits", "cifar10"}
        stream = io.BytesIO()
        Image.fromarray(picture).save(stream, "PNG")
        answer = client.post(
            "/v1/models/cifar10/probabilities",
            content=stream.getvalue(),
            headers={"content-type": "image/png"},
        )
        assert answer.status_code == 200, answer.text
        assert answer.json()["calibrator"].startswith("smart-")
        assert answer.json()["class"][0] in version.manifest.class_names
        assert sum(answer.json()["probabilities"][0]) == pytest.approx(1)
        (log_probabilities,) = np.log(np.array(answer.json()["probabilities"]))
        again = client.post(
            "/v1/models/digits/probabilities", json={"logits": [log_probabilities.tolist()]}
        )
        assert again.status_code == 200
        assert again.json()["class"][0] in "0123456789"
