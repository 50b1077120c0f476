"""Models and versions that appear on disk while the service runs."""

from __future__ import annotations

import logging
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.trueprob_service.control.harness import BlockNetwork, World
from tests.trueprob_service.control.model_folders import add_version
from trueprob_service.control.models.repository_watch import RepositoryWatch
from trueprob_service.errors import (
    STOPPING,
    DatabaseUnavailable,
    ModelNotFound,
    NetworkRefused,
    VersionNotFound,
)
from trueprob_service.inference.deployment import ServedVersion

pytestmark = pytest.mark.slow

UNWATCHED = {"repository_poll_seconds": 0}


def watch_of(world: World) -> RepositoryWatch:
    services = world.plane.services
    root = world.settings.model_repository
    return RepositoryWatch(root, services.catalogue, services.store, interval_seconds=0)


@pytest.fixture
def world(begin: Callable[..., World]) -> World:
    return begin(network=True, settings=UNWATCHED)


def test_a_model_that_appears_is_live_with_its_highest_version(
    world: World, tmp_path: Path
) -> None:
    watch = watch_of(world)
    watch.scan()
    add_version(tmp_path / "models", version=1)
    factory = add_version(tmp_path / "models", version=2, temperature=1.5)
    with pytest.raises(ModelNotFound):
        world.deployments.current("blocks")
    watch.scan()
    live = world.deployments.current("blocks")
    assert (live.served.version, live.calibrator_id, live.revision) == (2, factory, 1)
    assert live.network is not None
    assert world.deployments.current("blocks", 1).revision is None
    assert world.get("/v1/models/blocks")["revision"] == 1
    assert world.get("/v1/models/blocks/calibration")["baseline"]["n"] == 200


def test_a_version_that_appears_waits_until_it_is_promoted(
    world: World, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "trueprob_service.control")
    watch = watch_of(world)
    add_version(tmp_path / "models", version=1)
    watch.scan()
    factory = add_version(tmp_path / "models", version=2, temperature=2.0)
    watch.scan()
    watch.scan()
    assert [r.getMessage() for r in caplog.records] == [
        "found version 1 of model blocks, which is live",
        "found version 2 of model blocks, which is not live",
    ]
    assert world.deployments.current("blocks").served.version == 1
    assert world.deployments.current("blocks", 2).calibrator_id == factory
    promoted = world.call(
        "PUT", "/v1/models/blocks", json={"live_version": 2}, headers={"if-match": '"1"'}
    )
    assert (promoted.status_code, promoted.json()["revision"]) == (200, 2)
    live = world.deployments.current("blocks")
    assert (live.served.version, live.calibrator_id) == (2, factory)
    assert live.network is not None


def test_a_half_written_version_is_said_once_and_taken_when_it_is_whole(
    world: World, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    watch = watch_of(world)
    add_version(tmp_path / "elsewhere")
    source, target = (tmp_path / root / "blocks/1" for root in ("elsewhere", "models"))
    target.mkdir(parents=True)
    (target / "model.onnx").write_bytes(b"not")
    watch.scan()  # without a manifest it is no version
    assert caplog.records == []
    shutil.copy(source / "manifest.json", target)
    for _ in range(3):
        watch.scan()
    (target / "calibrator.json").write_bytes((source / "calibrator.json").read_bytes())
    watch.scan()  # looked at again, refused again; the reason is the same
    assert len(caplog.records) == 1
    assert "version 1 of model blocks is refused" in caplog.text
    assert world.plane.ready()["unavailable"] == 1
    with pytest.raises(ModelNotFound):
        world.deployments.current("blocks")
    for file in source.iterdir():
        shutil.copy(file, target)
    watch.scan()
    assert world.deployments.current("blocks").revision == 1
    assert world.plane.ready()["unavailable"] == 0


def test_a_refused_version_that_goes_is_forgotten(world: World, tmp_path: Path) -> None:
    watch = watch_of(world)
    add_version(tmp_path / "models")
    (tmp_path / "models/blocks/1/model.onnx").write_bytes(b"changed")
    watch.scan()
    assert world.plane.ready()["unavailable"] == 1
    shutil.rmtree(tmp_path / "models/blocks")
    watch.scan()
    assert world.plane.ready()["unavailable"] == 0
    with pytest.raises(VersionNotFound):
        world.plane.services.catalogue.served("blocks", 1)


def test_a_live_version_that_vanishes_or_changes_goes_on_answering(
    world: World, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    watch = watch_of(world)
    add_version(tmp_path / "models")
    watch.scan()
    (tmp_path / "models/blocks/1/model.onnx").write_bytes(b"changed")
    watch.scan()
    shutil.rmtree(tmp_path / "models/blocks/1")
    watch.scan()
    watch.scan()
    said = [record.getMessage() for record in caplog.records if "model blocks" in record.message]
    changed, vanished = said
    assert "version 1 of model blocks was changed on disk" in changed
    assert "version 1 of model blocks is no longer in the model repository" in vanished
    live = world.deployments.current("blocks")
    assert (live.revision, live.network is not None) == (1, True)
    assert world.get("/v1/models/blocks")["unavailable"] == []


def test_a_live_version_that_is_mended_gets_its_network_back(
    begin: Callable[..., World], tmp_path: Path
) -> None:
    add_version(tmp_path / "models")
    begin(network=True, settings=UNWATCHED).plane.close()
    file = tmp_path / "models/blocks/1/model.onnx"
    whole = file.read_bytes()
    file.write_bytes(b"changed")
    world = begin(network=True, settings=UNWATCHED)
    watch = watch_of(world)
    watch.scan()
    assert world.deployments.current("blocks").network is None
    file.write_bytes(whole)
    watch.scan()
    live = world.deployments.current("blocks")
    assert (live.revision, live.network is not None) == (1, True)
    assert world.plane.ready()["unavailable"] == 0


def test_a_declared_name_stays_what_it_is(world: World, tmp_path: Path) -> None:
    world.declare("blocks")
    add_version(tmp_path / "models")
    watch_of(world).scan()
    description = world.get("/v1/models/blocks")
    assert (description["declared"], description["revision"]) == (True, 1)
    assert "declared over HTTP" in description["unavailable"][0]["reason"]


def test_two_processes_register_a_model_once(begin: Callable[..., World], tmp_path: Path) -> None:
    worlds = [begin(network=True, settings=UNWATCHED) for _ in range(2)]
    add_version(tmp_path / "models")
    for world in worlds:
        watch_of(world).scan()
        assert world.deployments.current("blocks").revision == 1
    assert len(worlds[0].get("/v1/models/blocks/promotions")["items"]) == 1


def test_what_could_not_be_registered_is_taken_at_the_next_look(
    world: World, tmp_path: Path
) -> None:
    class Away:
        def write(self) -> object:
            raise DatabaseUnavailable("away")

    services = world.plane.services
    watch = RepositoryWatch(
        tmp_path / "models",
        services.catalogue,
        Away(),
        interval_seconds=0,  # type: ignore[arg-type]
    )
    add_version(tmp_path / "models")
    for _ in range(2):
        with pytest.raises(DatabaseUnavailable):
            watch.scan()
    with pytest.raises(ModelNotFound):
        world.deployments.current("blocks")


def test_what_could_not_be_inspected_is_looked_at_again(
    begin: Callable[..., World], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    failures = [NetworkRefused("no memory is left", reason="machine", lasting=False)] * 2

    def network(_served: ServedVersion) -> BlockNetwork:
        if failures:
            raise failures.pop()
        return BlockNetwork()

    world = begin(network=network, settings=UNWATCHED)
    watch = watch_of(world)
    add_version(tmp_path / "models")
    for seconds, left in ((0, 1), (59, 1), (2, 0), (59, 0)):
        world.clock.now += seconds
        watch.scan()
        assert len(failures) == left
        assert world.deployments.current("blocks").network is None  # logits are answered
    world.clock.now += 2
    watch.scan()
    assert world.deployments.current("blocks").network is not None
    assert world.plane.unavailable == {}
    assert [record.getMessage() for record in caplog.records if record.levelname == "ERROR"] == [
        "version 1 of model blocks is refused: no memory is left"
    ]


def test_what_was_refused_for_good_waits_for_other_files(
    begin: Callable[..., World], tmp_path: Path
) -> None:
    looked: list[str] = []

    def network(served: ServedVersion) -> BlockNetwork:
        looked.append(served.model)
        raise NetworkRefused("the network needs too much", reason="memory")

    world = begin(network=network, settings=UNWATCHED)
    watch = watch_of(world)
    add_version(tmp_path / "models")
    for _ in range(3):
        watch.scan()
        world.clock.now += 3600
    assert looked == ["blocks"]
    assert world.plane.unavailable == {("blocks", 1): "the network needs too much"}
    (tmp_path / "models/blocks/1/model.onnx").touch()
    watch.scan()
    assert looked == ["blocks"] * 2


def test_a_service_that_stops_refuses_nothing(
    begin: Callable[..., World], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    def network(_served: ServedVersion) -> BlockNetwork:
        raise NetworkRefused("the service is stopping", reason=STOPPING, lasting=False)

    world = begin(network=network, settings=UNWATCHED)
    add_version(tmp_path / "models")
    watch_of(world).scan()
    assert world.plane.unavailable == {}
    assert [record for record in caplog.records if record.levelname == "ERROR"] == []
