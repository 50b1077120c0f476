"""The whole state in a file: nothing is lost on the way from one database to another."""

from __future__ import annotations

import json
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from tests.trueprob_service.control.harness import World, overconfident, rows, settings_in, start
from trueprob_service.__main__ import main
from trueprob_service.control.fitting.set_files import SetFiles
from trueprob_service.control.store import open_store
from trueprob_service.control.upkeep.archive import export_state, import_state
from trueprob_service.errors import Conflict, InvalidRequest, InvalidSettings


def used(world: World) -> tuple[str, list[str]]:
    """A model with a fit, a promotion and labels; a live calibrator and ids not labelled yet."""
    report = world.upload(overconfident(), "?name=may")
    logits, labels = rows(21, 60)
    *_, ids = world.predict(logits)
    assert world.label(ids[:40], labels[:40].tolist()).json()["accepted"] == 40
    assert send_row(world) == (1, 0)
    raise_alarm(world)
    return report["calibrator"], ids


def raise_alarm(world: World) -> None:
    """Two alarms and three counted groups: what only their tables know."""
    served = world.deployments.current("m").served
    for group in (3, 2**63, 2**64 - 1):
        ids = world.plane.receipts.issue(
            model=served.model_digest,
            version=1,
            revision=1,
            class_list=served.class_list_digest,
            prediction=np.zeros(30, np.int64),
            confidence=np.full(30, 0.99),
            group=group,
        )
        assert world.label(ids, [1] * 30).json()["accepted"] == 30
    logits, labels = rows(22, 300)
    *_, ids = world.predict(-4 * logits)
    world.label(ids, labels.tolist())


def send_row(world: World) -> tuple[int, int]:
    body = {"rows": [{"id": "a", "logits": [1, 2, 3], "label": 1, "group": "g"}]}
    answer = world.call("POST", "/v1/models/m/labels", json=body).json()
    return answer["accepted"], answer["duplicate"]


@pytest.mark.slow
def test_a_service_goes_on_with_another_database(
    begin: Callable[..., World],
    new_postgres_url: Callable[[], str],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    world = begin()
    world.declare()
    world.declare("gone")
    calibrator, ids = used(world)
    world.call("DELETE", "/v1/models/gone", headers={"if-match": '"1"'})
    archive = tmp_path / "state.zip"
    counts = export_state(world.plane.services.store, world.plane.services.set_files, archive)
    assert (counts["label_key"], counts["promotion"], counts["fit"]) == (431, 2, 1)
    assert (counts["alarm_state"], counts["alarm"], counts["group_count"]) == (2, 2, 344)
    assert counts["labelled_row"] == 1
    assert counts["deleted_model"] == 1
    before = world.get("/v1/models/m/calibration")
    world.plane.close()

    elsewhere = tmp_path / "elsewhere"
    url = new_postgres_url()
    flags = ["--database-url", url, "--state-dir", str(elsewhere / "state")]
    assert main(["import-state", str(archive), *flags]) == 0  # signs and verifies nothing
    with pytest.raises(InvalidSettings, match="receipt_secrets must be set with PostgreSQL"):
        start(settings_in(elsewhere, database_url=url, receipt_secrets=""), world.clock)
    # The archive does not hold the secret. What it signed is valid wherever it is set.
    secret = world.settings.receipt_secrets or world.settings.receipt_secret_file.read_text()
    moved = start(settings_in(elsewhere, database_url=url, receipt_secrets=secret), world.clock)
    assert moved.deployments.current("m").calibrator_id == calibrator
    assert moved.get("/v1/models/m/calibration") == before
    assert before["alarm"] is not None
    path = f"/v1/models/m/alarms/{before['alarm']['id']}/acknowledge"
    assert moved.call("POST", path).status_code == 200
    answer = moved.label(ids, [0] * 60).json()
    assert (answer["accepted"], answer["duplicate"]) == (20, 40)
    assert send_row(moved) == (0, 1)
    window = moved.plane.services.refit_window.read("m", 1)
    assert window is not None
    assert window.labels.tolist() == [1]
    moved.declare("gone")
    assert moved.deployments.current("gone").revision == 2
    again = moved.upload(overconfident(), "?name=may")
    assert again["fit"] == "1"
    fresh = moved.upload(overconfident(seed=4))
    assert fresh["fit"] == "2"  # ids go on after those that came
    second = tmp_path / "second.zip"
    assert (
        export_state(moved.plane.services.store, moved.plane.services.set_files, second)["fit"] == 2
    )
    third = tmp_path / "third.zip"
    assert main(["export-state", str(third), *flags]) == 0
    assert "keep TRUEPROB_RECEIPT_SECRETS too" in capsys.readouterr().err
    with pytest.raises(Conflict, match="not empty"):
        import_state(moved.plane.services.store, moved.plane.services.set_files, archive)
    moved.plane.close()


@pytest.mark.slow
def test_every_row_is_the_same_after_both_ways(world: World, tmp_path: Path) -> None:
    used(world)
    first, second = tmp_path / "first.zip", tmp_path / "second.zip"
    export_state(world.plane.services.store, world.plane.services.set_files, first)
    store = open_store(f"sqlite:///{tmp_path / 'copy.sqlite3'}")
    artifacts = SetFiles(tmp_path / "copy")
    artifacts.start()
    import_state(store, artifacts, first)
    export_state(store, artifacts, second)
    store.close()
    with zipfile.ZipFile(first) as one, zipfile.ZipFile(second) as two:
        assert one.namelist() == two.namelist()
        tables = [name for name in one.namelist() if name.endswith(".jsonl")]
        assert len(tables) == len(json.loads(one.read("state.json"))["rows"])
        for name in tables:
            before, after = one.read(name).splitlines(), two.read(name).splitlines()
            if name.endswith("audit_entry.jsonl"):  # the trail has what happened since
                assert [json.loads(line)["action"] for line in after[len(before) :]] == [
                    "state.import"
                ]
                after = after[: len(before)]
            if name.endswith("audit_head.jsonl"):
                heads = [json.loads(line) for (line,) in (before, after)]
                assert heads[1]["last_id"] == heads[0]["last_id"] + 1
                continue
            assert before == after, name
    with pytest.raises(Conflict, match="already"):
        export_state(world.plane.services.store, world.plane.services.set_files, first)


def rewritten(archive: Path, target: Path, member: str, content: bytes) -> Path:
    with zipfile.ZipFile(archive) as old, zipfile.ZipFile(target, "w") as new:
        for name in old.namelist():
            new.writestr(name, content if name == member else old.read(name))
    return target


@pytest.mark.slow
def test_what_is_not_a_whole_state_leaves_the_database_empty(
    sqlite_world: World, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    used(sqlite_world)
    good = tmp_path / "good.zip"
    parts = sqlite_world.plane.services
    export_state(parts.store, parts.set_files, good)
    with zipfile.ZipFile(good) as archive:
        head = json.loads(archive.read("state.json"))
        stored = next(n for n in archive.namelist() if n.startswith("calibration-sets/"))
    text = tmp_path / "text.zip"
    text.write_text("not a zip")
    bad = {
        text: "not an exported state",
        tmp_path / "none.zip": "not an exported state",
        rewritten(good, tmp_path / "a.zip", "tables/label_key.jsonl", b""): "rows are missing",
        rewritten(good, tmp_path / "b.zip", "tables/label_key.jsonl", b"{"): "not an exported",
        rewritten(good, tmp_path / "c.zip", "state.json", b'{"format": 9}'): "format 9",
        rewritten(
            good, tmp_path / "d.zip", "state.json", json.dumps({**head, "schema": "0"}).encode()
        ): "schema 0",
        rewritten(good, tmp_path / "e.zip", stored, overconfident(seed=9)): "its name says",
    }
    store = open_store(f"sqlite:///{tmp_path / 'empty.sqlite3'}")
    artifacts = SetFiles(tmp_path / "empty")
    artifacts.start()
    for path, sentence in bad.items():
        with pytest.raises(InvalidRequest, match=sentence):
            import_state(store, artifacts, path)
        with store.read() as transaction:
            assert transaction.state.is_empty(), path
    store.close()
    flags = ["--state-dir", str(tmp_path / "empty"), "--port", "x"]
    assert main(["import-state", str(good), *flags]) == 2
    assert "port" in capsys.readouterr().err
    assert main(["import-state", str(text), "--state-dir", str(tmp_path / "empty")]) == 2
    assert "not an exported state" in capsys.readouterr().err
