"""The routes that document the hot paths: FastAPI describes them but never answers them."""

from __future__ import annotations

import asyncio
from pathlib import Path

import httpx
import pytest
from fastapi import FastAPI

from tests.trueprob_service.application import application
from trueprob_service.edge.bodies import CODINGS
from trueprob_service.errors import NotFound
from trueprob_service.inference.asgi import HOT_ROUTES, PREDICT
from trueprob_service.inference.wire import images, json_rows, npy
from trueprob_service.inference.wire.oip import HEADER_LENGTH
from trueprob_service.prediction_routes import create_router

ROW = [0.1, 4.2, -1.0, 0.3, 0.0, -2.1, 0.7, 1.1, -0.4, 0.2]
PREDICTION = {"logits": [ROW]}
INFERENCE = {"inputs": [{"name": "logits", "shape": [1, 10], "datatype": "FP32", "data": ROW}]}
OCTETS = "application/octet-stream"


def alone() -> FastAPI:
    """An application with these routes only."""
    api = FastAPI()
    api.include_router(create_router())
    return api


def operations() -> list[tuple[str, str]]:
    paths = alone().openapi()["paths"]
    return [(method.upper(), path) for path, item in paths.items() for method in item]


async def ask(client: httpx.AsyncClient, method: str, path: str) -> httpx.Response:
    address = path.replace("{model}", "digits").replace("{version}", "1")
    body = PREDICTION if path == PREDICT else INFERENCE
    return await client.request(method, address, json=body if method == "POST" else None)


def test_they_are_the_hot_routes() -> None:
    hot = {(m, path) for path, methods in HOT_ROUTES.items() for m in methods if m != "HEAD"}
    assert set(operations()) == hot


def test_the_hot_path_answers_before_the_router(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with application(tmp_path) as client:
            for method, path in operations():
                answer = await ask(client, method, path)
                assert answer.status_code == 200, (method, path, answer.text)

    asyncio.run(scenario())


@pytest.mark.parametrize(("method", "path"), operations())
def test_a_function_that_is_called_anyway_answers_404(method: str, path: str) -> None:
    async def scenario() -> None:
        transport = httpx.ASGITransport(app=alone())
        async with httpx.AsyncClient(transport=transport, base_url="http://localhost") as client:
            with pytest.raises(NotFound, match="no route has this path"):
                await ask(client, method, path)

    asyncio.run(scenario())


def test_what_the_hot_path_reads_and_writes_is_in_the_document() -> None:
    paths = alone().openapi()["paths"]
    predict = paths[PREDICT]["post"]
    assert set(predict["requestBody"]["content"]) == {
        json_rows.MEDIA_TYPE,
        npy.MEDIA_TYPE,
        npy.NPZ_MEDIA_TYPE,
        *images.MEDIA_TYPES,
        images.MULTIPART_MEDIA_TYPE,
    }
    assert set(predict["responses"]["200"]["content"]) == {
        json_rows.MEDIA_TYPE,
        npy.MEDIA_TYPE,
        npy.NPZ_MEDIA_TYPE,
    }
    named = {p["name"] for p in predict["parameters"]}
    assert named == {
        "model", "version", "receipts", "input", "return", "top", "id_from", "X-Prediction-Id",
    }  # fmt: skip
    # Each says how the body is to be read, so it is told and not offered as a parameter.
    assert all(coding in predict["description"] for coding in CODINGS)
    infer = paths["/v2/models/{model}/versions/{version}/infer"]["post"]
    assert set(infer["requestBody"]["content"]) == {"application/json", OCTETS}
    assert set(infer["responses"]["200"]["content"]) == {"application/json", OCTETS}
    assert {p["name"] for p in infer["parameters"]} == {"model", "version", "X-Prediction-Id"}
    assert HEADER_LENGTH in infer["description"].lower()
    for operation in (predict, infer):
        assert {"400", "404", "413", "415", "422", "503"} <= set(operation["responses"])
        for status, response in operation["responses"].items():
            assert status == "200" or set(response["content"]) == {"application/problem+json"}


def test_every_field_of_an_answer_is_in_its_schema(tmp_path: Path) -> None:
    schemas = alone().openapi()["components"]["schemas"]
    fields = "logits,logit_gap,prediction_ids,top_indices,top_classes,top_probabilities"

    async def scenario() -> None:
        async with application(tmp_path) as client:
            address = PREDICT.replace("{model}", "digits")
            answers = [
                await client.post(address, json=PREDICTION),
                await client.post(f"{address}?return={fields}&top=2", json=PREDICTION),
            ]
            found = set().union(*(answer.json() for answer in answers))
            # Those of two classes: tests/trueprob_service/test_two_classes.py.
            assert found | {"log_odds", "p1", "normalised"} == set(
                schemas["PredictionResponse"]["properties"]
            )
            answer = (await client.post("/v2/models/digits/infer", json=INFERENCE)).json()
            assert set(answer) <= set(schemas["InferenceResponse"]["properties"])
            assert set(answer) >= set(schemas["InferenceResponse"]["required"])

    asyncio.run(scenario())
