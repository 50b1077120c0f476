"""A batch without rows: an answer without rows, in the shapes of every format."""

from __future__ import annotations

import asyncio
import io
import json
import re
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest

from tests.trueprob_service.application import application
from trueprob.client import AsyncClient

DIGITS = "/v1/models/digits/probabilities"
JUDGE = "/v1/models/judge/probabilities"
NPY, NPZ = "application/x-npy", "application/x-npz"
INPUTS = ("logits", "probabilities", "log_probabilities")
Scenario = Callable[[httpx.AsyncClient], Awaitable[None]]


def run(tmp_path: Path, scenario: Scenario) -> None:
    async def started() -> None:
        async with application(tmp_path) as client:
            answer = await client.put("/v1/models/judge", json={"class_names": ["no", "yes"]})
            assert answer.is_success
            await scenario(client)

    asyncio.run(started())


def saved(array: np.ndarray) -> bytes:
    stream = io.BytesIO()
    np.save(stream, array)
    return stream.getvalue()


def loaded(answer: httpx.Response) -> Any:
    assert answer.status_code == 200, answer.text
    return np.load(io.BytesIO(answer.content), allow_pickle=False)


def test_json_without_rows(tmp_path: Path) -> None:
    async def scenario(client: httpx.AsyncClient) -> None:
        for name in (*INPUTS, "images"):
            for space in ("", " ", " \n " * 700, " " * (1 << 21)):
                text = f'{{"{name}": [{space}]}}'
                answer = await client.post(
                    DIGITS, content=text, headers={"content-type": "application/json"}
                )
                assert answer.status_code == 200, answer.text
                document = answer.json()
                assert (document["model"], document["revision"]) == ("digits", 1)
                lists = {"probabilities", "prediction", "class", "confidence", "prediction_ids"}
                assert {key: document[key] for key in lists} == {key: [] for key in lists}
                assert document["temperature"] == []
                assert answer.headers["trueprob-revision"] == "1"
        fields = "logits,logit_gap,top_indices,top_classes,top_probabilities,prediction_ids"
        answer = await client.post(f"{DIGITS}?top=3&return={fields}", json={"logits": []})
        assert answer.json() == {field: [] for field in fields.split(",")}

    run(tmp_path, scenario)


def test_arrays_without_rows(tmp_path: Path) -> None:
    async def scenario(client: httpx.AsyncClient) -> None:
        sent, asked = {"content-type": NPY}, {"accept": NPY}
        for name in INPUTS:
            for shape in ((0, 10), (0,)):
                for dtype in ("<f4", "<f2", ">f8", "<i8"):
                    answer = await client.post(
                        f"{DIGITS}?input={name}", content=saved(np.empty(shape, dtype)),
                        headers={**sent, **asked},
                    )  # fmt: skip
                    array = loaded(answer)
                    assert (array.shape, array.dtype) == ((0, 10), np.float32)
        body = saved(np.empty((0, 10), np.float32))
        fields = loaded(
            await client.post(
                f"{DIGITS}?top=3&receipts=true", content=body, headers={**sent, "accept": NPZ}
            )
        )
        shapes = {name: fields[name].shape for name in fields}
        assert shapes["top_indices"] == shapes["top_classes"] == (0, 3)
        assert shapes["top_probabilities"] == (0, 3)
        assert shapes["prediction"] == shapes["class"] == shapes["prediction_ids"] == (0,)
        kinds = {
            name: fields[name].dtype.kind for name in ("class", "prediction_ids", "prediction")
        }
        assert kinds == {"class": "U", "prediction_ids": "U", "prediction": "i"}
        from_json = await client.post(DIGITS, json={"logits": []}, headers=asked)
        assert loaded(from_json).shape == (0, 10)

    run(tmp_path, scenario)


def test_one_score_without_rows_keeps_its_form(tmp_path: Path) -> None:
    async def scenario(client: httpx.AsyncClient) -> None:
        for shape in ((0,), (0, 1), (0, 2)):
            headers = {"content-type": NPY, "accept": NPY}
            content = saved(np.empty(shape, np.float32))
            assert loaded(await client.post(JUDGE, content=content, headers=headers)).shape == shape
            headers["accept"] = "application/json"
            answer = (await client.post(JUDGE, content=content, headers=headers)).json()
            assert ("p1" in answer) == (shape != (0, 2))
        answer = await client.post(JUDGE, json={"probabilities": []})
        assert answer.json()["prediction"] == []

    run(tmp_path, scenario)


def test_nothing_is_counted_and_the_next_answer_is_as_before(tmp_path: Path) -> None:
    async def scenario(client: httpx.AsyncClient) -> None:
        row = {"logits": [[0.1, 4.2, -1.0, 0.3, 0.0, -2.1, 0.7, 1.1, -0.4, 0.2]]}
        before = (await client.post(DIGITS, json=row)).json()
        for _ in range(3):
            await client.post(DIGITS, json={"logits": []})
        after = (await client.post(DIGITS, json=row)).json()
        assert after["probabilities"] == before["probabilities"]
        text = (await client.get("/metrics")).text
        counts = re.findall(r'^trueprob_logit_gap_count\{model="digits",.*\} (.*)$', text, re.M)
        assert counts == ["2.0"]

    run(tmp_path, scenario)


TENSORS: list[tuple[str, list[int], str]] = [
    ("logits", [0, 10], "FP32"),
    ("logits", [0, 10], "FP64"),
    ("logits", [0], "FP32"),
    ("logits", [0, 10], "INT8"),
    ("image", [0, 8, 8, 1], "UINT8"),
]


@pytest.mark.parametrize(("name", "shape", "datatype"), TENSORS)
@pytest.mark.parametrize("binary", [True, False])
def test_tensors_without_rows(
    name: str, shape: list[int], datatype: str, binary: bool, tmp_path: Path
) -> None:
    tensor: dict[str, Any] = {"name": name, "shape": shape, "datatype": datatype}
    tensor |= {"parameters": {"binary_data_size": 0}} if binary else {"data": []}
    outputs = ("probabilities", "prediction", "logits", "logit_gap", "prediction_id")

    async def scenario(client: httpx.AsyncClient) -> None:
        asked = [{"name": each, "parameters": {"binary_data": binary}} for each in outputs]
        body = json.dumps({"inputs": [tensor], "outputs": asked})
        headers = {"inference-header-content-length": str(len(body))} if binary else {}
        answer = await client.post("/v2/models/digits/infer", content=body, headers=headers)
        assert answer.status_code == 200, answer.text
        length = int(answer.headers.get("inference-header-content-length", len(answer.content)))
        assert length == len(answer.content)
        found = {each["name"]: each["shape"] for each in json.loads(answer.content)["outputs"]}
        assert found == {each: [0] for each in outputs} | {
            "probabilities": [0, 10],
            "logits": [0, 10],
        }

    run(tmp_path, scenario)


def test_rows_of_another_length_stay_errors_without_rows_too(tmp_path: Path) -> None:
    async def scenario(client: httpx.AsyncClient) -> None:
        for shape in ((0, 9), (0, 1), (0, 0), (0, 10, 1), (1, 0)):
            content = saved(np.empty(shape, np.float32))
            answer = await client.post(DIGITS, content=content, headers={"content-type": NPY})
            assert answer.status_code == 422, shape
            assert answer.json()["detail"].startswith("logits must have shape (n, 10)")
            if len(shape) == 2 and shape[1]:
                tensor = {"name": "logits", "shape": shape, "datatype": "FP32", "data": []}
                answer = await client.post("/v2/models/digits/infer", json={"inputs": [tensor]})
                assert answer.status_code == 422
        assert (await client.post(JUDGE, json={"images": []})).status_code == 422
        assert (await client.post(DIGITS, json={"logits": [[]]})).status_code == 422
        assert (await client.post(DIGITS, json={"logits": [], "images": []})).status_code == 422

    run(tmp_path, scenario)


def test_sets_without_rows_stay_errors(tmp_path: Path) -> None:
    async def scenario(client: httpx.AsyncClient) -> None:
        model = "/v1/models/digits"
        for body, words in (
            ({"logits": [], "labels": []}, "logits must be a non-empty list of rows"),
            ({"images": [], "labels": []}, "images must be a list of base64 strings with at least"),
        ):
            answer = await client.post(f"{model}/calibration-sets", json=body)
            assert answer.status_code == 422, answer.text
            assert answer.json()["detail"].startswith(words)
        stream = io.BytesIO()
        np.savez(stream, logits=np.empty((0, 10), np.float32), labels=np.empty(0, np.int64))
        answer = await client.post(
            f"{model}/calibration-sets", content=stream.getvalue(), headers={"content-type": NPZ}
        )
        assert (answer.status_code, "at least" in answer.json()["detail"]) == (422, True)

    run(tmp_path, scenario)


def test_our_client_sends_and_reads_them(tmp_path: Path) -> None:
    async def scenario(http: httpx.AsyncClient) -> None:
        client = AsyncClient("http://localhost", transport=http._transport)
        for binary in (True, False):
            answer = await client.predict("digits", logits=np.empty((0, 10)), binary=binary)
            assert answer.probabilities.shape == (0, 10)
            assert answer.prediction.shape == (0,)
        answer = await client.predict("digits", images=[])
        assert answer.probabilities.shape == (0, 10)
        parts = await client.predict_fields("digits", ["top_classes"], top=2, logits=[])
        assert parts.top_classes == ()

    run(tmp_path, scenario)
