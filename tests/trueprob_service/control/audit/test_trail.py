"""The audit trail: one row for each control action, and a chain that tells of every change."""

import asyncio
import contextvars
import re
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from sqlalchemy import create_engine, text

from tests.trueprob_service.application import application
from tests.trueprob_service.control.harness import (
    NPZ,
    START,
    InlineRunner,
    World,
    calibrated,
    overconfident,
)
from trueprob_service.__main__ import main
from trueprob_service.administration import audit_command
from trueprob_service.control.audit import trail
from trueprob_service.control.audit.trail import AuditTrail, verify
from trueprob_service.control.fitting.set_files import SetFiles
from trueprob_service.control.fitting.worker import Job, JobResult
from trueprob_service.control.store import Store, open_store
from trueprob_service.control.upkeep.archive import export_state
from trueprob_service.edge.access import ROUTES
from trueprob_service.edge.auth import ACTOR
from trueprob_service.edge.keys import new_key

DAY = 86_400.0


def rows(world: World, query: str = "") -> list[dict[str, Any]]:
    items = world.get(f"/v1/audit{query}")["items"]
    assert isinstance(items, list)
    return items


def actions(world: World) -> list[str]:
    """Oldest first."""
    return [row["action"] for row in reversed(rows(world))]


def test_every_control_action_has_its_row(world: World) -> None:
    fit = world.upload(overconfident(), "?name=may")
    digest = fit["calibration_set"]
    again = world.upload(overconfident(), "?name=may")
    assert again["fit"] == fit["fit"]
    assert world.rollback(2).status_code == 200
    assert world.promote(fit["calibrator"], 3).status_code == 200
    other = world.upload(calibrated(), "?promote=never")
    body = {"calibrator": other["calibrator"], "policy": "tell"}
    assert world.call("PUT", "/v1/models/m/shadow", json=body).status_code == 201
    assert world.call("DELETE", "/v1/models/m/shadow").status_code == 204
    path = f"/v1/models/m/calibration-sets/{other['calibration_set']}"
    assert world.call("DELETE", path).status_code == 204
    assert world.promote(fit["calibrator"], 1).status_code == 412  # changes nothing, adds nothing
    headers = {"if-match": '"4"'}
    assert world.call("DELETE", "/v1/models/m", headers=headers).status_code == 204
    found = [
        (row["action"], row["revision"], row["model"], row["outcome"])
        for row in reversed(rows(world))
    ]
    assert found == [
        (action, revision, "m", "done")
        for action, revision in (
            ("model.declare", None), ("pair.promote", 1), ("set.add", None), ("fit.start", None),
            ("pair.promote", 2), ("pair.rollback", 3), ("pair.promote", 4), ("set.add", None),
            ("fit.start", None), ("shadow.start", 4), ("shadow.end", 4), ("set.delete", None),
            ("model.delete", 4),
        )
    ]  # fmt: skip
    by_action = {row["action"]: row for row in rows(world)}
    assert by_action["pair.rollback"]["detail"] == {
        "version": 1, "calibrator": by_action["pair.rollback"]["detail"]["calibrator"],
        "cause": "rollback", "restores": 1,
    }  # fmt: skip
    assert by_action["set.add"]["detail"]["rows"] == 600
    (promoted,) = [row for row in rows(world, "?action=pair.promote") if row["revision"] == 2]
    assert (promoted["actor"], promoted["detail"]["fit"]) == ("service", int(fit["fit"]))
    (started,) = [r for r in rows(world, "?action=fit.start") if r["detail"]["set"] == digest]
    assert started["detail"]["fit"] == int(fit["fit"])
    assert verify(world.plane.services.store)[1] == []


# What each route that changes something adds, if its request is accepted; a row for each action.
ADDED = {
    ("PUT", "/v1/models/{model}"): ["model.declare", "pair.promote"],
    ("DELETE", "/v1/models/{model}"): ["model.delete"],
    ("POST", "/v1/models/{model}/calibration-sets"): ["set.add", "fit.start", "pair.promote"],
    ("GET", "/v1/models/{model}/calibration-sets/{digest}"): ["set.download"],
    ("DELETE", "/v1/models/{model}/calibration-sets/{digest}"): ["set.delete"],
    ("POST", "/v1/models/{model}/calibration-sets/{name}/rows"): ["set.add"],
    ("POST", "/v1/models/{model}/fits"): ["fit.start"],
    ("DELETE", "/v1/models/{model}/fits/{fit}"): ["fit.cancel"],
    ("POST", "/v1/models/{model}/calibrators/{calibrator}/promote"): ["pair.promote"],
    ("POST", "/v1/models/{model}/rollback"): ["pair.rollback"],
    ("PUT", "/v1/models/{model}/shadow"): ["shadow.start"],
    ("DELETE", "/v1/models/{model}/shadow"): ["shadow.end"],
    ("POST", "/v1/models/{model}/alarms/{alarm}/acknowledge"): ["alarm.acknowledge"],
}
# Predictions and labels are counted, and signed ids say what was answered (decision 89).
NOT_RECORDED = {
    ("POST", "/v1/models/{model}/probabilities"),
    ("POST", "/v1/models/{model}/labels"),
    ("POST", "/v2/models/{model}/infer"),
    ("POST", "/v2/models/{model}/versions/{version}/infer"),
}


class Patient(InlineRunner):
    """Runs fits, or waits with them until one is cancelled."""

    def __init__(self) -> None:
        self.go_on = threading.Event()
        self.go_on.set()

    def run(self, job: Job) -> JobResult | None:
        self.go_on.wait()
        return super().run(job)

    def cancel(self, job: Job) -> None:
        self.go_on.set()

    def close(self) -> None:
        self.go_on.set()


def test_every_route_that_changes_something_adds_its_rows(begin: Callable[..., World]) -> None:
    writes = {(rule.method, rule.path) for rule in ROUTES if rule.method != "GET" or rule.rows}
    assert {*ADDED, *NOT_RECORDED} == writes
    runner = Patient()
    world = begin(job_runner=lambda: runner)
    seen: dict[tuple[str, str], list[str]] = {}

    def act(method: str, path: str, expected: int, **request: Any) -> Any:
        before = len(rows(world, "?limit=200"))
        answer = world.call(method, path, **request)
        assert answer.status_code == expected, answer.text
        (route,) = [
            rule.path
            for rule in ROUTES
            if rule.method == method
            and re.fullmatch(re.sub(r"\{\w+\}", "[^/]+", rule.path), path.partition("?")[0])
        ]
        all_rows = rows(world, "?limit=200")
        new = all_rows[: len(all_rows) - before]
        seen[method, route] = [row["action"] for row in reversed(new)]
        return answer

    act("PUT", "/v1/models/m", 201, json={"n_classes": 3})
    wait = {**NPZ, "prefer": "wait=30"}
    sets = "/v1/models/m/calibration-sets"
    fit = act("POST", sets, 201, content=overconfident(), headers=wait).json()
    digest = fit["calibration_set"]
    accepted = {"accept": "application/x-npz"}
    act("GET", f"{sets}/{digest}", 200, headers=accepted)
    act("POST", "/v1/models/m/rollback", 200, headers={"if-match": '"2"'})
    chosen = f"/v1/models/m/calibrators/{fit['calibrator']}/promote"
    act("POST", chosen, 200, headers={"if-match": '"3"'})
    act("POST", f"{sets}/n/rows", 200, content=calibrated(), headers=NPZ)
    runner.go_on.clear()
    body = {"calibration_set": "n", "promote": "never"}
    started = act("POST", "/v1/models/m/fits", 202, json=body).json()
    act("DELETE", f"/v1/models/m/fits/{started['fit']}", 200)
    shadowed = {"calibrator": world.get("/v1/models/m/promotions")["items"][-1]["calibrator"]}
    act("PUT", "/v1/models/m/shadow", 201, json={**shadowed, "policy": "tell"})
    act("DELETE", "/v1/models/m/shadow", 204)
    act("DELETE", f"{sets}/{digest}", 204)
    logits = np.random.default_rng(0).normal(0.0, 9.0, (2_000, 3)).astype(np.float32)
    _, _, prediction, ids = world.predict(logits)
    body = {"prediction_ids": ids, "labels": ((prediction + 1) % 3).tolist()}
    assert world.call("POST", "/v1/models/m/labels", json=body).status_code == 200
    (alarm, *_) = world.get("/v1/models/m/alarms")["items"]
    act("POST", f"/v1/models/m/alarms/{alarm['id']}/acknowledge", 200)
    act("DELETE", "/v1/models/m", 204, headers={"if-match": '"4"'})
    assert seen == ADDED
    assert verify(world.plane.services.store)[1] == []


def test_downloads_are_recorded_only_if_rows_are_given_out(world: World) -> None:
    digest = world.upload(overconfident())["calibration_set"]
    path, headers = "/v1/models/m/calibration-sets", {"accept": "application/x-npz"}
    world.get(f"{path}/{digest}")
    world.get(path)
    assert world.call("GET", f"{path}/none", headers=headers).status_code == 404
    assert rows(world, "?action=set.download") == []
    assert world.call("GET", f"{path}/{digest}", headers=headers).status_code == 200
    (row,) = rows(world, "?action=set.download")
    assert (row["outcome"], row["model"]) == ("done", "m")
    assert row["detail"] == {"set": digest, "rows": 600}


def test_superseded_fits_names_and_sets_that_grew_have_rows(begin: Callable[..., World]) -> None:
    runner = Patient()
    world = begin(job_runner=lambda: runner)
    world.declare()
    path = "/v1/models/m/calibration-sets"
    runner.go_on.clear()
    fits = []
    for seed in range(4):
        answer = world.call("POST", path, content=overconfident(seed), headers=NPZ)
        fits.append(int(answer.json()["fit"]))
        if not seed:
            until_running(world, fits[0])
    superseded = rows(world, "?action=fit.supersede")
    assert [row["detail"] for row in superseded] == [
        {"fit": fits[2], "by": fits[3]},
        {"fit": fits[1], "by": fits[2]},
    ]
    runner.go_on.set()
    query = "?promote=never&name=later"
    sets = [world.upload(overconfident(seed), query)["calibration_set"] for seed in (0, 0, 1)]
    named = rows(world, "?action=set.name")
    assert [row["detail"]["set"] for row in named] == [sets[2], sets[0]]
    digests = [
        world.call("POST", f"{path}/grows/rows", content=calibrated(seed), headers=NPZ).json()[
            "digest"
        ]
        for seed in (7, 8, 8)
    ]
    assert digests[1] == digests[2]
    added = [row["detail"]["set"] for row in rows(world, "?action=set.add")][:2]
    assert added == [digests[1], digests[0]]
    (deleted,) = rows(world, "?action=set.delete")
    assert deleted["detail"] == {"set": digests[0], "rows": 600, "appended_to": True}


def until_running(world: World, fit: int) -> None:
    while world.get(f"/v1/models/m/fits/{fit}")["state"] != "running":
        threading.Event().wait(0.01)


def test_exports_and_imports_have_rows(world: World, tmp_path: Path) -> None:
    world.upload(overconfident())
    before = len(actions(world))
    services = world.plane.services
    file = tmp_path / "state.zip"
    counts = export_state(services.store, services.set_files, file, clock=world.clock)
    (exported, *_) = rows(world)
    assert (exported["action"], exported["detail"]) == ("state.export", {"rows": counts})
    assert counts["audit_entry"] == before
    flags = ["--state-dir", str(tmp_path / "new"), "--database-url", ""]
    assert main(["import-state", str(file), *flags]) == 0
    store = open_store(f"sqlite:///{tmp_path / 'new' / 'trueprob.sqlite3'}")
    with store.read() as transaction:
        *copied, imported = transaction.audit.rows()
    assert len(copied) == before
    assert imported.action == "state.import"
    assert imported.actor.startswith("local:")
    assert verify(store)[1] == []
    store.close()
    assert ACTOR.get() == ("service", "")


def test_an_export_of_a_database_that_cannot_be_written_goes_on(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """A backup is needed most when the disk is full."""
    store = open_store(f"sqlite:///{tmp_path / 'a'}")
    store.fault = "disk_full"
    export_state(store, SetFiles(tmp_path), tmp_path / "state.zip")
    assert (tmp_path / "state.zip").is_file()
    assert "the export is not in the audit trail" in caplog.text
    store.close()


def test_a_refused_change_leaves_nothing_of_its_row(world: World) -> None:
    before = actions(world)
    body = {"n_classes": 7}
    assert world.call("PUT", "/v1/models/m", json=body).status_code == 409
    assert world.call("DELETE", "/v1/models/none", headers={"if-match": '"1"'}).status_code == 404
    assert actions(world) == before


@pytest.mark.parametrize(
    ("query", "found"),
    [
        ("?model=b", ["pair.promote", "model.declare"]),
        ("?model=none", []),
        ("?action=model.declare", ["model.declare"] * 3),
        ("?actor=service&action=model.declare", ["model.declare"] * 3),
        ("?actor=key:x", []),
        ("?outcome=refused", []),
        ("?until=2027-01-15T08:01:40Z", ["pair.promote", "model.declare"]),
        ("?since=2027-01-15T08:01:40Z&model=a", ["pair.promote", "model.declare"]),
        ("?since=2027-01-15T08:01:41Z&model=a", []),
        ("?since=2027-01-16", []),
    ],
)
def test_filters(begin: Callable[..., World], query: str, found: list[str]) -> None:
    world = begin()
    for model in ("m", "a", "b"):
        world.declare(model)
        world.clock.now += 100
    assert START == 1_800_000_000.0  # 2027-01-15T08:00:00Z
    assert [row["action"] for row in rows(world, query)] == found


@pytest.mark.parametrize("query", ["?since=yesterday", "?until=2027-01-15T08:00:00", "?cursor=x"])
def test_wrong_questions_are_refused(sqlite_world: World, query: str) -> None:
    assert sqlite_world.call("GET", f"/v1/audit{query}").status_code == 422


def test_pages_go_back_to_the_first_row(sqlite_world: World) -> None:
    for i in range(6):
        sqlite_world.declare(f"n{i}")
    seen, query = [], "?limit=5"
    while True:
        page = sqlite_world.get(f"/v1/audit{query}")
        seen += [row["id"] for row in page["items"]]
        if page["next"] is None:
            break
        query = f"?limit=5&cursor={page['next']}"
    assert seen == list(range(14, 0, -1))


# ----- The chain -----


def added(store: Store, n: int, at: float = START) -> None:
    for i in range(n):
        with store.write() as transaction:
            transaction.audit.add("pair.promote", f"m{i}", now=at, revision=i, detail={"a": 0.1})


CHANGES = {
    "another actor": "UPDATE audit_entry SET actor = 'key:x' WHERE id = 4",
    "another time": "UPDATE audit_entry SET at = at + 1 WHERE id = 4",
    "another detail": "UPDATE audit_entry SET detail = '{}' WHERE id = 4",
    "another outcome": "UPDATE audit_entry SET outcome = 'refused' WHERE id = 4",
    "no model": "UPDATE audit_entry SET model = NULL WHERE id = 4",
    "another revision": "UPDATE audit_entry SET revision = 7 WHERE id = 4",
    "another request": "UPDATE audit_entry SET request_id = 'r' WHERE id = 4",
    "another hash": f"UPDATE audit_entry SET hash = '{'1' * 64}' WHERE id = 4",
    "deleted": "DELETE FROM audit_entry WHERE id = 4",
    "the first deleted": "DELETE FROM audit_entry WHERE id = 1",
    "the last deleted": "DELETE FROM audit_entry WHERE id = 8",
    "all deleted": "DELETE FROM audit_entry",
    "inserted at the end": "INSERT INTO audit_entry SELECT 9, at, actor, action, model, outcome, "
    "revision, request_id, detail, hash FROM audit_entry WHERE id = 8",
    "inserted before the beginning": "INSERT INTO audit_entry SELECT 0, at, actor, action, model, "
    "outcome, revision, request_id, detail, hash FROM audit_entry WHERE id = 8",
    "swapped": "UPDATE audit_entry SET id = CASE id WHEN 104 THEN 5 ELSE 4 END "
    "WHERE id IN (104, 105)",
    "the beginning moved": "DELETE FROM audit_entry WHERE id < 4; UPDATE audit_head SET pruned_id "
    "= 3, pruned_hash = (SELECT hash FROM chain_of WHERE id = 3)",
    "the end cut and the head moved": "DELETE FROM audit_entry WHERE id = 8; UPDATE audit_head "
    "SET last_id = 7",
    "the head deleted": "DELETE FROM audit_head",
}


@pytest.mark.parametrize("change", CHANGES)
def test_a_change_is_found(database_url: str, change: str) -> None:
    store = open_store(database_url)
    added(store, 8)
    assert verify(store)[1] == []
    url = database_url.replace("postgresql:", "postgresql+psycopg:")
    engine = create_engine(url)
    with engine.begin() as connection:
        statements = CHANGES[change].split("; ")
        if change == "swapped":
            connection.execute(text("UPDATE audit_entry SET id = id + 100 WHERE id IN (4, 5)"))
        if change == "the beginning moved":
            connection.execute(text("CREATE TABLE chain_of AS SELECT id, hash FROM audit_entry"))
        for statement in statements:
            assert connection.execute(text(statement)).rowcount
    engine.dispose()
    head, faults = verify(store)
    store.close()
    assert faults, head


def test_a_whole_new_chain_is_found_by_a_head_that_was_noted(tmp_path: Path) -> None:
    first, second = (open_store(f"sqlite:///{tmp_path / name}") for name in ("a", "b"))
    added(first, 5)
    noted, faults = verify(first)
    assert (faults, noted.partition(":")[0]) == ([], "5")
    added(first, 3)
    number, _, digest = noted.partition(":")
    assert verify(first, noted=(int(number), digest))[1] == []
    added(second, 8, at=START + 1)  # forged: whole in itself
    assert verify(second)[1] == []
    assert verify(second, noted=(int(number), digest))[1] == [
        "row 5 does not have the hash that was noted"
    ]
    first.close()
    second.close()


def test_processes_that_write_at_once_make_one_chain(database_url: str) -> None:
    stores = [open_store(database_url) for _ in range(4)]
    errors: list[BaseException] = []

    def write(store: Store, name: str) -> None:
        try:
            for i in range(15):
                with store.write() as transaction:
                    transaction.models.add(f"{name}-{i}", declared=True, now=START)
                    transaction.audit.add("model.declare", f"{name}-{i}", now=START)
                    transaction.audit.add("pair.promote", f"{name}-{i}", now=START)
        except Exception as error:  # noqa: BLE001 - the test shows it
            errors.append(error)

    threads = [
        threading.Thread(target=write, args=(store, f"m{i}")) for i, store in enumerate(stores)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert errors == []
    head, faults = verify(stores[0])
    assert (faults, head.partition(":")[0]) == ([], "120")
    with stores[0].read() as transaction:
        found = list(transaction.audit.rows())
    # Two rows of one transaction follow one another.
    assert all(a.model == b.model for a, b in zip(found[::2], found[1::2], strict=True))
    for store in stores:
        store.close()


def test_a_transaction_that_fails_leaves_no_row(database_url: str) -> None:
    store = open_store(database_url)
    added(store, 1)

    def fail() -> None:
        with store.write() as transaction:
            transaction.audit.add("model.delete", "m", now=START)
            raise RuntimeError

    with pytest.raises(RuntimeError):
        fail()
    added(store, 1)
    assert verify(store)[0].partition(":")[0] == "2"
    store.close()


# ----- Retention -----


def test_old_rows_are_deleted_and_the_chain_stays_whole(
    database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = [START]
    store = open_store(database_url)
    kept = AuditTrail(store, keep_days=10, clock=lambda: now[0])
    assert kept.prune() == 0
    added(store, 7)
    added(store, 3, at=START + 5 * DAY)
    noted = verify(store)[0]
    now[0] = START + 11 * DAY
    assert kept.prune() == 7
    assert kept.prune() == 0
    with store.read() as transaction:
        found = list(transaction.audit.rows())
    assert [row.id for row in found] == [8, 9, 10, 11]
    assert (found[-1].action, found[-1].actor) == ("audit.prune", "service")
    number, _, digest = noted.partition(":")
    assert verify(store, noted=(int(number), digest))[1] == []
    now[0] = START + 100 * DAY
    assert kept.prune() == 4  # the row about the first clean-up too
    assert verify(store)[1] == []
    added(store, 2, at=now[0])
    assert verify(store)[1] == []
    with store.write() as transaction:  # older than a day, in parts
        for _ in range(12):
            transaction.audit.add("pair.promote", "m", now=now[0])
    now[0] += 30 * DAY
    monkeypatch.setattr(trail, "_PRUNED_ROWS", 5)
    assert kept.prune() >= 15
    assert verify(store)[1] == []
    store.close()


def test_without_the_setting_rows_are_kept_for_ever(tmp_path: Path) -> None:
    store = open_store(f"sqlite:///{tmp_path / 'a'}")
    added(store, 3, at=0.0)
    assert AuditTrail(store, keep_days=0, clock=lambda: START).prune() == 0
    assert verify(store)[0].partition(":")[0] == "3"
    store.close()


# ----- Who -----


def acting(actor: str, function: Callable[[], None]) -> None:
    """Call a function as a request of this actor does."""

    def inside() -> None:
        ACTOR.set((actor, "r"))
        function()

    contextvars.copy_context().run(inside)


def test_repeated_refusals_are_counted(sqlite_world: World) -> None:
    audit, clock = sqlite_world.plane.services.audit, sqlite_world.clock
    path = "/v1/models/m/rollback"
    for _ in range(30):
        acting("key:a", lambda: audit.refused("POST", path, 403, "forbidden"))
    acting("key:b", lambda: audit.refused("POST", path, 403, "forbidden"))
    acting("key:a", lambda: audit.refused("POST", "/v1/models/m/labels", 403, "forbidden"))
    clock.now += 61
    acting("key:a", lambda: audit.refused("POST", path, 403, "forbidden"))
    found = rows(sqlite_world, "?outcome=refused")
    assert [(r["actor"], r["action"], r["detail"].get("repeated_before")) for r in found] == [
        ("key:a", "pair.rollback", 29),
        ("key:b", "pair.rollback", None),
        ("key:a", "pair.rollback", None),
    ]


def test_replicas_tell_of_a_changed_key_file_once(tmp_path: Path) -> None:
    stores = [open_store(f"sqlite:///{tmp_path / 'a'}") for _ in range(2)]
    trails = [AuditTrail(store, keep_days=0, clock=lambda: START) for store in stores]
    for digest, changes in (("1", {}), ("2", {"changed": ["x"]}), ("3", {"changed": ["x"]})):
        for one in trails:
            one.keys_changed(digest, changes)
    trails[0].keys_changed("3", {})  # started again, and the file is the same
    with stores[0].read() as transaction:
        found = [row.detail for row in transaction.audit.rows()]
    assert found == [
        '{"file":"1"}', '{"changed":["x"],"file":"2"}', '{"changed":["x"],"file":"3"}',
    ]  # fmt: skip
    for store in stores:
        store.close()


def test_paths_may_have_anything_in_them(world: World) -> None:
    audit = world.plane.services.audit
    path = "/v1/models/a\0b\ud800" + "x" * 500
    acting("oidc:\ud800", lambda: audit.refused("DELETE", path, 403, "forbidden"))
    (row,) = rows(world, "?outcome=refused")
    assert row["model"].startswith("a?b?xxx")
    assert verify(world.plane.services.store)[1] == []


def test_over_http_with_keys_and_without(tmp_path: Path) -> None:
    key, line = new_key("boss", ["admin", "calibrate"])
    weak, other = new_key("weak", ["predict"])
    (tmp_path / "keys.jsonl").write_text(f"{line}\n{other}\n")
    url = f"sqlite:///{tmp_path / 'state' / 'trueprob.sqlite3'}"

    async def with_keys() -> None:
        async with application(tmp_path / "state", api_keys_file=tmp_path / "keys.jsonl") as client:
            strong = {"authorization": f"Bearer {key}", "x-request-id": "my-request"}
            feeble = {"authorization": f"Bearer {weak}"}
            body = {"n_classes": 3}
            for headers, status in ((feeble, 403), (strong, 201)):
                answer = await client.put("/v1/models/m", json=body, headers=headers)
                assert answer.status_code == status
            answer = await client.put("/v1/models/m", json={"n_classes": 4}, headers=strong)
            assert answer.status_code == 409
            stale = {**strong, "if-match": '"9"'}
            answer = await client.post("/v1/models/m/rollback", headers=stale)
            assert answer.status_code == 412
            rows_of = "/v1/models/digits/calibration-sets/none"
            npz = {**feeble, "accept": "application/x-npz"}
            assert (await client.get(rows_of, headers=npz)).status_code == 403
            assert (await client.get("/v1/audit", headers=feeble)).status_code == 403
            items = (await client.get("/v1/audit?limit=7", headers=strong)).json()["items"]
            assert [
                (r["actor"], r["action"], r["outcome"], r["detail"].get("code")) for r in items[:6]
            ] == [
                ("key:weak", "set.download", "refused", "forbidden"),
                ("key:boss", "pair.rollback", "refused", "stale_revision"),
                ("key:boss", "model.put", "refused", "conflict"),
                ("key:boss", "pair.promote", "done", None),
                ("key:boss", "model.declare", "done", None),
                ("key:weak", "model.put", "refused", "forbidden"),
            ]
            assert {row["request_id"] for row in items[1:5]} == {"my-request"}
            assert (items[6]["actor"], items[6]["action"]) == ("service", "keys.change")

    async def without_keys() -> None:
        async with application(tmp_path / "state") as client:
            assert (await client.put("/v1/models/n", json={"n_classes": 3})).status_code == 201
            items = (await client.get("/v1/audit?limit=1")).json()["items"]
            assert [row["actor"] for row in items] == ["anonymous"]

    asyncio.run(with_keys())
    store = open_store(url)
    with store.read() as transaction:
        assert set(transaction.key_uses.all()) == {"boss", "weak"} - {"weak"}
    store.close()
    asyncio.run(without_keys())


def test_labels_that_revert_act_as_the_service(tmp_path: Path) -> None:
    store = open_store(f"sqlite:///{tmp_path / 'a'}")

    def label() -> None:
        with store.write() as transaction:
            transaction.audit.add("pair.revert", "m", now=START, actor="service")

    acting("key:labeller", label)
    with store.read() as transaction:
        (row,) = transaction.audit.rows()
    assert (row.actor, row.request_id) == ("service", "r")
    store.close()


# ----- The command -----


def test_the_command(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    flags = ["--state-dir", str(tmp_path)]
    assert audit_command(["verify", *flags], {}) == 2
    assert "there is no database at" in capsys.readouterr().err
    path = tmp_path / "trueprob.sqlite3"
    store = open_store(f"sqlite:///{path}")
    added(store, 4)
    store.close()
    assert audit_command(["verify", *flags], {}) == 0
    head = capsys.readouterr().out.split()[1]
    assert head.startswith("4:")
    assert audit_command(["verify", "--head", head, *flags], {}) == 0
    assert audit_command(["verify", "--head", f"4:{'0' * 64}", *flags], {}) == 1
    assert audit_command(["verify", "--head", "x", *flags], {}) == 2
    capsys.readouterr()
    engine = create_engine(f"sqlite:///{path}")
    with engine.begin() as connection:
        connection.execute(text("DELETE FROM audit_entry WHERE id = 2"))
    engine.dispose()
    assert audit_command(["verify", *flags], {}) == 1
    written = capsys.readouterr()
    assert "row 2 missing" in written.err
    assert written.out.startswith("the audit trail was changed")
