"""Every POST of the service, sent twice: what is stored after the second is what was after one."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from pathlib import Path
from typing import Any, Final

import httpx
import numpy as np
import pytest

from tests.trueprob_service.application import application
from tests.trueprob_service.control.harness import WAIT, Clock, npz
from trueprob_service.control.store import open_store

MODEL: Final = "/v1/models/digits"
NPZ: Final = {"content-type": "application/x-npz", **WAIT}
LOGITS: Final = np.random.default_rng(5).normal(0, 4, (300, 10)).astype(np.float32)
LABELS: Final = np.argmax(LOGITS / 4 + np.random.default_rng(6).gumbel(size=LOGITS.shape), axis=1)
ROWS: Final = npz(logits=LOGITS, labels=LABELS)

Send = Callable[[httpx.AsyncClient], Awaitable[httpx.Response]]
Make = Callable[[httpx.AsyncClient], Awaitable[Send]]


def posting(path: str, **request: Any) -> Make:
    """The same request, of which nothing has to be known before."""

    async def make(_client: httpx.AsyncClient) -> Send:
        return lambda client: client.post(path, **request)

    return make


async def upload(client: httpx.AsyncClient, query: str = "") -> Any:
    answer = await client.post(f"{MODEL}/calibration-sets{query}", content=ROWS, headers=NPZ)
    assert answer.status_code == 201, answer.text
    return answer.json()


def fitting(body: Mapping[str, object]) -> Make:
    """A fit of rows that are here: as a set, and as labelled rows."""

    async def make(client: httpx.AsyncClient) -> Send:
        await upload(client, "?name=may&promote=never&method=temperature")
        rows = [
            {"id": str(index), "logits": values, "label": int(label)}
            for index, (values, label) in enumerate(zip(LOGITS.tolist(), LABELS, strict=True))
        ]
        assert (await client.post(f"{MODEL}/labels", json={"rows": rows})).status_code == 200
        return await posting(f"{MODEL}/fits", json=body, headers=WAIT)(client)

    return make


async def promoting(client: httpx.AsyncClient) -> Send:
    calibrator = (await upload(client, "?promote=never"))["calibrator"]
    path = f"{MODEL}/calibrators/{calibrator}/promote?force=true"
    return await posting(path, headers={"if-match": '"1"'})(client)


async def rolling_back(client: httpx.AsyncClient) -> Send:
    await upload(client, "?promote=always")
    return await posting(f"{MODEL}/rollback", headers={"if-match": '"2"'})(client)


async def predicted(client: httpx.AsyncClient, n: int) -> list[str]:
    ids: list[str] = []
    for start in range(0, n, 20):
        body = {"logits": LOGITS[start : start + 20].tolist()}
        answer = await client.post(f"{MODEL}/probabilities", json=body)
        assert answer.status_code == 200, answer.text
        ids += answer.json()["prediction_ids"]
    return ids


async def labelling(client: httpx.AsyncClient) -> Send:
    body = {"prediction_ids": await predicted(client, 20), "labels": LABELS[:20].tolist()}
    return await posting(f"{MODEL}/labels", json=body)(client)


async def acknowledging(client: httpx.AsyncClient) -> Send:
    wrong = np.argmin(LOGITS, axis=1).tolist()
    body = {"prediction_ids": await predicted(client, 300), "labels": wrong}
    assert (await client.post(f"{MODEL}/labels", json=body)).status_code == 200
    alarm = (await client.get(f"{MODEL}/alarms")).json()["items"][0]["id"]
    return await posting(f"{MODEL}/alarms/{alarm}/acknowledge")(client)


SET: Final = f"{MODEL}/calibration-sets"
ROW: Final = {"id": "a", "logits": LOGITS[0].tolist(), "label": 1}
TENSOR: Final = {"name": "logits", "shape": [1, 10], "datatype": "FP32", "data": LOGITS[0].tolist()}
PROBABILITIES: Final = {"logits": LOGITS[:2].tolist()}
# Of each route a few requests, and how the second is answered.
CASES: Final[dict[str, list[tuple[Make, int]]]] = {
    "/v1/models/{model}/calibration-sets": [
        (posting(f"{SET}?promote={promote}&name=may", content=ROWS, headers=NPZ), 201)
        for promote in ("auto", "never", "always", "shadow")
    ],
    "/v1/models/{model}/calibration-sets/{name}/rows": [
        (posting(f"{SET}/may/rows", content=ROWS, headers=NPZ), 200)
    ],
    "/v1/models/{model}/fits": [
        (fitting({"calibration_set": "may"}), 201),
        (fitting({"calibration_set": "may", "promote": "shadow"}), 201),
        (fitting({"source": "refit-window", "promote": "always"}), 201),
    ],
    "/v1/models/{model}/calibrators/{calibrator}/promote": [(promoting, 412)],
    "/v1/models/{model}/rollback": [(rolling_back, 412)],
    "/v1/models/{model}/labels": [
        (labelling, 200),
        (posting(f"{MODEL}/labels", json={"rows": [ROW]}), 200),
    ],
    "/v1/models/{model}/alarms/{alarm}/acknowledge": [(acknowledging, 200)],
    "/v1/models/{model}/probabilities": [
        (posting(f"{MODEL}/probabilities", json=PROBABILITIES), 200)
    ],
    "/v2/models/{model}/infer": [
        (posting("/v2/models/digits/infer", json={"inputs": [TENSOR]}), 200)
    ],
    "/v2/models/{model}/versions/{version}/infer": [
        (posting("/v2/models/digits/versions/1/infer", json={"inputs": [TENSOR]}), 200)
    ],
}


def stored(folder: Path) -> dict[str, list[dict[str, Any]]]:
    """Every row of every table."""
    store = open_store(f"sqlite:///{folder / 'trueprob.sqlite3'}")
    with store.read() as transaction:
        rows = {name: list(transaction.state.rows(name)) for name in transaction.state.tables}
    store.close()
    return rows


def test_every_post_has_a_case(tmp_path: Path) -> None:
    async def scenario() -> set[str]:
        async with application(tmp_path) as client:
            paths = (await client.get("/openapi.json")).json()["paths"]
        return {path for path, operations in paths.items() if "post" in operations}

    assert asyncio.run(scenario()) == set(CASES)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("make", "status"),
    [pytest.param(*case, id=f"{path} {n}") for path in CASES for n, case in enumerate(CASES[path])],
)
def test_the_second_one_changes_nothing(tmp_path: Path, make: Make, status: int) -> None:
    clock = Clock()

    async def scenario() -> None:
        async with application(tmp_path, clock=clock, refit_policy="off") as client:
            send = await make(client)
            clock.now += 1
            first = await send(client)
            assert first.status_code == (200 if status == 412 else status), first.text
            before = stored(tmp_path)
            calibration = (await client.get(f"{MODEL}/calibration")).json()
            clock.now += 1
            second = await send(client)
            assert second.status_code == status, second.text
            after = stored(tmp_path)
            if status == 412:  # the audit trail has who was refused, and nothing else changes
                entries, earlier = after.pop("audit_entry"), before.pop("audit_entry")
                assert entries[: len(earlier)] == earlier
                assert [entry["outcome"] for entry in entries[len(earlier) :]] == ["refused"]
                del after["audit_head"], before["audit_head"]
            assert after == before
            assert (await client.get(f"{MODEL}/calibration")).json() == calibration

    asyncio.run(scenario())
