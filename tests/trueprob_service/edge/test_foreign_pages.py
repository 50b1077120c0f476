"""Web pages of other origins, host names that nobody declared, and who reads the state folder."""

from __future__ import annotations

import asyncio
import contextlib
import html
import json
import os
import stat
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.integration_requirements import require_program
from tests.running_service import ROOT, running_service
from tests.trueprob_service.application import application
from trueprob_service.edge.auth import OriginPolicy
from trueprob_service.edge.keys import new_key
from trueprob_service.errors import ForeignOrigin, InvalidSettings, UnknownHost
from trueprob_service.replicas.listening import TargetsFile
from trueprob_service.settings import Settings, load_settings

POST = ("POST", "/v1/models/m/calibration-sets")


def headers(**values: str) -> dict[bytes, bytes]:
    return {name.replace("_", "-").encode(): value.encode() for name, value in values.items()}


def keyless(**settings: Any) -> OriginPolicy:
    chosen = Settings(**settings)
    return OriginPolicy(hosts=chosen.answered_hosts, trusted_origins=chosen.cors_origins)


@pytest.mark.parametrize(
    "host",
    ["127.0.0.1", "127.0.0.1:8000", "localhost:80", "LOCALHOST", "localhost.", "[::1]", "[::1]:9"],
)
def test_a_service_without_keys_answers_to_loopback_names(host: str) -> None:
    keyless().admit(*POST, headers(host=host))


@pytest.mark.parametrize(
    "host",
    ["", "evil.test", "evil.test:8000", "127.0.0.1.evil.test", "localhost.evil.test", "10.0.0.7",
     "evil.test:127.0.0.1", "user@evil.test", "127.0.0.1@evil.test", "[::1", "0.0.0.0"],
)  # fmt: skip
def test_it_answers_to_no_other_name_but_for_probes_and_scrapers(host: str) -> None:
    for method, path in (("GET", "/"), ("GET", "/v1/models"), POST):
        with pytest.raises(UnknownHost, match="TRUEPROB_ALLOWED_HOSTS"):
            keyless().admit(method, path, headers(host=host))
    for path in ("/metrics", "/v2/health/live", "/v2/health/ready"):
        keyless().admit("GET", path, headers(host=host))


def test_allowed_hosts_are_added_to_loopback_and_to_the_address() -> None:
    policy = keyless(
        host="10.0.0.7", allow_anonymous=True, allowed_hosts="Trueprob, *.svc.cluster.local"
    )
    for host in ("10.0.0.7:8000", "trueprob", "a.b.svc.cluster.local", "localhost"):
        policy.admit("GET", "/v1/models", headers(host=host))
    for host in ("svc.cluster.local", "evilsvc.cluster.local", "trueprob.evil.test"):
        with pytest.raises(UnknownHost):
            policy.admit("GET", "/v1/models", headers(host=host))
    keyless(allowed_hosts="*").admit("GET", "/", headers(host="any.thing"))


def test_with_keys_all_names_are_answered_to_unless_some_are_listed(tmp_path: Path) -> None:
    keys = tmp_path / "keys.jsonl"
    assert Settings(api_keys_file=keys).answered_hosts is None
    assert Settings(api_keys_file=keys, allowed_hosts="a.example").answered_hosts == {"a.example"}


FOREIGN = [
    {"origin": "http://evil.test"},
    {"origin": "null"},
    {"origin": "http://127.0.0.1:9000"},
    {"origin": "https://127.0.0.1:8000.evil.test"},
    {"origin": "file://"},
    {"sec_fetch_site": "cross-site"},
    {"sec_fetch_site": "same-site"},
    {"sec_fetch_site": "cross-site", "origin": "http://127.0.0.1:8000"},
    {"sec_fetch_site": "something-new"},
]


@pytest.mark.parametrize("given", FOREIGN)
def test_pages_of_other_origins_may_not_write(given: dict[str, str]) -> None:
    policy = keyless(cors_origins="https://app.example.com")
    for method in ("POST", "PUT", "DELETE", "PATCH"):
        with pytest.raises(ForeignOrigin, match="TRUEPROB_CORS_ORIGINS"):
            policy.admit(method, "/v1/models/m", headers(host="127.0.0.1:8000", **given))
    policy.admit("GET", "/v1/models", headers(host="127.0.0.1:8000", **given))


@pytest.mark.parametrize(
    "given",
    [
        {},
        {"origin": "http://127.0.0.1:8000"},
        {"origin": "http://127.0.0.1:8000", "sec_fetch_site": "same-origin"},
        {"sec_fetch_site": "none"},
        # Behind a proxy that changes Host, only the browser knows.
        {"origin": "https://trueprob.example.com", "sec_fetch_site": "same-origin"},
        {"origin": "https://app.example.com", "sec_fetch_site": "cross-site"},
        {"origin": "https://APP.example.com"},
    ],
)
def test_other_clients_own_pages_and_listed_origins_may_write(given: dict[str, str]) -> None:
    policy = keyless(cors_origins="https://app.example.com")
    policy.admit(*POST, headers(host="127.0.0.1:8000", **given))


def test_default_ports_belong_to_the_same_origin() -> None:
    policy = OriginPolicy(hosts=None, trusted_origins=())
    policy.admit(*POST, headers(host="a.example", origin="https://a.example"))
    policy.admit(*POST, headers(host="a.example:443", origin="https://a.example"))
    with pytest.raises(ForeignOrigin):
        policy.admit(*POST, headers(host="a.example", origin="https://a.example:8443"))


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("cors_origins", "*"), ("cors_origins", "app.example.com"),
        ("cors_origins", "https://app.example.com/"), ("cors_origins", "null"),
        ("allowed_hosts", "http://a"), ("allowed_hosts", "a:8000"), ("allowed_hosts", "a/b"),
        ("allowed_hosts", "*a"),
    ],
)  # fmt: skip
def test_lists_that_cannot_work_are_refused(name: str, value: str) -> None:
    with pytest.raises(InvalidSettings, match=f"^{name}: .*got"):
        load_settings([], {f"TRUEPROB_{name.upper()}": value})


def test_problems_name_the_remedy(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with application(tmp_path) as client:
            answer = await client.get("/v1/models", headers={"host": "evil.test"})
            assert (answer.status_code, answer.json()["code"]) == (421, "unknown_host")
            answer = await client.delete("/v1/models/digits", headers={"origin": "http://a.test"})
            assert (answer.status_code, answer.json()["code"]) == (403, "foreign_origin")
            assert "access-control-allow-origin" not in answer.headers
            assert (await client.get("/v1/models/digits")).status_code == 200

    asyncio.run(scenario())


@pytest.mark.parametrize("path", ["probabilities", "labels", "calibration-sets", "fits"])
@pytest.mark.parametrize("kind", [None, "", "text/plain"])
def test_a_body_without_a_content_type_is_no_json(
    tmp_path: Path, path: str, kind: str | None
) -> None:
    async def scenario() -> None:
        async with application(tmp_path) as client:
            body = json.dumps({"logits": np.zeros((1, 10)).tolist(), "labels": [0]}).encode()
            given = {} if kind is None else {"content-type": kind}
            answer = await client.post(f"/v1/models/digits/{path}", content=body, headers=given)
            assert answer.status_code in (415, 422), answer.text
            kinds = (await client.get("/v1/models/digits/fits")).json()
            assert kinds["items"] == []

    asyncio.run(scenario())


def test_listed_origins_get_their_preflight_and_can_read_errors(tmp_path: Path) -> None:
    origin = "https://app.example.com"

    async def scenario() -> None:
        async with application(tmp_path, cors_origins=(origin,)) as client:
            asked = {
                "origin": origin,
                "access-control-request-method": "DELETE",
                "access-control-request-headers": "authorization, content-type, if-match",
            }
            answer = await client.options("/v1/models/digits", headers=asked)
            assert answer.status_code == 200
            assert answer.headers["access-control-allow-origin"] == origin
            answer = await client.options(
                "/v1/models/digits", headers={**asked, "origin": "https://evil.test"}
            )
            assert answer.status_code == 400
            answer = await client.post("/v1/models/none/rollback", headers={"origin": origin})
            assert answer.status_code in (404, 428)
            assert answer.headers["access-control-allow-origin"] == origin

    asyncio.run(scenario())


# ----- A real browser -----


@contextlib.contextmanager
def site(pages: list[str]) -> Iterator[str]:
    """Another web site on this machine, which answers with the last page: its address."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.send_header("content-type", "text/html; charset=utf-8")
            self.end_headers()
            self.wfile.write(pages[-1].encode())

        def log_message(self, *args: object) -> None:
            """Be silent."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        server.server_close()


def visit(url: str, profile: Path) -> str:
    """The document in Chromium after its scripts; every name is this machine's."""
    chromium = require_program("chromium", "chromium-browser", "google-chrome")
    page = subprocess.run(
        [
            str(chromium), "--headless", "--no-sandbox", "--disable-gpu", "--no-first-run",
            "--disable-background-networking", "--disable-component-update", "--disable-sync",
            "--host-resolver-rules=MAP * 127.0.0.1", f"--user-data-dir={profile}",
            "--virtual-time-budget=4000", "--dump-dom", url,
        ],
        capture_output=True, text=True, timeout=120, check=True,
    ).stdout  # fmt: skip
    return html.unescape(page)


ATTACK = """<!doctype html><title>kittens</title><p id="seen">nothing</p><script>
const form = new FormData();
form.append("logits", '{logits}');
form.append("labels", '{labels}');
const send = (path, body) =>
  fetch("{service}/v1/models/digits/" + path, {{method: "POST", mode: "{mode}", body}});
(async () => {{
  const seen = [];
  for (const [path, body] of [
    ["calibration-sets", form],
    ["labels", new Blob(['{{"prediction_ids": [], "labels": []}}'])],
    ["rollback", "x"],
  ]) {{
    try {{ seen.push((await send(path, body)).status); }} catch (error) {{ seen.push("blocked"); }}
  }}
  try {{
    seen.push((await (await fetch("{service}/v1/models")).json()).items.length);
  }} catch (error) {{ seen.push("unread"); }}
  document.getElementById("seen").textContent = seen.join(" ");
}})();
</script>"""


def rows_of_digits() -> dict[str, str]:
    logits = np.random.default_rng(0).normal(0, 2, (80, 10)).round(3)
    return {"logits": json.dumps(logits.tolist()), "labels": str(logits.argmax(axis=1).tolist())}


@pytest.mark.integration
def test_a_page_of_another_site_changes_nothing_in_chromium(tmp_path: Path) -> None:
    with running_service(tmp_path / "state", ROOT / "models") as service:
        before = service.client.get("/v1/models/digits").json()
        page = ATTACK.format(service=service.url, mode="no-cors", **rows_of_digits())
        with site([page]) as address:
            for url in (address, address.replace("127.0.0.1", "evil.test")):
                seen = visit(url, tmp_path / "profile")
                assert 'id="seen">0 0 0 unread<' in seen  # opaque answers
        # Its name has become this machine's: the page would be of the same origin.
        # Prometheus scrapes by whatever name it has.
        scraped = service.client.get("/metrics", headers={"host": "service:8000"})
        assert scraped.status_code == 200
        rebound = service.url.replace("127.0.0.1", "evil.test")
        assert '"code":"unknown_host"' in visit(f"{rebound}/v1/models", tmp_path / "profile")
        assert "does not answer to the host" in visit(rebound, tmp_path / "profile")
        assert service.client.get("/v1/models/digits").json() == before
        assert service.client.get("/v1/models/digits/fits").json()["items"] == []
        metrics = service.client.get("/metrics").text
    assert 'status="403"} 6.0' in metrics  # three writes of each page


@pytest.mark.integration
def test_a_page_of_a_listed_origin_may_read_and_write_in_chromium(tmp_path: Path) -> None:
    pages = [""]
    with site(pages) as address:
        flags = ("--cors-origins", address)
        with running_service(tmp_path / "state", ROOT / "models", *flags) as service:
            pages.append(ATTACK.format(service=service.url, mode="cors", **rows_of_digits()))
            models = len(service.client.get("/v1/models").json()["items"])
            seen = visit(address, tmp_path / "profile")
            assert len(service.client.get("/v1/models/digits/fits").json()["items"]) == 1
    # The upload is accepted; the labels have no Content-Type, and "x" is no JSON.
    assert f'id="seen">202 415 422 {models}<' in seen


# ----- The state folder -----


def modes(folder: Path) -> dict[str, str]:
    return {
        str(path.relative_to(folder)): stat.filemode(path.stat().st_mode)[4:]
        for path in [folder, *folder.rglob("*")]
    }


@pytest.fixture
def usual_umask() -> Iterator[None]:
    before = os.umask(0o022)
    yield
    os.umask(before)


@pytest.mark.integration
@pytest.mark.usefixtures("usual_umask")
@pytest.mark.parametrize("existing", ["none", "empty", "earlier", "loose"])
def test_only_the_owner_reads_the_state(tmp_path: Path, existing: str) -> None:
    """After every kind of action, also what a service of before or a restored backup has left."""
    state, url = tmp_path / "state", "/v1/models/digits"
    if existing != "none":
        state.mkdir()
        state.chmod(0o700 if existing == "loose" else 0o755)
    if existing in ("earlier", "loose"):
        (state / "receipt-secret").write_text("0" * 64)
        (state / "calibration-sets" / "aa").mkdir(parents=True)
        (state / "calibration-sets" / "aa" / f"{'a' * 64}.npz").write_bytes(b"rows")
        (state / "thesis.txt").write_text("mine")
    keys = state / "keys.jsonl"
    command = [sys.executable, "-m", "trueprob_service"]
    files = ["--file", str(keys), "--scopes", "predict,label,calibrate,admin,read"]
    if existing != "none":
        added = subprocess.run([*command, "keys", "add", "me", *files], capture_output=True)
        key = {"authorization": f"Bearer {added.stdout.decode().strip()}"}
        flags = ["--api-keys-file", str(keys)]
    else:
        key, flags = {}, ["--artifact-url", f"local://{tmp_path / 'elsewhere'}"]
    with running_service(state, ROOT / "models", *flags, headers=key) as service:
        client = service.client
        rows = {name: json.loads(text) for name, text in rows_of_digits().items()}
        sent = client.post(
            f"{url}/calibration-sets?name=n", json=rows, headers={"prefer": "wait=60"}
        )
        assert sent.status_code in (200, 201, 202), sent.text
        digest = sent.json()["calibration_set"]
        grown = client.post(f"{url}/calibration-sets/m/rows", json=rows)
        assert grown.status_code == 200
        rows_of = client.get(
            f"{url}/calibration-sets/{digest}", headers={"accept": "application/x-npz"}
        )
        assert rows_of.status_code == 200
        answer = client.post(f"{url}/probabilities", json={"logits": rows["logits"]}).json()
        labels = {"prediction_ids": answer["prediction_ids"], "labels": rows["labels"]}
        assert client.post(f"{url}/labels", json=labels).status_code == 200
        assert client.put("/v1/models/mine", json={"n_classes": 3}).status_code == 201
        deleted = client.delete("/v1/models/mine", headers={"if-match": '"1"'})
        assert deleted.status_code == 204
        backup = tmp_path / "backup.zip"
        state_flags = ["--state-dir", str(state)]
        for arguments in (["export-state", str(backup)], ["audit", "verify"]):
            subprocess.run([*command, *arguments, *state_flags], check=True, capture_output=True)
        found = modes(state)
    assert {"trueprob.sqlite3", "trueprob.sqlite3-wal", "trueprob.sqlite3-shm"} <= found.keys()
    loose = {name: mode for name, mode in {**found, **modes(state)}.items() if mode != "------"}
    assert loose.keys() <= {"thesis.txt"}
    assert stat.S_IMODE(backup.stat().st_mode) == 0o600
    new = tmp_path / "new"
    subprocess.run(
        [*command, "import-state", str(backup), "--state-dir", str(new)],
        check=True,
        capture_output=True,
    )
    assert set(modes(new).values()) == {"------"}


@pytest.mark.usefixtures("usual_umask")
def test_the_targets_file_is_private_unless_it_is_put_elsewhere(tmp_path: Path) -> None:
    for public, mode in ((False, 0o600), (True, 0o644)):
        file = TargetsFile(tmp_path / f"{public}.json", public=public)
        file.write([])
        assert stat.S_IMODE((tmp_path / f"{public}.json").stat().st_mode) == mode


def test_a_folder_that_is_used_for_other_things_keeps_its_mode(tmp_path: Path) -> None:
    shared = tmp_path / "shared"
    shared.mkdir()
    shared.chmod(0o755)
    (shared / "thesis.txt").write_text("mine")
    command = [sys.executable, "-m", "trueprob_service", "export-state", str(tmp_path / "b.zip")]
    subprocess.run([*command, "--state-dir", str(shared)], check=True, capture_output=True)
    assert stat.S_IMODE(shared.stat().st_mode) == 0o755
    assert stat.S_IMODE((shared / "trueprob.sqlite3").stat().st_mode) == 0o600


def test_keys_still_open_a_service_to_other_names(tmp_path: Path) -> None:
    key, line = new_key("me", ["predict"])
    file = tmp_path / "keys.jsonl"
    file.write_text(line)

    async def scenario() -> None:
        async with application(tmp_path / "state", api_keys_file=file) as client:
            given = {"host": "trueprob.example.com", "authorization": f"Bearer {key}"}
            assert (await client.get("/v1/models", headers=given)).status_code == 200

    asyncio.run(scenario())
