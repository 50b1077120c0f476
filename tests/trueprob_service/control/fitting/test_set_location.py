"""Uploaded sets in another folder, or on a file system of fsspec."""

from __future__ import annotations

import os
import time
import uuid
import zipfile
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import fsspec
import pytest
from fsspec.implementations.local import LocalFileSystem

import trueprob
from tests.trueprob_service.control.harness import World, overconfident, rows, settings_in, start
from trueprob_service.__main__ import main
from trueprob_service.control.fitting.remote_set_files import RemoteSetFiles
from trueprob_service.control.fitting.set_location import open_set_files
from trueprob_service.control.upkeep.archive import export_state
from trueprob_service.errors import InvalidSettings, Unavailable

pytestmark = pytest.mark.slow

SETS = "/v1/models/m/calibration-sets"
BYTES = {"accept": "application/x-npz"}


def a_set(seed: int = 0) -> trueprob.CalibrationSet:
    return trueprob.CalibrationSet(*rows(seed, 60))


@pytest.fixture
def url() -> Iterator[str]:
    """A file system in memory for one test."""
    name = f"/{uuid.uuid4().hex}"
    yield f"memory:/{name}"
    fsspec.filesystem("memory").rm(name, recursive=True)


def host(folder: Path, url: str, name: str) -> World:
    """A replica with its own state directory; all share one database."""
    database = f"sqlite:///{folder / 'shared.sqlite3'}"
    return start(settings_in(folder / name, artifact_url=url, database_url=database))


def stored(url: str) -> list[str]:
    files, root = fsspec.core.url_to_fs(url)
    return [str(name) for name in files.find(root)]


@pytest.mark.parametrize("scheme", ["", "file://"])
def test_a_folder_holds_the_sets_and_needs_no_other_package(tmp_path: Path, scheme: str) -> None:
    shared = tmp_path / "shared folder"
    world = host(tmp_path, f"{scheme}{shared}", "one")
    world.declare()
    digest = world.upload(overconfident())["calibration_set"]
    assert [path.stem for path in shared.glob("??/*.npz")] == [digest.removeprefix("sha256:")]
    assert not list((tmp_path / "one/state/calibration-sets").glob("*/*"))
    other = host(tmp_path, f"{scheme}{shared}", "two")
    assert other.call("GET", f"{SETS}/{digest}", headers=BYTES).status_code == 200
    world.plane.close()
    other.plane.close()
    assert list((shared / "parts").iterdir()) == []


def test_another_host_has_the_rows_and_fits_them(tmp_path: Path, url: str) -> None:
    world = host(tmp_path, url, "one")
    world.declare()
    digest = world.upload(overconfident(), "?name=may")["calibration_set"]
    world.plane.close()
    assert len(stored(url)) == 1
    other = host(tmp_path, url, "two")
    fit = other.call(
        "POST",
        "/v1/models/m/fits",
        json={"calibration_set": "may", "method": "temperature"},
        headers={"prefer": "wait=60"},
    ).json()
    assert (fit["state"], fit["calibration_set"]) == ("done", digest)
    answer = other.call("GET", f"{SETS}/may", headers=BYTES)
    assert trueprob.load_calibration_set(answer.content).digest == digest
    appended = other.call(
        "POST",
        f"{SETS}/may/rows",
        content=overconfident(seed=5),
        headers={"content-type": "application/x-npz"},
    )
    assert appended.json()["n"] == 1200
    other.plane.close()


def test_missing_or_wrong_rows_are_reported(tmp_path: Path, url: str) -> None:
    world = host(tmp_path, url, "one")
    world.declare()
    digest = world.upload(overconfident())["calibration_set"]
    other_rows = world.upload(overconfident(seed=3), "?promote=never")["calibration_set"]
    world.plane.close()
    files, _ = fsspec.core.url_to_fs(url)
    (place,) = (name for name in stored(url) if digest.removeprefix("sha256:") in name)
    (other_place,) = (n for n in stored(url) if other_rows.removeprefix("sha256:") in n)
    other = host(tmp_path, url, "two")
    for content, sentence in (
        (files.cat_file(other_place), "does not have the rows of this set"),
        (b"PK", "does not have the rows of this set"),
        (None, "not on this host"),
    ):
        if content is None:
            files.rm_file(place)
        else:
            files.pipe_file(place, content)
        answer = other.call("GET", f"{SETS}/{digest}", headers=BYTES)
        assert (answer.status_code, answer.json()["code"]) == (503, "unavailable")
        assert sentence in answer.json()["detail"]
    fit = {"calibration_set": digest, "method": "temperature"}
    other.clock.now += 7200  # no other process has claimed it for so long
    failed = other.call("POST", "/v1/models/m/fits", json=fit, headers={"prefer": "wait=60"})
    assert (failed.json()["state"], failed.json()["error"]) == (
        "failed",
        "the rows of this fit were not found",
    )
    # Uploading the same rows again repairs it.
    other.upload(overconfident())
    assert place in stored(url)
    other.plane.close()


def test_the_clean_up_removes_sets_that_no_model_has(tmp_path: Path, url: str) -> None:
    world = host(tmp_path, url, "one")
    world.declare()
    gone = world.upload(overconfident())["calibration_set"]
    kept = world.upload(overconfident(seed=4), "?promote=never")["calibration_set"]
    assert world.call("DELETE", f"{SETS}/{gone}").status_code == 204
    retention = world.plane.services.retention
    assert retention.clean_up().files == 0  # written a moment ago
    files, _ = fsspec.core.url_to_fs(url)
    yesterday = datetime.now(UTC) - timedelta(days=2)
    for name in stored(url):
        files.store[name].modified = yesterday
    artifacts = world.plane.services.set_files
    with artifacts.set_aside(kept) as aside:
        assert not any(name.endswith(f"{kept[-10:]}.npz") for name in stored(url))
        aside.put_back()
    assert len(stored(url)) == 2
    for name in stored(url):
        files.store[name].modified = yesterday
    assert retention.clean_up().files == 1
    assert [name.rpartition("/")[2] for name in stored(url)] == [f"{kept[7:]}.npz"]
    assert not artifacts.path(gone).exists()
    assert artifacts.path(kept).exists()
    world.plane.close()


def test_a_file_that_a_crash_left_set_aside_is_put_back(tmp_path: Path, url: str) -> None:
    artifacts = open_set_files(tmp_path, url)
    artifacts.keep(a_set())
    files, _ = fsspec.core.url_to_fs(url)
    (name,) = stored(url)
    files.mv(name, f"{name}.swept")
    files.pipe_file(f"{name}.0.part", b"half")
    artifacts.remove_leftovers()
    assert len(stored(url)) == 2  # another process may be working on it
    for each in stored(url):
        files.store[each].modified = datetime.now(UTC) - timedelta(hours=2)
    artifacts.remove_leftovers()
    assert stored(url) == [name]


def test_a_folder_puts_such_a_file_back_too(tmp_path: Path) -> None:
    artifacts = open_set_files(tmp_path, "")
    artifacts.keep(a_set())
    path = artifacts.path(a_set().digest)
    swept = artifacts.uploads / f"{path.stem}.swept"
    path.replace(swept)
    os.utime(swept, (time.time() - 7200,) * 2)
    artifacts.remove_leftovers()
    assert path.exists()
    with artifacts.set_aside("sha256:00") as aside:  # another process has removed it
        aside.put_back()


def test_an_old_object_is_written_again_when_it_is_kept_again(tmp_path: Path, url: str) -> None:
    artifacts = open_set_files(tmp_path, url)
    size = artifacts.keep(a_set())
    files, _ = fsspec.core.url_to_fs(url)
    (name,) = stored(url)
    old = datetime.now(UTC) - timedelta(hours=20)
    files.store[name].modified = old
    assert artifacts.keep(a_set()) == size
    assert files.modified(name) > old
    files.pipe_file(name, b"cut short")
    artifacts.keep(a_set())
    assert files.size(name) == size


def test_a_file_system_that_renames_never_shows_half_a_file(tmp_path: Path) -> None:
    class Watched(LocalFileSystem):
        """A file system that records the names of its writes."""

        cachable = False

        def put_file(self, lpath: str, rpath: str, **options: object) -> None:
            written.append(rpath)
            super().put_file(lpath, rpath, **options)

    written: list[str] = []
    there = tmp_path / "there"
    artifacts = RemoteSetFiles(tmp_path, Watched(), str(there))
    artifacts.start()
    artifacts.keep(a_set())
    assert [name.rpartition(".")[2] for name in written] == ["part"]
    assert [path.suffix for path in there.rglob("*.*")] == [".npz"]
    elsewhere = RemoteSetFiles(tmp_path / "b", LocalFileSystem(), str(there))
    elsewhere.start()
    assert elsewhere.find(a_set().digest) is not None


def test_a_lost_connection_leaves_no_half_copy(tmp_path: Path) -> None:
    class Cut(LocalFileSystem):
        """A file system that loses the connection in the middle of the first file."""

        cachable = False

        def get_file(self, rpath: str, lpath: str, **options: object) -> None:
            if not cut:
                cut.append(lpath)
                Path(lpath).write_bytes(Path(rpath).read_bytes()[:100])
                raise ConnectionResetError
            super().get_file(rpath, lpath, **options)

    cut: list[str] = []
    there = str(tmp_path / "there")
    RemoteSetFiles(tmp_path / "a", LocalFileSystem(), there).keep(a_set())
    artifacts = RemoteSetFiles(tmp_path / "b", Cut(), there)
    artifacts.start()
    with pytest.raises(Unavailable, match="cannot be read: ConnectionResetError"):
        artifacts.find(a_set().digest)
    assert not artifacts.path(a_set().digest).exists()
    found = artifacts.find(a_set().digest)
    assert found is not None
    assert trueprob.load_calibration_set(found).digest == a_set().digest
    assert not Path(cut[0]).exists()


def test_storage_that_does_not_answer_is_unavailable(tmp_path: Path) -> None:
    class Away(LocalFileSystem):
        """A file system whose host cannot be reached; its error names the host."""

        cachable = False

        def find(self, *_: object, **__: object) -> list[str]:
            raise TimeoutError("secret-host")

        exists = get_file = put_file = size = find

    artifacts = RemoteSetFiles(tmp_path / "state", Away(), "/x")
    artifacts.start()  # predictions continue
    assert not artifacts.exists(a_set().digest)
    for ask in (
        lambda: artifacts.keep(a_set()),
        lambda: artifacts.find("sha256:00"),
        lambda: artifacts.digests(older_than_seconds=0),
    ):
        with pytest.raises(Unavailable, match=r"\(artifact_url\) cannot be .*: Timeout") as caught:
            ask()
        assert "secret" not in caught.value.detail


def test_an_archive_exports_and_imports_remote_sets(tmp_path: Path, url: str) -> None:
    world = host(tmp_path, f"{url}/a", "one")
    world.declare()
    digest = world.upload(overconfident())["calibration_set"]
    archive = tmp_path / "state.zip"
    local = world.plane.services.set_files.path(digest)
    local.unlink()  # as if another host had received it
    export_state(world.plane.services.store, world.plane.services.set_files, archive)
    world.plane.close()
    with zipfile.ZipFile(archive) as members:
        assert f"calibration-sets/{digest[7:]}.npz" in members.namelist()
    flags = ["--state-dir", str(tmp_path / "new"), "--artifact-url", f"{url}/b"]
    assert main(["import-state", str(archive), *flags]) == 0
    assert [name.rpartition("/")[2] for name in stored(f"{url}/b")] == [f"{digest[7:]}.npz"]


@pytest.mark.parametrize(
    ("bad", "sentence"),
    [
        ("nowhere://x", "artifact_url nowhere:// is not known to fsspec"),
        ("s3://user:secret@x", "artifact_url s3://: Install s3fs"),
        ("file://host/x", "artifact_url must be file:///FOLDER"),
    ],
)
def test_urls_that_cannot_be_used(tmp_path: Path, bad: str, sentence: str) -> None:
    with pytest.raises(InvalidSettings, match=sentence) as caught:
        open_set_files(tmp_path, bad)
    assert "secret" not in str(caught.value)
