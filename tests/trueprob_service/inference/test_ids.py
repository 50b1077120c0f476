"""Ids of the caller beside every kind of rows, and those that are refused."""

from __future__ import annotations

import asyncio
import base64
import io
import json
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest

from tests.trueprob_service.application import ROOT, application

pytestmark = pytest.mark.slow

MODEL = "/v1/models/digits"
INFER = "/v2/models/digits/infer"
LOGITS = np.random.default_rng(0).normal(size=(3, 10)).astype(np.float32)
PICTURE = (ROOT / "examples" / "seven.png").read_bytes()
JSON = {"content-type": "application/json"}


def run(tmp_path: Path, use: Callable[[httpx.AsyncClient], Awaitable[None]], **more: Any) -> None:
    async def within() -> None:
        quiet = {"poll_seconds": 3600, "repository_poll_seconds": 0}
        async with application(tmp_path, **quiet, **more) as client:
            await use(client)

    asyncio.run(within())


async def known(client: httpx.AsyncClient, ids: list[str]) -> list[str]:
    """The outcomes of labels for these ids."""
    body = {"ids": ids, "labels": [1] * len(ids)}
    answer = await client.post(f"{MODEL}/labels?wait=0", json=body)
    assert answer.status_code == 200, answer.text
    outcomes = ["accepted"] * len(ids)
    for each in answer.json()["outcomes"]:
        outcomes[each["index"]] = each["outcome"]
    return outcomes


def npy(array: Any) -> bytes:
    buffer = io.BytesIO()
    np.save(buffer, array)
    return buffer.getvalue()


def npz(**arrays: Any) -> bytes:
    buffer = io.BytesIO()
    np.savez(buffer, **arrays)
    return buffer.getvalue()


def infer_body(**more: Any) -> dict[str, Any]:
    tensor = {"name": "logits", "shape": [3, 10], "datatype": "FP32", "data": LOGITS.tolist()}
    return {"inputs": [tensor], **more}


def test_every_kind_of_rows_may_have_ids(tmp_path: Path) -> None:
    rows = LOGITS.tolist()
    probabilities = (np.exp(LOGITS) / np.exp(LOGITS).sum(axis=1, keepdims=True)).tolist()
    picture = base64.b64encode(PICTURE).decode()
    three = [("image", ("a.png", PICTURE, "image/png"))] * 3
    many = np.random.default_rng(1).normal(size=(9000, 10)).round(3).tolist()
    as_npz, as_npy = {"content-type": "application/x-npz"}, {"content-type": "application/x-npy"}
    texts, octets = np.array(["é", "n2", "n3"]), np.array([b"o1", b"o2", b"o3"])
    # The request, and the ids that its rows have then. Each id is in one request only.
    requests: list[tuple[dict[str, Any], list[str]]] = [
        ({"json": {"logits": rows, "ids": ["a", "b", "ü"]}}, ["a", "b", "ü"]),
        ({"json": {"ids": [1, 2, "x"], "probabilities": probabilities}}, ["1", "2", "x"]),
        ({"content": b'{"logits": [[1, null, 0, 0, 0, 0, 0, 0, 0, 2]], "ids": ["m"], '
          b'"masked": true}', "headers": JSON}, ["m"]),
        ({"json": {"images": [picture] * 2, "ids": ["p", "q"]}}, ["p", "q"]),
        ({"json": {"logits": many, "ids": list(range(1000, 10_000))}},
         [str(number) for number in range(1000, 10_000)]),
        ({"content": PICTURE, "headers": {"x-prediction-id": "one", "content-type": "image/png"}},
         ["one"]),
        ({"files": three, "headers": {"x-prediction-id": "form"}}, ["form/0", "form/1", "form/2"]),
        ({"content": npy(LOGITS), "headers": {"x-prediction-id": "npy", **as_npy}},
         ["npy/0", "npy/1", "npy/2"]),
        ({"content": npz(logits=LOGITS), "headers": {"x-prediction-id": "npz", **as_npz}},
         ["npz/0", "npz/1", "npz/2"]),
        ({"content": npz(logits=LOGITS, ids=texts), "headers": as_npz}, ["é", "n2", "n3"]),
        ({"content": npz(logits=LOGITS, ids=octets), "headers": as_npz}, ["o1", "o2", "o3"]),
        ({"content": npz(probabilities=np.array(probabilities), ids=np.arange(7, 10)),
          "headers": as_npz}, ["7", "8", "9"]),
        ({"json": {"logits": rows[:1]}, "params": {"id_from": "request-id"},
          "headers": {"x-request-id": "trace-1"}}, ["trace-1"]),
        ({"json": {"logits": rows[:1]}, "headers": {"x-prediction-id": "ö".encode()}}, ["ö"]),
    ]  # fmt: skip
    path = f"{MODEL}/probabilities"

    async def use(client: httpx.AsyncClient) -> None:
        for request, ids in requests:
            answer = await client.post(path, **request)
            assert answer.status_code == 200, (ids, answer.text)
            assert await known(client, [*ids, "c"]) == ["accepted"] * len(ids) + ["unknown_id"]
        for body, headers, ids in (
            (infer_body(id="call", parameters={"remember_id": True}), {},
             ["call/0", "call/1", "call/2"]),
            (infer_body(id="not me"), {"x-prediction-id": "call-2"},
             ["call-2/0", "call-2/1", "call-2/2"]),
        ):  # fmt: skip
            answer = await client.post(INFER, json=body, headers=headers)
            assert answer.status_code == 200, answer.text
            assert await known(client, [*ids, "not me/0"]) == ["accepted"] * 3 + ["unknown_id"]

    run(tmp_path, use)


def test_an_id_is_only_remembered_when_asked_for(tmp_path: Path) -> None:
    async def use(client: httpx.AsyncClient) -> None:
        rows = {"logits": LOGITS[:1].tolist()}
        await client.post(f"{MODEL}/probabilities", json=rows, headers={"x-request-id": "trace"})
        await client.post(INFER, json=infer_body(id="call"))
        assert set(await known(client, ["trace", "call", "call/0"])) == {"unknown_id"}

    run(tmp_path, use)


def test_a_receipt_and_an_id_of_one_prediction_count_once(tmp_path: Path) -> None:
    async def use(client: httpx.AsyncClient) -> None:
        body = {"logits": LOGITS.tolist(), "ids": ["a", "b", "c"]}
        answer = await client.post(f"{MODEL}/probabilities", json=body)
        receipts = answer.json()["prediction_ids"]
        assert await known(client, ["a", "b"]) == ["accepted"] * 2
        labels = {"prediction_ids": receipts, "labels": [1, 1, 1]}
        counted = (await client.post(f"{MODEL}/labels", json=labels)).json()
        assert (counted["accepted"], counted["duplicate"]) == (1, 2)
        output = [{"name": "prediction_id"}]
        body = infer_body(id="r", parameters={"remember_id": True}, outputs=output)
        receipts = (await client.post(INFER, json=body)).json()["outputs"][0]["data"]
        assert await known(client, ["r/0", "r/1", "r/2"]) == ["accepted"] * 3
        labels = {"prediction_ids": receipts, "labels": [1, 1, 1]}
        assert (await client.post(f"{MODEL}/labels", json=labels)).json()["duplicate"] == 3

    run(tmp_path, use)


def test_ids_that_cannot_be_remembered_are_refused_with_the_reason(tmp_path: Path) -> None:
    rows = LOGITS.tolist()
    path = f"{MODEL}/probabilities"
    header = {"x-prediction-id": "a"}
    npz_type = {"content-type": "application/x-npz"}
    refused: list[tuple[dict[str, Any], str]] = [
        ({"json": {"logits": rows, "ids": ["a", "b"]}},
         "ids must have one id for each row, 3, got 2"),
        ({"json": {"logits": rows, "ids": []}}, "ids must have one id for each row, 3, got 0"),
        ({"json": {"logits": rows, "ids": ["a", "b", "a"]}},
         "ids must differ: 'a' is the id of rows 0 and 2"),
        ({"json": {"logits": rows, "ids": ["1", "b", 1]}},
         "ids must differ: '1' is the id of rows 0 and 2"),
        ({"json": {"logits": rows, "ids": ["a", "b", "c"]}, "headers": header},
         "ids are given twice: in the body and as X-Prediction-Id"),
        ({"json": {"logits": rows}, "headers": {"x-prediction-id": "x" * 127}},
         "X-Prediction-Id must have 1 to 128 characters, with"),
        ({"json": {"logits": rows[:1]}, "headers": {"x-prediction-id": "x" * 129}},
         "X-Prediction-Id must have 1 to 128 characters, and no control"),
        ({"json": {"logits": rows[:1]}, "headers": {"x-prediction-id": ""}},
         "X-Prediction-Id must have 1 to 128 characters"),
        ({"json": {"logits": rows[:1]}, "headers": {"x-prediction-id": b"\xff"}},
         "X-Prediction-Id must be UTF-8"),
        ({"json": {"logits": rows[:1]}, "params": {"id_from": "request-id"}},
         "X-Request-Id must have 1 to 128 characters"),
        ({"json": {"logits": rows[:1]}, "params": {"id_from": "body"}},
         "id_from must be one of request-id, got 'body'"),
        ({"json": {"logits": rows[:1]}, "params": {"id_from": "request-id"},
          "headers": {**header, "x-request-id": "b"}},
         "ids are given twice: as X-Prediction-Id and by id_from"),
        ({"content": npz(logits=LOGITS, ids=np.zeros((3, 1), int)), "headers": npz_type},
         "ids must be one text or integer for each row, got an array of shape (3, 1) of int64"),
        ({"content": npz(logits=LOGITS, ids=np.zeros(3)), "headers": npz_type},
         "ids must be one text or integer for each row, got an array of shape (3,) of float64"),
        ({"content": npz(logits=LOGITS, rows=LOGITS), "headers": npz_type},
         "the .npz must have exactly one of logits, probabilities, log_probabilities, rows"),
        ({"content": npz(ids=np.arange(3)), "headers": npz_type}, "the .npz must have exactly one"),
        ({"content": npz(logits=np.array(["a"])), "headers": npz_type},
         "logits: expected numbers, got dtype <U1"),
        ({"content": b"PK\x03\x04", "headers": npz_type}, "the body"),
    ]  # fmt: skip

    async def use(client: httpx.AsyncClient) -> None:
        for request, message in refused:
            answer = await client.post(path, **request)
            assert answer.status_code == 422, (message, answer.text)
            assert answer.json()["detail"].startswith(message), answer.text
        assert set(await known(client, ["a", "b", "1"])) == {"unknown_id"}
        for body, message in (
            (infer_body(parameters={"remember_id": True}), "remember_id needs an id"),
            (infer_body(id="", parameters={"remember_id": True}), "remember_id needs an id"),
            (infer_body(id="a", parameters={"remember_id": 1}), "remember_id must be true or"),
        ):
            answer = await client.post(INFER, json=body)
            assert answer.status_code == 422, answer.text
            assert message in answer.json()["detail"]
        both = infer_body(id="a", parameters={"remember_id": True})
        answer = await client.post(INFER, json=both, headers=header)
        assert "ids are given twice" in answer.json()["detail"]

    run(tmp_path, use)


def test_no_rows_take_no_ids(tmp_path: Path) -> None:
    async def use(client: httpx.AsyncClient) -> None:
        answer = await client.post(f"{MODEL}/probabilities", json={"logits": [], "ids": []})
        assert answer.status_code == 200, answer.text
        assert answer.json()["prediction"] == []

    run(tmp_path, use)


def test_a_version_that_is_not_live_or_a_service_without_memory_refuses_ids(
    tmp_path: Path,
) -> None:
    body = json.dumps({"logits": LOGITS[:1].tolist(), "ids": ["a"]}).encode()

    async def use(client: httpx.AsyncClient) -> None:
        answer = await client.post(f"{MODEL}/probabilities", content=body, headers=JSON)
        assert answer.status_code == 422
        assert "remember_ttl_seconds is 0" in answer.json()["detail"]
        answer = await client.get("/metrics")
        assert "trueprob_remembered_total{}" not in answer.text

    run(tmp_path, use, remember_ttl_seconds=0)
