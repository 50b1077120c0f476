"""The requests of both clients, and how they read the answers, without a network."""

from __future__ import annotations

import asyncio
import inspect
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest

from trueprob.client import (
    AsyncClient,
    Client,
    FitStillRunning,
    LabelOutcomes,
    ServiceProblem,
    ServiceUnreachable,
)
from trueprob.client.requests import model_path
from trueprob.client.transport import AsyncServiceConnection, HttpRequest, ServiceConnection
from trueprob.errors import InvalidInput

pytestmark = pytest.mark.slow

BROKEN = httpx.ConnectError("broken")
RETRIED = HttpRequest("GET", "/", retry=True)
UNAVAILABLE = {"code": "database_unavailable", "detail": "the database does not answer"}
CONNECTION: dict[str, Any] = {"key": None, "timeout_seconds": 1.0, "verify": True}


class Script:
    """Answers requests in turn, and keeps them."""

    def __init__(self, *answers: httpx.Response | Exception) -> None:
        self.answers = list(answers)
        self.requests: list[httpx.Request] = []
        self.transport = httpx.MockTransport(self._answer)

    def _answer(self, request: httpx.Request) -> httpx.Response:
        self.requests.append(request)
        answer = self.answers.pop(0)
        if isinstance(answer, Exception):
            raise answer
        return answer

    def documents(self) -> list[Any]:
        assert self.answers == []
        return [json.loads(request.content) for request in self.requests]


def ok(document: Any = None) -> httpx.Response:
    return httpx.Response(200, json=document if document is not None else {})


def unavailable(**headers: str) -> httpx.Response:
    return httpx.Response(
        503, json=UNAVAILABLE, headers={k.replace("_", "-"): v for k, v in headers.items()}
    )


def blocking(script: Script, name: str, *args: Any, **kwargs: Any) -> Any:
    with Client("http://localhost", transport=script.transport) as client:
        return getattr(client, name)(*args, **kwargs)


def awaited(script: Script, name: str, *args: Any, **kwargs: Any) -> Any:
    async def scenario() -> Any:
        async with AsyncClient("http://localhost", transport=script.transport) as client:
            return await getattr(client, name)(*args, **kwargs)

    return asyncio.run(scenario())


def sent_blocking(script: Script, request: HttpRequest) -> tuple[Any, list[float]]:
    pauses: list[float] = []
    connection = ServiceConnection(
        "http://localhost", transport=script.transport, sleep=pauses.append, **CONNECTION
    )
    try:
        return connection.send(request), pauses
    finally:
        connection.close()


def sent_awaited(script: Script, request: HttpRequest) -> tuple[Any, list[float]]:
    pauses: list[float] = []

    async def sleep(seconds: float) -> None:
        pauses.append(seconds)

    async def scenario() -> Any:
        connection = AsyncServiceConnection(
            "http://localhost", transport=script.transport, sleep=sleep, **CONNECTION
        )
        try:
            return await connection.send(request)
        finally:
            await connection.close()

    return asyncio.run(scenario()), pauses


Send = Callable[[Script, HttpRequest], tuple[Any, list[float]]]
Call = Callable[..., Any]
both_connections = pytest.mark.parametrize("send", [sent_blocking, sent_awaited])
failures = pytest.mark.parametrize(
    ("failure", "raised"), [(lambda: BROKEN, ServiceUnreachable), (unavailable, ServiceProblem)]
)
both_clients = pytest.mark.parametrize("call", [blocking, awaited])


@both_connections
def test_what_does_no_harm_is_sent_again_after_a_pause(send: Send) -> None:
    script = Script(BROKEN, unavailable(retry_after="3"), unavailable(), ok({"fine": True}))
    value, pauses = send(script, RETRIED)
    assert value.json() == {"fine": True}
    assert pauses == [0.25, 3.0, 1.0]


@both_connections
def test_a_pause_is_never_longer_than_ten_seconds(send: Send) -> None:
    assert send(Script(unavailable(retry_after="3600"), ok()), RETRIED)[1] == [10.0]


@both_connections
@failures
def test_it_gives_up_after_four_attempts(
    send: Send, failure: Callable[[], Any], raised: type[Exception]
) -> None:
    script = Script(*(failure() for _ in range(4)))
    with pytest.raises(raised):
        send(script, RETRIED)
    assert len(script.requests) == 4


@both_connections
@failures
def test_what_might_do_harm_is_sent_once(
    send: Send, failure: Callable[[], Any], raised: type[Exception]
) -> None:
    script = Script(failure())
    with pytest.raises(raised):
        send(script, HttpRequest("POST", "/"))
    assert len(script.requests) == 1


def limited(seconds: int) -> httpx.Response:
    document = {"code": "too_many_requests", "detail": "slower"}
    return httpx.Response(429, json=document, headers={"retry-after": str(seconds)})


@both_connections
def test_a_rate_is_kept_if_that_takes_seconds(send: Send) -> None:
    assert send(Script(limited(3), ok()), RETRIED)[1] == [3.0]
    with pytest.raises(ServiceProblem) as caught:
        send(Script(limited(1800)), RETRIED)
    assert (caught.value.status, caught.value.retry_after_seconds) == (429, 1800.0)


@both_connections
def test_a_refusal_is_raised_at_once_with_its_code(send: Send) -> None:
    refusal = httpx.Response(412, json={"code": "stale_revision", "detail": "4 is stale"})
    with pytest.raises(ServiceProblem, match="is stale") as caught:
        send(Script(refusal), RETRIED)
    assert (caught.value.status, caught.value.code) == (412, "stale_revision")


@both_connections
@pytest.mark.parametrize("content", [b"<html>", b"[1]", b'"text"', b""])
def test_a_refusal_by_something_else_says_so(send: Send, content: bytes) -> None:
    with pytest.raises(ServiceProblem, match="not a problem document") as caught:
        send(Script(httpx.Response(502, content=content)), RETRIED)
    assert caught.value.status == 502


@both_connections
def test_a_file_is_streamed_and_read_anew_for_each_attempt(send: Send, tmp_path: Path) -> None:
    content = bytes(range(256)) * 10_000
    (tmp_path / "rows.npz").write_bytes(content)
    script = Script(unavailable(), ok())
    send(script, HttpRequest("POST", "/", content=tmp_path / "rows.npz", retry=True))
    assert [request.content for request in script.requests] == [content, content]


@both_clients
def test_an_answer_that_is_not_json_says_so(call: Call) -> None:
    with pytest.raises(ServiceProblem, match="check the address of the service"):
        call(Script(httpx.Response(200, content=b"<html>")), "model", "m")


@pytest.mark.parametrize("client", [Client, AsyncClient])
def test_an_address_needs_a_scheme(client: Callable[[str], object]) -> None:
    with pytest.raises(InvalidInput, match="url must begin with http"):
        client("localhost:8000")


@both_clients
def test_lists_are_read_to_their_end(call: Call) -> None:
    alarm = {
        "model": "m", "version": 1, "calibrator": "c", "revision": 1, "statistic": "change",
        "log10": 5.0, "threshold_log10": 5.0, "tolerance": 0.02, "labels": 9, "raised_at": "t",
        "acknowledged_at": None, "acknowledged_by": None,
    }  # fmt: skip
    script = Script(
        ok({"items": [{**alarm, "id": "3"}, {**alarm, "id": "2"}], "next": "7"}),
        ok({"items": [{**alarm, "id": "1"}], "next": None}),
    )
    assert [found.id for found in call(script, "alarms", "m")] == ["3", "2", "1"]
    assert [dict(request.url.params) for request in script.requests] == [
        {"limit": "500"},
        {"cursor": "7", "limit": "500"},
    ]


def test_names_cannot_leave_their_segment() -> None:
    assert model_path("../a b/ä?") == "/v1/models/..%2Fa%20b%2F%C3%A4%3F"


@both_clients
def test_labels_go_in_requests_that_the_service_takes_and_outcomes_keep_their_index(
    call: Call,
) -> None:
    n = 100_001
    first = {"accepted": 99_999, "duplicate": 1, "rejected": 0}
    second = {"accepted": 0, "duplicate": 0, "rejected": 1}
    script = Script(
        ok({**first, "outcomes": [{"index": 5, "outcome": "duplicate"}]}),
        ok({**second, "outcomes": [{"index": 0, "outcome": "expired"}]}),
    )
    total = call(script, "label", "m", ["x"] * n, np.zeros(n, np.int64))
    assert isinstance(total, LabelOutcomes)
    assert (total.accepted, total.duplicate, total.rejected) == (99_999, 1, 1)
    assert [(o.index, o.outcome) for o in total.outcomes] == [(5, "duplicate"), (n - 1, "expired")]
    assert [len(document["labels"]) for document in script.documents()] == [100_000, 1]


@both_clients
@pytest.mark.parametrize("labels", [[1, 2], (1, np.int64(2)), np.array([1, 2])])
def test_labels_may_be_any_sequence(call: Call, labels: Any) -> None:
    script = Script(ok({"accepted": 2, "duplicate": 0, "rejected": 0, "outcomes": []}))
    call(script, "label", "m", ["x", "y"], labels)
    assert script.documents() == [{"prediction_ids": ["x", "y"], "labels": [1, 2]}]


@both_clients
def test_labels_must_be_as_many_as_predictions(call: Call) -> None:
    with pytest.raises(InvalidInput, match="as many"):
        call(Script(), "label", "m", ["x"], [1, 2])


@both_clients
@pytest.mark.parametrize("given", [{}, {"logits": [[1.0]], "images": [b"x"]}])
def test_a_prediction_is_asked_of_one_input(call: Call, given: dict[str, Any]) -> None:
    with pytest.raises(InvalidInput, match="exactly one"):
        call(Script(), "predict", "m", **given)


@both_clients
def test_an_upload_that_is_sent_again_is_the_same_request(call: Call) -> None:
    done = {"fit": "1", "state": "done", "calibration_set": "sha256:0", "version": 1}
    done |= {"method": "smart", "n": 3}
    script = Script(BROKEN, ok(done))
    rows = {"logits": np.zeros((3, 2)), "labels": ["a", "b", "a"]}
    fit = call(script, "upload", "m", rows, force=True, wait_seconds=90)
    one, two = script.requests
    assert (one.url, one.headers, one.content) == (two.url, two.headers, two.content)
    assert dict(one.url.params) == {"promote": "auto", "force": "true"}
    assert one.headers["prefer"] == "wait=60"
    assert one.extensions["timeout"]["read"] == 150
    assert (fit.fit, fit.ended, fit.verdict) == ("1", True, None)


@both_clients
@pytest.mark.parametrize(
    ("suffix", "media_type"), [(".npz", "application/x-npz"), (".CSV", "text/csv")]
)
def test_a_file_says_by_its_name_what_it_is(
    call: Call, tmp_path: Path, suffix: str, media_type: str
) -> None:
    path = tmp_path / f"rows{suffix}"
    path.write_bytes(b"content")
    answer = {"digest": "d", "names": ["may"], "n": 1, "n_classes": 2, "size_bytes": 3}
    script = Script(ok({**answer, "created_at": "t", "created_by": None, "later": 1}))
    found = call(script, "append", "m", "may", path, version=2)
    assert found.names == ("may",)
    (request,) = script.requests
    assert (request.headers["content-type"], request.content) == (media_type, b"content")
    assert request.url.path == "/v1/models/m/calibration-sets/may/rows"
    assert dict(request.url.params) == {"version": "2"}


@both_clients
def test_objects_are_not_pickled(call: Call) -> None:
    with pytest.raises(InvalidInput, match="labels"):
        call(Script(), "upload", "m", {"logits": np.zeros((1, 2)), "labels": [None]})


@both_clients
def test_waiting_for_a_fit_ends(call: Call) -> None:
    running = {"fit": "1", "state": "running", "calibration_set": "d", "version": 1}
    running |= {"method": "smart", "n": 3}
    with pytest.raises(FitStillRunning, match=r"still running after 0\.5 s and goes on") as raised:
        call(Script(*[ok(running)] * 3), "wait_for_fit", "m", "1", seconds=0.5)
    error = raised.value
    assert (error.fit, error.state, error.seconds) == ("1", "running", 0.5)
    assert error.url == "http://localhost/v1/models/m/fits/1"
    assert error.url in str(error)
    assert not isinstance(error, ServiceUnreachable)  # the service did answer


@both_clients
def test_many_rows_are_sent_in_pieces(call: Call) -> None:
    n, k = 5, 400_000  # two such rows go into one request
    outcomes: Sequence[tuple[int, int, list[Any]]] = (
        (2, 0, []),
        (1, 1, [{"index": 1, "outcome": "unknown_class"}]),
        (1, 0, []),
    )
    script = Script(
        *(ok({"accepted": a, "duplicate": 0, "rejected": r, "outcomes": o}) for a, r, o in outcomes)
    )
    logits = np.zeros((n, k))
    total = call(script, "label_rows", "m", list("abcde"), logits, np.arange(n), groups="aabbc")
    assert (total.accepted, total.rejected) == (4, 1)
    assert [(o.index, o.outcome) for o in total.outcomes] == [(3, "unknown_class")]
    sent = [row for document in script.documents() for row in document["rows"]]
    assert [(row["id"], row["label"], row["group"]) for row in sent] == [
        ("a", 0, "a"), ("b", 1, "a"), ("c", 2, "b"), ("d", 3, "b"), ("e", 4, "c"),
    ]  # fmt: skip


@both_clients
def test_masked_classes_are_null_in_rows(call: Call) -> None:
    outcome = {"accepted": 2, "duplicate": 0, "rejected": 0, "outcomes": []}
    script = Script(ok(outcome), ok(outcome))
    logits = np.array([[0.5, -np.inf], [1.0, 2.0]])
    call(script, "label_rows", "m", ["a", "b"], logits, [0, 1])
    call(script, "label_rows", "m", ["a", "b"], logits[[1, 1]], [0, 1])
    masked, plain = script.documents()
    assert masked["masked"] is True
    assert [row["logits"] for row in masked["rows"]] == [[0.5, None], [1.0, 2.0]]
    assert list(plain) == ["rows"]


@both_clients
@pytest.mark.parametrize(
    ("logits", "labels", "groups"),
    [
        (np.zeros(3), [0, 1, 2], None),
        (np.zeros((2, 3)), [0, 1], None),
        (np.zeros((3, 3)), [0, 1], None),
        (np.zeros((3, 3)), [0, 1, 2], ["a"]),
    ],
)
def test_rows_ids_labels_and_groups_must_be_as_many(
    call: Call, logits: Any, labels: Any, groups: Any
) -> None:
    with pytest.raises(InvalidInput, match="logits must have shape"):
        call(Script(), "label_rows", "m", ["a", "b", "c"], logits, labels, groups=groups)


@both_clients
def test_which_requests_are_sent_again(call: Call) -> None:
    """Sent once: what depends on what is live, and deletions, whose second answer is 404."""
    once = {
        "promote": ("m", "c"), "promote_version": ("m", 2), "rollback": ("m",),
        "delete_model": ("m",), "delete_calibration_set": ("m", "d"), "end_shadow": ("m",),
        "readiness": (),
    }  # fmt: skip
    for name, arguments in once.items():
        script = Script(BROKEN)
        needs = "revision" in inspect.signature(getattr(Client, name)).parameters
        with pytest.raises(ServiceUnreachable):
            call(script, name, *arguments, **({"revision": 1} if needs else {}))
        assert len(script.requests) == 1
        if needs:
            assert script.requests[0].headers["if-match"] == '"1"'
