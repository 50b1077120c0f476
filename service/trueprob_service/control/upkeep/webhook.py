"""Delivers events to the webhook, each at least once and from one process at a time.

The transaction that an event reports writes the event too, so a crash loses none and no event
reports a change that was rolled back. A process leases an event for as long as an attempt can take;
if the process dies, the event is due again. Any 2xx answer is a delivery. After any other answer,
also a redirect, the event is sent again later, a bounded number of times.
"""

from __future__ import annotations

import json
import logging
import threading
import uuid
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Final

import standardwebhooks

from trueprob_service.control.poll import Poll
from trueprob_service.control.store import Store
from trueprob_service.control.store.events import EventRow
from trueprob_service.logs import traceparent_below

if TYPE_CHECKING:
    import httpx

__all__ = ["RETRY_SECONDS", "Webhook", "signed_headers"]

_LOG: Final = logging.getLogger(__name__)
# Between attempts, as Standard Webhooks recommends: a little over a day in all.
RETRY_SECONDS: Final = (5.0, 300.0, 1800.0, 7200.0, 18_000.0, 36_000.0, 50_400.0)
_TIMEOUT_SECONDS: Final = 15.0
# Longer than an attempt can take: connecting, sending and reading have a timeout each.
_LEASE_SECONDS: Final = 120.0


class Webhook:
    """Sends the events that are due, from a thread of this process."""

    def __init__(
        self,
        store: Store,
        url: str,
        secrets: Sequence[str],  # in the form of Standard Webhooks; every one signs
        *,
        seconds: float,  # between two checks for due events
        clock: Callable[[], float],  # seconds since 1970 UTC
        count: Callable[[str, str], None] | None = None,  # called with `(kind, outcome)`
    ) -> None:
        self._store = store
        self._url = url
        self._signers = [standardwebhooks.Webhook(secret) for secret in secrets]
        self._clock = clock
        self._count = count
        self._owner = uuid.uuid4().hex
        self._sending = threading.Lock()
        self._poll = Poll(
            self._deliver_due, what="the webhook", seconds=seconds, name="trueprob-webhook"
        )

    def start(self) -> None:
        """Start the thread."""
        self._poll.start()

    def close(self) -> None:
        """Stop after the attempt that is running."""
        self._poll.close()

    def deliver(self) -> int:
        """Send all events that are due, oldest first; returns the number of attempts."""
        import httpx  # only if there is a webhook

        attempts = 0
        with self._sending, httpx.Client(timeout=_TIMEOUT_SECONDS) as client:
            while not self._poll.closing:
                now = self._clock()
                with self._store.write() as transaction:
                    event = transaction.events.claim(
                        owner=self._owner, now=now, held_until=now + _LEASE_SECONDS
                    )
                if event is None:
                    break
                self._attempt(client, event, int(now))
                attempts += 1
        return attempts

    def _deliver_due(self) -> None:
        # Read first: a claim that finds nothing would still be a write transaction.
        with self._store.read() as transaction:
            due = transaction.events.any_due(now=self._clock())
        if due:
            self.deliver()

    def _attempt(self, client: httpx.Client, event: EventRow, timestamp: int) -> None:
        obstacle = self._post(client, event, timestamp)
        now = self._clock()
        last = event.attempts > len(RETRY_SECONDS)
        with self._store.write() as transaction:
            if obstacle is None:
                transaction.events.end(event.id, "delivered", owner=self._owner, now=now)
            elif last:
                transaction.events.end(event.id, "dead", owner=self._owner, now=now)
            else:
                due_at = now + RETRY_SECONDS[event.attempts - 1]
                transaction.events.retry(event.id, owner=self._owner, due_at=due_at)
        if self._count is not None:
            outcome = "delivered" if obstacle is None else "dead" if last else "failed"
            self._count(event.kind, outcome)
        if obstacle is not None:
            level = logging.ERROR if last else logging.WARNING
            next_step = "given up" if last else "it will be sent again"
            fields = (event.kind, event.message, event.attempts, obstacle, next_step)
            _LOG.log(level, "event %s (%s), attempt %d: %s; %s", *fields)

    def _post(self, client: httpx.Client, event: EventRow, timestamp: int) -> str | None:
        """Send one event; returns the reason if it was not accepted.

        The reason never has the URL, which may hold a secret.
        """
        import httpx

        headers = signed_headers(
            self._signers, message=event.message, timestamp=timestamp, body=event.body
        )
        if traceparent := json.loads(event.body).get("traceparent"):
            headers["traceparent"] = traceparent_below(traceparent)
        try:
            with client.stream(
                "POST",
                self._url,
                content=event.body.encode(),
                headers={"content-type": "application/json", **headers},
            ) as answer:  # the body is not read: it may be endless
                return None if answer.is_success else f"status {answer.status_code}"
        except httpx.HTTPError as error:
            return type(error).__name__


def signed_headers(
    signers: Sequence[standardwebhooks.Webhook], *, message: str, timestamp: int, body: str
) -> dict[str, str]:
    """The headers of one attempt; the receiver accepts the signature of any of the signers.

    The message id is the same at every attempt, so that the receiver recognises repeated events.
    """
    sent_at = datetime.fromtimestamp(timestamp, UTC)
    return {
        "webhook-id": message,
        "webhook-timestamp": str(timestamp),
        "webhook-signature": " ".join(each.sign(message, sent_at, body) for each in signers),
    }
