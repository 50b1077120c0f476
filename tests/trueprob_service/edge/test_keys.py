"""The key file: what it may say, changing it, and a service that reads it again."""

import asyncio
import json
import os
import re
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.running_service import running_service
from tests.trueprob_service.application import application
from trueprob_service.edge.keys import (
    ApiKey,
    KeyFile,
    append_key,
    new_key,
    parse_time,
    read_keys,
    revoke_key,
)
from trueprob_service.edge.throttle import Rate
from trueprob_service.errors import InvalidSettings

DIGEST = "0" * 64


def line(**fields: Any) -> str:
    return json.dumps({"id": "a", "sha256": DIGEST, "scopes": [], **fields})


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "has no key"),
        ("{", "line 1 is not JSON"),
        ("[" * 100_000, "line 1 is not JSON"),
        ('{"id": "a"}', "line 1 must be an object with id, sha256 and scopes"),
        ("[]", "line 1 must be an object with id, sha256 and scopes"),
        (line(sha256="00"), "64 lower-case hex digits"),
        (line(scopes=["root"]), "scopes must be among"),
        (line(scopes="predict"), "scopes must be among"),
        (line(scopes=[["predict"]]), "scopes must be among"),
        (line(id=""), "id must be"),
        (line(id="a\nb"), "id must be"),
        (line(id="oidc:a"), "id must not start with oidc:"),
        (f"{line()}\n{line(sha256='1' * 64)}", "two lines have the same id"),
        (f"{line()}\n{line(id='b')}", "two lines have the same sha256"),
        (f"{line()}\n\n{line(scope=[])}", "line 3: 'scope' is not a field of a key"),
        (line(models=[]), "models must be a list"),
        (line(models="digits"), "models must be a list"),
        (line(models=["a/b"]), "models must have names of models.*got 'a/b'"),
        (line(models=["[ab]"]), "models must have names"),
        (line(models=[3]), "models must have names"),
        (line(expires="soon"), "expires must be a time such as 2027-06-30T12:00:00Z, got 'soon'"),
        (line(expires="2027-06-30T12:00:00"), "expires must have a time zone"),
        (line(expires=1800000000), "expires must be a time"),
        (line(rate="fast"), "expected requests per second, minute or hour"),
        (line(rate="0/second"), "expected requests per"),
        (line(rate="5/day"), "expected requests per"),
        (line(rate=5), "rate must be a string"),
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


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("1970-01-02", 86400),
        ("1970-01-01T01:00:00+01:00", 0),
        ("1970-01-01T00:00:10Z", 10),
        ("19700102", 86400),
    ],
)
def test_times(text: str, seconds: float) -> None:
    assert parse_time(text) == seconds


@pytest.mark.parametrize(
    ("text", "rate"),
    [
        ("100/second", Rate(100, 1.0)),
        ("100/s", Rate(100, 1.0)),
        ("600 / minute", Rate(600, 60.0)),
        ("1/h", Rate(1, 3600.0)),
    ],
)
def test_rates(text: str, rate: Rate) -> None:
    assert Rate.parse(text) == rate


# ----- Changing it -----


def test_add_and_revoke(tmp_path: Path) -> None:
    file = tmp_path / "keys.jsonl"
    _, first = new_key("a", ["predict"], models=["m*"], expires="2030-01-01", rate="5/s")
    append_key(file, first)
    assert file.stat().st_mode & 0o777 == 0o600
    file.chmod(0o640)
    file.write_text(first)  # without a line break at its end
    append_key(file, new_key("b", ["read"])[1])
    a, b = read_keys(file)
    assert (a.models, a.expires_at, a.rate) == (("m*",), 1893456000.0, Rate(5, 1.0))
    assert (b.key_id, b.scopes, b.models) == ("b", frozenset({"read"}), None)
    assert file.stat().st_mode & 0o777 == 0o640
    with pytest.raises(InvalidSettings, match="same id"):
        append_key(file, new_key("a", [])[1])
    assert revoke_key(file, "a", now=1_800_000_000.0)
    assert not revoke_key(file, "a", now=1_900_000_000.0)
    assert read_keys(file)[0].revoked_at == 1_800_000_000.0
    assert revoke_key(file, "b", now=1_800_000_000.0)  # the last one too
    with pytest.raises(InvalidSettings, match="has no key with the id 'c'"):
        revoke_key(file, "c", now=0.0)
    assert [path.name for path in tmp_path.iterdir()] == ["keys.jsonl"]


class Seen:
    """What a key file told."""

    def __init__(self, path: Path) -> None:
        self.keys: tuple[ApiKey, ...] = ()
        self.damaged: list[bool] = []
        self.changes: list[dict[str, list[str]]] = []
        self.file = KeyFile(
            path, use=self._use, damaged=self.damaged.append, changed=self.changes.append
        )

    def _use(self, keys: tuple[ApiKey, ...]) -> None:
        self.keys = keys

    @property
    def ids(self) -> list[str]:
        return [key.key_id for key in self.keys]


def test_a_file_is_read_again_when_it_changes(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "keys.jsonl"
    append_key(path, new_key("a", [])[1])
    append_key(path, new_key("b", [])[1])
    seen = Seen(path)
    seen.file.refresh()
    assert (seen.ids, seen.changes) == (["a", "b"], [])
    append_key(path, new_key("c", [])[1])
    revoke_key(path, "b", now=5.0)
    good = path.read_text()
    seen.file.refresh()
    assert seen.ids == ["a", "b", "c"]
    assert seen.changes == [{"added": ["c"], "revoked": ["b"]}]
    # The same length, within the resolution of the file's time.
    path.write_text(good.replace('"c"', '"d"'))
    seen.file.refresh()
    assert seen.changes[1:] == [{"added": ["d"], "removed": ["c"]}]
    for bad, words in (("", "has no key"), ("{", "line 1 is not JSON")):
        path.write_text(bad)
        seen.file.refresh()
        seen.file.refresh()
        assert words in (seen.file.problem or "")
        assert seen.ids == ["a", "b", "d"]
    path.unlink()
    seen.file.refresh()
    assert "cannot be read" in (seen.file.problem or "")
    assert seen.damaged[-1] is True
    assert caplog.text.count("the keys from before stay valid") == 3
    path.write_text(good.replace('"c"', '"d"'))  # repaired, with the same keys as before
    seen.file.refresh()
    assert seen.file.problem is None
    assert seen.damaged[-1] is False
    assert len(seen.changes) == 2


def test_a_running_service_follows_its_file(tmp_path: Path) -> None:
    path = tmp_path / "keys.jsonl"
    key, first = new_key("a", ["admin"])
    path.write_text(first)

    async def scenario() -> None:
        async with application(tmp_path / "state", api_keys_file=path) as client:
            new, second = new_key("b", ["predict"])

            async def answered(key: str) -> int:
                headers = {"authorization": f"Bearer {key}"}
                return (await client.get("/v1/models", headers=headers)).status_code

            async def hang_up_until(key: str, status: int) -> None:
                os.kill(os.getpid(), signal.SIGHUP)
                while await answered(key) != status:
                    await asyncio.sleep(0.01)

            assert (await answered(key), await answered(new)) == (200, 401)
            append_key(path, second)
            await hang_up_until(new, 200)
            revoke_key(path, "b", now=1.0)
            await hang_up_until(new, 401)
            path.write_text("damaged")
            os.kill(os.getpid(), signal.SIGHUP)
            while "keys" not in (ready := (await client.get("/v2/health/ready")).json()):
                await asyncio.sleep(0.01)
            assert ready["keys"].startswith("api_keys_file line 1 is not JSON")
            assert ready["ready"] is True
            assert await answered(key) == 200
            assert "trueprob_api_keys_file_damaged 1.0" in (await client.get("/metrics")).text
            headers = {"authorization": f"Bearer {key}"}
            rows = (await client.get("/v1/audit?action=keys.change", headers=headers)).json()
            files = [row["detail"].pop("file") for row in rows["items"]]
            assert len(set(files)) == 3
            assert [(row["actor"], row["detail"]) for row in rows["items"]] == [
                ("service", {"revoked": ["b"]}),
                ("service", {"added": ["b"]}),
                ("service", {}),  # at the start
            ]

    asyncio.run(asyncio.wait_for(scenario(), 60))


def test_without_a_key_file_a_hangup_is_what_it_was(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with application(tmp_path):
            assert signal.getsignal(signal.SIGHUP) == signal.SIG_DFL

    asyncio.run(scenario())


@pytest.mark.parametrize("replicas", [1, 2])
def test_a_hangup_reaches_every_process(tmp_path: Path, replicas: int) -> None:
    path = tmp_path / "keys.jsonl"
    key, first = new_key("a", ["predict"])
    path.write_text(first)
    flags = ("--api-keys-file", str(path), "--replicas", str(replicas))
    headers = {"authorization": f"Bearer {key}"}
    with running_service(tmp_path / "state", tmp_path / "models", *flags) as service:
        assert service.client.get("/v1/models", headers=headers).status_code == 200
        revoke_key(path, "a", now=1.0)
        service.process.send_signal(signal.SIGHUP)
        refused = 0
        while refused < 20:  # connections of their own, so that each replica is asked
            answer = httpx.get(f"{service.url}/v1/models", headers=headers)
            refused = refused + 1 if answer.status_code == 401 else 0
        assert service.process.poll() is None
        assert service.log.read_text().count("was read again: revoked a") == replicas


# ----- The command -----


def command(*arguments: str, **environ: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "trueprob_service", *arguments],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, **environ},
    )


def test_the_command(tmp_path: Path) -> None:
    file, state = tmp_path / "keys.jsonl", str(tmp_path / "state")
    environ = {"TRUEPROB_API_KEYS_FILE": str(file), "TRUEPROB_STATE_DIR": state}
    added = command(
        "keys", "add", "team-a", "--scopes", "predict,read", "--models", "digits*",
        "--expires", "2020-01-01", "--rate", "5/s", **environ,
    )  # fmt: skip
    assert added.returncode == 0, added.stderr
    assert added.stdout.startswith("tp_")
    assert command("keys", "add", "team-b", **environ).returncode == 0
    again = command("keys", "add", "team-b", **environ)
    assert (again.returncode, again.stdout) == (2, "")
    assert again.stderr.endswith("two lines have the same id\n")
    assert command("keys", "revoke", "team-b", **environ).stdout == "team-b is revoked\n"
    table = [row.split() for row in command("keys", "list", **environ).stdout.splitlines()]
    assert table[1:] == [
        ["team-a", "expired", "predict,read", "digits*", "5/1s", "2020-01-01T00:00Z", "-"],
        ["team-b", "revoked", "label,predict", "*", "-", "-", "-"],
    ]
    assert not (tmp_path / "state").exists()


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["list"], "name the key file: --file, or TRUEPROB_API_KEYS_FILE"),
        (["revoke", "x", "--file", "/no/such/file"], "cannot be read: FileNotFoundError"),
        (["add", "x", "--scopes", "root"], "scopes must be among .* got root"),
        (["add", "x", "--rate", "5"], "expected requests per second"),
        (["add", "x", "--expires", "soon"], "expires must be a time"),
        (["add", "oidc:x"], "id must not start with oidc:"),
        (["add", "x", "--models", "a b"], "models must have names"),
    ],
)
def test_wrong_use_is_one_line_and_code_2(
    arguments: list[str], words: str, capsys: pytest.CaptureFixture[str]
) -> None:
    from trueprob_service.administration import keys_command

    assert keys_command(arguments, {}) == 2
    written = capsys.readouterr()
    assert written.out == ""
    assert written.err.count("\n") == 1
    assert re.search(words, written.err)


@pytest.mark.parametrize("before", [[], ["add"]])
def test_without_a_file_the_line_goes_to_standard_output(
    before: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    from trueprob_service.administration import keys_command

    # `keys ID >> file` is how it was done before; the setting must not add it a second time.
    environ = {} if before else {"TRUEPROB_API_KEYS_FILE": "/no/such/folder/keys"}
    assert keys_command([*before, "team-a", "--scopes", "label"], environ) == 0
    written = capsys.readouterr()
    assert json.loads(written.out)["scopes"] == ["label"]
    assert written.err.startswith("key: tp_")
