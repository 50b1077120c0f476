"""The Open Inference Protocol's routes without a client library: what is answered, what refused."""

import asyncio
import io
import json
import shutil
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from prometheus_client.parser import text_string_to_metric_families

from tests.trueprob_service.application import ROOT, application
from tests.trueprob_service.edge.test_bad_input import check
from trueprob_service.inference.open_inference.routes import ROUTES, OipPath

pytestmark = pytest.mark.slow

DIGITS = "/v2/models/digits"
INFER = f"{DIGITS}/infer"
LENGTH = "inference-header-content-length"
LOGITS = np.random.default_rng(3).normal(0, 3, (4, 10)).astype(np.float32)


def with_client(
    tmp_path: Path,
    scenario: Callable[[httpx.AsyncClient], Coroutine[Any, Any, None]],
    **values: Any,
) -> None:
    async def run() -> None:
        async with application(tmp_path, **values) as client:
            await scenario(client)

    asyncio.run(run())


def logits_input(logits: np.ndarray = LOGITS, **fields: Any) -> dict[str, Any]:
    data = [float(value) for value in logits.ravel()]
    entry = {"name": "logits", "shape": list(logits.shape), "datatype": "FP32", "data": data}
    return {**entry, **fields}


def asking(*outputs: str, **fields: Any) -> dict[str, Any]:
    chosen = {"outputs": [{"name": name} for name in outputs]} if outputs else {}
    return {"inputs": [logits_input()], **chosen, **fields}


def tensors(answer: httpx.Response) -> dict[str, np.ndarray]:
    assert answer.status_code == 200, answer.text
    return {
        output["name"]: np.asarray(output["data"]).reshape(output["shape"])
        for output in answer.json()["outputs"]
    }


@pytest.mark.parametrize("route", ROUTES)
def test_every_address_is_read_as_its_route(route: str) -> None:
    parsed = OipPath.parse(route.replace("{model}", "a b").replace("{version}", "12"))
    assert parsed is not None
    assert parsed.route == route
    assert parsed.model == ("a b" if "{model}" in route else None)
    assert parsed.version == (12 if "{version}" in route else None)


@pytest.mark.parametrize(
    "path", ["/v2/", "/v2/models", "/v2/models/", "/v2/models/a/b", "/v2/models/a/infer/x", "/v2x",
             "/v2/models/a/versions/1/x", "/v2\n", "/v2/repository/index"],
)  # fmt: skip
def test_what_is_no_address_of_the_protocol_is_left_to_others(path: str) -> None:
    assert OipPath.parse(path) is None


def test_the_answer_is_that_of_the_product_s_own_route(tmp_path: Path) -> None:
    async def scenario(client: httpx.AsyncClient) -> None:
        own = (
            await client.post("/v1/models/digits/probabilities", json={"logits": LOGITS.tolist()})
        ).json()
        answer = await client.post(INFER, json=asking(id="a7"))
        document = answer.json()
        assert (document["model_name"], document["model_version"]) == ("digits", "1")
        assert document["id"] == "a7"
        pair = {name: own[name] for name in ("version", "calibrator", "revision")}
        assert document["parameters"] == pair
        assert answer.headers["trueprob-calibrator"] == own["calibrator"]
        got = tensors(answer)
        # Receipts cost more than the rest: nobody gets them who did not ask.
        assert list(got) == ["probabilities", "prediction", "confidence", "temperature"]
        for name, values in got.items():
            np.testing.assert_array_equal(values, own[name])
        names = ("logit_gap", "prediction", "logits")
        got = tensors(await client.post(f"{DIGITS}/versions/1/infer", json=asking(*names)))
        assert list(got) == list(names)
        np.testing.assert_array_equal(got["logits"].astype(np.float32), LOGITS)
        assert "id" not in (await client.post(INFER, json=asking())).json()
        # As KServe's client writes it: unknown and empty fields are no reason to refuse.
        like_kserve = asking(id=None, model_name="digits", parameters=None, outputs=None)
        assert len(tensors(await client.post(INFER, json=like_kserve))) == 4

    with_client(tmp_path, scenario)


def test_a_body_without_a_json_header_is_the_input_itself(tmp_path: Path) -> None:
    async def scenario(client: httpx.AsyncClient) -> None:
        images = np.arange(128, dtype=np.uint8)
        raw = await client.post(INFER, content=images.tobytes(), headers={LENGTH: "0"})
        assert raw.headers["content-type"] == "application/octet-stream"
        head = json.loads(raw.content[: int(raw.headers[LENGTH])])
        assert head["outputs"][0]["shape"] == [2, 10]
        asked = {
            "inputs": [
                {"name": "image", "shape": [2, 8, 8, 1], "datatype": "UINT8",
                 "data": images.tolist()}
            ]
        }  # fmt: skip
        probabilities = tensors(await client.post(INFER, json=asked))["probabilities"]
        binary = np.frombuffer(raw.content, np.float32, 20, int(raw.headers[LENGTH]))
        np.testing.assert_array_equal(binary.reshape(2, 10), probabilities.astype(np.float32))
        check(await client.post(INFER, content=bytes(65), headers={LENGTH: "0"}), 400, "64 bytes")

    with_client(tmp_path, scenario)


def test_a_model_without_a_network_or_a_temperature_says_so(tmp_path: Path) -> None:
    async def scenario(client: httpx.AsyncClient) -> None:
        assert (await client.put("/v1/models/far", json={"n_classes": 3})).is_success
        far = (await client.get("/v2/models/far")).json()
        assert far["platform"] == "trueprob_calibrator"
        assert far["inputs"] == [{"name": "logits", "datatype": "FP32", "shape": [-1, 3]}]
        raw = np.float32([[0, 1, 2], [2, 1, 0]]).tobytes()
        answer = await client.post("/v2/models/far/infer", content=raw, headers={LENGTH: "0"})
        head = json.loads(answer.content[: int(answer.headers[LENGTH])])
        assert head["outputs"][1]["shape"] == [2]
        image = {"name": "image", "shape": [1, 3], "datatype": "UINT8", "data": [1, 2, 3]}
        refused = await client.post("/v2/models/far/infer", json={"inputs": [image]})
        check(refused, 422, "inputs[0].name must be logits, got 'image'")

        rng = np.random.default_rng(0)
        labels = rng.integers(0, 3, 200)
        logits = (rng.normal(size=(200, 3)) + 2 * np.eye(3)[labels]).astype(np.float32)
        stream = io.BytesIO()
        np.savez(stream, logits=logits, labels=labels)
        uploaded = await client.post(
            "/v1/models/far/calibration-sets?method=isotonic&promote=always",
            content=stream.getvalue(),
            headers={"content-type": "application/x-npz", "prefer": "wait=30"},
        )
        assert uploaded.status_code == 201, uploaded.text
        body = {"inputs": [logits_input(logits[:2])]}
        got = tensors(await client.post("/v2/models/far/infer", json=body))
        assert "temperature" not in got
        body["outputs"] = [{"name": "temperature"}]
        refused = await client.post("/v2/models/far/infer", json=body)
        check(refused, 422, "outputs[0]: calibrator 'isotonic-")
        names = {o["name"] for o in (await client.get("/v2/models/far")).json()["outputs"]}
        assert "temperature" not in names

    with_client(tmp_path, scenario)


def test_a_version_that_is_not_live_answers_without_receipts(tmp_path: Path) -> None:
    models = tmp_path / "models"
    shutil.copytree(ROOT / "models/digits", models / "digits")
    shutil.copytree(models / "digits/1", models / "digits/2")
    path = models / "digits/2/manifest.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "version": 2}))

    async def scenario(client: httpx.AsyncClient) -> None:
        live = (await client.get(DIGITS)).json()
        assert live["versions"] == ["1", "2"]
        other = (await client.get(f"{DIGITS}/versions/1")).json()
        names = [[output["name"] for output in m["outputs"]] for m in (live, other)]
        assert set(names[0]) - set(names[1]) == {"prediction_id"}
        answer = (await client.post(f"{DIGITS}/versions/1/infer", json=asking())).json()
        assert answer["model_version"] == "1"
        assert "revision" not in answer["parameters"]
        refused = await client.post(f"{DIGITS}/versions/1/infer", json=asking("prediction_id"))
        check(refused, 422, "outputs[0]: prediction_id is issued by the live version only")
        assert tensors(await client.post(INFER, json=asking("prediction_id")))

    with_client(tmp_path / "state", scenario, model_repository=models)


def test_rows_are_measured_as_on_the_other_route(tmp_path: Path) -> None:
    async def scenario(client: httpx.AsyncClient) -> None:
        await client.post(INFER, json=asking())
        await client.post(f"{DIGITS}/versions/1/infer", json=asking("temperatur"))
        text = (await client.get("/metrics")).text
        samples = [s for f in text_string_to_metric_families(text) for s in f.samples]
        rows = [s.value for s in samples if s.name == "trueprob_predictions_total"]
        assert sum(rows) == len(LOGITS)
        routes = {
            (s.labels["route"], s.labels["status"]): s.value
            for s in samples
            if s.name == "trueprob_request_duration_seconds_count"
        }
        assert routes["/v2/models/{model}/infer", "200"] == 1
        assert routes["/v2/models/{model}/versions/{version}/infer", "422"] == 1

    with_client(tmp_path, scenario)


IMAGE = {"name": "image", "shape": [1, 8, 8, 1], "datatype": "UINT8", "data": [0] * 64}
BAD: list[tuple[str, Any, int, str]] = [
    ("/v2/models/none/infer", asking(), 404, "'none'"),
    (f"{DIGITS}/versions/7/infer", asking(), 404, "no version 7"),
    (f"{DIGITS}/versions/01/infer", asking(), 404, "positive integer, got '01'"),
    (INFER, {"inputs": []}, 422, "exactly one (logits or image), got 0"),
    (INFER, {"inputs": [logits_input(), IMAGE]}, 422, "exactly one (logits or image), got 2"),
    (INFER, {"inputs": [logits_input(name="x")]}, 422, "must be logits or image, got 'x'"),
    (INFER, {"inputs": [logits_input(LOGITS[:, :9])]}, 422, "logits must have shape (n, 10)"),
    (INFER, {"inputs": [logits_input(LOGITS[0])]}, 422, "logits must have shape (n, 10)"),
    (INFER, {"inputs": [logits_input(data=[1e39] + [0] * 39)]}, 422, "logits must be finite"),
    (INFER, {"inputs": [logits_input(datatype="BOOL", data=[1] * 40)]}, 422, "got 'BOOL'"),
    (INFER, asking("p1"), 422, "p1 is P(class 1) of two classes, this model has 10"),
    (INFER, {"inputs": [{**IMAGE, "datatype": "FP32"}]}, 422, "datatype must be UINT8, got FP32"),
    (INFER, {"inputs": [{**IMAGE, "shape": [1, 64]}]}, 422, "(n, 8, 8, 1), got (1, 64)"),
    (INFER, asking("probs"), 422, "outputs[0].name must be one of probabilities,"),
]  # fmt: skip


def test_every_bad_request_gets_its_status_and_a_sentence(tmp_path: Path) -> None:
    async def scenario(client: httpx.AsyncClient) -> None:
        for path, body, status, words in BAD:
            check(await client.post(path, json=body), status, words)
        check(await client.post(INFER, json=asking(), headers={LENGTH: "-1"}), 400, "number of")
        check(await client.post(INFER, json=asking(), headers={LENGTH: "9" * 30}), 400, "number")
        check(await client.post(INFER, content=bytes(20_000)), 413, "at most 10000")
        for path in ("/v2", DIGITS, f"{DIGITS}/ready", f"{DIGITS}/versions/1/ready"):
            assert (await client.head(path)).status_code == 200
            check(await client.post(path), 405, "GET, HEAD")
        check(await client.get(INFER), 405, "POST")
        for path in ("/v2/models/none", "/v2/models/none/ready", f"{DIGITS}/versions/7/ready"):
            check(await client.get(path), 404, "no")
        assert (await client.get(f"{DIGITS}/ready")).json() == {"name": "digits", "ready": True}
        assert tensors(await client.post(INFER, json=asking()))

    with_client(tmp_path, scenario, max_body_bytes=10_000)
