"""Another key for receipts: older ones stay good for their time, and no label counts twice."""

from __future__ import annotations

import base64
import logging
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from service.__main__ import main
from service.control.key_rotation import rotate
from service.settings_reading import InvalidSettings
from tests.service.control.harness import START, World, rows

DAY = 86_400.0
NEVER = {"poll_seconds": 3600.0}


def predicted(world: World, n: int = 4) -> list[str]:
    *_, ids = world.predict(rows(7, n)[0])
    return ids


def turn(world: World, *, revoke: bool = False) -> int:
    secret = world.settings.receipt_secret
    return rotate(world.plane.parts.store, secret=secret, clock=world.clock, revoke=revoke)


def look(world: World) -> None:
    world.plane.parts.following._look_and_tell()


def outcomes(world: World, ids: list[str]) -> list[str]:
    answer = world.label(ids, [0] * len(ids)).json()
    told = {each["index"]: each["outcome"] for each in answer["outcomes"]}
    return [told.get(index, "accepted") for index in range(len(ids))]


def key_ids(world: World) -> list[int]:
    with world.plane.parts.store.read() as transaction:
        return [row.key_id for row in transaction.signing_keys.all()]


@pytest.mark.parametrize("secret", ["", "passphrase"])
def test_what_an_older_key_signed_counts_once_after_the_rotation(
    begin: Callable[..., World], secret: str
) -> None:
    world = begin(settings={"receipt_secret": secret, **NEVER})
    world.declare()
    counted, open_still = predicted(world), predicted(world)
    assert outcomes(world, counted) == ["accepted"] * 4
    assert turn(world) == 2
    look(world)
    new = predicted(world)
    assert outcomes(world, counted) == ["duplicate"] * 4
    assert outcomes(world, open_still) == ["accepted"] * 4
    assert outcomes(world, [*open_still, *new]) == ["duplicate"] * 4 + ["accepted"] * 4
    world.plane.close()
    again = begin(settings={"receipt_secret": secret, **NEVER}, clock=world.clock)
    assert outcomes(again, [*counted, *new]) == ["duplicate"] * 8
    assert key_ids(again) == [1, 2]


def test_a_replica_that_has_not_heard_of_the_key_takes_its_labels(
    begin: Callable[..., World],
) -> None:
    here, there = begin(settings=NEVER), begin(settings=NEVER)
    there.declare()
    turn(there)
    look(there)
    ids, older = predicted(there), predicted_here(here)
    assert outcomes(here, ids) == ["accepted"] * 4
    assert outcomes(there, older) == ["accepted"] * 4
    assert outcomes(there, ids) == ["duplicate"] * 4


def predicted_here(world: World) -> list[str]:
    """Ids of a replica that knows the model and still signs with the first key."""
    world.plane.parts.following.look()
    return predicted(world)


def test_replicas_learn_of_a_key_by_themselves(begin: Callable[..., World]) -> None:
    here, there = begin(settings=NEVER), begin(settings={"poll_seconds": 0.02})
    here.declare()
    turn(here)
    deadline = time.monotonic() + 30
    while key_in(predicted_here(there)[0]) != 2:
        assert time.monotonic() < deadline
        time.sleep(0.01)


def key_in(prediction_id: str) -> int:
    return int.from_bytes(base64.urlsafe_b64decode(prediction_id + "==")[4:8])


def test_revoked_keys_have_signed_nothing(begin: Callable[..., World]) -> None:
    world = begin(settings=NEVER)
    world.declare()
    ids = predicted(world)
    turn(world, revoke=True)
    look(world)
    assert outcomes(world, ids) == ["forged"] * 4
    assert outcomes(world, predicted(world)) == ["accepted"] * 4
    assert key_ids(world) == [2]


def test_keys_are_forgotten_when_their_receipts_are_too_old(begin: Callable[..., World]) -> None:
    world = begin(settings={"receipt_ttl_seconds": int(2 * DAY), **NEVER})
    world.declare()
    ids = predicted(world)
    world.clock.now += DAY
    turn(world)
    look(world)
    sweep = world.plane.parts.retention.sweep
    world.clock.now += 3 * DAY + 299  # two days, one more for replicas that are late, a tolerance
    assert (sweep().signing_keys, key_ids(world)) == (0, [1, 2])
    assert outcomes(world, ids) == ["expired"] * 4
    world.clock.now += 2
    assert (sweep().signing_keys, key_ids(world)) == (1, [2])
    look(world)
    world.clock.now = START + DAY  # set back: they look fresh, but nothing is counted
    assert outcomes(world, ids) == ["forged"] * 4


def test_a_key_that_is_old_is_followed_by_another(begin: Callable[..., World]) -> None:
    settings = {"receipt_key_seconds": 10 * DAY, "receipt_secret": "s", **NEVER}
    world, other = begin(settings=settings), begin(settings=settings)
    world.declare()
    sweep = world.plane.parts.retention.sweep
    world.clock.now = other.clock.now = START + 10 * DAY
    sweep()
    assert key_ids(world) == [1]
    world.clock.now = other.clock.now = START + 10 * DAY + 1
    sweep()
    other.plane.parts.retention.sweep()
    assert key_ids(world) == [1, 2]
    look(world)
    assert key_in(predicted(world)[0]) == 2
    with world.plane.parts.store.read() as transaction:
        assert all(row.wrapped for row in transaction.signing_keys.all())
    world.clock.now = START  # set back: no key after key
    sweep()
    assert key_ids(world) == [1, 2]


def test_a_rotation_needs_the_secret_that_wraps(
    begin: Callable[..., World], caplog: pytest.LogCaptureFixture
) -> None:
    bare = begin(settings=NEVER)
    bare.declare()
    ids = predicted(bare)
    store = bare.plane.parts.store
    assert rotate(store, secret="one", clock=bare.clock) == 2  # and wraps the first
    for wrong in ("", "two"):
        with pytest.raises(InvalidSettings, match="receipt_secret"):
            rotate(store, secret=wrong, clock=bare.clock)
    # This process cannot read them: it says so once and goes on with what it has.
    look(bare)
    look(bare)
    assert [each.levelno for each in caplog.records].count(logging.ERROR) == 1
    assert outcomes(bare, [*ids, "forged"]) == ["accepted"] * 4 + ["forged"]
    wrapped = begin(settings={"receipt_secret": "one", **NEVER})
    assert key_ids(wrapped) == [1, 2]
    assert outcomes(wrapped, ids) == ["duplicate"] * 4


def test_the_command(world: World, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    ids = predicted(world)
    flags = ["--state-dir", str(tmp_path), "--database-url", world.settings.database_url]
    command = ["keys", "rotate-receipts"]
    assert main([*command, *flags]) == 0
    assert capsys.readouterr().out == "receipt key 2 signs from now on\n"
    assert outcomes(world, ids[:2]) == ["accepted"] * 2
    assert main([*command, "--revoke", *flags]) == 0
    assert key_ids(world) == [3]
    look(world)
    assert outcomes(world, ids) == ["forged"] * 4
    assert main([*command, *flags, "--port", "x"]) == 2
    nowhere = f"sqlite:///{tmp_path / 'no' / 'd.sqlite3'}"
    assert main([*command, "--database-url", nowhere]) == 2
    assert "trueprob-service: error:" in capsys.readouterr().err
