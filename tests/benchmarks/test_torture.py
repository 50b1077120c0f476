"""The torture finds what is wrong, on a stand-in, and nothing on the real service."""

from __future__ import annotations

import argparse
import json
from contextlib import closing
from pathlib import Path

import httpx
import pytest

from benchmarks.torture.__main__ import main, parser
from benchmarks.torture.deployment import CannotTest, Deployment
from benchmarks.torture.faults import Fault, Promise, command_faults
from benchmarks.torture.request_log import (
    RecordedTransport,
    Request,
    RequestLog,
    counts,
    longest_gap,
)
from benchmarks.torture.run import Outcome, Torture
from tests.benchmarks.stand_in_service import MODEL, stand_in


def tortured(url: str, *faults: Fault, patience: float = 10.0) -> Outcome:
    with closing(Deployment([url], MODEL, quiet_seconds=0.0)) as target:
        given = faults or (Fault("none", "nothing", lambda: None, unseen_seconds=0.0),)
        test = Torture(target, given, operate=False, patience_seconds=patience, around_seconds=0.3)
        return test.run()


def test_a_right_service_agrees() -> None:
    with stand_in() as (url, state):
        outcome = tortured(url)
    assert outcome.disagreements == []
    assert outcome.labels == len(state.counted) > 0
    assert outcome.answers > 0
    (episode,) = outcome.episodes
    assert set(episode.requests) == {"predict", "label"}
    assert set(episode.requests["predict"]) == {"200"}


@pytest.mark.parametrize(
    ("wrong", "sentence"),
    [
        ("loses", "labels that were acknowledged are not counted"),
        ("counts twice", "labels more than were acknowledged are counted"),
        ("forgets", "were duplicate, not all"),
        ("mixes", "do not have the probabilities of the calibrator that they name"),
        ("names another", "answers of revision 1 name"),
        ("fails", "requests were answered with 500 (label)"),
        ("refuses", "right requests were answered with 422"),
        ("promotes", "went live during the test"),
    ],
)
def test_what_is_wrong_is_found(wrong: str, sentence: str) -> None:
    with stand_in(wrong) as (url, _):
        outcome = tortured(url)
    assert sentence in "\n".join(outcome.disagreements)


def test_labels_of_others_are_noticed_before_anything_is_done() -> None:
    with stand_in("foreign") as (url, state):
        with pytest.raises(CannotTest, match="somebody else labels model 'm'"):
            Deployment([url], MODEL, quiet_seconds=0.0)
        assert state.asked.total() == 0


def test_labels_of_others_are_noticed_during_the_test() -> None:
    with stand_in() as (url, state):

        def interfere() -> None:
            state._count(0.9, True)

        outcome = tortured(url, Fault("none", "a label of others", interfere, unseen_seconds=0.0))
    assert any(each.endswith("somebody else labels this model") for each in outcome.disagreements)


def test_a_service_that_does_not_come_back_is_said_to_be_so() -> None:
    with stand_in() as (url, state):
        real = state.answer

        def silent(method: str, path: str, document: object) -> tuple[int, object]:
            if path == "/v2/health/ready":
                return 503, {"ready": False, "code": "x", "detail": "y"}
            return real(method, path, document)

        fault = Fault("none", "no readiness", lambda: setattr(state, "answer", silent))
        outcome = tortured(url, fault, patience=0.5)
    assert outcome.episodes[0].ready_seconds is None
    assert outcome.disagreements == ["none (no readiness): not ready 0.5 s later: ['503']"]


def request(kind: str, outcome: str, ended: float = 0.0) -> Request:
    return Request(ended, kind, outcome, 0.1)


@pytest.mark.parametrize(
    ("promise", "outcomes", "broken"),
    [
        (Promise.COMES_BACK, ["200", "503", "no answer"], False),
        (Promise.COMES_BACK, ["200", "500"], True),
        (Promise.COMES_BACK, ["200", "429"], False),
        (Promise.COMES_BACK, ["200", "422"], True),
        (Promise.PREDICTIONS_GO_ON, ["200"], False),
        (Promise.PREDICTIONS_GO_ON, [], True),
        (Promise.PREDICTIONS_GO_ON, ["200", "503"], True),
        (Promise.PREDICTIONS_GO_ON, ["200", "no answer"], True),
        (Promise.NOTHING_FAILS, ["200"], False),
        (Promise.NOTHING_FAILS, ["200", "no answer"], True),
        (Promise.NOTHING_FAILS, ["200", "503"], True),
    ],
)
def test_a_promise_is_held_against_the_requests(
    promise: Promise, outcomes: list[str], broken: bool
) -> None:
    assert any(promise.broken([request("predict", each) for each in outcomes])) is broken
    labels = [request("predict", "200"), request("label", "503")]
    assert any(promise.broken(labels)) is (promise is Promise.NOTHING_FAILS)


def test_requests_are_recorded_with_their_outcomes() -> None:
    def answer(asked: httpx.Request) -> httpx.Response:
        if asked.url.path.endswith("labels"):
            raise httpx.ReadTimeout("late")
        return httpx.Response(503, headers={"retry-after": "5"}, json={})

    log = RequestLog()
    with httpx.Client(transport=RecordedTransport(log, httpx.MockTransport(answer))) as client:
        refused = client.post("http://test/v1/models/m/probabilities")
        assert "retry-after" not in refused.headers
        with pytest.raises(httpx.ReadTimeout):
            client.post("http://test/v1/models/m/labels")
    seen = log.between(0.0, float("inf"))
    assert counts(seen) == {"label": {"no answer": 1}, "predict": {"503": 1}}
    assert seen[1].cause == "ReadTimeout"


def test_the_longest_gap_is_between_answers_of_success() -> None:
    requests = [
        request("predict", "200", 1.0),
        request("predict", "503", 3.0),
        request("label", "200", 4.0),
        request("predict", "200", 6.0),
    ]
    assert longest_gap(requests, "predict", 0.0, 7.0) == 5.0
    assert longest_gap(requests, "label", 0.0, 7.0) == 4.0
    assert longest_gap([], "label", 0.0, 7.0) == 7.0


def test_a_command_of_the_user_begins_and_ends_a_fault(tmp_path: Path) -> None:
    mark = tmp_path / "mark"
    with stand_in() as (url, _):
        faults = command_faults({"stop": f"touch {mark}"}, {"stop": f"rm {mark}"}, 0.1)
        assert tortured(url, *faults).disagreements == []
        assert not mark.exists()
        outcome = tortured(url, *command_faults({"kill": "exit 3"}, {}, 0.1))
    assert outcome.disagreements == ["kill (exit 3): exit code 3: exit 3"]


def test_a_deployment_is_tortured_by_the_command(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    key, result = tmp_path / "key", tmp_path / "result.json"
    key.write_text("secret\n")
    with stand_in() as (url, _):
        options = ["--url", url, "--url", url, "--model", MODEL, "--key-file", str(key)]
        options += [
            "--fault",
            "kill=true",
            "--hold",
            "0.1",
            "--quiet",
            "0.1",
            "--yes",
            "--json",
            str(result),
        ]
        assert main(options) == 0
    said = capsys.readouterr().out
    assert "kill: true" in said
    assert "scopes predict and label" in said
    assert "every acknowledged label counts once, and no other" in said
    (episode,) = json.loads(result.read_text())["deployment"]["episodes"]
    assert episode["fault"] == "kill"
    with stand_in("counts twice") as (url, _):
        options = ["--url", url, "--model", MODEL, "--fault", "kill=true", "--hold", "0.1"]
        assert main([*options, "--quiet", "0.1", "--yes"]) == 1


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        (["--url", "http://127.0.0.1:9"], "--url needs --model"),
        (["--url", "http://127.0.0.1:9", "--model", "m"], "--url needs a --fault"),
        (["--url", "u", "--model", "m", "--fault", "kill"], "--fault must be NAME=COMMAND"),
        (["--url", "u", "--model", "m", "--fault", "a=x", "--fault", "a=y"], "a name of its own"),
        (
            ["--url", "u", "--model", "m", "--fault", "a=x", "--heal", "b=y"],
            "--heal b has no --fault",
        ),
        (["--url", "u", "--model", "m", "--fault", "a=x"], "nothing was done"),
        (["--url", "u", "--model", "m", "--fault", "a=x", "--yes"], "url must begin with http"),
        (
            ["--url", "http://127.0.0.1:9", "--model", "m", "--fault", "a=x", "--yes"],
            "model 'm' at http://127.0.0.1:9: ",
        ),
        (["--model", "m"], "--model needs --url"),
        (["--rounds", "0"], "--rounds must be at least 1, got 0"),
        (["--hold", "-1"], "--hold must be a number of seconds, got -1.0"),
        (["--patience", "nan"], "--patience must be a number of seconds, got nan"),
        (["--json", "/nowhere/result.json"], "--json /nowhere/result.json cannot be written"),
        (["--json", "/"], "--json / cannot be written"),
        (["--faults", "kill,burn"], "got burn"),
    ],
)
def test_wrong_use_is_one_line_and_does_nothing(
    options: list[str], sentence: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(options, ask=lambda question: "") == 2
    said = capsys.readouterr().err
    assert sentence in said
    assert said.count("\n") == 1


@pytest.mark.parametrize("content", [None, b"", b" \n", b"\xff\xfe"])
def test_a_key_file_without_a_key_is_refused_before_the_question(
    content: bytes | None, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "key"
    if content is not None:
        file.write_bytes(content)
    options = ["--url", "http://127.0.0.1:9", "--model", "m", "--fault", "a=x", "--key-file"]
    assert main([*options, str(file), "--yes"]) == 2
    said = capsys.readouterr()
    assert f"--key-file {file}" in said.err
    assert said.out == ""


def test_the_options_have_sound_defaults() -> None:
    options: argparse.Namespace = parser().parse_args([])
    assert (options.rounds, options.url, options.yes) == (1, None, False)
