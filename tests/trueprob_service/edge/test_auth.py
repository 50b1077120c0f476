"""What a key allows: scopes of every route, models, expiry, rates."""

import asyncio
import hashlib
import json
from pathlib import Path
from typing import Any

import pytest

from tests.trueprob_service.application import application
from trueprob_service.edge.access import OPEN, ROUTES, SCOPES, access_to, model_pattern
from trueprob_service.edge.auth import Keyring
from trueprob_service.edge.keys import new_key, parse_keys, read_keys
from trueprob_service.errors import Forbidden, TooManyRequests, Unauthenticated
from trueprob_service.inference.asgi import HOT_ROUTES

Headers = list[tuple[bytes, bytes]]
ROWS = (b"accept", b"application/x-npz")


def bearer(key: str, *more: tuple[bytes, bytes]) -> Headers:
    return [(b"authorization", f"Bearer {key}".encode()), *more]


def ring(*scopes: str, everywhere: bool = False, **fields: Any) -> tuple[Headers, Keyring]:
    options = {name: fields.pop(name) for name in ("models", "expires", "rate") if name in fields}
    key, line = new_key("me", scopes, **options)
    return bearer(key), Keyring(parse_keys(line), everywhere=everywhere, **fields)


def test_a_made_key_is_read_back_and_admitted(tmp_path: Path) -> None:
    key, line = new_key("team-a", ["predict"])
    file = tmp_path / "keys.jsonl"
    file.write_text(line + "\n\n")
    assert key not in line
    keyring = Keyring(read_keys(file), everywhere=False)
    found = keyring.admit("POST", "/v1/models/m/probabilities", bearer(key))
    assert found is not None
    assert (found.key_id, found.actor) == ("team-a", "key:team-a")


def test_a_line_as_the_last_release_wrote_it_means_what_it_meant() -> None:
    digest = hashlib.sha256(b"tp_old").hexdigest()
    line = json.dumps({"id": "old", "sha256": digest, "scopes": ["calibrate"]})
    keyring = Keyring(parse_keys(line), everywhere=False)
    for method, path in (
        ("GET", "/v1/models"),
        ("GET", "/v1/models/any/fits"),
        ("POST", "/v1/models/any/rollback"),
        ("GET", "/v1/models/any/calibration-sets/sha256:0"),
    ):
        assert keyring.admit(method, path, bearer("tp_old"))
    with pytest.raises(Forbidden, match="'old' lacks the scope 'admin'"):
        keyring.admit("DELETE", "/v1/models/any", bearer("tp_old"))


NEEDED = [
    ("POST", "/v1/models/m/probabilities", "predict"),
    ("POST", "/v2/models/m/infer", "predict"),
    ("POST", "/v2/models/m/versions/2/infer", "predict"),
    ("POST", "/v1/models/m/labels", "label"),
    ("POST", "/v1/models/m/calibration-sets", "calibrate"),
    ("POST", "/v1/models/m/calibration-sets/daily/rows", "calibrate"),
    ("DELETE", "/v1/models/m/calibration-sets/daily", "calibrate"),
    ("DELETE", "/v1/models/m/fits/3", "calibrate"),
    ("POST", "/v1/models/m/calibrators/smart-1/promote", "calibrate"),
    ("POST", "/v1/models/m/rollback", "calibrate"),
    ("PUT", "/v1/models/m/shadow", "calibrate"),
    ("DELETE", "/v1/models/m/shadow", "calibrate"),
    ("POST", "/v1/models/m/alarms/3/acknowledge", "calibrate"),
    ("PUT", "/v1/models/m", "admin"),
    ("DELETE", "/v1/models/m", "admin"),
    ("GET", "/v1/audit", "admin"),
    ("POST", "/v1/anything/new", "admin"),
    ("POST", "/v1/models/m/labels/", "admin"),
    ("POST", "/v1/models/m/labels\n", "admin"),
    ("GET", "/v1/models", None),
    ("HEAD", "/v1/models/m", None),
    ("GET", "/v1/models/m/calibration-sets/daily", None),
    ("GET", "/v2/models/m/ready", None),
]


@pytest.mark.parametrize(("method", "path", "scope"), NEEDED)
def test_scopes(method: str, path: str, scope: str | None) -> None:
    assert access_to(method, path).scope == scope
    for held in SCOPES:
        headers, keyring = ring(held)
        if scope in (None, held):
            assert keyring.admit(method, path, headers)
        else:
            with pytest.raises(Forbidden, match=f"'me' lacks the scope '{scope}'"):
                keyring.admit(method, path, headers)


@pytest.mark.parametrize(
    "accept",
    [
        [ROWS],
        [(b"accept", b"application/json, application/x-npz;q=0.1")],
        [ROWS, (b"accept", b"application/json")],
        [(b"accept", b"application/json"), ROWS],
    ],
)
@pytest.mark.parametrize("held", [(), *((scope,) for scope in SCOPES), SCOPES])
def test_raw_rows_need_read(accept: Headers, held: tuple[str, ...]) -> None:
    headers, keyring = ring(*held)
    path = "/v1/models/m/calibration-sets/daily"
    assert keyring.admit("GET", path, headers)
    if "read" in held:
        assert keyring.admit("GET", path, [*headers, *accept])
    else:
        with pytest.raises(Forbidden, match="lacks the scope 'read'"):
            keyring.admit("GET", path, [*headers, *accept])


def test_every_route_is_in_the_table_once(tmp_path: Path) -> None:
    async def scenario() -> dict[str, Any]:
        async with application(tmp_path) as client:
            return (await client.get("/openapi.json")).json()["paths"]

    served = {
        (method.upper(), path) for path, item in asyncio.run(scenario()).items() for method in item
    }
    served |= {(m, path) for path, methods in HOT_ROUTES.items() for m in methods if m != "HEAD"}
    listed = [(rule.method, rule.path) for rule in ROUTES]
    pages = {("GET", path) for path in ("/", "/docs", "/docs/*", "/page/{file}", "/openapi.json")}
    assert len(set(listed)) == len(listed)
    assert set(listed) == served | pages
    writes = [rule for rule in ROUTES if rule.method != "GET"]
    assert [rule for rule in writes if rule.needs not in SCOPES] == []
    # What changes the state and is no prediction or label has a name in the audit trail.
    assert {rule.needs for rule in writes if rule.action is None} == {"predict", "label"}


@pytest.mark.parametrize("authorization", ["", "Bearer", "Bearer ", "Basic abc", "Bearer wrong"])
def test_without_a_known_key_nothing_is_answered(authorization: str) -> None:
    _, keyring = ring(*SCOPES)
    with pytest.raises(Unauthenticated):
        keyring.admit("GET", "/v1/models", [(b"authorization", authorization.encode())])


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
    assert open_ring.admit("GET", path, []) is None
    _, closed = ring(everywhere=True)
    with pytest.raises(Unauthenticated):
        closed.admit("GET", path, [])


def test_the_open_routes_are_these() -> None:
    assert {rule.path for rule in ROUTES if rule.needs == OPEN} == {
        "/", "/docs", "/docs/*", "/page/{file}", "/openapi.json", "/metrics",
        "/v2/health/live", "/v2/health/ready",
    }  # fmt: skip


def test_without_keys_everyone_is_admitted() -> None:
    assert Keyring((), everywhere=False).admit("PUT", "/v1/models/m", []) is None


def test_a_service_that_had_keys_never_opens() -> None:
    headers, keyring = ring(*SCOPES)
    keyring.replace([])
    with pytest.raises(Unauthenticated):
        keyring.admit("GET", "/v1/models", headers)


# ----- Models -----


@pytest.mark.parametrize(
    ("globs", "model", "allowed"),
    [
        (["digits"], "digits", True),
        (["digits"], "digits2", False),
        (["digits"], "xdigits", False),
        (["digits-*"], "digits-2", True),
        (["digits-*"], "digits", False),
        (["*"], "anything", True),
        (["a", "b*"], "bee", True),
        (["a?"], "ab", True),
        (["a?"], "a", False),
        (["a.b"], "axb", False),
        (["a.b"], "a.b", True),
        (["Digits"], "digits", False),
        (["digits"], "digits\n", False),
    ],
)
def test_a_key_for_some_models(globs: list[str], model: str, allowed: bool) -> None:
    headers, keyring = ring(*SCOPES, models=globs)
    for method, path in (
        ("POST", f"/v1/models/{model}/probabilities"),
        ("POST", f"/v2/models/{model}/versions/1/infer"),
        ("GET", f"/v1/models/{model}"),
        ("GET", f"/v2/models/{model}/ready"),
        ("PUT", f"/v1/models/{model}"),
        ("GET", f"/v1/models/{model}/no/such/route"),
    ):
        if allowed:
            assert keyring.admit(method, path, headers)
        else:
            with pytest.raises(Forbidden, match="'me' may not use the model") as refused:
                keyring.admit(method, path, headers)
            assert refused.value.reason == "model"


def test_no_glob_matches_nothing() -> None:
    assert model_pattern(()) == "^()$"


def test_metrics_of_all_models_are_not_for_a_key_of_some() -> None:
    headers, keyring = ring(everywhere=True, models=["a*"])
    with pytest.raises(Forbidden, match="/metrics shows all"):
        keyring.admit("GET", "/metrics", headers)
    assert keyring.admit("GET", "/v2/health/ready", headers)


def test_lists_show_the_models_of_the_key_only(tmp_path: Path) -> None:
    lines, keys = [], {}
    for name, models in (("all", ()), ("some", ("toy-*",)), ("none", ("x",))):
        keys[name], line = new_key(name, ["admin"], models=models)
        lines.append(line)
    (tmp_path / "keys.jsonl").write_text("\n".join(lines))

    async def scenario() -> None:
        async with application(tmp_path / "state", api_keys_file=tmp_path / "keys.jsonl") as client:

            def as_(name: str) -> dict[str, str]:
                return {"authorization": f"Bearer {keys[name]}"}

            for model in ("toy-1", "other", "toy-2", "toy-3"):
                body = {"n_classes": 3}
                answer = await client.put(f"/v1/models/{model}", json=body, headers=as_("all"))
                assert answer.status_code == 201, answer.text

            async def names(who: str, query: str = "") -> tuple[list[str], str | None]:
                answer = (await client.get(f"/v1/models{query}", headers=as_(who))).json()
                return [item["model"] for item in answer["items"]], answer["next"]

            assert "other" in (await names("all"))[0]
            assert (await names("some"))[0] == ["toy-3", "toy-2", "toy-1"]
            first, cursor = await names("some", "?limit=2")
            assert first == ["toy-3", "toy-2"]
            assert await names("some", f"?limit=2&cursor={cursor}") == (["toy-1"], None)
            assert await names("none") == ([], None)
            # The audit trail shows the rows of these models only.
            rows = (await client.get("/v1/audit", headers=as_("some"))).json()["items"]
            assert {row["model"] for row in rows} == {"toy-1", "toy-2", "toy-3"}
            refused = await client.delete("/v1/models/other", headers=as_("some"))
            assert (refused.status_code, refused.json()["code"]) == (403, "forbidden")
            metrics = (await client.get("/metrics")).text
            assert 'trueprob_refused_requests_total{reason="model"} 1.0' in metrics

    asyncio.run(scenario())


# ----- Time -----


def test_a_key_ends_at_its_time() -> None:
    now = [1_800_000_000.0]
    headers, keyring = ring("predict", expires="2027-01-15T08:00:10Z", clock=lambda: now[0])
    assert keyring.admit("GET", "/v1/models", headers)
    assert keyring.last_used == {"me": 1_800_000_000.0}
    now[0] += 10
    with pytest.raises(Unauthenticated, match="'me' has expired") as refused:
        keyring.admit("GET", "/v1/models", headers)
    assert refused.value.reason == "expired_key"
    assert keyring.last_used == {"me": 1_800_000_000.0}


def test_a_revoked_key_is_refused() -> None:
    key, line = new_key("me", SCOPES)
    revoked = json.dumps({**json.loads(line), "revoked": "2026-01-01T00:00:00Z"})
    keyring = Keyring(parse_keys(revoked), everywhere=False)
    with pytest.raises(Unauthenticated, match="'me' was revoked"):
        keyring.admit("GET", "/v1/models", bearer(key))


# ----- Rates -----


def test_a_key_has_its_rate() -> None:
    now = [0.0]
    headers, keyring = ring("predict", rate="4/second", monotonic=lambda: now[0])
    for _ in range(4):
        keyring.admit("GET", "/v1/models", headers)
    with pytest.raises(TooManyRequests, match="'me' may send 4 requests in 1 s") as refused:
        keyring.admit("GET", "/v1/models", headers)
    assert refused.value.retry_after_seconds == 1
    now[0] += 0.25
    keyring.admit("GET", "/v1/models", headers)
    with pytest.raises(TooManyRequests):
        keyring.admit("GET", "/v1/models", headers)
    now[0] += 60
    for _ in range(4):
        keyring.admit("GET", "/v1/models", headers)


def test_retry_after_is_when_the_next_request_is_answered() -> None:
    now = [0.0]
    headers, keyring = ring("predict", rate="2/hour", monotonic=lambda: now[0])
    for _ in range(2):
        keyring.admit("GET", "/v1/models", headers)
    with pytest.raises(TooManyRequests) as refused:
        keyring.admit("GET", "/v1/models", headers)
    assert refused.value.retry_after_seconds == 1800
    now[0] += refused.value.retry_after_seconds
    keyring.admit("GET", "/v1/models", headers)


def test_rates_over_http(tmp_path: Path) -> None:
    keys, lines = {}, []
    for name, rate in (("slow", "2/hour"), ("plain", None)):
        keys[name], line = new_key(name, ["predict"], rate=rate)
        lines.append(line)
    (tmp_path / "keys.jsonl").write_text("\n".join(lines))

    async def statuses(client: Any, name: str, n: int) -> list[int]:
        headers = {"authorization": f"Bearer {keys[name]}"}
        return [(await client.get("/v1/models", headers=headers)).status_code for _ in range(n)]

    async def scenario() -> None:
        async with application(
            tmp_path / "state", api_keys_file=tmp_path / "keys.jsonl", rate_limit="4/hour"
        ) as client:
            assert await statuses(client, "slow", 3) == [200, 200, 429]
            assert await statuses(client, "plain", 5) == [200, 200, 200, 200, 429]
            headers = {"authorization": f"Bearer {keys['slow']}"}
            body = {"logits": [[0.0] * 10]}
            path = "/v1/models/digits/probabilities"
            answer = await client.post(path, json=body, headers=headers)
            assert (answer.status_code, answer.headers["retry-after"]) == (429, "1800")
            assert answer.json()["code"] == "too_many_requests"
            assert (
                'refused_requests_total{reason="rate"} 3.0' in (await client.get("/metrics")).text
            )

    asyncio.run(scenario())
