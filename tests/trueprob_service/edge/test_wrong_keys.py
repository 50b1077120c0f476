"""Wrong keys are counted, logged in summary and answered later and later; right ones never wait."""

import asyncio
import logging
from pathlib import Path
from typing import Any

import pytest

from tests.trueprob_service.application import application
from trueprob_service.edge import throttle
from trueprob_service.edge.auth import Keyring
from trueprob_service.edge.keys import new_key, parse_keys
from trueprob_service.edge.throttle import WrongKeys
from trueprob_service.errors import TooManyRequests, Unauthenticated

Headers = list[tuple[bytes, bytes]]
WRONG: Headers = [(b"authorization", b"Bearer tp_wrong-and-secret")]


class Time:
    """A clock, and a sleep that only notes how long it was."""

    def __init__(self) -> None:
        self.now = 1000.0
        self.slept: list[float] = []

    def __call__(self) -> float:
        return self.now

    async def sleep(self, seconds: float) -> None:
        self.slept.append(round(seconds, 9))


def ring(time: Time) -> tuple[Headers, Keyring]:
    key, line = new_key("me", ["predict"])
    keyring = Keyring(parse_keys(line), everywhere=False, monotonic=time, sleep=time.sleep)
    return [(b"authorization", f"Bearer {key}".encode())], keyring


async def ask(keyring: Keyring, headers: Headers, address: str = "10.0.0.1") -> None:
    request = ("GET", "/v1/models", headers)
    try:
        keyring.admit(*request)
    except Unauthenticated as error:
        await keyring.admit_slowly(error, *request, address)


def refused(keyring: Keyring, headers: Headers = WRONG, address: str = "10.0.0.1") -> str:
    with pytest.raises(Unauthenticated) as error:
        asyncio.run(ask(keyring, headers, address))
    return error.value.reason


def test_an_address_with_wrong_keys_waits_longer_and_longer() -> None:
    time = Time()
    right, keyring = ring(time)
    for _ in range(10):
        assert refused(keyring) == "unknown_key"
    assert time.slept == []
    for _ in range(7):
        refused(keyring)
    assert time.slept == [0.1, 0.2, 0.4, 0.8, 1.6, 2.0, 2.0]
    time.slept.clear()
    asyncio.run(ask(keyring, right))  # a right key from the same address
    refused(keyring, address="10.0.0.2")
    assert refused(keyring, [], "10.0.0.1") == "no_key"
    assert time.slept == []
    time.now += 60.0  # ten failures are forgotten: seven are left
    for _ in range(3):
        refused(keyring)
    assert time.slept == []
    refused(keyring)
    assert time.slept == [0.1]


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        ("2001:db8::1", "2001:db8::ffff:1", True),
        ("2001:db8::1", "2001:db8:0:1::1", False),
        ("10.0.0.1", "10.0.0.2", False),
        ("10.0.0.1", "::ffff:10.0.0.1", True),
        ("unknown", "unknown", True),
    ],
)
def test_a_host_with_many_addresses_is_one(one: str, other: str, same: bool) -> None:
    keys = WrongKeys(lambda: 0.0)
    for _ in range(10):
        keys.delay(one, "no")
    assert (keys.delay(other, "no") > 0) == same


def test_memory_is_bounded() -> None:
    keys = WrongKeys(lambda: 0.0)
    for i in range(throttle._MOST_ADDRESSES + 500):
        keys.delay(f"10.{i >> 16}.{i >> 8 & 255}.{i & 255}", "no")
    assert len(keys._failures) == throttle._MOST_ADDRESSES
    assert len(keys._unlogged) <= throttle._MOST_ADDRESSES + 1


def test_delayed_answers_are_bounded() -> None:
    time = Time()
    _, keyring = ring(time)
    for _ in range(10):
        refused(keyring)
    keyring._wrong_keys.waiting = throttle._MOST_WAITING
    with pytest.raises(TooManyRequests) as error:
        asyncio.run(ask(keyring, WRONG))
    assert error.value.retry_after_seconds == 2
    keyring._wrong_keys.waiting = 0
    refused(keyring)
    assert keyring._wrong_keys.waiting == 0


def test_the_log_is_a_summary_without_keys(caplog: pytest.LogCaptureFixture) -> None:
    time = Time()
    _, keyring = ring(time)
    with caplog.at_level(logging.WARNING):
        for i in range(50):
            refused(keyring, address=f"10.0.0.{i % 2}")
        time.now += 11
        refused(keyring, address="10.0.0.1")
    first, second = [record.getMessage() for record in caplog.records]
    assert first.startswith("1 requests with keys that are not accepted, from 1 addresses")
    assert second.startswith("50 requests with keys that are not accepted, from 2 addresses, 26 of")
    assert "10.0.0.1" in second
    assert "secret" not in caplog.text


def test_over_http(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    key, line = new_key("me", ["predict"])
    _, expired = new_key("old", ["predict"], expires="2020-01-01")
    (tmp_path / "keys.jsonl").write_text(f"{line}\n{expired}\n")

    async def status(client: Any, key: str | None, path: str = "/v1/models") -> int:
        headers = {} if key is None else {"authorization": f"Bearer {key}"}
        return (await client.get(path, headers=headers)).status_code

    async def scenario() -> str:
        async with application(tmp_path / "state", api_keys_file=tmp_path / "keys.jsonl") as client:
            assert [await status(client, "tp_secret") for _ in range(3)] == [401] * 3
            assert await status(client, None) == 401
            assert await status(client, key) == 200
            assert await status(client, key, "/v1/audit") == 403
            return (await client.get("/metrics")).text

    metrics = asyncio.run(scenario())
    for reason, n in (("unknown_key", 3), ("no_key", 1), ("scope", 1), ("rate", 0)):
        assert f'trueprob_refused_requests_total{{reason="{reason}"}} {n}.0' in metrics
    assert "tp_secret" not in caplog.text
