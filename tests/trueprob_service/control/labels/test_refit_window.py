"""The refit window: the newest labelled rows of a version, as one calibration set."""

from __future__ import annotations

from collections.abc import Callable, Iterable

import numpy as np

from tests.trueprob_service.control.harness import World
from trueprob_service.control.store.labelled_rows import StoredLabelledRow


def labelled(numbers: Iterable[int], *, group: int | None = None) -> list[StoredLabelledRow]:
    return [
        StoredLabelledRow(
            row_key=number.to_bytes(24, "big"),
            logits=np.array([number, 0.5, -1.0], "<f4").tobytes(),
            label=number % 3,
            row_group=group,
        )
        for number in numbers
    ]


def put(world: World, rows: list[StoredLabelledRow], version: int = 1) -> None:
    window = world.plane.services.refit_window
    with world.plane.services.store.write() as transaction:
        transaction.models.lock("m")
        window.add(transaction, "m", version, rows, n_classes=3, now=world.clock())


def numbers(world: World) -> list[int]:
    found = world.plane.services.refit_window.read("m", 1)
    assert found is not None
    return found.logits[:, 0].astype(int).tolist()


def test_the_newest_rows_stay_in_the_order_in_which_they_came(begin: Callable[..., World]) -> None:
    world = begin(settings={"refit_window_rows": 5})
    world.declare()
    window = world.plane.services.refit_window
    assert window.read("m", 1) is None
    assert window.read("nobody", 1) is None
    assert window.size("m", 1) == (0, 0)
    put(world, labelled(range(3)))
    assert numbers(world) == [0, 1, 2]
    put(world, labelled(range(3, 7)))
    assert numbers(world) == [2, 3, 4, 5, 6]
    assert window.size("m", 1) == (5, 7)
    put(world, labelled(range(7, 27)))  # more than there is room for
    assert numbers(world) == [22, 23, 24, 25, 26]
    put(world, [])
    assert window.size("m", 1) == (5, 27)
    with world.plane.services.store.read() as transaction:
        keys = [number.to_bytes(24, "big") for number in range(30)]
        assert transaction.labelled_rows.stored("m", 1, keys) == set(keys[22:27])
        assert transaction.labelled_rows.counts() == {("m", 1): (5, 27)}


def test_it_is_a_calibration_set_whose_digest_names_its_rows(world: World) -> None:
    put(world, labelled(range(4)))
    found = world.plane.services.refit_window.read("m", 1)
    assert found is not None
    assert found.labels.tolist() == [0, 1, 2, 0]
    assert found.logits.dtype == np.float32
    assert found.groups is None
    again = world.plane.services.refit_window.read("m", 1)
    assert again is not None
    assert again.digest == found.digest
    put(world, labelled([7]))
    other = world.plane.services.refit_window.read("m", 1)
    assert other is not None
    assert other.digest != found.digest


def test_rows_of_a_group_share_it_and_others_have_their_own(world: World) -> None:
    put(world, labelled([1]))
    put(world, labelled([2, 3], group=-(2**63)))
    put(world, labelled([4]))
    put(world, labelled([5], group=-(2**63)))
    found = world.plane.services.refit_window.read("m", 1)
    assert found is not None
    assert found.groups is not None
    assert found.groups.tolist() == [0, 1, 1, 2, 1]


def test_a_smaller_window_than_before_reads_and_keeps_fewer(begin: Callable[..., World]) -> None:
    wide = begin()
    wide.declare()
    put(wide, labelled(range(10)))
    narrow = begin(settings={"refit_window_rows": 4})
    assert numbers(narrow) == [6, 7, 8, 9]
    put(narrow, labelled([10]))
    assert numbers(wide) == [7, 8, 9, 10]


def test_a_window_is_never_larger_than_an_upload_may_be(begin: Callable[..., World]) -> None:
    world = begin(settings={"max_upload_bytes": 1024})
    window = world.plane.services.refit_window
    assert window.cap(3) == 51  # 4 bytes a logit, 8 a label
    assert window.cap(200_000) == 1
    world.declare()
    put(world, labelled(range(60)))
    assert numbers(world) == list(range(9, 60))
