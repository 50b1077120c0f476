"""The polling thread: it logs errors once, and survives them."""

from __future__ import annotations

import logging
import threading
from collections.abc import Iterator

import pytest

from trueprob_service.control.poll import Poll
from trueprob_service.errors import DatabaseUnavailable


def test_an_error_is_logged_once_while_it_stays_the_same(
    caplog: pytest.LogCaptureFixture,
) -> None:
    away, broken, other = DatabaseUnavailable("away"), RuntimeError("broken"), RuntimeError("other")
    outcomes: Iterator[Exception | None] = iter(
        [away, away, None, away, broken, broken, other, None, other]
    )

    def look() -> None:
        if (error := next(outcomes)) is not None:
            raise error

    poll = Poll(look, what="the look", seconds=3600, name="test-poll")
    with caplog.at_level(logging.INFO):
        for _ in range(9):
            poll.once()
    waits, failed = "the look waits for the database", "the look failed"
    assert [record.getMessage() for record in caplog.records] == [
        waits, waits, failed, failed, failed,
    ]  # fmt: skip
    assert [record.exc_info is not None for record in caplog.records] == [
        False, False, True, True, True,
    ]  # fmt: skip


def test_the_thread_survives_an_error_and_ends_when_it_is_closed() -> None:
    looks, third = [0], threading.Event()

    def look() -> None:
        looks[0] += 1
        if looks[0] == 1:
            raise RuntimeError
        if looks[0] == 3:
            third.set()

    poll = Poll(look, what="the look", seconds=0.001, name="test-poll")
    poll.start()
    assert third.wait(10)
    assert not poll.closing
    poll.close()
    assert poll.closing
    assert "test-poll" not in {thread.name for thread in threading.enumerate()}


def test_a_poll_that_was_never_started_can_be_closed() -> None:
    Poll(lambda: None, what="the look", seconds=1, name="test-poll").close()
