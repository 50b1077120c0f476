"""Models from disk: which version is live, and what answers for it."""

from __future__ import annotations

import base64
import io
import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.trueprob_service.control.harness import NPZ, World, block_logits, npz, overconfident
from tests.trueprob_service.control.model_folders import add_version
from trueprob_service.errors import ModelNotFound

pytestmark = pytest.mark.slow


def test_the_highest_version_is_live_at_first_sight(
    begin: Callable[..., World], tmp_path: Path
) -> None:
    add_version(tmp_path / "models", version=1)
    factory = add_version(tmp_path / "models", version=2, temperature=1.5)
    world = begin(network=True)
    description = world.get("/v1/models/blocks")
    assert (description["version"], description["calibrator"]) == (2, factory)
    assert description["revision"] == 1
    assert description["class_names"] == ["a", "b", "c"]
    assert [(v["version"], v["live"], v["network"]) for v in description["versions"]] == [
        (2, True, True),
        (1, False, True),
    ]
    assert world.deployments.current("blocks").revision == 1
    assert world.deployments.current("blocks", 1).revision is None
    baseline = world.get("/v1/models/blocks/calibration")["baseline"]
    assert set(baseline) == {"n", "ece", "ece_floor", "accuracy"}
    assert baseline["n"] == 200
    (pair,) = world.plane.label_statistics().pairs
    assert pair.baseline_ece == baseline["ece"]


def test_a_later_version_goes_live_when_it_is_asked_for(
    begin: Callable[..., World], tmp_path: Path
) -> None:
    first = add_version(tmp_path / "models", version=1)
    world = begin(network=True)
    world.plane.close()
    second = add_version(tmp_path / "models", version=2, temperature=2.0)
    world = begin(network=True)
    assert world.get("/v1/models/blocks")["version"] == 1
    path = "/v1/models/blocks"
    assert world.call("PUT", path, json={"live_version": 2}).status_code == 428
    match = {"if-match": '"1"'}
    assert world.call("PUT", path, json={"live_version": 3}, headers=match).status_code == 404
    promoted = world.call("PUT", path, json={"live_version": 2}, headers=match)
    assert promoted.status_code == 200
    assert (promoted.json()["calibrator"], promoted.json()["revision"]) == (second, 2)
    again = world.call("PUT", path, json={"live_version": 2}, headers={"if-match": '"2"'})
    assert (again.status_code, again.json()["revision"]) == (200, 2)
    # The calibrator of a version that is not live is of no use to the one that is.
    wrong = world.call("POST", f"{path}/calibrators/{first}/promote", headers={"if-match": '"2"'})
    assert wrong.status_code == 409
    assert "version 1" in wrong.json()["detail"]
    back = world.call("POST", f"{path}/rollback", headers={"if-match": '"2"'})
    assert (back.json()["version"], back.json()["calibrator"]) == (1, first)
    assert world.deployments.current("blocks").served.version == 1


def test_a_version_answers_with_its_last_promoted_calibrator(
    begin: Callable[..., World], tmp_path: Path
) -> None:
    add_version(tmp_path / "models", version=1)
    world = begin()
    report = world.upload(overconfident(), model="blocks")
    assert report["promoted"]
    world.plane.close()
    add_version(tmp_path / "models", version=2)
    world = begin()
    match = {"if-match": '"2"'}
    world.call("PUT", "/v1/models/blocks", json={"live_version": 2}, headers=match)
    assert world.deployments.current("blocks", 1).calibrator_id == report["calibrator"]
    match = {"if-match": '"3"'}
    back = world.call("PUT", "/v1/models/blocks", json={"live_version": 1}, headers=match).json()
    assert (back["calibrator"], back["revision"]) == (report["calibrator"], 4)


def test_a_fit_for_a_version_that_is_not_live_does_not_go_live_by_itself(
    begin: Callable[..., World], tmp_path: Path
) -> None:
    add_version(tmp_path / "models", version=1)
    add_version(tmp_path / "models", version=2)
    world = begin()
    report = world.upload(overconfident(), "?version=1", model="blocks")
    assert (report["version"], report["verdict"]["admitted"], report["promoted"]) == (
        1,
        True,
        False,
    )
    assert "not the live one" in report["verdict"]["reasons"][-1]
    assert world.deployments.current("blocks").served.version == 2


def test_images_run_through_the_network(begin: Callable[..., World], tmp_path: Path) -> None:
    add_version(tmp_path / "models")
    world = begin(network=True, settings={"max_batch_rows": 16})
    images = np.random.default_rng(0).integers(0, 256, (100, 3, 2, 1), dtype=np.uint8)
    labels = np.arange(100) % 3
    by_image = world.upload(npz(images=images, labels=labels), "?promote=never", "blocks")
    by_logits = world.upload(
        npz(logits=block_logits(images), labels=labels), "?promote=never", "blocks"
    )
    assert by_image["calibration_set"] == by_logits["calibration_set"]
    for wrong in (
        {"images": images.astype(np.float32)},
        {"images": images[:, :2]},
        {"images": images, "logits": block_logits(images)},
    ):
        answer = world.call(
            "POST",
            "/v1/models/blocks/calibration-sets",
            content=npz(labels=labels, **wrong),
            headers={"content-type": "application/zip"},
        )
        assert answer.status_code == 422
        assert "images" in answer.json()["detail"]


def test_pictures_are_decoded_and_run_through_the_network(
    begin: Callable[..., World], tmp_path: Path
) -> None:
    add_version(tmp_path / "models")
    world = begin(network=True, settings={"max_batch_rows": 16})
    images = np.random.default_rng(0).integers(0, 256, (60, 3, 2, 1), dtype=np.uint8)
    pictures = []
    for image in images:
        buffer = io.BytesIO()
        Image.fromarray(image[:, :, 0]).save(buffer, "PNG")
        pictures.append(buffer.getvalue())
    names = ["abc"[index % 3] for index in range(60)]
    path = "/v1/models/blocks/calibration-sets?promote=never"
    texts = [base64.b64encode(picture).decode() for picture in pictures]
    sent = [
        world.call("POST", path, content=npz(images=images, labels=names), headers=NPZ),
        world.call("POST", path, json={"images": texts, "labels": names}),
        world.call(
            "POST",
            path,
            files=[("image", ("p.png", p)) for p in pictures],
            data={"labels": json.dumps(names)},
        ),
    ]
    assert [answer.status_code for answer in sent] == [202] * 3, sent[2].text
    assert len({answer.json()["calibration_set"] for answer in sent}) == 1
    broken = world.call("POST", path, json={"images": [texts[0], "AAAA"], "labels": [0, 1]})
    assert (broken.status_code, "images[1]" in broken.text) == (400, True), broken.text
    few = world.call("POST", path, json={"images": texts, "labels": names[:-1]})
    assert (few.status_code, "labels" in few.text) == (422, True)


def test_a_bad_version_is_refused_and_the_rest_goes_on(
    begin: Callable[..., World], tmp_path: Path
) -> None:
    add_version(tmp_path / "models", "good")
    add_version(tmp_path / "models", "bad", 1)
    add_version(tmp_path / "models", "bad", 2)
    add_version(tmp_path / "models", "lost")
    (tmp_path / "models/bad/2/model.onnx").write_bytes(b"changed")
    (tmp_path / "models/lost/1/manifest.json").write_text("{}")
    add_version(tmp_path / "models", "bad", 3, class_names=("b", "a", "c"))
    world = begin(network=True)
    by_name = {item["model"]: item for item in world.get("/v1/models")["items"]}
    assert set(by_name) == {"good", "bad", "lost"}
    assert by_name["good"]["unavailable"] == []
    assert by_name["bad"]["version"] == 1
    changed, permuted = by_name["bad"]["unavailable"]
    assert (changed["version"], permuted["version"]) == (2, 3)
    assert "calibrator class_names must be a, b, c, got b, a, c" in permuted["reason"]
    assert by_name["lost"]["version"] is None
    assert world.get("/v1/models/lost") == by_name["lost"]
    assert world.plane.ready()["unavailable"] == 3
    with pytest.raises(ModelNotFound):
        world.deployments.current("lost")


def test_a_live_version_whose_files_go_bad_still_answers_for_logits(
    begin: Callable[..., World], tmp_path: Path
) -> None:
    factory = add_version(tmp_path / "models", "bad")
    begin(network=True).plane.close()
    (tmp_path / "models/bad/1/model.onnx").write_bytes(b"changed")
    world = begin(network=True)
    live = world.deployments.current("bad")
    assert (live.calibrator_id, live.revision, live.network) == (factory, 1, None)
    description = world.get("/v1/models/bad")
    assert [entry["version"] for entry in description["unavailable"]] == [1]


def test_models_are_paged(sqlite_world: World) -> None:
    for name in ("n", "o"):
        sqlite_world.declare(name)
    first = sqlite_world.get("/v1/models?limit=2")
    assert [item["model"] for item in first["items"]] == ["o", "n"]
    second = sqlite_world.get(f"/v1/models?limit=2&cursor={first['next']}")
    assert ([item["model"] for item in second["items"]], second["next"]) == (["m"], None)
