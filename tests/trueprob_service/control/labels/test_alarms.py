"""Evidence and change: updated with the labels; alarms are raised and acknowledged."""

from __future__ import annotations

import logging
import threading
from collections.abc import Iterator, Sequence

import numpy as np
import pytest
from numpy.typing import NDArray

from tests.trueprob_service.control.harness import START, Clock
from tests.trueprob_service.control.store.test_engine import register
from trueprob.drift import BetState
from trueprob_service.control.labels.alarms import AlarmRules, Alarms
from trueprob_service.control.labels.counting import count_within_cap, counting_order
from trueprob_service.control.store import Store, Transaction, open_store
from trueprob_service.control.store.alarms import AlarmRow, AlarmStateRow
from trueprob_service.receipts.columns import ROW, ReceiptColumns, number
from trueprob_service.receipts.receipt import digest64

KEY = b"secret of this test, 32 bytes..."
NAMES = ("a", "b", "c")
RULES = AlarmRules.from_options(tolerance=0.0, class_tolerance=0.0, alpha=0.01, run_length=1000)


@pytest.fixture
def store(database_url: str) -> Iterator[Store]:
    opened = open_store(database_url)
    register(opened)
    yield opened
    opened.close()


def alarms_on(store: Store, **options: object) -> Alarms:
    return Alarms(store, RULES, clock=Clock(), **options)  # type: ignore[arg-type]


def receipts(
    confidence: Sequence[float], *, start: int = 0, groups: Sequence[int] | None = None
) -> ReceiptColumns:
    n = len(confidence)
    rows = np.zeros(n, ROW)
    rows["model"], rows["version"], rows["revision"] = number(digest64("m")), 1, 1
    rows["confidence"], rows["group"] = confidence, 0 if groups is None else groups
    rows["issued_at"], rows["nonce"][:, 2] = int(START * 1e6), start + np.arange(n)
    return ReceiptColumns(rows, np.ones(n, np.bool_))


def add(
    alarms: Alarms,
    transaction: Transaction,
    new: ReceiptColumns,
    correct: Sequence[bool] | NDArray[np.bool_],
    *,
    now: float,
) -> list[AlarmRow]:
    model_id = transaction.models.lock("m")
    promotion = transaction.promotions.live("m")
    assert promotion is not None
    assert model_id is not None
    label = np.where(correct, 0, 1)  # all predictions are class 0
    fits, counted = count_within_cap(
        transaction, new, label, model_id=model_id, labels_per_input=0,
        now=now, order_key=KEY,
    )  # fmt: skip
    assert fits.all()
    return alarms.count(transaction, promotion, counted[1], NAMES, now=now)


def count(
    alarms: Alarms,
    store: Store,
    new: ReceiptColumns,
    correct: Sequence[bool] | NDArray[np.bool_],
    *,
    now: float = START,
) -> list[AlarmRow]:
    with store.write() as transaction:
        return add(alarms, transaction, new, correct, now=now)


def state(store: Store, revision: int = 1) -> AlarmStateRow:
    with store.read() as transaction:
        row = transaction.alarm_states.get("m", revision)
    assert row is not None
    return row


def recomputed(
    requests: Sequence[tuple[ReceiptColumns, Sequence[bool] | NDArray[np.bool_]]],
) -> tuple[BetState, BetState]:
    """Both states as the library alone computes them, request by request, without groups."""
    evidence, change = RULES.evidence.start(), RULES.change.start()
    for new, correct in requests:
        factors = RULES.bets.factors(
            new.confidence,
            correct,
            prediction=new.prediction,
            n_classes=len(NAMES),
            order=counting_order(KEY, new),
        )
        evidence = RULES.evidence.update(evidence, factors)
        change = RULES.change.update(change, factors)
    return evidence, change


def stream(seed: int, n: int) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
    rng = np.random.default_rng(seed)
    confidence = rng.uniform(0.3, 1.0, n)
    return confidence, rng.random(n) < confidence


def test_the_stored_state_is_the_librarys_bit_for_bit(store: Store) -> None:
    requests, alarms = [], alarms_on(store)
    for index, n in enumerate((1, 300, 1, 41)):
        confidence, correct = stream(index, n)
        new = receipts(confidence.tolist(), start=1000 * index)
        requests.append((new, correct))
        count(alarms, store, new, correct)
    evidence, change = recomputed(requests)
    row = state(store)
    assert BetState.from_dict(row.evidence) == evidence
    assert BetState.from_dict(row.change) == change
    assert (row.counted, row.repeated, evidence.n) == (343, 0, 343)


def test_the_clients_order_does_not_matter(store: Store) -> None:
    confidence, correct = stream(3, 200)
    given = receipts(confidence.tolist())
    by_outcome = np.argsort(correct, kind="stable")
    count(alarms_on(store), store, given[by_outcome], correct[by_outcome])
    evidence, change = recomputed([(given, correct)])
    assert BetState.from_dict(state(store).evidence) == evidence
    assert BetState.from_dict(state(store).change) == change


def test_the_order_depends_on_the_nonces_and_on_a_secret() -> None:
    given = receipts([0.5] * 500, start=7)
    order = counting_order(KEY, given)
    assert len(set(order.tolist())) == 500
    backwards = counting_order(KEY, given[np.arange(500)[::-1]])
    assert backwards.tolist() == order[::-1].tolist()
    other = counting_order(bytes(32), given)
    assert abs(np.corrcoef(np.argsort(order), np.argsort(other))[0, 1]) < 0.2
    assert abs(np.corrcoef(np.argsort(order), np.arange(500))[0, 1]) < 0.2


def test_a_group_counts_once_in_a_request_and_since_the_promotion(store: Store) -> None:
    alarms = alarms_on(store)
    new = receipts([0.9, 0.9, 0.6, 0.8], groups=[7, 7, 0, 2**64 - 1])
    count(alarms, store, new, [True, False, True, True])
    assert (state(store).counted, state(store).repeated) == (4, 0)
    assert BetState.from_dict(state(store).evidence).n == 3  # two rows made one factor
    before = state(store)
    copies = receipts([0.9, 0.8], start=10, groups=[7, 2**64 - 1])
    count(alarms, store, copies, [False, False])
    after = state(store)
    assert (after.evidence, after.change) == (before.evidence, before.change)
    assert (after.counted, after.repeated) == (4, 2)
    mixed = receipts([0.7, 0.5], start=20, groups=[8, 7])
    count(alarms, store, mixed, [True, True])
    assert BetState.from_dict(state(store).evidence).n == 4
    alone = receipts([0.7, 0.5, 0.6, 0.8], start=30, groups=[0, 9, 0, 9])
    count(alarms, store, alone, [True, True, False, True])
    assert BetState.from_dict(state(store).evidence).n == 7  # each row without a group is one


def test_concurrent_replicas_count_like_one_after_the_other(database_url: str) -> None:
    first = open_store(database_url)
    register(first)
    done: list[tuple[int, int]] = []
    requests = {}
    for index in range(24):
        confidence, correct = stream(index, 1 + index)
        requests[index] = receipts(confidence.tolist(), start=1000 * index), correct

    def work(store: Store, mine: range) -> None:
        alarms = alarms_on(store)
        for index in mine:
            new, correct = requests[index]
            with store.write() as transaction:
                add(alarms, transaction, new, correct, now=START)
                row = transaction.alarm_states.get("m", 1)
                assert row is not None
                done.append((row.counted, index))

    second = open_store(database_url)
    threads = [
        threading.Thread(target=work, args=(first, range(0, 24, 2))),
        threading.Thread(target=work, args=(second, range(1, 24, 2))),
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    order = [index for _, index in sorted(done)]
    assert sorted(order) == list(range(24))
    evidence, change = recomputed([requests[index] for index in order])
    row = state(first)
    assert BetState.from_dict(row.evidence) == evidence
    assert BetState.from_dict(row.change) == change
    first.close()
    second.close()


def test_alarms_are_raised_once_and_change_again_after_it_was_acknowledged(
    store: Store, caplog: pytest.LogCaptureFixture
) -> None:
    told: list[AlarmRow] = []
    alarms = alarms_on(store, on_raised=told.append)
    seen: list[AlarmRow] = []
    for index in range(6):
        raised = count(alarms, store, receipts([0.95] * 20, start=100 * index), [False] * 20)
        alarms.announce(raised)
        seen += raised
    assert [alarm.statistic for alarm in seen] == ["evidence", "change"]
    assert told == seen
    assert all(alarm.log10 >= alarm.threshold_log10 for alarm in seen)
    assert [record.levelno for record in caplog.records] == [logging.WARNING] * 2
    with store.read() as transaction:
        assert transaction.alarms.unanswered() == seen
        assert transaction.alarms.counts() == {("m", "change"): 1, ("m", "evidence"): 1}

    change = seen[1]
    known = alarms.acknowledge("m", change.id, by="ops")
    assert (known.acknowledged_by, known.acknowledged_at) == ("ops", START)
    assert BetState.from_dict(state(store).change) == RULES.change.start()
    assert BetState.from_dict(state(store).evidence).n == 120
    count(alarms, store, receipts([0.5], start=5000), [True])
    one = state(store)
    assert alarms.acknowledge("m", change.id, by="somebody else") == known
    assert state(store) == one  # the second acknowledgement reset nothing

    assert alarms.acknowledge("m", seen[0].id, by=None).acknowledged_at == START
    assert state(store) == one  # acknowledging evidence resets nothing
    again = count(alarms, store, receipts([0.95] * 40, start=9000), [False] * 40)
    assert [alarm.statistic for alarm in again] == ["change"]


def test_an_alarm_is_answered_by_one_policy(store: Store) -> None:
    (alarm, *_) = count(alarms_on(store), store, receipts([0.95] * 90), [False] * 90)
    with store.write() as transaction:
        assert transaction.alarms.answer(alarm.id, now=START + 1)
        assert not transaction.alarms.answer(alarm.id, now=START + 2)
    with store.read() as transaction:
        assert alarm.id not in [row.id for row in transaction.alarms.unanswered()]
        found = transaction.alarms.get("m", alarm.id)
    assert found is not None
    assert found.answered_at == START + 1


def test_the_state_of_other_bets_is_not_continued(store: Store) -> None:
    alarms = alarms_on(store)
    count(alarms, store, receipts([0.9]), [True])
    with store.write() as transaction:
        row = transaction.alarm_states.lock("m", 1)
        assert row is not None
        old = {"mixture": "calibration-0"}
        transaction.alarm_states.put(
            AlarmStateRow(
                "m", 1, {**row.evidence, **old}, {**row.change, **old}, row.counted, 0, START
            )
        )
    assert alarms.rules.log10(state(store)) == pytest.approx((0.0, 0.0), abs=1e-12)
    count(alarms, store, receipts([0.8], start=5), [True])
    assert BetState.from_dict(state(store).evidence).n == 1
