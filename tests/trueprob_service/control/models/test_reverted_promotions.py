"""The predecessor in shadow: a promotion that labels prove worse goes back by itself."""

from __future__ import annotations

import base64
import json
import logging
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from sqlalchemy import select

from tests.trueprob_service.control.harness import SECRET, World, npz, rows
from trueprob_service.control.store.events import webhook_event
from trueprob_service.receipts.secrets import ReceiptKey

pytestmark = pytest.mark.slow

SHADOW = "/v1/models/m/shadow"
WATCH = f"{SHADOW}?role=predecessor"
LIMIT = 5000  # of TRUEPROB_ROLLBACK_LABELS


def promote_foreign(world: World, query: str = "") -> Any:
    """Promote temperature 5: the set belongs to a network with logits five times as large."""
    logits, labels = rows(1, 400, sharpness=5.0)
    return world.upload(npz(logits=logits, labels=labels), f"?method=temperature{query}")


def send(world: World, seed: int, n: int = 200, *, sharpness: float = 1.0) -> list[str]:
    """Traffic on which the identity is calibrated, all of it labelled."""
    logits, labels = rows(seed, n, sharpness=sharpness)
    _, _, _, ids = world.predict(logits)
    assert world.label(ids, labels.tolist()).json()["accepted"] == n
    return ids


def send_until(world: World, revision: int) -> int:
    """Label calibrated traffic until a revision is live; returns the number of labels."""
    for turn in range(LIMIT // 200):
        send(world, 100 + turn)
        if world.deployments.current("m").revision == revision:
            return 200 * (turn + 1)
    raise AssertionError(f"revision {revision} is not live after {LIMIT} labels")


def history(world: World) -> list[tuple[str, int | None, str | None]]:
    items = world.get("/v1/models/m/promotions")["items"]
    return [(each["cause"], each["restores"], each["promoted_by"]) for each in items]


def events(world: World, kind: str) -> list[dict[str, Any]]:
    with world.plane.services.store._engine.connect() as connection:
        statement = select(webhook_event.c.body).where(webhook_event.c.kind == kind)
        bodies = connection.execute(statement).scalars()
        return [json.loads(body)["data"] for body in bodies]


def test_a_worse_promotion_goes_back_by_itself(
    begin: Callable[..., World], caplog: pytest.LogCaptureFixture
) -> None:
    # A plane whose courier stays out of the way: events wait in the table.
    url, secret = "http://127.0.0.1:9/", "whsec_" + base64.b64encode(bytes(24)).decode()
    keeps = {"webhook_url": url, "webhook_secret": secret, "poll_seconds": 3600.0}
    world = begin(settings=keeps)
    world.declare()
    before = world.deployments.current("m")
    logits, _ = rows(7, 5)
    answered = before.calibrator.predict_proba(logits)
    fit = promote_foreign(world)
    assert fit["promoted"], fit
    watch = world.get(WATCH)
    assert watch["calibrator"] == before.calibrator_id
    assert (watch["role"], watch["state"], watch["revision"]) == ("predecessor", "running", 2)
    assert world.call("GET", SHADOW).status_code == 404  # nobody started a candidate
    with caplog.at_level(logging.WARNING):
        labels = send_until(world, 3)
    live = world.deployments.current("m")
    assert (live.calibrator_id, live.predecessor) == (before.calibrator_id, None)
    np.testing.assert_array_equal(live.calibrator.predict_proba(logits), answered)
    assert history(world)[0] == ("reverted", 1, None)
    watch = world.get(WATCH)
    assert (watch["state"], watch["promoted"], watch["labels"]) == ("better", 3, labels)
    (summary, *_) = world.get("/v1/models/m/calibrators")["items"]
    assert (summary["calibrator"], summary["reverted"]) == (fit["calibrator"], True)
    assert not summary["admitted"]
    assert "live as revision 3" in caplog.text
    (decided,) = events(world, "shadow.decided")
    assert (decided["role"], decided["verdict"], decided["promoted"]) == (
        "predecessor",
        "better",
        3,
    )
    assert decided["better_log10"] == watch["better_log10"] >= watch["threshold_log10"]
    promoted = max(events(world, "calibrator.promoted"), key=lambda event: event["revision"])
    assert (promoted["cause"], promoted["by"]) == ("reverted", None)
    world.clock.now += 60.0
    counts = world.plane.label_statistics().promotions
    assert counts["m", "identity", "reverted"] == 1
    # To undo the reverting, one promotes by force; a rollback continues below what it restored.
    assert world.rollback(3).status_code == 409


def test_only_force_promotes_a_reverted_calibrator_and_then_it_stays(world: World) -> None:
    calibrator = promote_foreign(world)["calibrator"]
    send_until(world, 3)
    again = promote_foreign(world)
    assert (again["calibrator"], again["promoted"]) == (calibrator, False)
    assert again["verdict"]["admitted"]
    assert "labels proved it worse" in again["verdict"]["reasons"][-1]
    refused = world.promote(calibrator, 3)
    assert refused.status_code == 409
    assert "labels proved it worse" in refused.json()["detail"]
    assert "?force=true" in refused.json()["detail"]
    assert promote_foreign(world, "&promote=always")["revision"] == 4
    assert history(world)[0][0] == "forced"
    assert world.deployments.current("m").predecessor is None
    for seed in range(40, 50):
        send(world, seed)
    assert world.deployments.current("m").revision == 4
    assert world.rollback(4).status_code == 200
    assert world.promote(calibrator, 5, "?force=true").status_code == 200
    assert [cause for cause, *_ in history(world)[:2]] == ["forced", "rollback"]
    assert world.deployments.current("m").predecessor is None


def test_a_good_promotion_stays(world: World) -> None:
    logits, labels = rows(2, 600, sharpness=2.5)
    assert world.upload(npz(logits=logits, labels=labels))["revision"] == 2
    for seed in range(10):
        send(world, seed, sharpness=2.5)
    watch = world.get(WATCH)
    assert (watch["state"], watch["promoted"]) == ("worse", None)
    assert watch["worse_log10"] >= watch["threshold_log10"]
    live = world.deployments.current("m")
    assert (live.revision, live.predecessor) == (2, None)
    (summary, *_) = world.get("/v1/models/m/calibrators")["items"]
    assert (summary["admitted"], summary["reverted"]) == (True, False)


def test_the_comparison_ends_with_its_labels(begin: Callable[..., World]) -> None:
    world = begin(settings={"rollback_labels": 300})
    world.declare()
    logits, labels = rows(3, 600)
    world.upload(npz(logits=logits, labels=labels), "?promote=always")  # nearly the identity
    send(world, 1)
    assert world.get(WATCH)["state"] == "running"
    send(world, 2)
    watch = world.get(WATCH)
    assert (watch["state"], watch["labels"]) == ("kept", 400)
    assert world.deployments.current("m").predecessor is None


def test_a_restart_with_0_ends_the_comparison(begin: Callable[..., World]) -> None:
    first = begin()
    first.declare()
    promote_foreign(first)
    first.plane.close()
    world = begin(settings={"rollback_labels": 0})
    send(world, 1, 2000)
    assert (world.get(WATCH)["state"], history(world)[0][0]) == ("kept", "admitted")
    world.rollback(2)
    logits, labels = rows(3, 600)
    world.upload(npz(logits=logits, labels=labels), "?promote=always")
    assert world.deployments.current("m").predecessor is None


def test_who_wants_to_be_told_is_only_told(begin: Callable[..., World]) -> None:
    world = begin(settings={"shadow_policy": "tell"})
    world.declare()
    calibrator = promote_foreign(world)["calibrator"]
    send(world, 1, 2000)
    watch = world.get(WATCH)
    assert (watch["state"], watch["policy"], watch["promoted"]) == ("better", "tell", None)
    assert world.deployments.current("m").calibrator_id == calibrator
    (summary, *_) = world.get("/v1/models/m/calibrators")["items"]
    assert not summary["reverted"]


def test_a_candidate_and_the_predecessor_shadow_at_once(world: World) -> None:
    promote_foreign(world)
    other = world.upload(
        npz(**dict(zip(("logits", "labels"), rows(3, 600), strict=True))), "?promote=never"
    )["calibrator"]
    put = world.call("PUT", SHADOW, json={"calibrator": other, "policy": "tell"})
    assert put.status_code == 201, put.text
    ids = send(world, 1, 30)
    receipt = world.plane.receipts.verify(ids[0])
    assert receipt.candidate is not None
    assert receipt.predecessor is not None
    assert receipt.candidate.calibrator != receipt.predecessor.calibrator
    assert [world.get(path)["labels"] for path in (SHADOW, WATCH)] == [30, 30]
    assert world.get(SHADOW)["role"] == "candidate"
    # Going back ends the candidate too: it was compared with a pair that is no longer live.
    send_until(world, 3)
    assert world.get(SHADOW)["state"] in ("better", "superseded")
    assert world.get(WATCH)["state"] == "better"


def test_the_watch_can_be_ended(sqlite_world: World) -> None:
    world = sqlite_world
    promote_foreign(world)
    assert world.call("DELETE", WATCH).status_code == 204
    assert world.get(WATCH)["state"] == "removed"
    assert world.deployments.current("m").predecessor is None
    send(world, 1, 2000)
    assert world.deployments.current("m").revision == 2
    assert world.call("DELETE", WATCH).status_code == 404
    assert world.call("GET", f"{SHADOW}?role=sun").status_code == 422


def test_labels_do_not_promote_what_labels_sent_back(sqlite_world: World) -> None:
    world = sqlite_world
    calibrator = promote_foreign(world)["calibrator"]
    send_until(world, 3)
    report = promote_foreign(world, "&promote=shadow")
    assert "Labels will not promote it" in report["verdict"]["reasons"][-1]
    assert world.get(SHADOW)["calibrator"] == calibrator
    send(world, 60, 2000, sharpness=5.0)  # now the traffic is that of the set
    assert (world.get(SHADOW)["state"], world.get(SHADOW)["promoted"]) == ("better", None)
    assert world.promote(calibrator, 3).status_code == 409


def test_the_factory_calibrator_needs_force_too_once_it_was_reverted(sqlite_world: World) -> None:
    world = sqlite_world
    factory = world.deployments.current("m").calibrator_id
    logits, labels = rows(2, 600, sharpness=5.0)
    world.upload(npz(logits=logits, labels=labels))
    assert world.promote(factory, 2).status_code == 200
    send(world, 1, 1000, sharpness=5.0)
    assert [cause for cause, *_ in history(world)] == ["reverted", "factory", "admitted", "factory"]
    assert world.promote(factory, 4).status_code == 409
    assert world.promote(factory, 4, "?force=true").status_code == 200
    assert history(world)[0][0] == "forced"


def test_who_goes_back_is_not_watched(sqlite_world: World) -> None:
    world = sqlite_world
    promote_foreign(world)
    assert world.rollback(2).status_code == 200
    assert world.get(WATCH)["state"] == "superseded"
    assert world.deployments.current("m").predecessor is None


def test_several_processes_and_a_restart_share_the_comparison(begin: Callable[..., World]) -> None:
    slow = {"poll_seconds": 3600.0}
    here, there = begin(settings=slow), begin(settings=slow)
    here.declare()
    promote_foreign(here)
    there.plane.services.replica_sync.sync()
    assert there.deployments.current("m").predecessor is not None
    logits, labels = rows(30, 60)
    _, _, _, ids = there.predict(logits)
    there.label(ids[:20], labels[:20].tolist())
    here.label(ids[20:40], labels[20:40].tolist())
    assert here.get(WATCH) == there.get(WATCH)
    assert here.get(WATCH)["labels"] == 40
    here.plane.close()
    again = begin(settings=slow)
    assert again.deployments.current("m").predecessor is not None
    again.label(ids[40:], labels[40:].tolist())
    assert again.get(WATCH)["labels"] == 60
    send_until(again, 3)
    there.plane.services.replica_sync.sync()
    live = there.deployments.current("m")
    assert (live.revision, live.predecessor) == (3, None)


def test_receipts_of_format_1_count_and_score_the_candidate(begin: Callable[..., World]) -> None:
    world = begin(settings={"receipt_secrets": SECRET})
    world.declare()
    promote_foreign(world)
    identity = world.get("/v1/models/m/promotions")["items"][1]["calibrator"]
    world.call("PUT", SHADOW, json={"calibrator": identity, "policy": "tell"})
    logits, labels = rows(4, 20)
    _, _, _, ids = world.predict(logits)
    key, older = ReceiptKey.from_secret(SECRET), []
    for text in ids:
        block = b"TPR1" + base64.urlsafe_b64decode(text)[4:108]
        signed = base64.urlsafe_b64encode(block + key.tag(block))
        older.append(signed.rstrip(b"=").decode())
    assert world.label(older, labels.tolist()).json()["accepted"] == 20
    assert world.label(ids, labels.tolist()).json()["duplicate"] == 20  # the same predictions
    assert [world.get(path)["labels"] for path in (SHADOW, WATCH)] == [20, 0]
