import json
from pathlib import Path

import pytest

from trueprob_service.edge.auth import SCOPES, ApiKey, Keyring, new_key, read_keys, scope_needed
from trueprob_service.errors import Forbidden, InvalidSettings, Unauthenticated


def ring(*scopes: str, everywhere: bool = False) -> tuple[str, Keyring]:
    key, line = new_key("me", scopes)
    entry = json.loads(line)
    found = ApiKey(entry["id"], entry["sha256"], frozenset(entry["scopes"]))
    return f"Bearer {key}", Keyring([found], everywhere=everywhere)


def test_a_made_key_is_read_back_and_admitted(tmp_path: Path) -> None:
    key, line = new_key("team-a", ["predict"])
    file = tmp_path / "keys.jsonl"
    file.write_text(line + "\n\n")
    assert key not in line
    keyring = Keyring(read_keys(file), everywhere=False)
    path = "/v1/models/m/probabilities"
    assert keyring.admit("POST", path, f"Bearer {key}") == "team-a"


NEEDED = [
    ("POST", "/v1/models/m/probabilities", "predict"),
    ("POST", "/v2/models/m/infer", "predict"),
    ("POST", "/v2/models/m/versions/2/infer", "predict"),
    ("POST", "/v1/models/m/labels", "label"),
    ("POST", "/v1/models/m/calibration-sets", "calibrate"),
    ("DELETE", "/v1/models/m/fits/3", "calibrate"),
    ("POST", "/v1/models/m/calibrators/smart-1/promote", "calibrate"),
    ("POST", "/v1/models/m/rollback", "calibrate"),
    ("POST", "/v1/models/m/alarms/3/acknowledge", "calibrate"),
    ("PUT", "/v1/models/m", "admin"),
    ("DELETE", "/v1/models/m", "admin"),
    ("POST", "/v1/anything/new", "admin"),
    ("GET", "/v1/models", None),
]


@pytest.mark.parametrize(("method", "path", "scope"), NEEDED)
def test_scopes(method: str, path: str, scope: str | None) -> None:
    assert scope_needed(method, path) == scope
    for held in SCOPES:
        authorization, keyring = ring(held)
        if scope in (None, held):
            assert keyring.admit(method, path, authorization) == "me"
        else:
            with pytest.raises(Forbidden, match=f"'me' lacks the scope '{scope}'"):
                keyring.admit(method, path, authorization)


@pytest.mark.parametrize("authorization", ["", "Bearer", "Bearer ", "Basic abc", "Bearer wrong"])
def test_without_a_known_key_nothing_is_answered(authorization: str) -> None:
    _, keyring = ring(*SCOPES)
    with pytest.raises(Unauthenticated):
        keyring.admit("GET", "/v1/models", authorization)


@pytest.mark.parametrize(
    "path",
    [
        "/metrics",
        "/v2/health/live",
        "/v2/health/ready",
        "/docs",
        "/openapi.json",
        "/",
        "/page/page.js",
    ],
)
def test_what_probes_and_browsers_fetch_is_open_unless_told_otherwise(path: str) -> None:
    _, open_ring = ring()
    assert open_ring.admit("GET", path, "") is None
    _, closed = ring(everywhere=True)
    with pytest.raises(Unauthenticated):
        closed.admit("GET", path, "")


def test_without_keys_everyone_is_admitted() -> None:
    assert Keyring((), everywhere=False).admit("PUT", "/v1/models/m", "") is None


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "has no key"),
        ("{", "line 1 is not JSON"),
        ('{"id": "a"}', "line 1 must be an object with id, sha256 and scopes"),
        ('{"id": "a", "sha256": "00", "scopes": []}', "64 lower-case hex digits"),
        (json.dumps({"id": "a", "sha256": "0" * 64, "scopes": ["root"]}), "scopes must be among"),
        (json.dumps({"id": "", "sha256": "0" * 64, "scopes": []}), "id must be"),
        ("\n".join([json.dumps({"id": "a", "sha256": "0" * 64, "scopes": []})] * 2), "same id"),
    ],
)
def test_a_bad_key_file_is_refused_by_line(tmp_path: Path, text: str, words: str) -> None:
    file = tmp_path / "keys.jsonl"
    file.write_text(text)
    with pytest.raises(InvalidSettings, match=words):
        read_keys(file)


def test_a_missing_key_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InvalidSettings, match="api_keys_file cannot be read"):
        read_keys(tmp_path / "none")
