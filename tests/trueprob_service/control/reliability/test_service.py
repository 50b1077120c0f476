"""What users see of a fault: 503 at once where nothing can be stored, and predictions go on."""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
import signal
import time
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
from prometheus_client.parser import text_string_to_metric_families

from tests.trueprob_service.application import ROOT, application
from tests.trueprob_service.control.harness import SECRET, npz
from tests.trueprob_service.control.reliability.disks import fill, small_disk
from tests.trueprob_service.control.reliability.test_canary import children

LOGITS = {"logits": [[0.1, 4.2, 0.3, 1.0, 0.0, 2.0, 1.1, 0.7, 0.2, 0.1]]}
PATH = "/v1/models/digits/probabilities"
SEVEN = (ROOT / "examples" / "seven.png").read_bytes()
PNG = {"content-type": "image/png"}
IMAGE = {"name": "image", "shape": [1, 8, 8, 1], "datatype": "UINT8", "data": [0] * 64}


def run(scenario: Awaitable[None]) -> None:
    asyncio.run(scenario)  # type: ignore[arg-type]


async def until(condition: Callable[[], Awaitable[bool]]) -> float:
    """Seconds until a condition holds."""
    started = time.monotonic()
    while not await condition():
        assert time.monotonic() < started + 60
        await asyncio.sleep(0.05)
    return time.monotonic() - started


async def ready(client: httpx.AsyncClient) -> Any:
    return (await client.get("/v2/health/ready")).json()


async def samples(client: httpx.AsyncClient, name: str) -> dict[tuple[str, ...], float]:
    text = (await client.get("/metrics")).text
    return {
        tuple(sample.labels.values()): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
        if sample.name == name
    }


async def receipt(client: httpx.AsyncClient) -> str:
    answer = await client.post(PATH, json=LOGITS)
    assert answer.status_code == 200, answer.text
    return str(answer.json()["prediction_ids"][0])


async def is_refused_at_once(client: httpx.AsyncClient, *, code: str, said: str) -> None:
    """What would be stored is refused, with the reason, and predictions go on."""
    label = {"prediction_ids": [await receipt(client)], "labels": [1]}
    rows = npz(logits=[[0.0] * 10] * 60, labels=[0] * 60)
    npz_type = {"content-type": "application/x-npz"}
    for answer in await asyncio.gather(
        client.post("/v1/models/digits/labels", json=label),
        client.put("/v1/models/new", json={"n_classes": 3}),
        client.post("/v1/models/digits/calibration-sets", content=rows, headers=npz_type),
    ):
        assert answer.status_code == 503, answer.text
        assert answer.json()["code"] in (code, "storage_unavailable")
        assert said in answer.json()["detail"]
        assert int(answer.headers["retry-after"]) > 0
    assert (await client.post(PATH, content=SEVEN, headers=PNG)).status_code == 200


def test_a_full_disk_refuses_what_must_be_stored_and_heals(tmp_path: Path) -> None:
    async def scenario(state: Path) -> None:
        async with application(state) as client:
            known = await receipt(client)
            filling = fill(state)
            assert await until(lambda: is_degraded(client, "disk_full")) < 30
            document = await ready(client)
            assert document["ready"] is True
            assert (document["database"], document["files"]) == ("degraded", "degraded")
            reason = document["reasons"][0]
            assert (reason["component"], reason["fault"]) == ("database", "disk_full")
            assert "its disk is full" in reason["detail"]
            await is_refused_at_once(client, code="database_unavailable", said="disk is full")
            degraded = await samples(client, "trueprob_degraded")
            assert degraded["database", "disk_full"] == degraded["files", "disk_full"] == 1
            assert sum(degraded.values()) == 2
            filling.unlink()
            await until(lambda: is_ok(client))
            label = {"prediction_ids": [known], "labels": [1]}
            counted = await client.post("/v1/models/digits/labels", json=label)
            assert (counted.status_code, counted.json()["accepted"]) == (200, 1)
            assert sum((await samples(client, "trueprob_degraded")).values()) == 0

    with small_disk(tmp_path / "disk", 8) as disk:
        run(scenario(disk))


async def is_degraded(client: httpx.AsyncClient, fault: str) -> bool:
    return any(reason["fault"] == fault for reason in (await ready(client)).get("reasons", ()))


async def is_ok(client: httpx.AsyncClient) -> bool:
    return bool((await ready(client))["status"] == "ok")


@contextlib.contextmanager
def stopped(server: int) -> Iterator[None]:
    processes = [server, *children(server)]
    for process in processes:
        os.kill(process, signal.SIGSTOP)
    try:
        yield
    finally:
        for process in processes:
            os.kill(process, signal.SIGCONT)


def test_metrics_and_predictions_go_on_while_the_database_hangs(
    new_postgres_url: Callable[[], str], postgres: Path, tmp_path: Path
) -> None:
    server = int((postgres / "data" / "postmaster.pid").read_text().split()[0])

    async def scenario() -> None:
        settings = {"database_url": new_postgres_url(), "receipt_secrets": SECRET}
        async with application(tmp_path / "state", **settings) as client:
            read_at = (await samples(client, "trueprob_statistics_timestamp_seconds"))[()]
            with stopped(server):
                # More than the control routes have threads, before the service knows.
                waiting = [asyncio.create_task(client.get("/v1/models/digits")) for _ in range(50)]
                assert await samples(client, "trueprob_predictions_total") != {}
                await until(lambda: is_degraded(client, "hung"))
                for answer in await asyncio.gather(*waiting):
                    assert answer.status_code == 503
                    assert answer.json()["code"] == "database_unavailable"
                await is_refused_at_once(client, code="database_unavailable", said="does not ans")
                degraded = await samples(client, "trueprob_degraded")
                assert degraded["database", "hung"] == 1
                stale = await samples(client, "trueprob_statistics_timestamp_seconds")
                assert stale == {(): read_at}
            await until(lambda: is_ok(client))
            assert (await client.get("/v1/models/digits")).status_code == 200

    run(scenario())


def damage(file: Path) -> None:
    content = bytearray(file.read_bytes())
    content[len(content) // 2 :] = os.urandom(len(content) - len(content) // 2)
    file.chmod(0o644)
    file.write_bytes(content)


def test_a_damaged_network_is_said_to_be_one(tmp_path: Path) -> None:
    models, state = tmp_path / "models", tmp_path / "state"
    shutil.copytree(ROOT / "models", models)

    async def before() -> None:
        async with application(state, model_repository=models) as client:
            assert (await client.post(PATH, content=SEVEN, headers=PNG)).status_code == 200

    async def after() -> None:
        async with application(state, model_repository=models) as client:
            for answer in (
                await client.post(PATH, content=SEVEN, headers=PNG),
                await client.post("/v2/models/digits/infer", json={"inputs": [IMAGE]}),
                await client.get("/v2/models/digits/ready"),
            ):
                assert answer.status_code == 503, answer.text
                assert answer.json()["code"] == "model_unavailable"
                assert "does not run here: " in answer.json()["detail"]
                assert "retry-after" in answer.headers
            await receipt(client)  # logits are answered
            unavailable = await samples(client, "trueprob_version_unavailable")
            assert unavailable == {("digits", "1"): 1}
            assert (await ready(client))["unavailable"] == 1
            described = (await client.get("/v1/models/digits")).json()["unavailable"]
            assert [each["version"] for each in described] == [1]

    run(before())
    damage(models / "digits" / "1" / "model.onnx")
    run(after())
