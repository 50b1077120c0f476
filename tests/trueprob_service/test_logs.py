"""Lines of the log: JSON with the ids of the request, an access log, and W3C trace contexts."""

from __future__ import annotations

import asyncio
import json
import logging
from pathlib import Path

import pytest

from tests.trueprob_service.application import application
from trueprob_service.edge.keys import new_key
from trueprob_service.logs import REQUEST, configure_logging, trace_of

TRACE, PARENT = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"
LOGITS = {"logits": [[0.1, 4.2, 0.3, 1.0, 0.0, 2.0, 1.1, 0.7, 0.2, 0.1]]}


@pytest.mark.parametrize(
    ("header", "valid"),
    [
        (f"00-{TRACE}-{PARENT}-01", True),
        (f"01-{TRACE}-{PARENT}-01-more", True),
        (f"00-{TRACE}-{PARENT}-01-more", False),
        (f"ff-{TRACE}-{PARENT}-01", False),
        (f"00-{'0' * 32}-{PARENT}-01", False),
        (f"00-{TRACE}-{'0' * 16}-01", False),
        (f"00-{TRACE.upper()}-{PARENT}-01", False),
        (f"00-{TRACE}-{PARENT}", False),
        ("", False),
    ],
)
def test_a_trace_context_is_read_as_w3c_says(header: str, valid: bool) -> None:
    expected = {"trace_id": TRACE, "parent_id": PARENT} if valid else {}
    assert trace_of(header.encode()) == expected


def test_a_line_of_json_has_the_request_and_the_traceback(
    capsys: pytest.CaptureFixture[str],
) -> None:
    configure_logging("json", replica=3)
    token = REQUEST.set({"request_id": "r1"})
    try:
        raise ValueError("a line\nbreak")
    except ValueError:
        logging.getLogger("trueprob_service.x").exception("failed: %s", "why")
    finally:
        REQUEST.reset(token)
    (text,) = capsys.readouterr().err.splitlines()
    line = json.loads(text)
    assert (line["level"], line["logger"]) == ("error", "trueprob_service.x")
    assert (line["message"], line["replica"], line["request_id"]) == ("failed: why", 3, "r1")
    assert line["exception"].endswith("ValueError: a line\nbreak")
    assert line["time"].endswith("+00:00")


@pytest.mark.parametrize("kind", ["json", "text"])
def test_the_access_log_names_who_asked_for_what_and_no_secret(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, kind: str
) -> None:
    key, stored = new_key("team-a", ["predict", "label", "admin"])
    keys = tmp_path / "keys"
    keys.write_text(stored)
    headers = {
        "authorization": f"Bearer {key}",
        "traceparent": f"00-{TRACE}-{PARENT}-01",
        "x-request-id": "mine",
    }
    path = "/v1/models/digits/probabilities"

    async def scenario() -> None:
        settings = {"api_keys_file": keys, "access_log": True}
        async with application(tmp_path / "state", **settings) as client:
            capsys.readouterr()
            await client.post(f"{path}?top=2", json=LOGITS, headers=headers)
            await client.post(path, json=LOGITS)  # without a key

    configure_logging("json" if kind == "json" else "text")
    asyncio.run(scenario())
    text = capsys.readouterr().err
    assert key not in text
    assert "top=2" not in text
    lines = [line for line in text.splitlines() if "trueprob_service.access" in line]
    assert len(lines) == 2
    if kind == "text":
        assert "status=200" in lines[0]
        assert "key_id='team-a'" in lines[0]
        return
    first, second = map(json.loads, lines)
    expected = {"method": "POST", "route": "/v1/models/{model}/probabilities", "status": 200}
    expected |= {"model": "digits", "key_id": "team-a", "request_id": "mine", "trace_id": TRACE}
    assert {name: first[name] for name in expected} == expected
    assert first["duration_ms"] > 0
    assert (second["status"], "key_id" in second) == (401, False)


def test_no_line_is_logged_for_a_request_unless_that_is_asked_for(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    async def scenario() -> None:
        async with application(tmp_path / "state") as client:
            capsys.readouterr()
            await client.post("/v1/models/digits/probabilities", json=LOGITS)

    configure_logging("json")
    asyncio.run(scenario())
    assert "access" not in capsys.readouterr().err
