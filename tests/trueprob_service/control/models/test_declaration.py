"""Models that are declared over HTTP."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from tests.trueprob_service.control.harness import World, settings_in
from tests.trueprob_service.control.harness import start as start_world
from tests.trueprob_service.control.model_folders import add_version
from trueprob.calibrators import IdentityCalibrator


def test_a_declared_model_is_there_at_once_and_after_a_restart(
    begin: Callable[..., World],
) -> None:
    world = begin()
    body = {"n_classes": 3, "class_names": ["cat", "dog", "bird"]}
    first = world.call("PUT", "/v1/models/pets", json=body)
    assert first.status_code == 201
    assert first.headers["etag"] == '"1"'
    assert first.json()["class_names"] == body["class_names"]
    assert first.json()["calibrator"] == IdentityCalibrator(3).id
    assert world.call("PUT", "/v1/models/pets", json=body).status_code == 200
    assert world.call("PUT", "/v1/models/pets", json={"n_classes": 3}).status_code == 200
    assert world.call("PUT", "/v1/models/pets", json={"n_classes": 4}).status_code == 409
    other = {"n_classes": 3, "class_names": ["cat", "dog", "cow"]}
    assert world.call("PUT", "/v1/models/pets", json=other).status_code == 409
    world.plane.close()
    restarted = begin()
    assert restarted.deployments.current("pets").served.class_names == ("cat", "dog", "bird")
    assert restarted.get("/v1/models/pets") == first.json()


@pytest.mark.parametrize(
    ("name", "body", "word"),
    [
        ("pets", {"n_classes": 1}, "n_classes"),
        ("pets", {"n_classes": 200_001}, "n_classes"),
        ("pets", {"n_classes": 2.5}, "n_classes"),
        ("pets", {"n_classes": True}, "n_classes"),
        ("pets", {"n_classes": 2, "class_names": ["a", "a"]}, "class_names"),
        ("pets", {"n_classes": 2, "class_names": ["a", ""]}, "class_names[1]"),
        ("pets", {"n_classes": 2, "class_names": ["a", "b\0"]}, "class_names[1]"),
        ("pets", {"n_classes": 3, "class_names": ["a", "b"]}, "class_names"),
        ("pets", {}, "n_classes"),
        ("pets", {"n_clases": 3}, "n_clases"),
        ("pets", {"n_classes": 3, "live_version": 1}, "live_version"),
        ("-pets", {"n_classes": 3}, "name"),
        ("a..b", {"n_classes": 3}, "name"),
        ("p" * 101, {"n_classes": 3}, "name"),
    ],
)
def test_a_declaration_that_cannot_be_used(
    shared_world: World, name: str, body: object, word: str
) -> None:
    answer = shared_world.call("PUT", f"/v1/models/{name}", json=body)
    assert answer.status_code == 422
    assert word in answer.text


def test_a_declared_name_is_not_taken_over_by_a_folder(tmp_path: Path) -> None:
    settings = settings_in(tmp_path)
    world = start_world(settings)
    world.declare("blocks")
    world.plane.close()
    add_version(tmp_path / "models")
    world = start_world(settings)
    description = world.get("/v1/models/blocks")
    assert description["declared"] is True
    assert "declared" in description["unavailable"][0]["reason"]
    world.plane.close()
