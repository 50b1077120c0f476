"""The two ways into the service: `register`, and the folder of the repository."""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from prometheus_client.parser import text_string_to_metric_families

from tests.trueprob_service.application import application
from tests.trueprob_service.inspection import bombs
from trueprob.repository.model_repository import ModelRepository
from trueprob.repository.model_version import file_digest
from trueprob_service.register.command import main

ROWS = {"rows": np.eye(4).tolist()}
SMALL = 1 << 28


def register(folder: Path, content: bytes, environ: Mapping[str, str]) -> int:
    """Register a network that lies in a folder of its own."""
    place = folder / "from"
    place.mkdir(exist_ok=True)
    (place / "mine.onnx").write_bytes(content)
    repository = {"TRUEPROB_MODEL_REPOSITORY": str(folder / "models")}
    return main([str(place / "mine.onnx"), "--name", "mine"], {**repository, **environ})


REFUSED = {
    **{name: (made, "needs more than 256 MiB of memory") for name, made in bombs.MEMORY.items()},
    "endless_loop": (bombs.endless_loop, "took longer than 2 s while it ran on 8 rows"),
    "endless_for_many_rows": (
        bombs.endless_for_many_rows,
        "took longer than 2 s while it ran on 64 rows",
    ),
    "a file from above": (lambda: bombs.external("../w.bin"), "must be a relative path inside"),
    "a file of the system": (lambda: bombs.external("/etc/passwd"), "must be a relative path"),
    "a link": (lambda: bombs.external("link"), "is a link that leads out of the folder"),
    "a hole": (lambda: bombs.external("hole", n=1 << 28), "needs more than 256 MiB of memory"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_register_refuses_in_one_line_and_writes_nothing(
    tmp_path: Path, capsys: Any, name: str
) -> None:
    made, words = REFUSED[name]
    (tmp_path / "from").mkdir()
    (tmp_path / "from" / "link").symlink_to(tmp_path)
    bombs.hole(tmp_path / "from" / "hole", 1 << 30)
    seconds = "2" if "endless" in name else "60"
    limits = {"TRUEPROB_INSPECT_MEMORY": str(SMALL), "TRUEPROB_INSPECT_SECONDS": seconds}
    assert register(tmp_path, made(), limits) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert words in captured.err
    assert captured.err.count("\n") == 1
    assert not (tmp_path / "models").exists()


def test_a_raised_limit_lets_a_network_pass(tmp_path: Path, capsys: Any) -> None:
    nodes = bombs.tiles_of(40_000_000)
    assert register(tmp_path, nodes, {"TRUEPROB_INSPECT_MEMORY": str(SMALL)}) == 2
    assert "TRUEPROB_INSPECT_MEMORY" in capsys.readouterr().err
    assert register(tmp_path, nodes, {"TRUEPROB_INSPECT_MEMORY": str(4 * SMALL)}) == 0


def add(root: Path, name: str, content: bytes, **files: bytes) -> None:
    """A version that somebody has put into the repository."""
    ModelRepository(root).add(bombs.manifest(name), {"model.onnx": content, **files})


def fill(root: Path) -> dict[str, str]:
    """A repository with a good model and others; words of why each is refused."""
    add(root, "good", bombs.content())
    add(root, "external", bombs.external("w.bin"), **{"w.bin": bombs.MATRIX.tobytes()})
    (root.parent / "w.bin").write_bytes(bombs.MATRIX.tobytes())
    cases = {
        "constant": (bombs.constant_of_shape(), "needs more than 256 MiB of memory while it ran"),
        "branch": (bombs.in_a_branch(), "needs more than 256 MiB of memory while it ran"),
        "loop": (bombs.endless_loop(), "took longer than 5 s while it ran on one and two rows"),
        "dimensions": (bombs.dimensions_without_data(), "model.onnx cannot be loaded: Fail"),
        "above": (bombs.external("../../../w.bin"), "must be a relative path inside the folder"),
        "absolute": (bombs.external("/etc/passwd"), "must be a relative path inside the folder"),
        "missing": (bombs.external("w.bin"), "'w.bin' is missing"),
        "truncated": (bombs.content()[:-50], "model.onnx cannot be loaded: InvalidProtobuf"),
        "garbage": (b"no network", "model.onnx cannot be loaded: InvalidProtobuf"),
    }
    for name, (content, _) in cases.items():
        add(root, name, content)
    link = "weights.bin"
    add(root, "link", bombs.external(link), **{link: bombs.MATRIX.tobytes()})
    (root / "link" / "1" / link).unlink()
    (root / "link" / "1" / link).symlink_to(root.parent / "w.bin")
    add(root, "hole", bombs.external(link, n=100 << 20), **{link: b""})
    bombs.hole(root / "hole" / "1" / link, 400 << 20)
    digest(root / "hole" / "1")
    words = {name: said for name, (_, said) in cases.items()}
    return words | {
        "link": "is a link that leads out of the folder",
        "hole": "needs more than 256 MiB of memory while it was loaded",
    }


def digest(version: Path) -> None:
    """Make a version's manifest say what lies in it."""
    path = version / "manifest.json"
    document = json.loads(path.read_bytes())
    document["files"] = {name: file_digest(version / name) for name in document["files"]}
    path.chmod(0o644)
    path.write_text(json.dumps(document))


async def outcomes(client: httpx.AsyncClient) -> dict[str, float]:
    text = (await client.get("/metrics")).text
    return {
        sample.labels["outcome"]: sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
        if sample.name == "trueprob_network_inspections_total"
    }


async def refusals(client: httpx.AsyncClient) -> dict[str, str]:
    """Why the versions of each model are not available."""
    return {
        model["model"]: each["reason"]
        for model in (await client.get("/v1/models")).json()["items"]
        for each in model["unavailable"]
    }


async def answers(client: httpx.AsyncClient, name: str) -> httpx.Response:
    return await client.post(f"/v1/models/{name}/probabilities", json=ROWS)


@pytest.mark.slow
def test_a_service_that_starts_refuses_them_and_serves_the_others(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    root = tmp_path / "models"
    expected = fill(root)
    options = {
        "model_repository": root,
        "inspect_memory": SMALL,
        "inspect_seconds": 5,
        "repository_poll_seconds": 0.05,
    }

    async def scenario() -> dict[str, float]:
        async with application(tmp_path / "state", **options) as client:
            for name in ("good", "external"):
                assert (await answers(client, name)).status_code == 200
            reasons = await refusals(client)
            assert reasons.keys() == expected.keys()
            for name, words in expected.items():
                assert words in reasons[name]
                refused = await answers(client, name)
                assert refused.status_code == 503
                assert words in refused.json()["detail"]
                logits = await client.post(
                    f"/v1/models/{name}/probabilities", json={"logits": [[1, 2, 3]]}
                )
                assert logits.status_code == 200  # the client has a network of its own
            text = (await client.get("/metrics")).text
            assert text.count("trueprob_version_unavailable{") == len(expected)
            await asyncio.sleep(0.3)  # some scans
            return await outcomes(client)

    caplog.set_level(logging.ERROR)
    counted = asyncio.run(scenario())
    for name in expected:  # said once, however often the folder is scanned
        said = [r for r in caplog.records if f"model {name} is refused" in r.getMessage()]
        assert len(said) == 1, name
    assert counted["passed"] == 2
    assert min(counted[each] for each in ("memory", "time", "files", "failed")) >= 1
    assert counted["crash"] == counted["machine"] == 0


def test_a_service_that_runs_refuses_what_it_finds_until_it_is_repaired(tmp_path: Path) -> None:
    root = tmp_path / "models"
    add(root, "good", bombs.content())

    async def until_said(client: httpx.AsyncClient, expected: set[str]) -> dict[str, str]:
        for _ in range(600):
            if (await refusals(client)).keys() == expected:
                return await refusals(client)
            await asyncio.sleep(0.05)
        raise AssertionError(await refusals(client))

    async def scenario() -> None:
        async with application(
            tmp_path / "state",
            model_repository=root,
            inspect_memory=SMALL,
            repository_poll_seconds=0.05,
        ) as client:
            add(root, "bomb", bombs.constant_of_shape())
            add(root, "other", bombs.content())
            reasons = await until_said(client, {"bomb"})
            assert "needs more than 256 MiB of memory" in reasons["bomb"]
            assert (await answers(client, "good")).status_code == 200
            assert (await answers(client, "bomb")).status_code == 503
            assert (await answers(client, "other")).status_code == 200
            (root / "bomb" / "1" / "model.onnx").unlink()
            (root / "bomb" / "1" / "model.onnx").write_bytes(bombs.content())
            digest(root / "bomb" / "1")
            assert await until_said(client, set()) == {}
            assert (await answers(client, "bomb")).status_code == 200

    asyncio.run(scenario())


@pytest.mark.slow
def test_an_input_that_nobody_tried_costs_its_own_model_until_its_session_is_replaced(
    tmp_path: Path,
) -> None:
    root = tmp_path / "models"
    add(root, "good", bombs.content())
    add(root, "hidden", bombs.endless_for_one_number())
    number = {"rows": [[42, 0, 0, 0]]}

    async def until_answered(client: httpx.AsyncClient) -> None:
        for _ in range(600):
            if (await answers(client, "hidden")).status_code == 200:
                return
            await asyncio.sleep(0.05)
        raise AssertionError(await refusals(client))

    async def scenario() -> None:
        async with application(
            tmp_path / "state",
            model_repository=root,
            network_deadline_seconds=2,
            repository_poll_seconds=0,
        ) as client:
            assert (await answers(client, "hidden")).status_code == 200
            found = await client.post("/v1/models/hidden/probabilities", json=number)
            assert found.status_code == 503
            assert "took longer than 2 s" in found.json()["detail"]
            assert (await answers(client, "good")).status_code == 200
            await until_answered(client)
            # What is loaded again is compared with its digest: it may have been exchanged.
            network = root / "hidden" / "1" / "model.onnx"
            network.unlink()
            network.write_bytes(bombs.constant_of_shape())
            await client.post("/v1/models/hidden/probabilities", json=number)
            for _ in range(600):
                if "cannot be loaded again" in (await refusals(client)).get("hidden", ""):
                    break
                await asyncio.sleep(0.05)
            assert "cannot be loaded again (DigestMismatch)" in (await refusals(client))["hidden"]
            assert (await answers(client, "hidden")).status_code == 503
            assert (await answers(client, "good")).status_code == 200

    asyncio.run(scenario())
