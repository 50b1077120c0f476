"""Two processes' planes on one database: what one changes, the other answers with."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from sqlalchemy import create_engine, make_url, text

from tests.trueprob_service.control.harness import NPZ, World, overconfident, rows
from tests.trueprob_service.control.model_folders import add_version
from tests.trueprob_service.control.models.test_repository_watch import watch_of
from trueprob_service.errors import ModelNotFound

NEVER = {"poll_seconds": 3600.0}


@pytest.fixture
def two(begin: Callable[..., World]) -> tuple[World, World]:
    """Planes that look at the database only when the test says so."""
    return begin(settings=NEVER), begin(settings=NEVER)


def look(world: World) -> None:
    world.plane.services.replica_sync.sync()


def live(world: World, model: str = "m") -> tuple[int, str, int | None]:
    now = world.deployments.current(model)
    return now.served.version, now.calibrator_id, now.revision


def test_a_model_that_was_declared_elsewhere_answers(two: tuple[World, World]) -> None:
    here, there = two
    there.declare()
    with pytest.raises(ModelNotFound):
        here.deployments.current("m")
    look(here)
    assert live(here) == live(there)
    assert here.get("/v1/models/m") == there.get("/v1/models/m")


def test_promotions_and_rollbacks_elsewhere_are_taken_over(two: tuple[World, World]) -> None:
    here, there = two
    here.declare()
    look(there)
    report = there.upload(overconfident())
    assert report["revision"] == 2
    assert live(here)[2] == 1
    look(here)
    assert live(here) == live(there) == (1, report["calibrator"], 2)
    logits, _ = rows(3, 20)
    ours, theirs = (each.deployments.current("m").calibrator for each in two)
    assert (ours.predict_proba(logits) == theirs.predict_proba(logits)).all()

    assert there.rollback(2).status_code == 200
    # The database knows: what is based on the revision that is gone here too is refused.
    assert here.rollback(2).status_code == 412
    look(here)
    assert live(here) == live(there)
    assert live(here)[2] == 3


def test_a_label_may_come_to_a_process_that_has_not_looked_yet(two: tuple[World, World]) -> None:
    here, there = two
    here.declare()
    look(there)
    there.upload(overconfident())
    _, _, prediction, ids = there.predict(rows(4, 10)[0])
    answer = here.label(ids, prediction.tolist())
    assert answer.json()["accepted"] == 10
    assert here.get("/v1/models/m/calibration")["labels"] == 10


def test_a_look_that_finds_nothing_new_swaps_nothing(two: tuple[World, World]) -> None:
    here, _ = two
    here.declare()
    before = here.deployments.current("m")
    look(here)
    assert here.deployments.current("m") is before


def test_readers_see_whole_pairs_only(two: tuple[World, World]) -> None:
    here, there = two
    here.declare()
    look(there)
    first = there.upload(overconfident())["calibrator"]
    identity = there.get("/v1/models/m/promotions")["items"][-1]["calibrator"]
    right = {1: identity}
    seen: list[tuple[int, str, int | None]] = []
    stop = threading.Event()

    def read() -> None:
        while not stop.is_set():
            seen.append(live(here))

    reader = threading.Thread(target=read)
    reader.start()
    for revision in range(2, 12):
        right[revision] = first if revision % 2 == 0 else identity
        look(here)
        calibrator = identity if revision % 2 == 0 else first
        assert there.promote(calibrator, revision).status_code == 200
    look(here)
    stop.set()
    reader.join()
    right[12] = first
    assert live(here)[2] == 12
    assert {(1, right[revision or 0], revision) for _, _, revision in seen} == set(seen)
    assert [each[2] for each in seen] == sorted(each[2] or 0 for each in seen)


def execute(url: str, *statements: str) -> None:
    engine = create_engine(make_url(url.replace("postgresql:", "postgresql+psycopg:")))
    with engine.begin() as connection:
        for statement in statements:
            connection.execute(text(statement))
    engine.dispose()


REMOVE = [
    f"DELETE FROM {table} WHERE {column} = 'm'"
    for table, column in (
        ("promotion", "model"), ("calibrator", "model"), ("model_version", "model"),
        ("model", "name"),
    )
]  # fmt: skip


def test_a_model_that_was_removed_elsewhere_vanishes(
    two: tuple[World, World], database_url: str
) -> None:
    here, there = two
    here.declare()
    here.declare("other")
    look(there)
    execute(database_url, *REMOVE)
    look(there)
    with pytest.raises(ModelNotFound):
        there.deployments.current("m")
    assert there.plane.services.catalogue.find("m", 1) is None
    assert live(there, "other") == live(here, "other")
    # Declared again with other classes before this process has looked: not the model it was.
    there.declare(n_classes=4)
    look(here)
    assert here.deployments.current("m").served.n_classes == 4


def test_a_calibrator_that_cannot_be_read_here_holds_no_other_model_back(
    two: tuple[World, World], database_url: str
) -> None:
    here, there = two
    there.declare()
    there.declare("other")
    execute(database_url, "UPDATE calibrator SET document = '{}' WHERE model = 'm'")
    look(here)
    assert live(here, "other") == live(there, "other")
    with pytest.raises(ModelNotFound):
        here.deployments.current("m")


def test_an_upload_finds_a_model_that_was_declared_a_moment_ago(two: tuple[World, World]) -> None:
    here, there = two
    there.declare()
    assert here.upload(overconfident())["promoted"]
    answer = here.call("POST", "/v1/models/no/calibration-sets", content=b"", headers=NPZ)
    assert answer.status_code == 404


def test_a_process_looks_by_itself(begin: Callable[..., World]) -> None:
    quick: dict[str, Any] = {"poll_seconds": 0.02}
    here, there = begin(settings=quick), begin(settings=quick)
    there.declare()
    deadline = time.monotonic() + 30
    while "m" not in here.deployments.names():
        assert time.monotonic() < deadline
        time.sleep(0.01)
    report = there.upload(overconfident())
    while live(here)[2] != report["revision"]:
        assert time.monotonic() < deadline
        time.sleep(0.01)
    assert np.isfinite(here.deployments.current("m").calibrator.predict_proba(rows(1, 3)[0])).all()


@pytest.mark.parametrize("poll_seconds", [0.0, 3600.0])
def test_a_version_that_only_another_process_has_is_said_once_unless_it_may_yet_be_found(
    begin: Callable[..., World],
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
    poll_seconds: float,
) -> None:
    settings = NEVER | {"repository_poll_seconds": poll_seconds}
    here, there = (begin(network=True, settings=settings) for _ in range(2))
    add_version(tmp_path / "models", version=1)
    watch_of(there).scan()
    look(here)
    look(here)
    with pytest.raises(ModelNotFound):
        here.deployments.current("blocks")
    said = [record.getMessage() for record in caplog.records]
    sentence = "revision 1 of model blocks cannot be deployed: version 1 is not available"
    assert said.count(sentence) == (poll_seconds == 0)
    watch_of(here).scan()
    look(here)
    assert live(here, "blocks") == live(there, "blocks")
