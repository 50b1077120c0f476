"""Events reach a real server: signed, at least once, again later when it does not take them."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest
import standardwebhooks
from sqlalchemy import select

from tests.trueprob_service.control.harness import START, Clock, World, overconfident
from tests.waiting import wait_until
from trueprob_service.control.store.events import webhook_event
from trueprob_service.control.upkeep.webhook import RETRY_SECONDS, Webhook, signed_headers
from trueprob_service.webhook_settings import read_secrets

SECRET = "whsec_" + base64.b64encode(bytes(range(32))).decode()
OTHER_SECRET = "whsec_" + base64.b64encode(bytes(24)).decode()
# A plane whose own courier stays out of the way: tests deliver when they say so.
SETTINGS = {"webhook_url": "http://127.0.0.1:9/", "webhook_secret": SECRET, "poll_seconds": 3600.0}


class Receiver:
    """What came, and what is answered next (else 204)."""

    def __init__(self) -> None:
        self.requests: list[tuple[dict[str, str], bytes]] = []
        self.answers: list[int] = []
        self.url = ""

    def bodies(self) -> list[dict[str, Any]]:
        return [json.loads(body) for _, body in self.requests]


@contextmanager
def receiving() -> Iterator[Receiver]:
    receiver = Receiver()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["content-length"]))
            headers = {name.lower(): value for name, value in self.headers.items()}
            receiver.requests.append((headers, body))
            self.send_response(receiver.answers.pop(0) if receiver.answers else 204)
            self.send_header("content-length", "0")
            self.end_headers()

        def log_message(self, *of: object) -> None:
            """Nothing on the terminal."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    receiver.url = f"http://127.0.0.1:{server.server_port}/hook"
    thread = threading.Thread(target=server.serve_forever, args=(0.05,))
    thread.start()
    try:
        yield receiver
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


@pytest.fixture(scope="module")
def server() -> Iterator[Receiver]:
    with receiving() as receiver:
        yield receiver


@pytest.fixture
def receiver(server: Receiver) -> Receiver:
    server.requests.clear()
    server.answers.clear()
    return server


def courier(
    world: World,
    receiver: Receiver,
    counted: list[tuple[str, str]] | None = None,
    secrets: str = SECRET,
) -> Webhook:
    return Webhook(
        world.plane.services.store,
        receiver.url,
        read_secrets(secrets),
        seconds=3600.0,
        clock=world.clock,
        count=None if counted is None else lambda kind, outcome: counted.append((kind, outcome)),
    )


def states(world: World) -> list[tuple[str, int]]:
    with world.plane.services.store._engine.connect() as connection:
        statement = select(webhook_event.c.state, webhook_event.c.attempts)
        return [tuple(row) for row in connection.execute(statement.order_by(webhook_event.c.id))]


def test_a_promotion_and_a_verdict_are_told_once(
    begin: Callable[..., World], receiver: Receiver
) -> None:
    world = begin(settings=SETTINGS)
    world.declare()
    report = world.upload(overconfident())
    world.upload(overconfident(), "?method=temperature")  # no new row: refused
    counted: list[tuple[str, str]] = []
    webhook = courier(world, receiver, counted)
    assert webhook.deliver() == 3
    promoted, admitted, refused = receiver.bodies()
    assert (promoted["type"], admitted["type"], refused["type"]) == (
        "calibrator.promoted",
        "candidate.admitted",
        "candidate.refused",
    )
    assert promoted["timestamp"] == "2027-01-15T08:00:00.000Z"
    assert promoted["data"]["model"] == "m"
    assert (promoted["data"]["revision"], promoted["data"]["cause"]) == (2, "admitted")
    assert (admitted["data"]["calibrator"], admitted["data"]["promoted"]) == (
        report["calibrator"],
        2,
    )
    assert admitted["data"]["reasons"] == report["verdict"]["reasons"]
    assert counted == [
        (kind, "delivered")
        for kind in ("calibrator.promoted", "candidate.admitted", "candidate.refused")
    ]
    assert webhook.deliver() == 0
    world.clock.now += 8 * 86_400.0
    assert world.plane.services.retention.clean_up().events == 3


def test_every_attempt_is_signed_for_its_time(
    begin: Callable[..., World], receiver: Receiver
) -> None:
    world = begin(settings=SETTINGS)
    world.declare()
    world.upload(overconfident(), "?promote=never")
    receiver.answers[:] = [500]
    webhook = courier(world, receiver)
    webhook.deliver()
    world.clock.now += RETRY_SECONDS[0]
    webhook.deliver()
    (first, body), (second, again) = receiver.requests
    assert first["webhook-id"] == second["webhook-id"]
    assert body == again
    assert first["content-type"] == "application/json"
    stamps = [int(headers["webhook-timestamp"]) for headers in (first, second)]
    assert stamps == [int(START), int(START + RETRY_SECONDS[0])]
    for headers, stamp in zip((first, second), stamps, strict=True):
        signed = f"{headers['webhook-id']}.{stamp}.".encode() + body
        expected = base64.b64encode(hmac.new(bytes(range(32)), signed, hashlib.sha256).digest())
        assert headers["webhook-signature"] == f"v1,{expected.decode()}"


@pytest.mark.slow
def test_what_is_not_taken_is_tried_again_and_given_up_at_last(
    begin: Callable[..., World], receiver: Receiver, caplog: pytest.LogCaptureFixture
) -> None:
    world = begin(settings=SETTINGS)
    world.declare()
    world.upload(overconfident(), "?promote=never")
    receiver.answers[:] = [500, 404, 302, 410, 429, 503, 500, 400]
    counted: list[tuple[str, str]] = []
    webhook = courier(world, receiver, counted)
    assert webhook.deliver() == 1
    for seconds in RETRY_SECONDS:
        world.clock.now += seconds - 1.0
        assert webhook.deliver() == 0
        world.clock.now += 1.0
        assert webhook.deliver() == 1
    assert len(receiver.requests) == len(RETRY_SECONDS) + 1
    world.clock.now += 10 * 86_400.0
    assert webhook.deliver() == 0
    assert states(world) == [("dead", len(RETRY_SECONDS) + 1)]
    assert [outcome for _, outcome in counted] == [*["failed"] * len(RETRY_SECONDS), "dead"]
    assert "given up" in caplog.text
    assert receiver.url not in caplog.text


def test_a_server_that_is_away_is_no_disaster(begin: Callable[..., World]) -> None:
    world = begin(settings=SETTINGS)
    world.declare()
    world.upload(overconfident(), "?promote=never")
    with receiving() as gone:
        pass
    assert courier(world, gone).deliver() == 1
    assert states(world) == [("waiting", 1)]


def test_an_event_whose_courier_died_is_delivered_by_another(
    begin: Callable[..., World], receiver: Receiver
) -> None:
    world = begin(settings=SETTINGS)
    world.declare()
    world.upload(overconfident(), "?promote=never")
    with world.plane.services.store.write() as transaction:
        now = world.clock.now
        taken = transaction.events.claim(owner="died", now=now, held_until=now + 120.0)
        assert taken is not None
    webhook = courier(world, receiver)
    assert webhook.deliver() == 0
    world.clock.now += 121.0
    assert webhook.deliver() == 1
    with world.plane.services.store.write() as transaction:  # who lived after all changes nothing
        transaction.events.retry(taken.id, owner="died", due_at=0.0)
    assert states(world) == [("delivered", 2)]


def test_two_couriers_deliver_each_event_once(
    begin: Callable[..., World], receiver: Receiver
) -> None:
    world = begin(settings=SETTINGS)
    world.declare()
    with world.plane.services.store.write() as transaction:
        for number in range(12):
            transaction.events.add("alarm.raised", "m", {"number": number}, now=world.clock.now)
    couriers = [courier(world, receiver) for _ in range(2)]
    threads = [threading.Thread(target=each.deliver) for each in couriers]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(body["data"]["number"] for body in receiver.bodies()) == list(range(12))


def test_without_a_webhook_nothing_is_kept(sqlite_world: World) -> None:
    sqlite_world.upload(overconfident())
    assert states(sqlite_world) == []


def test_a_running_service_delivers_by_itself(
    begin: Callable[..., World], receiver: Receiver
) -> None:
    world = begin(settings={**SETTINGS, "webhook_url": receiver.url, "poll_seconds": 0.05})
    world.declare()
    world.upload(overconfident(), "?promote=never")
    wait_until(lambda: bool(receiver.requests), "the event")
    world.plane.close()
    assert [body["type"] for body in receiver.bodies()] == ["candidate.admitted"]


def test_receivers_verify_with_the_library_of_standard_webhooks(
    begin: Callable[..., World], receiver: Receiver
) -> None:
    world = begin(settings=SETTINGS, clock=Clock(time.time()))  # the library knows its own only
    world.declare()
    world.upload(overconfident(), "?promote=never")
    assert courier(world, receiver, secrets=f"{OTHER_SECRET},{SECRET}").deliver() == 1
    ((headers, body),) = receiver.requests
    for secret in (SECRET, OTHER_SECRET):
        event_of = standardwebhooks.Webhook(secret).verify(body, headers)
        assert event_of["type"] == "candidate.admitted"
    third = "whsec_" + base64.b64encode(bytes([1] * 24)).decode()
    for secret, content in ((SECRET, body + b" "), (third, body)):
        with pytest.raises(standardwebhooks.WebhookVerificationError):
            standardwebhooks.Webhook(secret).verify(content, headers)


def signers(text: str) -> list[standardwebhooks.Webhook]:
    return [standardwebhooks.Webhook(secret) for secret in read_secrets(text)]


def test_the_signature_is_that_of_standard_webhooks() -> None:
    # The vector of the reference libraries' own tests (standard-webhooks/standard-webhooks).
    headers = signed_headers(
        signers("whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"),
        message="msg_p5jXN8AQM9LWM0D4loKWxJek",
        timestamp=1_614_265_330,
        body='{"test": 2432232314}',
    )
    assert headers["webhook-signature"] == "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE="


def test_while_a_secret_is_changed_both_sign() -> None:
    both = signers(f"{SECRET}, {OTHER_SECRET}")
    alone = [signed_headers([each], message="m", timestamp=1, body="{}") for each in both]
    signature = signed_headers(both, message="m", timestamp=1, body="{}")["webhook-signature"]
    assert signature.split(" ") == [headers["webhook-signature"] for headers in alone]


@pytest.mark.parametrize("text", ["", "secret", "whsec_", "whsec_c2hvcnQ=", "whsec_!!!!"])
def test_a_secret_of_another_form_is_refused_and_not_repeated(text: str) -> None:
    with pytest.raises(ValueError, match="webhook_secret must be") as error:
        read_secrets(text)
    assert len(text) < 7 or text not in str(error.value)
