"""Uploads of calibration sets: which are accepted, the errors of the others, and their fits."""

from __future__ import annotations

import asyncio
import ctypes
import io
import re
import tracemalloc
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from tests.trueprob_service.control.harness import NPZ, World, calibrated, npz, overconfident, rows
from trueprob import CalibrationSet, InvalidInput, softmax
from trueprob_service.control.fitting.upload_body import bytes_in_memory, read_upload
from trueprob_service.control.fitting.uploads import UploadMemory, return_freed_memory

pytestmark = pytest.mark.slow

KEYS = {
    "fit",
    "state",
    "calibration_set",
    "version",
    "method",
    "n",
    "seconds",
    "verdict",
    "scores",
    "calibrator",
    "promoted",
    "revision",
}


def test_an_upload_that_improves_is_admitted_and_goes_live(world: World) -> None:
    report = world.upload(overconfident())
    assert set(report) == KEYS
    assert report["state"] == "done"
    assert isinstance(report["fit"], str)
    assert (report["n"], report["method"], report["version"]) == (600, "smart", 1)
    assert report["verdict"]["admitted"] is True
    assert all(isinstance(reason, str) for reason in report["verdict"]["reasons"])
    scores = report["scores"]
    assert scores["candidate"]["nll"] < scores["incumbent"]["nll"]
    assert scores["candidate"]["ece"] < scores["incumbent"]["ece"]
    assert (report["promoted"], report["revision"]) == (True, 2)
    live = world.deployments.current("m")
    assert (live.calibrator_id, live.revision) == (report["calibrator"], 2)


def test_an_upload_without_evidence_is_refused(world: World) -> None:
    report = world.upload(calibrated())
    assert report["verdict"]["admitted"] is False
    assert "no evidence of improvement" in " ".join(report["verdict"]["reasons"]).lower()
    assert (report["promoted"], report["revision"]) == (False, None)
    assert world.deployments.current("m").revision == 1


def test_without_prefer_the_answer_is_the_fits_address(world: World) -> None:
    answer = world.call(
        "POST", "/v1/models/m/calibration-sets", content=overconfident(), headers=NPZ
    )
    assert answer.status_code == 202
    address = f"/v1/models/m/fits/{answer.json()['fit']}"
    assert answer.headers["location"] == address
    while (fit := world.get(address))["state"] in ("queued", "running"):
        pass
    assert fit["state"] == "done"
    assert set(fit) > KEYS
    assert world.get("/v1/models/m/fits")["items"] == [fit]


def test_promote_never_fits_and_leaves_the_choice(sqlite_world: World) -> None:
    report = sqlite_world.upload(overconfident(), "?promote=never")
    assert report["verdict"]["admitted"] is True
    assert report["promoted"] is False
    assert sqlite_world.promote(report["calibrator"], 1).json() == {
        "model": "m",
        "version": 1,
        "calibrator": report["calibrator"],
        "revision": 2,
    }


def test_promote_always_is_recorded_as_forced(sqlite_world: World) -> None:
    report = sqlite_world.upload(calibrated(), "?promote=always")
    assert (report["verdict"]["admitted"], report["promoted"]) == (False, True)
    newest = sqlite_world.get("/v1/models/m/promotions")["items"][0]
    assert (newest["cause"], newest["fit"]) == ("forced", report["fit"])


def test_the_same_rows_are_stored_once_and_do_not_judge_their_own_fit(sqlite_world: World) -> None:
    first = sqlite_world.upload(overconfident(), "?name=may")
    second = sqlite_world.upload(overconfident(), "?method=temperature")
    assert first["calibration_set"] == second["calibration_set"]
    assert first["fit"] != second["fit"]
    # The incumbent was fitted on these rows, so none is left to compare on.
    assert second["verdict"]["admitted"] is False
    sets = sqlite_world.get("/v1/models/m/calibration-sets")
    assert [entry["digest"] for entry in sets["items"]] == [first["calibration_set"]]
    assert sets["items"][0]["names"] == ["may"]
    by_name = sqlite_world.get("/v1/models/m/calibration-sets/may")
    assert by_name == sqlite_world.get(f"/v1/models/m/calibration-sets/{first['calibration_set']}")
    assert by_name["n"] == 600
    assert sqlite_world.get("/v1/models/m/calibration-sets?name=june")["items"] == []


def test_the_calibrator_is_read_as_it_was_written(sqlite_world: World) -> None:
    report = sqlite_world.upload(overconfident())
    document = sqlite_world.get(f"/v1/models/m/calibrators/{report['calibrator']}")
    assert document["id"] == report["calibrator"]
    assert document["fitted_on"]["digest"] == report["calibration_set"]
    assert document["fitted_on"]["n"] == 600
    listed = sqlite_world.get("/v1/models/m/calibrators")["items"]
    assert [(entry["origin"], entry["live"]) for entry in listed] == [
        ("fit", True),
        ("factory", False),
    ]


def test_json_may_have_logits_or_probabilities_or_their_logarithms(sqlite_world: World) -> None:
    logits, labels = rows(3, 60)
    shifted = logits - np.log(np.exp(logits).sum(axis=1, keepdims=True))
    bodies = {
        "logits": logits.tolist(),
        "probabilities": np.exp(shifted).tolist(),
        "log_probabilities": shifted.tolist(),
    }
    for name, values in bodies.items():
        answer = sqlite_world.call(
            "POST",
            "/v1/models/m/calibration-sets?promote=never",
            json={name: values, "labels": labels.tolist()},
            headers={"prefer": "wait=60"},
        )
        assert answer.status_code == 201, answer.text
        assert answer.json()["n"] == 60


def test_class_names_are_labels_too(sqlite_world: World) -> None:
    names = ["cat", "dog", "bird"]
    sqlite_world.call("PUT", "/v1/models/pets", json={"n_classes": 3, "class_names": names})
    logits, labels = rows(4, 60)
    by_name = sqlite_world.upload(
        npz(logits=logits, labels=[names[label] for label in labels]), model="pets"
    )
    by_index = sqlite_world.upload(npz(logits=logits, labels=labels), model="pets")
    assert by_name["calibration_set"] == by_index["calibration_set"]


@pytest.mark.parametrize(
    ("query", "body", "headers", "status", "word"),
    [
        ("?method=magic", calibrated(), NPZ, 422, "smart"),
        ("?promote=perhaps", calibrated(), NPZ, 422, "promote"),
        ("?name=../x", calibrated(), NPZ, 422, "name"),
        ("?version=7", calibrated(), NPZ, 404, "version 7"),
        ("", calibrated(n=20), NPZ, 422, "50"),
        ("", calibrated(), {"content-type": "text/html"}, 415, "Content-Type"),
        ("", calibrated(), {}, 415, "Content-Type"),
        ("", calibrated(), {**NPZ, "content-encoding": "gzip"}, 415, "Content-Encoding"),
        ("", b"not a zip", NPZ, 422, ""),
        ("", b"", NPZ, 400, "empty"),
        ("", npz(logits=np.zeros((60, 4)), labels=np.zeros(60, int)), NPZ, 422, "logits"),
        ("", npz(logits=np.zeros((60, 3)), labels=np.full(60, 10)), NPZ, 422, "labels"),
        ("", npz(logits=np.full((60, 3), np.nan), labels=np.zeros(60, int)), NPZ, 422, "logits"),
        ("", npz(logits=np.zeros((60, 3))), NPZ, 422, "labels"),
        ("", npz(images=np.zeros((60, 3, 2, 1), np.uint8), labels=np.zeros(60, int)), NPZ, 422,
         "network"),
    ],
)  # fmt: skip
def test_an_invalid_upload_is_refused_and_nothing_is_stored(
    shared_world: World, query: str, body: bytes, headers: dict[str, str], status: int, word: str
) -> None:
    answer = shared_world.call(
        "POST", f"/v1/models/m/calibration-sets{query}", content=body, headers=headers
    )
    assert answer.status_code == status, answer.text
    assert word in answer.text
    assert shared_world.get("/v1/models/m/fits")["items"] == []
    assert shared_world.get("/v1/models/m/calibration-sets")["items"] == []
    assert list((shared_world.settings.state_dir / "uploads").iterdir()) == []


@pytest.mark.parametrize(
    ("body", "status", "word"),
    [
        (b"{", 400, "JSON"),
        (b"[]", 422, "object"),
        (b'{"logits": [[1, 2, 3], [1, 2]], "labels": [0, 1]}', 422, "logits[1]"),
        (b'{"logits": [[1, 2, null]], "labels": [0]}', 422, "logits[0]"),
        (b'{"logits": [[1, 2, "3"]], "labels": [0]}', 422, "logits[0]"),
        (b'{"logits": [[1, 2, true]], "labels": [0]}', 422, "logits[0]"),
        (b'{"logits": [[1, 2, 3]], "labels": [0.5]}', 422, "labels"),
        (b'{"logits": [[1, 2, 3]], "labels": [true]}', 422, "labels"),
        (b'{"logits": [[1, 2, 3]], "label": [0]}', 422, "'label'"),
        (b'{"logits": [[1, 2, NaN]], "labels": [0]}', 400, "JSON"),
        (b'{"logits": [], "labels": []}', 422, "logits"),
    ],
)
def test_json_that_cannot_be_used_names_its_field(
    shared_world: World, body: bytes, status: int, word: str
) -> None:
    answer = shared_world.call(
        "POST",
        "/v1/models/m/calibration-sets",
        content=body,
        headers={"content-type": "application/json"},
    )
    assert answer.status_code == status, answer.text
    assert word in answer.json()["detail"]


def test_force_fits_a_small_set(sqlite_world: World) -> None:
    report = sqlite_world.upload(overconfident(n=30), "?force=true")
    assert (report["state"], report["n"]) == ("done", 30)


def test_a_body_over_the_limit_is_refused_announced_or_not(
    begin: Callable[..., World],
) -> None:
    world = begin(settings={"max_upload_bytes": 2000})
    world.declare()

    async def chunks() -> object:
        for _ in range(10):
            yield bytes(500)

    for content in (overconfident(), chunks()):
        answer = world.call("POST", "/v1/models/m/calibration-sets", content=content, headers=NPZ)
        assert answer.status_code == 413
        assert "2000" in answer.json()["detail"]
    assert list((world.settings.state_dir / "uploads").iterdir()) == []


def test_an_unknown_model_is_refused_before_the_body_is_read(shared_world: World) -> None:
    answer = shared_world.call("POST", "/v1/models/none/calibration-sets", content=b"", headers=NPZ)
    assert answer.status_code == 404


def shifted() -> bytes:
    logits, labels = rows(3, 600, sharpness=2.5)
    return npz(logits=logits, labels=(labels + 1) % 3)


def shuffled() -> bytes:
    logits, labels = rows(3, 600, sharpness=2.5)
    return npz(logits=logits, labels=np.random.default_rng(0).permutation(labels))


def probabilities_as_logits() -> bytes:
    logits, labels = rows(3, 600, sharpness=2.5)
    return npz(logits=softmax(logits), labels=labels)


@pytest.mark.parametrize(
    ("wrong", "sentence"),
    [
        (shifted, "labels look shifted by one"),
        (shuffled, "labels look unrelated to the scores"),
        (probabilities_as_logits, "look like probabilities"),
    ],
)
def test_a_set_that_does_not_belong_goes_live_only_by_force(
    sqlite_world: World, wrong: Callable[[], bytes], sentence: str
) -> None:
    before = sqlite_world.deployments.current("m").calibrator
    report = sqlite_world.upload(wrong())
    assert not report["verdict"]["admitted"]
    assert not report["promoted"]
    assert sentence in report["verdict"]["reasons"][0]
    assert sqlite_world.deployments.current("m").calibrator == before
    forced = sqlite_world.upload(wrong(), "?promote=always")
    assert forced["promoted"]
    assert sqlite_world.get("/v1/models/m/promotions")["items"][0]["cause"] == "forced"


@pytest.mark.parametrize(
    ("arrays", "words"),
    [
        ({"logits": (9, 9), "labels": (9,)}, "logits must have shape (n, 10), got (9, 9)"),
        ({"probabilities": (9, 11), "labels": (9,)}, "probabilities must have shape (n, 10)"),
        ({"logits": (9,), "labels": (9,)}, "logits must have shape (n, 10), got (9,)"),
        ({"logits": (9, 10), "labels": (8,)}, "labels must have shape (9,), got (8,)"),
        ({"logits": (9, 10), "labels": (9,), "weights": (1,)}, "weights must have shape (9,)"),
        ({"logits": (9, 10), "labels": (9,), "groups": (10,)}, "groups must have shape (9,)"),
        ({"images": (9, 8, 8, 1), "labels": (8,)}, "labels must have shape (9,), got (8,)"),
    ],
)
def test_an_archive_that_cannot_fit_is_refused_by_its_headers(
    arrays: dict[str, tuple[int, ...]], words: str, tmp_path: Path
) -> None:
    stream = io.BytesIO()
    np.savez_compressed(stream, **{name: np.zeros(shape) for name, shape in arrays.items()})  # type: ignore[arg-type]
    file = tmp_path / "set.npz"
    file.write_bytes(stream.getvalue())
    with pytest.raises(InvalidInput, match=re.escape(words)):
        bytes_in_memory(file, "application/x-npz", max_bytes=1 << 20, n_classes=10)


ZEROS = np.zeros((100_000, 10))
FIRST = np.eye(1, 10).repeat(100_000, axis=0)
LABELS = np.zeros(100_000, np.int8)
BOMBS = {
    "float64": {"logits": ZEROS, "labels": LABELS},
    "bytes": {"logits": ZEROS.astype(np.int8), "labels": LABELS},
    "masks": {"logits": np.where(FIRST, 0.0, -np.inf).astype(np.float16), "labels": LABELS},
    "probabilities": {"probabilities": FIRST, "labels": LABELS},
    "probabilities of 8 bits": {"probabilities": FIRST.astype(np.int8), "labels": LABELS},
    "logarithms": {"log_probabilities": np.where(FIRST, 0.0, -50).astype("f2"), "labels": LABELS},
    "texts": {"logits": ZEROS.astype(np.int8), "labels": LABELS.astype("U3")},
    "groups": {"logits": ZEROS.astype("i1"), "labels": LABELS, "groups": np.full(100_000, b"ab")},
}


@pytest.mark.parametrize("bomb", BOMBS)
def test_a_small_archive_that_inflates_takes_what_its_headers_say(
    bomb: str, tmp_path: Path
) -> None:
    arrays = BOMBS[bomb]
    file = tmp_path / "set.npz"
    np.savez_compressed(file, **arrays)  # type: ignore[arg-type]
    inflated = sum(array.nbytes for array in arrays.values())
    assert file.stat().st_size < inflated / 50
    tracemalloc.start()
    try:
        needed = bytes_in_memory(file, "application/x-npz", max_bytes=1 << 30, n_classes=10)
        upload = read_upload(file, "application/x-npz", max_bytes=1 << 30)
        digest = CalibrationSet.from_arrays(upload.arrays, n_classes=10).digest
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 1.3 * needed + (24 << 20)  # a piece of a conversion has copies of float64
    if bomb == "float64":
        assert peak < inflated
    plain = {name: np.array(array) for name, array in arrays.items()}
    assert digest == CalibrationSet.from_arrays(plain, n_classes=10).digest


def test_arrays_that_would_be_larger_in_memory_than_the_limit_are_refused(tmp_path: Path) -> None:
    file = tmp_path / "set.npz"
    for name, needed in (("bytes", 4_800_000), ("texts", 21_200_000)):
        np.savez_compressed(file, **BOMBS[name])  # type: ignore[arg-type]
        words = rf"at most 3000000 bytes in memory, .* got {needed}$"
        with pytest.raises(InvalidInput, match=words):
            bytes_in_memory(file, "application/x-npz", max_bytes=3_000_000, n_classes=10)
    np.savez_compressed(file, **BOMBS["float64"])  # type: ignore[arg-type]
    with pytest.raises(InvalidInput, match="at most 3000000 bytes, got 8"):
        bytes_in_memory(file, "application/x-npz", max_bytes=3_000_000, n_classes=10)


def test_uploads_share_memory_in_the_order_in_which_they_come() -> None:
    async def scenario() -> None:
        memory, order = UploadMemory(100), []

        async def upload(name: str, n_bytes: int, may_end: asyncio.Event) -> None:
            async with memory.held(n_bytes):
                order.append(name)
                await may_end.wait()
            order.append(f"{name} ends")

        ends = [asyncio.Event() for _ in range(4)]
        async with asyncio.TaskGroup() as tasks:
            for name, n_bytes, end in zip("abcd", (1, 1, 5_000, 1), ends, strict=True):
                tasks.create_task(upload(name, n_bytes, end))
            for _ in range(10):
                await asyncio.sleep(0)
            assert order == ["a", "b"]  # c needs all, and d waits behind it
            ends[0].set()
            for _ in range(10):
                await asyncio.sleep(0)
            assert order == ["a", "b", "a ends"]
            ends[1].set()
            for _ in range(10):
                await asyncio.sleep(0)
            assert order[3:] == ["b ends", "c"]
            ends[2].set()
            ends[3].set()
        assert order[5:] == ["c ends", "d", "d ends"]

    asyncio.run(scenario())


@pytest.mark.parametrize(
    ("content_type", "content"),
    [
        ("application/json", b'{"logits": [[0, 0, 0]], "labels": [0]}'),
        ("text/csv", b"logit_0,logit_1,logit_2,label\n0,0,0,0\n"),
    ],
)
def test_text_may_have_a_quarter_of_the_limit(
    begin: Callable[..., World], content_type: str, content: bytes
) -> None:
    world = begin(settings={"max_upload_bytes": 40_000})
    world.declare()
    for padding in (10_000 - len(content), 10_001 - len(content)):
        answer = world.call(
            "POST",
            "/v1/models/m/calibration-sets?force=true&promote=never",
            content=content + b"\n" * padding,
            headers={"content-type": content_type},
        )
        if padding + len(content) == 10_000:
            assert answer.status_code == 202, answer.text
        else:
            assert answer.status_code == 413
            assert "10000" in answer.json()["detail"]
            assert "send the rows as .npz" in answer.json()["detail"]


def test_numbers_in_text_in_a_form_have_that_limit_too(begin: Callable[..., World]) -> None:
    world = begin(settings={"max_upload_bytes": 40_000})
    world.declare()
    answer = world.call(
        "POST",
        "/v1/models/m/calibration-sets",
        files={"logits": b"[[0, 0, 0]]" + b" " * 10_000, "labels": b"[0]"},
    )
    assert answer.status_code == 413
    assert "part 'logits' must have at most 10000 bytes" in answer.json()["detail"]


@pytest.mark.skipif(not hasattr(ctypes.CDLL(None), "malloc_trim"), reason="not glibc")
def test_freed_memory_goes_back_to_the_system() -> None:
    def resident_mib() -> int:
        lines = Path("/proc/self/status").read_text().splitlines()
        return int(next(line for line in lines if line.startswith("VmRSS")).split()[1]) // 1024

    before = resident_mib()
    blocks = [bytes(1000) for _ in range(200_000)]
    kept = blocks[::2000]  # between them is what was freed
    del blocks
    held = resident_mib()
    return_freed_memory()
    assert held - before > 100
    assert resident_mib() - before < 50
    assert len(kept) == 100
