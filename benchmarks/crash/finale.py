"""After the last round: everything is sent again, and nothing may count twice.

Once as it is, with a new secret in front; then after a sweep under a clock that ran ahead until
every receipt had expired, and with that clock set back.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from typing import Final

from benchmarks.crash.database import count_label_keys
from benchmarks.crash.ledger import Ledger, differences, exported
from benchmarks.crash.service_process import ServiceProcess
from trueprob.client import Client
from trueprob_service.settings import Settings

__all__ = ["sent_again", "sent_again_after_a_sweep", "sent_again_with_a_new_secret"]

TTL_SECONDS: Final = Settings().receipt_ttl_seconds
# Beyond the life of receipts, the tolerance between clocks and the patience with late replicas.
AHEAD_SECONDS: Final = TTL_SECONDS + 2 * 86_400.0
SWEEP_SECONDS: Final = 0.2
PATIENCE_SECONDS: Final = 60.0


def sent_again_with_a_new_secret(client: Client, model: str, ledger: Ledger) -> Iterable[str]:
    """A sentence for each thing that is wrong.

    Parameters
    ----------
    client : Client
        Of a service that was started with a new secret in front.
    model : str
    ledger : Ledger
        Of what was acknowledged; nothing is uncertain.
    """
    yield from sent_again(client, model, ledger, "duplicate")
    yield from differences(ledger.totals(), exported(client.metrics(), model))
    yield from _window(client, model, ledger)


def sent_again_after_a_sweep(
    start: Callable[..., ServiceProcess], database_url: str, model: str, ledger: Ledger
) -> Iterable[str]:
    """A sentence for each thing that is wrong.

    Parameters
    ----------
    start : callable
        Starts the service with flags and ``clock_shift``.
    database_url : str
    model : str
    ledger : Ledger
    """
    ahead = start("--sweep-seconds", str(SWEEP_SECONDS), clock_shift=AHEAD_SECONDS)
    try:
        yield from _swept(database_url)
    finally:
        ahead.kill()
    service = start()
    try:
        with Client(service.url, timeout_seconds=60) as client:
            yield from sent_again(client, model, ledger, "rejected")
            yield from differences(ledger.totals(), exported(client.metrics(), model))
    finally:
        service.kill()


def sent_again(client: Client, model: str, ledger: Ledger, expected: str) -> Iterable[str]:
    """Send all that was acknowledged again; a sentence for each thing that is wrong.

    ``expected`` is the count of the answer that must have all labels: ``duplicate`` or
    ``rejected``. A label that was lost would be accepted.
    """
    batches = ledger.acknowledged
    answer = client.label(
        model,
        [each for batch in batches for each in batch.ids],
        [label for batch in batches for label in batch.labels],
    )
    n = ledger.labels
    if getattr(answer, expected) != n:
        yield f"of {n} labels sent again {getattr(answer, expected)} were {expected}, not all"
    if ledger.rows:
        rows = client.label_rows(model, *ledger.all_rows())
        if rows.accepted:
            yield f"{rows.accepted} rows that were sent again were accepted"


def _window(client: Client, model: str, ledger: Ledger) -> Iterable[str]:
    """The refit window must hold the last rows of the ledger, each once and in order."""
    fit = client.start_fit(model, source="refit-window", method="temperature", promote="never")
    stored = client.download(model, fit.calibration_set)
    _, logits, labels = ledger.all_rows()
    n = stored.n
    if n != min(len(labels), Settings().refit_window_rows):
        yield f"the refit window has {n} rows of {len(labels)}"
    elif (stored.logits != logits[-n:]).any() or (stored.labels != labels[-n:]).any():
        yield "the refit window does not hold the newest rows in their order"


def _swept(database_url: str) -> Iterable[str]:
    """Wait until all keys of labels are forgotten."""
    deadline = time.monotonic() + PATIENCE_SECONDS
    left = -1
    while left != 0 and time.monotonic() < deadline:
        time.sleep(SWEEP_SECONDS)
        left = count_label_keys(database_url)
    if left != 0:
        yield f"the clean-up job left {left} keys of labels"
