"""What an answer holds: by Accept, by ?return= and by ?top=."""

import asyncio
import io
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest

from tests.trueprob_service.application import ROOT, application
from trueprob_service.inference.answer import FIELDS, JSON_FIELDS, NPZ_FIELDS, TOP_FIELDS
from trueprob_service.inference.wire import npy

pytestmark = pytest.mark.slow

PREDICT = "/v1/models/digits/probabilities"
LOGITS = np.random.default_rng(0).normal(0, 4, (5, 10)).round(3)
NPZ = {"accept": "application/x-npz"}


def run(tmp_path: Path, scenario: Callable[[httpx.AsyncClient], Awaitable[None]]) -> None:
    async def started() -> None:
        async with application(tmp_path) as client:
            await scenario(client)

    asyncio.run(started())


async def ask(client: httpx.AsyncClient, query: str = "", **headers: str) -> httpx.Response:
    return await client.post(PREDICT + query, json={"logits": LOGITS.tolist()}, headers=headers)


def loaded(answer: httpx.Response) -> dict[str, np.ndarray]:
    assert answer.headers["content-type"] == "application/x-npz"
    with np.load(io.BytesIO(answer.content), allow_pickle=False) as archive:
        return dict(archive)


def same(array: np.ndarray, listed: Any) -> bool:
    return np.array_equal(array, np.asarray(listed, array.dtype))


def test_an_npz_answer_holds_everything(tmp_path: Path) -> None:
    async def scenario(client: httpx.AsyncClient) -> None:
        listed = (await ask(client, "?return=" + ",".join(NPZ_FIELDS))).json()
        arrays = loaded(await ask(client, **NPZ))
        present = tuple(name for name in NPZ_FIELDS if name != "log_odds")  # of two classes only
        assert tuple(arrays) == present
        for name in set(present) - {"prediction_ids"}:
            assert same(arrays[name], listed[name]), name
        assert arrays["probabilities"].dtype == np.float32
        assert arrays["model"] == "digits"
        labels = {"prediction_ids": arrays["prediction_ids"].tolist(), "labels": [0] * 5}
        assert (await client.post("/v1/models/digits/labels", json=labels)).json()["accepted"] == 5
        quiet = loaded(await ask(client, "?receipts=false", **NPZ))
        assert set(present) - set(quiet) == {"prediction_ids"}
        # Stored, not deflated: as large as its arrays and the directory.
        answer = await ask(client, **NPZ)
        assert len(answer.content) > sum(array.nbytes for array in arrays.values())

    run(tmp_path, scenario)


def test_what_is_null_is_left_out_of_an_npz() -> None:
    archive = npy.encode_npz({"temperature": None, "revision": 3, "class": ["é", "ab"]})
    with np.load(io.BytesIO(archive), allow_pickle=False) as arrays:
        assert arrays.files == ["revision", "class"]
        assert arrays["revision"] == 3
        assert arrays["class"].tolist() == ["é", "ab"]


def test_return_selects_in_its_order(tmp_path: Path) -> None:
    async def scenario(client: httpx.AsyncClient) -> None:
        whole = (await ask(client)).json()
        for names in (["confidence", "class"], ["model"], ["logit_gap", "logits", "prediction"]):
            answer = await ask(client, "?return=" + ", ".join(names))
            assert list(answer.json()) == names
            for name in set(names) & set(whole):
                assert answer.json()[name] == whole[name]
            assert answer.headers["trueprob-version"] == "1"
            assert list(loaded(await ask(client, "?return=" + ",".join(names), **NPZ))) == names
        assert same(
            LOGITS.astype(np.float32), (await ask(client, "?return=logits")).json()["logits"]
        )
        ids = await ask(client, "?return=prediction_ids")
        assert len(ids.json()["prediction_ids"]) == 5
        assert (await ask(client, "?return=prediction_ids&receipts=false")).json() == {}

    run(tmp_path, scenario)


def test_receipts_that_are_named_are_issued_however_many(tmp_path: Path) -> None:
    async def scenario(client: httpx.AsyncClient) -> None:
        rows = {"logits": np.zeros((300, 10)).tolist()}
        assert "prediction_ids" not in (await client.post(PREDICT, json=rows)).json()
        named = await client.post(PREDICT + "?return=prediction_ids", json=rows)
        assert len(set(named.json()["prediction_ids"])) == 300

    run(tmp_path, scenario)


def test_top_gives_the_likeliest_classes_in_place_of_the_rows(tmp_path: Path) -> None:
    async def scenario(client: httpx.AsyncClient) -> None:
        whole = (await ask(client, "?receipts=false")).json()
        probabilities = np.asarray(whole["probabilities"])
        for m in (1, 3, 10):
            short = (await ask(client, f"?top={m}&receipts=false")).json()
            assert set(whole) - set(short) == {"probabilities"}
            assert set(short) - set(whole) == set(TOP_FIELDS)
            order = np.argsort(-probabilities, axis=1)[:, :m]
            assert short["top_indices"] == order.tolist()
            assert short["top_classes"] == [[str(j) for j in row] for row in order]
            expected = np.take_along_axis(probabilities, order, axis=1)
            assert short["top_probabilities"] == expected.tolist()
            arrays = loaded(await ask(client, f"?top={m}", **NPZ))
            assert all(same(arrays[name], short[name]) for name in TOP_FIELDS)
        both = (await ask(client, "?top=2&return=top_classes,probabilities")).json()
        assert list(both) == ["top_classes", "probabilities"]

    run(tmp_path, scenario)


REFUSED = [
    ("?return=probability", {}, 422, "unknown field 'probability': expected model, version"),
    ("?return=", {}, 422, "unknown field ''"),
    ("?return=class,class", {}, 422, "return names 'class' twice"),
    ("?return=top_indices", {}, 422, "top must say how many"),
    ("?return=class", {"accept": "application/x-npy"}, 422, "return is for JSON and .npz answers"),
    ("?top=2", {"accept": "application/x-npy"}, 422, "top is for JSON and .npz answers"),
    ("?top=0", {}, 422, "top must be a positive integer, got '0'"),
    ("?top=-1", {}, 422, "top must be a positive integer"),
    ("?top=1.5", {}, 422, "top must be a positive integer"),
    ("?top=11", {}, 422, "top must be from 1 to 10, got 11"),
    ("", {"accept": "image/png"}, 406, "application/json, application/x-npy, application/x-npz"),
]


def test_what_cannot_be_selected_is_named(tmp_path: Path) -> None:
    async def scenario(client: httpx.AsyncClient) -> None:
        for query, headers, status, words in REFUSED:
            answer = await ask(client, query, **headers)
            assert answer.status_code == status, (query, answer.text)
            assert answer.headers["content-type"] == "application/problem+json"
            assert words in answer.json()["detail"]

    run(tmp_path, scenario)


@pytest.mark.parametrize("name", FIELDS)
def test_every_field_is_documented(name: str) -> None:
    assert f"`{name}`" in (ROOT / "docs/http-api.md").read_text("utf-8")


def test_the_default_is_made_of_fields() -> None:
    assert set(JSON_FIELDS) < set(NPZ_FIELDS) < set(FIELDS)
