"""The memory of predictions with ids: merged, found by every replica, and forgotten in time."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from tests.trueprob_service.control.harness import World, rows
from trueprob_service.control.remembered.lookup import RememberedRows
from trueprob_service.control.remembered.memory import Memory
from trueprob_service.receipts.identified import IdentifiedQueue

pytestmark = pytest.mark.slow

HOUR = 3600.0


def memory_of(world: World) -> Memory:
    memory = world.plane.services.memory
    assert memory is not None
    return memory


def found(world: World, ids: list[str]) -> list[bool]:
    looked: RememberedRows = memory_of(world).find("m", ids)
    return looked.receipts.genuine.tolist()


def remembered(world: World) -> tuple[int, int]:
    """Numbers of rows and of blocks in the database."""
    with world.plane.services.store.read() as transaction:
        n = sum(each.n_rows for each in transaction.remembered.figures())
        return n, len(transaction.remembered.spans("m", None).block)


def test_many_flushes_are_merged_and_every_id_is_found(world: World) -> None:
    memory, logits = memory_of(world), rows(0, 5)[0]
    n = 0
    for _ in range(70):
        world.predict_with_ids(logits, [f"{number}" for number in range(n, n + 5)])
        assert memory.flush()
        n += 5
    memory.merge()
    n_rows, blocks = remembered(world)
    assert n_rows == 350
    assert blocks <= 1 + 7 + 7  # of 64, 8 and 1 flushes
    looked = memory.find("m", [f"{number}" for number in range(-1, 351)])
    assert looked.missing.tolist() == [0, 351]
    np.testing.assert_array_equal(looked.receipts.nonce[1:-1, 2] % 5, np.arange(350) % 5)
    # Of an hour that is over, all that is left becomes one block.
    world.clock.now += 2 * HOUR
    memory.clean_up()
    assert remembered(world) == (350, 1)
    assert all(found(world, [f"{number}" for number in range(350)]))


def test_two_replicas_find_what_either_has_written_and_the_later_one_wins(
    begin: Callable[..., World],
) -> None:
    one = begin()
    one.declare()
    two = begin(clock=one.clock)
    logits = np.array([[9, 0, 0], [0, 9, 0]], np.float32)
    one.predict_with_ids(logits[:1], ["a"])
    assert memory_of(one).flush()
    assert found(two, ["a", "b"]) == [True, False]
    one.clock.now += 1.0
    two.predict_with_ids(logits[1:], ["a"])
    assert memory_of(two).flush()
    looked = memory_of(one).find("m", ["a", "b"])
    assert looked.receipts.prediction.tolist() == [1, 0]
    assert looked.replaced.tolist() == [True, False]
    again = memory_of(one).find("m", ["a", "b"], looked)
    assert again.receipts.prediction.tolist() == [1, 0]
    assert again.replaced.tolist() == [True, False]


def test_predictions_are_forgotten_after_their_time(begin: Callable[..., World]) -> None:
    world = begin(settings={"remember_ttl_seconds": 2 * HOUR})
    world.declare()
    world.predict_with_ids(rows(0, 1)[0], ["early"])
    assert memory_of(world).flush()
    world.clock.now += HOUR
    world.predict_with_ids(rows(0, 1)[0], ["late"])
    assert memory_of(world).flush()
    world.clock.now += HOUR
    assert found(world, ["early", "late"]) == [True, True]
    world.clock.now += 1.0
    assert found(world, ["early", "late"]) == [False, True]
    world.clock.now += HOUR
    assert found(world, ["early", "late"]) == [False, False]
    world.plane.services.retention.clean_up()
    world.clock.now += HOUR
    world.plane.services.retention.clean_up()
    assert remembered(world) == (0, 0)


def test_beyond_the_size_the_oldest_are_forgotten_first(
    begin: Callable[..., World], caplog: pytest.LogCaptureFixture
) -> None:
    world = begin(settings={"remember_max_bytes": 1 << 20})
    world.declare()
    logits = rows(0, 4000)[0]
    for number in range(7):  # 200 KB each
        world.predict_with_ids(logits, [f"{number}-{row}" for row in range(4000)])
        assert memory_of(world).flush()
        world.clock.now += HOUR
    memory_of(world).clean_up()
    whole = [all(found(world, [f"{number}-{row}" for row in range(4000)])) for number in range(7)]
    assert whole == [False, False, *[True] * 5]
    assert remembered(world)[0] * 48 < 1 << 20
    assert "more than remember_max_bytes, 1048576" in caplog.text
    assert memory_of(world).figures()["remembered_forgotten_total"] > 0


def test_a_new_secret_finds_what_the_old_one_has_remembered(begin: Callable[..., World]) -> None:
    first, second = "the first secret of two", "the second secret of two"
    world = begin(settings={"receipt_secrets": first})
    world.declare()
    world.predict_with_ids(rows(0, 2)[0], ["a", "b"])
    world.plane.close()
    rotated = begin(clock=world.clock, settings={"receipt_secrets": f"{second},{first}"})
    rotated.predict_with_ids(rows(0, 1)[0], ["c"])
    assert found(rotated, ["a", "b", "c", "d"]) == [True, True, True, False]
    rotated.plane.close()
    dropped = begin(clock=world.clock, settings={"receipt_secrets": second})
    assert found(dropped, ["a", "b", "c", "d"]) == [False, False, True, False]


def test_what_waits_is_written_when_the_service_stops(begin: Callable[..., World]) -> None:
    world = begin(settings={"remember_flush_seconds": 60})
    world.declare()
    world.predict_with_ids(rows(0, 3)[0], ["a", "b", "c"])
    world.plane.close()
    assert found(begin(clock=world.clock), ["a", "b", "c"]) == [True] * 3


def test_rows_wait_for_a_database_that_does_not_work(
    begin: Callable[..., World], monkeypatch: pytest.MonkeyPatch
) -> None:
    world = begin(settings={"remember_flush_seconds": 60})
    world.declare()
    memory, store = memory_of(world), world.plane.services.store
    store.fault = "disk_full"
    world.predict_with_ids(rows(0, 3)[0], ["a", "b", "c"])
    assert not memory.flush()
    assert memory.figures()["remembered_total"] == 0
    assert memory.figures()["remembered_lag_seconds"] > 0
    monkeypatch.setattr("trueprob_service.control.remembered.writer.MOST_WAITING_BYTES", 0)
    world.predict_with_ids(rows(0, 2)[0], ["d", "e"])
    assert not memory.flush()
    assert memory.figures()["remembered_dropped_total"] == 2
    store.fault = None
    assert memory.flush()
    assert memory.figures()["remembered_total"] == 3
    assert memory.figures()["remembered_lag_seconds"] == 0
    assert found(world, ["a", "b", "c", "d"]) == [True, True, True, False]


def test_a_full_queue_drops_rows_and_counts_them(sqlite_world: World) -> None:
    queue = IdentifiedQueue(most_bytes=500)
    sqlite_world.plane.identified = queue
    logits = rows(0, 2)[0]
    for number in range(3):
        sqlite_world.predict_with_ids(logits, [f"{number}", "x"])
    assert queue.dropped == 4
    assert [each.ids for each in queue.take()] == [["0", "x"]]
    sqlite_world.predict_with_ids(logits, ["again", "x"])
    assert [each.ids for each in queue.take()] == [["again", "x"]]


def test_figures_of_the_database_are_metrics(world: World) -> None:
    world.predict_with_ids(rows(0, 3)[0], ["a", "b", "c"])
    assert memory_of(world).flush()
    gauges = world.plane.label_statistics().gauges
    assert gauges["remembered_rows"] == {("m",): 3.0}
    assert 3 * 48 < gauges["remembered_bytes"][("m",)] < 1000
    oldest = gauges["remembered_oldest_timestamp_seconds"][("m",)]
    assert 0 <= world.clock.now - oldest < HOUR


def test_the_state_is_exported_without_the_memory(world: World) -> None:
    with world.plane.services.store.read() as transaction:
        assert "remembered_block" not in transaction.state.tables


def test_raw_ids_are_not_stored(sqlite_world: World) -> None:
    world = sqlite_world
    world.predict_with_ids(rows(0, 1)[0], ["account-0123456789"])
    assert world.label_by_id(["account-0123456789"], [0]) == ["accepted"]
    world.plane.close()
    files = list(world.settings.state_dir.iterdir())
    assert any(file.name.startswith("trueprob.sqlite3") for file in files)
    assert not any(b"account-0123456789" in file.read_bytes() for file in files if file.is_file())
