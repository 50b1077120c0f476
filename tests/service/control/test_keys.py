"""The receipts' key: one for all, kept, and hidden when a secret is set."""

from __future__ import annotations

import secrets
from collections.abc import Callable

import numpy as np
import pytest

from service.control.keys import open_receipts, unwrap, wrap
from service.control.store import open_store
from service.receipts import Receipts
from service.settings_reading import InvalidSettings


def issue(receipts: Receipts) -> str:
    (prediction_id,) = receipts.issue(
        model=bytes(8),
        version=1,
        revision=1,
        class_list=bytes(8),
        prediction=np.array([0]),
        confidence=np.array([0.5]),
    )
    return prediction_id


def test_every_process_has_the_same_key(database_url: str) -> None:
    first, second = open_store(database_url), open_store(database_url)
    prediction_id = issue(open_receipts(first, secret="", clock=lambda: 0.0))
    assert open_receipts(second, secret="", clock=lambda: 0.0).verify(prediction_id).version == 1
    first.close()
    second.close()


def test_a_secret_set_later_wraps_the_key_that_is_there(database_url: str) -> None:
    store = open_store(database_url)
    prediction_id = issue(open_receipts(store, secret="", clock=lambda: 0.0))
    with store.read() as transaction:
        (bare,) = transaction.signing_keys.all()
    assert open_receipts(store, secret="s3cret", clock=lambda: 0.0).verify(prediction_id)
    with store.read() as transaction:
        (stored,) = transaction.signing_keys.all()
    assert stored.wrapped
    assert bare.secret not in stored.secret
    assert open_receipts(store, secret="s3cret", clock=lambda: 0.0).verify(prediction_id)
    for wrong in ("other", ""):
        with pytest.raises(InvalidSettings, match="receipt_secret"):
            open_receipts(store, secret=wrong, clock=lambda: 0.0)
    store.close()


def test_wrapping_hides_and_a_change_is_seen() -> None:
    key = secrets.token_bytes(32)
    wrapped = wrap(key, "s")
    assert key not in wrapped
    assert wrap(key, "s") != wrapped
    assert unwrap(wrapped, "s") == key
    changed = bytes([wrapped[0] ^ 1, *wrapped[1:]])
    with pytest.raises(InvalidSettings):
        unwrap(changed, "s")


def test_a_wrong_secret_stops_the_start(begin: Callable[..., object]) -> None:
    begin(settings={"receipt_secret": "one"})
    with pytest.raises(InvalidSettings, match="receipt_secret"):
        begin(settings={"receipt_secret": "two"})
