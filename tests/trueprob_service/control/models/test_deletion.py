"""Deleting a model: nothing of it is left, and nothing of it counts for another of its name."""

from __future__ import annotations

import shutil
import threading
import time
from collections.abc import Callable
from pathlib import Path

import httpx
import numpy as np
import pytest
from sqlalchemy import select

from tests.trueprob_service.control.fitting.test_queue import Cancellable, post, until
from tests.trueprob_service.control.harness import NPZ, WAIT, World, overconfident, rows
from tests.trueprob_service.control.model_folders import add_version
from tests.trueprob_service.control.models.test_repository_watch import watch_of
from trueprob.arrays.calibration_set import CalibrationSet
from trueprob_service.control.fitting.request import FitRequest
from trueprob_service.control.fitting.stored_sets import StoredSets
from trueprob_service.control.store.tables import metadata
from trueprob_service.errors import ModelNotFound

pytestmark = pytest.mark.slow

# What outlives a model, by design: used-up names, messages, who did what, and what is not of one
# model.
STAY = {
    "audit_entry", "audit_head", "deleted_model", "key_use", "label_key", "swept", "webhook_event",
}  # fmt: skip
NEVER = {"poll_seconds": 3600.0}


def delete(world: World, revision: int, model: str = "m") -> httpx.Response:
    headers = {"if-match": f'"{revision}"'}
    return world.call("DELETE", f"/v1/models/{model}", headers=headers)


def use(world: World, model: str) -> list[str]:
    """Something in every table; ids that are labelled already and ids that are not."""
    world.declare(model)
    logits, labels = rows(7, 20)
    world.upload(overconfident(), "?name=may", model)
    *_, ids = world.predict(logits, model)
    world.predict_with_ids(logits, [f"{model} {i}" for i in range(len(logits))], model)
    assert world.plane.services.memory is not None
    assert world.plane.services.memory.flush()
    assert world.label(ids[:10], labels[:10].tolist(), model).json()["accepted"] == 10
    row = {"id": "a", "logits": [1, 2, 3], "label": 1}
    path = f"/v1/models/{model}/labels"
    assert world.call("POST", path, json={"rows": [row]}).json()["accepted"] == 1
    identity = world.get(f"/v1/models/{model}/promotions")["items"][-1]["calibrator"]
    shadow = world.call("PUT", f"/v1/models/{model}/shadow", json={"calibrator": identity})
    assert shadow.status_code == 201
    with world.plane.services.store.write() as transaction:
        live = transaction.promotions.live(model)
        assert live is not None
        transaction.alarms.add(
            model=model, revision=live.revision, version=1, calibrator=live.calibrator,
            statistic="change", log10=5.1, threshold_log10=5.0, tolerance=0.02, counted=10,
            raised_at=world.clock.now,
        )  # fmt: skip
    return ids


def models_in_tables(world: World) -> dict[str, set[str]]:
    with world.plane.services.store._engine.connect() as connection:
        found = {
            table.name: set(connection.execute(select(column)).scalars())
            for table in metadata.sorted_tables
            if (column := table.c.get("model", table.c.get("name"))) is not None
        }
        model, group = metadata.tables["model"], metadata.tables["group_count"]
        of = select(model.c.name).select_from(
            group.outerjoin(model, model.c.id == group.c.model_id)  # None: a row that was left
        )
        return {**found, "group_count": set(connection.execute(of).scalars())}


def test_every_row_of_a_model_goes_and_no_other(world: World) -> None:
    for name in ("doomed", "kept"):
        use(world, name)
    before = models_in_tables(world)
    assert set(before) | STAY == set(metadata.tables)
    filled = {table for table, names in before.items() if "doomed" in names}
    assert filled - STAY == set(before) - STAY, "a table that no test fills: is it emptied?"
    assert delete(world, 2, "doomed").status_code == 204
    after = models_in_tables(world)
    assert after.pop("deleted_model") == {"doomed"}
    assert after.pop("audit_entry") >= {"doomed", "kept"}
    assert after == {table: names - {"doomed"} for table, names in before.items() if table in after}
    with pytest.raises(ModelNotFound):
        world.deployments.current("doomed")
    assert world.call("GET", "/v1/models/doomed").status_code == 404
    assert world.deployments.current("kept").revision == 2


def test_a_model_of_the_same_name_has_none_of_its_past(begin: Callable[..., World]) -> None:
    world = begin()
    ids = use(world, "m")
    assert delete(world, 2).status_code == 204
    assert world.label(ids, [0] * 20).status_code == 404
    world.declare("other")
    told = world.label(ids, [0] * 20, "other").json()["outcomes"]
    assert {each["outcome"] for each in told} == {"foreign"}

    answer = world.call("PUT", "/v1/models/m", json={"n_classes": 3})
    assert (answer.status_code, answer.json()["revision"]) == (201, 3)
    told = world.label(ids, [0] * 20).json()["outcomes"]
    assert [each["outcome"] for each in told] == ["superseded"] * 20
    assert world.get("/v1/models/m/calibration")["labels"] == 0
    assert world.plane.services.refit_window.read("m", 1) is None
    row = {"id": "a", "logits": [1, 2, 3], "label": 1}  # an id that the other one had taken
    path = "/v1/models/m/labels"
    assert world.call("POST", path, json={"rows": [row]}).json()["accepted"] == 1
    *_, new = world.predict(rows(8, 5)[0])
    assert world.label(new, [0] * 5).json()["accepted"] == 5
    assert world.rollback(3).status_code == 409  # nothing before it
    assert world.rollback(3, {"revision": 2}).status_code == 404
    world.plane.close()
    again = begin(clock=world.clock)
    assert again.deployments.current("m").revision == 3
    assert delete(again, 3).status_code == 204
    again.call("PUT", "/v1/models/m", json={"class_names": ["x", "y", "z"]})
    assert again.deployments.current("m").revision == 4
    assert again.label(ids[:1], ["x"]).json()["outcomes"][0]["outcome"] == "superseded"


def test_a_deletion_is_based_on_what_was_seen(world: World) -> None:
    assert world.call("DELETE", "/v1/models/m").status_code == 428
    assert delete(world, 7).status_code == 412
    assert delete(world, 1, "nobody").status_code == 404
    assert delete(world, 1).status_code == 204
    assert delete(world, 1).status_code == 404


def test_what_lies_in_the_repository_stays_until_its_folder_is_gone(
    begin: Callable[..., World], tmp_path: Path
) -> None:
    add_version(tmp_path / "models", version=1)
    world = begin(network=True)
    refused = delete(world, 1, "blocks")
    assert refused.status_code == 409
    assert "has version 1 in the model repository" in refused.json()["detail"]
    shutil.move(tmp_path / "models/blocks", tmp_path / "aside")
    assert delete(world, 1, "blocks").status_code == 204
    assert world.call("GET", "/v1/models/blocks").status_code == 404
    watch = watch_of(world)
    watch.scan()
    shutil.move(tmp_path / "aside", tmp_path / "models/blocks")
    watch.scan()
    live = world.deployments.current("blocks")
    assert (live.revision, live.served.manifest is not None) == (2, True)


def test_other_processes_stop_answering_and_count_nothing(begin: Callable[..., World]) -> None:
    here, there = begin(settings=NEVER), begin(settings=NEVER)
    ids = use(here, "m")
    there.plane.services.replica_sync.sync()
    *_, late = there.predict(rows(9, 3)[0])
    assert there.label(late[:1], [0]).json()["accepted"] == 1  # it has read the class list
    assert delete(here, 2).status_code == 204
    assert there.label(late, [0] * 3).status_code == 404
    here.call("PUT", "/v1/models/m", json={"class_names": ["x", "y", "z"]})
    *_, later = there.predict(rows(9, 3)[0])  # of the deleted model: it has not looked yet
    told = there.label([*ids, *late, *later], ["x"] * 26).json()["outcomes"]
    assert [each["outcome"] for each in told] == ["superseded"] * 26
    upload = there.call("POST", "/v1/models/m/calibration-sets", content=overconfident(),
                        headers=NPZ)  # fmt: skip
    assert upload.status_code == 404
    assert "just deleted" in upload.json()["detail"]
    there.plane.services.replica_sync.sync()
    live = there.deployments.current("m")
    assert (live.revision, live.served.class_names) == (3, ("x", "y", "z"))


def test_fits_end_with_their_model(begin: Callable[..., World]) -> None:
    runner = Cancellable()
    world = begin(job_runner=lambda: runner, settings={"poll_seconds": 0.02})
    world.declare()
    running, queued = post(world)["fit"], post(world, "?promote=never")["fit"]
    until(world, running, lambda fit: fit["progress"] == 0.4)
    waited: list[int] = []
    path = "/v1/models/m/calibration-sets"
    waiting = threading.Thread(
        target=lambda: waited.append(
            world.call(
                "POST", path, content=overconfident(seed=5), headers={**NPZ, **WAIT}
            ).status_code
        )
    )
    waiting.start()
    while len(world.get("/v1/models/m/fits")["items"]) < 3:
        time.sleep(0.02)
    assert delete(world, 1).status_code == 204
    waiting.join(30)
    assert waited == [404]  # whoever waits is not left to wait
    assert runner.cancelled
    for fit in (running, queued):
        assert world.call("GET", f"/v1/models/m/fits/{fit}").status_code == 404
    world.declare("m")
    assert world.get("/v1/models/m/fits")["items"] == []


def test_what_was_looked_up_before_the_deletion_stores_nothing(world: World) -> None:
    served = world.deployments.current("m").served
    sets: StoredSets = world.plane.services.stored_sets
    logits, labels = rows(3, 100)
    some = CalibrationSet(logits, labels.astype(np.int64))
    world.upload(overconfident(), "?name=may")
    assert delete(world, 2).status_code == 204
    for attempt in (
        lambda: sets.accept(served, some, FitRequest()),
        lambda: sets.append(served, "may", some, by=None),
        lambda: sets.fit(served, "may", FitRequest()),
    ):
        with pytest.raises(ModelNotFound):
            attempt()
    assert all("m" not in names for t, names in models_in_tables(world).items() if t not in STAY)


def test_a_name_is_forgotten_when_no_receipt_of_it_can_count(begin: Callable[..., World]) -> None:
    world = begin(settings={"receipt_ttl_seconds": 1000})
    world.declare()
    delete(world, 1)
    sweep = world.plane.services.retention.clean_up
    world.clock.now += 1300 + 86_400
    assert sweep().deleted_models == 0
    world.clock.now += 1
    assert sweep().deleted_models == 1
    world.declare()
    assert world.deployments.current("m").revision == 1
