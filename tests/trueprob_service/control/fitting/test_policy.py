"""The refit policy: one fit for each trigger, judged like any other, within its limits."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable
from typing import Any

import pytest
from sqlalchemy import select

from tests.trueprob_service.control.harness import World, calibrated, rows
from tests.trueprob_service.control.upkeep.test_webhook import SETTINGS as WEBHOOK
from tests.waiting import wait_until
from trueprob_service.control.fitting.policy import rows_between
from trueprob_service.control.fitting.request import FitRequest
from trueprob_service.control.store.events import webhook_event

pytestmark = pytest.mark.slow

FITS = "/v1/models/m/fits"
# No poll but those of the test.
STILL = {"poll_seconds": 3600.0}
ON_ALARM = {**STILL, "refit_policy": "on-alarm"}


def send_rows(world: World, seed: int, n: int, *, sharpness: float = 2.5) -> None:
    logits, labels = rows(seed, n, sharpness=sharpness)
    sent = [
        {"id": f"{seed} {index}", "logits": row, "label": label}
        for index, (row, label) in enumerate(zip(logits.tolist(), labels.tolist(), strict=True))
    ]
    answer = world.call("POST", "/v1/models/m/labels", json={"rows": sent})
    assert answer.json()["accepted"] == n, answer.text


def raise_alarm(world: World, seed: int = 30) -> None:
    """Label overconfident answers until evidence raises an alarm."""
    logits, labels = rows(seed, 1500, sharpness=2.5)
    _, _, _, ids = world.predict(logits)
    world.label(ids, labels.tolist())
    assert world.get("/v1/models/m/alarms")["items"]


def look(world: World) -> list[dict[str, Any]]:
    """Poll once, and return the fits that it queued once they have ended."""
    fits = world.plane.services.refit_policy.queue_due_fits()
    reports = []
    for fit in fits:
        wait_until(
            lambda fit=fit: world.get(f"{FITS}/{fit}")["state"] in ("done", "failed"),  # type: ignore[misc]
            "the fit",
        )
        reports.append(world.get(f"{FITS}/{fit}"))
    return reports


def test_an_alarm_leads_to_one_fit_on_the_window(begin: Callable[..., World]) -> None:
    world = begin(settings=ON_ALARM)
    world.declare()
    send_rows(world, 31, 300)
    assert look(world) == []
    raise_alarm(world)
    (fit,) = look(world)
    alarm = world.get("/v1/models/m/alarms")["items"][-1]
    assert fit["trigger"] == f"alarm:{alarm['id']}"
    assert (fit["n"], fit["promoted"], fit["revision"]) == (300, True, 2)
    (promotion, _) = world.get("/v1/models/m/promotions")["items"]
    assert (promotion["fit"], promotion["cause"]) == (fit["fit"], "admitted")
    assert look(world) == []
    restarted = begin(settings=ON_ALARM, clock=world.clock)
    assert look(restarted) == []
    assert len(restarted.get(FITS)["items"]) == 1


def test_an_alarm_waits_for_rows_unless_its_revision_was_replaced(
    begin: Callable[..., World],
) -> None:
    world = begin(settings=ON_ALARM)
    world.declare()
    raise_alarm(world)
    assert look(world) == []
    send_rows(world, 32, 300)
    (fit,) = look(world)
    assert fit["revision"] == 2
    # An alarm of a revision that is no longer live leads to no fit.
    with world.plane.services.store.write() as transaction:
        old = transaction.alarms.get("m", 1)
        assert old is not None
        fields = {**vars(old), "answered_at": None, "statistic": "change"}
        del fields["id"]
        transaction.alarms.add(**fields)
    assert look(world) == []
    with world.plane.services.store.read() as transaction:
        assert transaction.alarms.unanswered() == []


def test_a_refit_after_every_n_rows(begin: Callable[..., World]) -> None:
    world = begin(settings={**STILL, "refit_policy": "every=100"})
    world.declare()
    send_rows(world, 33, 99)
    assert look(world) == []
    send_rows(world, 34, 151)
    assert [(fit["trigger"], fit["n"]) for fit in look(world)] == [("rows:1:200", 250)]
    assert look(world) == []
    send_rows(world, 35, 60)
    assert [fit["trigger"] for fit in look(world)] == ["rows:1:300"]


def test_a_trigger_leads_to_one_fit_across_crashes_and_replicas(
    begin: Callable[..., World],
) -> None:
    here = begin(settings=ON_ALARM)
    here.declare()
    there = begin(settings=ON_ALARM, clock=here.clock)
    send_rows(here, 36, 300)
    raise_alarm(here)
    barrier = threading.Barrier(2)

    def at_once(world: World) -> None:
        barrier.wait()
        world.plane.services.refit_policy.queue_due_fits()

    threads = [threading.Thread(target=at_once, args=(each,)) for each in (here, there)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(here.get(FITS)["items"]) == 1
    # As after a crash between the commit of the fit and that of the alarm's answer.
    services = here.plane.services
    served = here.deployments.current("m").served
    window = services.refit_window.read("m", 1)
    assert window is not None
    again, _ = services.stored_sets.accept(served, window, FitRequest(trigger="alarm:1"))
    assert str(again) == here.get(FITS)["items"][0]["fit"]
    assert len(here.get(FITS)["items"]) == 1


def test_a_candidate_that_is_worse_on_the_reference_set_is_refused(
    begin: Callable[..., World],
) -> None:
    world = begin(settings={**STILL, "refit_policy": "every=100"})
    world.declare()
    world.upload(calibrated(), "?name=reference&promote=never")
    send_rows(world, 37, 300)
    (fit,) = look(world)
    assert not fit["verdict"]["admitted"]
    assert fit["verdict"]["reasons"][0].startswith("significantly worse on the reference set: NLL")
    assert not fit["promoted"]


def test_a_candidate_that_is_not_worse_on_it_is_admitted(begin: Callable[..., World]) -> None:
    world = begin(settings={**STILL, "refit_policy": "every=100", "refit_reference": "pinned"})
    world.declare()
    world.upload(calibrated(), "?name=reference&promote=never")
    pinned = rows(38, 400, sharpness=2.5)
    body = {"logits": pinned[0].tolist(), "labels": pinned[1].tolist()}
    world.call("POST", "/v1/models/m/calibration-sets/pinned/rows", json=body)
    send_rows(world, 39, 300)
    (fit,) = look(world)
    assert fit["promoted"]
    (reason,) = (r for r in fit["verdict"]["reasons"] if "on the reference set" in r)
    assert reason.startswith("not significantly worse")


def test_promotions_a_day_are_limited(begin: Callable[..., World]) -> None:
    settings = {**STILL, "refit_policy": "every=300", "refit_promotions_per_day": 1}
    world = begin(settings={**settings, "refit_window_rows": 300})
    world.declare()
    send_rows(world, 40, 300)
    (first,) = look(world)
    assert first["promoted"]
    send_rows(world, 41, 300, sharpness=6.0)
    (second,) = look(world)
    assert (second["verdict"]["admitted"], second["promoted"]) == (True, False)
    assert "has promoted 1 times within a day" in second["verdict"]["reasons"][-1]
    world.clock.now += 86_401.0
    send_rows(world, 42, 300, sharpness=6.0)
    (third,) = look(world)
    assert third["promoted"]
    world.clock.now += 60.0
    counts = world.plane.label_statistics().refits
    assert (counts["m", "rows", "promoted"], counts["m", "rows", "admitted"]) == (2, 1)


@pytest.mark.parametrize("action", ["tell", "shadow"])
def test_the_action_decides_about_the_candidate(begin: Callable[..., World], action: str) -> None:
    settings = {**WEBHOOK, "refit_policy": "every=100", "refit_action": action}
    world = begin(settings=settings)
    world.declare()
    send_rows(world, 43, 300)
    (fit,) = look(world)
    assert (fit["verdict"]["admitted"], fit["promoted"]) == (True, False)
    with world.plane.services.store._engine.connect() as connection:
        (body,) = connection.execute(select(webhook_event.c.body)).scalars()
    event = json.loads(body)
    assert (event["type"], event["data"]["trigger"]) == ("candidate.admitted", "rows:1:300")
    shadow = world.deployments.current("m").candidate
    assert (shadow is not None) == (action == "shadow")


def test_a_policy_that_is_off_does_nothing(sqlite_world: World) -> None:
    send_rows(sqlite_world, 44, 300)
    assert sqlite_world.plane.services.refit_policy.queue_due_fits() == []
    assert [rows_between(policy) for policy in ("off", "on-alarm", "every=20")] == [None, None, 20]
