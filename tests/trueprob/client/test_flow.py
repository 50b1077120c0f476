"""Flows without any network: the test is what carries them."""

import json

import numpy as np
import pytest

from trueprob.client import LabelOutcomes, ServiceProblem, ServiceUnreachable
from trueprob.client.flow import Pause, Reply, Request, address, answered, items
from trueprob.client.labelled_rows import label_rows
from trueprob.client.predictions import label, predict
from trueprob.client.uploads import upload, wait_for_fit
from trueprob.errors import InvalidInput


def carried(flow, *answers):
    """The outcome of a flow whose requests get these answers, and what it asked for."""
    steps, pending, value = [], list(answers), None
    try:
        step = next(flow)
        while True:
            steps.append(step)
            if isinstance(step, Pause):
                step = next(flow)
                continue
            answer = pending.pop(0)
            step = flow.throw(answer) if isinstance(answer, Exception) else flow.send(answer)
    except StopIteration as end:
        value = end.value
    assert pending == []
    return value, steps


def reply(document=None, status=200, **headers):
    return Reply(status, {k.replace("_", "-"): v for k, v in headers.items()}, body(document))


def body(document):
    return json.dumps(document if document is not None else {}).encode()


PROBLEM = {"code": "database_unavailable", "detail": "the database does not answer"}
AGAIN = Request("GET", "/", again=True)


def test_what_does_no_harm_is_sent_again_after_a_pause():
    value, steps = carried(
        answered(AGAIN),
        ServiceUnreachable("broken"),
        reply(PROBLEM, 503, retry_after="3"),
        reply({"fine": True}),
    )
    assert value.json() == {"fine": True}
    assert [s.seconds for s in steps if isinstance(s, Pause)] == [0.25, 3.0]


@pytest.mark.parametrize("failure", [ServiceUnreachable("broken"), reply(PROBLEM, 503)])
def test_it_gives_up_after_four_attempts(failure):
    expected = ServiceUnreachable if isinstance(failure, Exception) else ServiceProblem
    with pytest.raises(expected):
        carried(answered(AGAIN), *[failure] * 4)


@pytest.mark.parametrize("failure", [ServiceUnreachable("broken"), reply(PROBLEM, 503)])
def test_what_might_do_harm_is_sent_once(failure):
    with pytest.raises((ServiceUnreachable, ServiceProblem)):
        carried(answered(Request("POST", "/")), failure)


def test_a_refusal_is_raised_at_once_with_its_code():
    with pytest.raises(ServiceProblem, match="is stale") as caught:
        carried(answered(AGAIN), reply({"code": "stale_revision", "detail": "4 is stale"}, 412))
    assert (caught.value.status, caught.value.code) == (412, "stale_revision")


@pytest.mark.parametrize("content", [b"<html>", b"[1]", b'"text"', b""])
def test_a_refusal_by_something_else_says_so(content):
    with pytest.raises(ServiceProblem, match="not a problem document") as caught:
        carried(answered(AGAIN), Reply(502, {}, content))
    assert caught.value.status == 502


def test_lists_are_read_to_their_end():
    found, steps = carried(
        items("/v1/models", {"name": None}),
        reply({"items": [1, 2], "next": "7"}),
        reply({"items": [3], "next": None}),
    )
    assert found == [1, 2, 3]
    assert [step.params["cursor"] for step in steps] == [None, "7"]


def test_names_cannot_leave_their_segment():
    assert address("v1", "models", "../a b/ä?") == "/v1/models/..%2Fa%20b%2F%C3%A4%3F"


def test_labels_go_in_requests_that_the_service_takes_and_outcomes_keep_their_index():
    n = 100_001
    first = {"accepted": 99_999, "duplicate": 1, "rejected": 0}
    first["outcomes"] = [{"index": 5, "outcome": "duplicate"}]
    second = {"accepted": 0, "duplicate": 0, "rejected": 1}
    second["outcomes"] = [{"index": 0, "outcome": "expired"}]
    flow = label("m", ["x"] * n, np.zeros(n, np.int64))
    total, steps = carried(flow, reply(first), reply(second))
    assert isinstance(total, LabelOutcomes)
    assert (total.accepted, total.duplicate, total.rejected) == (99_999, 1, 1)
    assert [(o.index, o.outcome) for o in total.outcomes] == [(5, "duplicate"), (n - 1, "expired")]
    assert [len(json.loads(step.content)["labels"]) for step in steps] == [100_000, 1]


def test_labels_must_be_as_many_as_predictions():
    with pytest.raises(InvalidInput, match="as many"):
        carried(label("m", ["x"], [1, 2]))


@pytest.mark.parametrize("given", [{}, {"logits": [[1.0]], "images": [b"x"]}])
def test_a_prediction_is_asked_of_one_input(given):
    with pytest.raises(InvalidInput, match="exactly one"):
        carried(predict("m", **given))


def test_an_upload_that_is_sent_again_is_the_same_request():
    done = {"fit": "1", "state": "done", "calibration_set": "sha256:0", "version": 1}
    done |= {"method": "smart", "n": 3}
    fit, steps = carried(
        upload("m", {"logits": np.zeros((3, 2)), "labels": ["a", "b", "a"]}, wait_seconds=90),
        ServiceUnreachable("broken"),
        reply(done, 201),
    )
    sent = [step for step in steps if isinstance(step, Request)]
    assert sent[0] == sent[1]
    assert sent[0].headers["idempotency-key"]
    assert sent[0].headers["prefer"] == "wait=60"
    assert (fit.fit, fit.ended, fit.verdict) == ("1", True, None)


def test_objects_are_not_pickled():
    with pytest.raises(InvalidInput, match="labels"):
        carried(upload("m", {"logits": np.zeros((1, 2)), "labels": [None]}))


def test_waiting_for_a_fit_ends():
    running = {"fit": "1", "state": "running", "calibration_set": "d", "version": 1}
    running |= {"method": "smart", "n": 3}
    with pytest.raises(ServiceUnreachable, match="still running"):
        carried(wait_for_fit("m", "1", seconds=0.5), *[reply(running)] * 3)


def test_many_rows_are_sent_in_pieces():
    n, k = 5, 400_000  # two such rows go into one request
    answers = [
        reply({"accepted": a, "duplicate": 0, "rejected": r, "outcomes": o})
        for a, r, o in ((2, 0, []), (1, 1, [{"index": 1, "outcome": "unknown_class"}]), (1, 0, []))
    ]
    flow = label_rows("m", list("abcde"), np.zeros((n, k)), np.arange(n), groups=list("aabbc"))
    total, steps = carried(flow, *answers)
    assert (total.accepted, total.rejected) == (4, 1)
    assert [(o.index, o.outcome) for o in total.outcomes] == [(3, "unknown_class")]
    sent = [row for step in steps for row in json.loads(step.content)["rows"]]
    assert [(row["id"], row["label"], row["group"]) for row in sent] == [
        ("a", 0, "a"), ("b", 1, "a"), ("c", 2, "b"), ("d", 3, "b"), ("e", 4, "c"),
    ]  # fmt: skip
    assert all(step.again for step in steps)


@pytest.mark.parametrize(
    ("logits", "labels", "groups"),
    [
        (np.zeros(3), [0, 1, 2], None),
        (np.zeros((2, 3)), [0, 1], None),
        (np.zeros((3, 3)), [0, 1], None),
        (np.zeros((3, 3)), [0, 1, 2], ["a"]),
    ],
)
def test_rows_ids_labels_and_groups_must_be_as_many(logits, labels, groups):
    with pytest.raises(InvalidInput, match="logits must have shape"):
        next(label_rows("m", ["a", "b", "c"], logits, labels, groups=groups))
