"""Alarms, as flows (see `trueprob.client.flow`)."""

from __future__ import annotations

from trueprob.client.answers import AlarmSummary, read
from trueprob.client.flow import Flow, Request, address, answered, items

__all__ = ["acknowledge", "alarms"]


def alarms(model: str) -> Flow[tuple[AlarmSummary, ...]]:
    """Every alarm that was raised, newest first."""
    found = yield from items(address("v1", "models", model, "alarms"))
    return tuple(read(AlarmSummary, item) for item in found)


def acknowledge(model: str, alarm: str) -> Flow[AlarmSummary]:
    """Say that an alarm is known: change starts again at 0. A second time changes nothing."""
    path = address("v1", "models", model, "alarms", alarm, "acknowledge")
    reply = yield from answered(Request("POST", path, again=True))
    return read(AlarmSummary, reply.json())
