"""The sweep: what it forgets, and that a label counts once all the same."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from tests.trueprob_service.control.harness import START, Clock, World, overconfident, rows
from trueprob_service.control.labels.counting import GroupTally

pytestmark = pytest.mark.slow

DAY = 86_400.0
TTL = 10 * DAY


def label_some(world: World, n: int = 40) -> list[str]:
    logits, labels = rows(11, n)
    *_, ids = world.predict(logits)
    assert world.label(ids, labels.tolist()).json()["accepted"] == n
    return ids


def total(world: World) -> float:
    world.clock.now += 60  # past the cache
    return sum(float(pair.totals.count.sum()) for pair in world.plane.label_statistics().pairs)


def age(path: Path, seconds: float) -> None:
    os.utime(path, (time.time() - seconds,) * 2)


@pytest.fixture
def short(begin: Callable[..., World]) -> World:
    world = begin(settings={"receipt_ttl_seconds": int(TTL)})
    world.declare()
    return world


def test_keys_are_forgotten_when_their_receipts_are_too_old(short: World) -> None:
    ids = label_some(short)
    assert short.plane.services.retention.clean_up().label_keys == 0
    short.clock.now += TTL + 200
    assert short.plane.services.retention.clean_up().label_keys == 0  # replicas' clocks differ
    short.clock.now += 101
    assert short.plane.services.retention.clean_up().label_keys == 40
    answer = short.label(ids, [0] * 40).json()
    assert answer["rejected"] == 40
    assert {o["outcome"] for o in answer["outcomes"]} == {"expired"}


def test_a_clock_set_back_after_a_sweep_does_not_count_a_label_twice(short: World) -> None:
    ids = label_some(short)
    before = total(short)
    short.clock.now += TTL + 301
    assert short.plane.services.retention.clean_up().label_keys == 40
    short.clock.now = START + 5  # the receipts look fresh, and their keys are gone
    answer = short.label(ids, [0] * 40).json()
    assert {o["outcome"] for o in answer["outcomes"]} == {"expired"}
    assert total(short) == before
    short.clock.now = START + TTL + 400
    label_some(short)
    assert total(short) == before + 40


def test_a_longer_time_to_live_does_not_count_a_label_twice(begin: Callable[..., World]) -> None:
    world = begin(settings={"receipt_ttl_seconds": int(TTL)})
    world.declare()
    ids = label_some(world)
    world.plane.close()
    clock = Clock(START + TTL + 400)
    longer = begin(clock=clock, settings={"receipt_ttl_seconds": int(3 * TTL)})
    longer.plane.services.retention.clean_up()
    assert longer.label(ids, [0] * 40).json()["duplicate"] == 40
    clock.now = START + 3 * TTL + 301
    assert longer.plane.services.retention.clean_up().label_keys == 40
    clock.now = START + 2 * TTL
    assert longer.label(ids, [0] * 40).json()["rejected"] == 40


def test_groups_are_forgotten_when_no_row_of_them_has_come_for_a_receipts_life(
    short: World,
) -> None:
    store, retention = short.plane.services.store, short.plane.services.retention

    def count(*groups: int) -> list[bool]:
        """Count a label of each; which were known."""
        day, given = int(short.clock.now // DAY), np.array(groups, np.uint64)
        with store.write() as transaction:
            tally = GroupTally.claim(transaction, 1, 1, given, day=day)
            tally.write(transaction, np.ones(len(given), np.bool_))
        return list(tally.repeated)

    still, ended = 2**64 - 1, 5
    assert count(still, ended) == [False, False]
    many = range(1000, 1700)
    assert count(*many, still) == [*[False] * 700, True]
    assert all(count(*many))
    short.clock.now += DAY
    assert count(still) == [True]  # a copy: the group is younger now
    short.clock.now += TTL + 301 - DAY
    assert retention.clean_up().groups == 0  # to be kept until the end of the day
    short.clock.now += DAY
    assert retention.clean_up().groups == 701
    assert count(still, ended) == [True, False]


def test_the_sweep_of_groups_goes_on_where_it_ended(short: World) -> None:
    store = short.plane.services.store
    with store.write() as transaction:
        groups = transaction.group_counts
        for model_id, revision in ((1, 1), (1, 2), (2, 1)):
            given = np.array([3, 2**63, 2**64 - 1], np.uint64)
            day = 9 if revision == 2 else 4
            groups.put(model_id, revision, given, np.ones(3, np.int64), day=day)
        seen, position, removed = [], None, 0
        while True:
            n, position = groups.prune(before_day=9, limit=2, after=position)
            removed += n
            if position is None:
                break
            seen.append(position)
        # The numbers are signed in the table: 2**63 comes first.
        low = -(2**63)
        assert seen == [(1, 1, -1), (1, 2, low), (1, 2, 3), (2, 1, -1)]
        assert removed == 6
        known = groups.get(1, 2, np.array([3, 4, 2**63], np.uint64))
    assert known.counted.tolist() == [True, False, True]
    assert known.day.tolist() == [9, 0, 9]


def test_old_hours_become_days_and_no_sum_changes(short: World) -> None:
    for _ in range(5):
        label_some(short)
        short.clock.now += 3 * 3600
    before = short.get("/v1/models/m/calibration?window=60d")
    running = short.plane.label_statistics().pairs
    short.clock.now += 40 * DAY
    swept = short.plane.services.retention.clean_up()
    assert swept.hourly_bins > 0
    assert short.plane.services.retention.clean_up().hourly_bins == 0
    after = short.get("/v1/models/m/calibration?window=60d")
    for name in ("count", "correct", "confidence", "variance"):
        got, wanted = ([b[name] for b in answer["bins"]] for answer in (after, before))
        assert np.allclose(got, wanted, rtol=1e-12), name
    assert after["labels"] == 200
    assert [p.totals.count.sum() for p in running] == [
        p.totals.count.sum() for p in short.plane.label_statistics().pairs
    ]


def test_files_go_a_day_after_their_set_was_deleted(world: World) -> None:
    report = world.upload(overconfident())
    kept = world.upload(overconfident(seed=8), "?promote=never")["calibration_set"]
    retention, artifacts = world.plane.services.retention, world.plane.services.set_files
    digest = report["calibration_set"]
    for each in (digest, kept):
        age(artifacts.path(each), 2 * DAY)
    assert retention.clean_up().files == 0
    path = f"/v1/models/m/calibration-sets/{digest}"
    assert world.call("DELETE", path).status_code == 204
    assert retention.clean_up().files == 1
    assert not artifacts.path(digest).exists()
    assert artifacts.path(kept).exists()
    assert list(artifacts.uploads.iterdir()) == []
    world.upload(overconfident(), "?promote=never")
    assert artifacts.path(digest).exists()
    assert world.call("DELETE", path).status_code == 204
    assert retention.clean_up().files == 0  # kept a moment ago


def test_a_file_that_is_wanted_again_is_put_back(sqlite_world: World) -> None:
    digest = sqlite_world.upload(overconfident())["calibration_set"]
    artifacts = sqlite_world.plane.services.set_files
    with artifacts.set_aside(digest) as aside:
        assert not artifacts.path(digest).exists()
        aside.put_back()
    assert artifacts.path(digest).exists()
