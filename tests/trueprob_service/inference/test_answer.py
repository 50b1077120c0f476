"""The answers of the HTTP contract have exactly the keys and types that were promised."""

import asyncio
import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.trueprob_service.application import ROOT, application

pytestmark = pytest.mark.slow

MODEL = "/v1/models/digits"
EXAMPLES = ROOT / "examples"
NPZ = {"content-type": "application/x-npz", "prefer": "wait=30"}
JSON = {"content-type": "application/json"}

number = (int, float)
PREDICTION = {
    "model": str, "version": int, "calibrator": str, "revision": int, "probabilities": [[number]],
    "prediction": [int], "class": [str], "confidence": [number], "temperature": [number],
    "prediction_ids": [str],
}  # fmt: skip
SCORES = {"ece": number, "ece_floor": number, "nll": number}
MEANS = {"rows": int, "before": float, "after": float}
UPLOAD = {
    "fit": str, "state": str, "calibration_set": str, "version": int, "method": str, "n": int,
    "seconds": number, "verdict": {
        "admitted": bool, "outcome": str, "reasons": [str], "findings": list,
        "set": MEANS, "traffic": MEANS, "label_shift": type(None),
    },
    "scores": {"incumbent": SCORES, "candidate": SCORES},
    "calibrator": str, "promoted": bool, "revision": int,
}  # fmt: skip
LABELLED = {
    "accepted": int, "duplicate": int, "rejected": int,
    "outcomes": [{"index": int, "outcome": str}],
}  # fmt: skip
PROMOTED = {"model": str, "version": int, "calibrator": str, "revision": int}
CALIBRATION = {
    "model": str, "version": int, "calibrator": str, "revision": int, "window": str,
    "labels": int, "ece": number, "ece_floor": number,
    "verdict": {"state": str, "sentence": str, "error_low": number, "error_high": number,
                "labels": int, "labels_needed": (int, type(None))},
    "drift_ratio": number, "expected_accuracy": number, "observed_accuracy": number, "advice": str,
    "evidence_log10": number, "evidence_threshold_log10": number, "change_log10": number,
    "change_threshold_log10": number, "alarm": type(None),
    "class_error_low": number, "class_error_high": number,
    "classes": list,  # none before a label of the new promotion
    "binary": type(None),
    "bins": [{"lower": number, "upper": number, "count": number, "confidence": number,
              "correct": number, "variance": number}],
    "baseline": dict,
}  # fmt: skip
# Scores and the declared answers may say more than the examples show; nothing else may.
MAY_SAY_MORE = ("scores.incumbent", "scores.candidate")


def check(value: Any, shape: Any, where: str = "") -> None:
    if isinstance(shape, dict):
        assert isinstance(value, dict), where
        missing, extra = set(shape) - set(value), set(value) - set(shape)
        assert not missing, f"{where} lacks {missing}"
        assert not extra or where.lstrip(".") in MAY_SAY_MORE, f"{where} has {extra} too"
        for key, inner in shape.items():
            check(value[key], inner, f"{where}.{key}")
    elif isinstance(shape, list):
        assert isinstance(value, list), where
        assert value, f"{where} is empty"
        for item in value:
            check(item, shape[0], f"{where}[]")
    else:
        assert isinstance(value, shape), f"{where} is {type(value).__name__}"
        assert shape is bool or not isinstance(value, bool), f"{where} is a bool"


def test_the_five_answers(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with application(tmp_path) as client:
            logits = (EXAMPLES / "digits_logits.json").read_bytes()
            answer = await client.post(f"{MODEL}/probabilities", headers=JSON, content=logits)
            prediction = answer.json()
            check(prediction, PREDICTION)
            assert list(prediction) == list(PREDICTION)
            assert prediction["calibrator"].startswith("smart-")

            upload = (EXAMPLES / "digits_drifted.npz").read_bytes()
            sent = await client.post(f"{MODEL}/calibration-sets", headers=NPZ, content=upload)
            assert sent.status_code == 201, sent.text
            report = sent.json()
            check(report, UPLOAD)
            assert report["state"] == "done"

            ids = prediction["prediction_ids"]
            forged = ids[0][:-4] + ("AAAA" if not ids[0].endswith("AAAA") else "BBBB")
            labels = {"prediction_ids": [*ids, forged], "labels": [*prediction["class"], 3]}
            labelled = await client.post(f"{MODEL}/labels", headers=JSON, json=labels)
            check(labelled.json(), LABELLED)

            back = await client.post(
                f"{MODEL}/calibrators/{prediction['calibrator']}/promote",
                headers={"if-match": f'"{report["revision"]}"'},
            )
            assert back.status_code == 200, back.text
            check(back.json(), PROMOTED)
            assert back.json()["revision"] == report["revision"] + 1

            watched = await client.get(f"{MODEL}/calibration", params={"window": "24h"})
            check(watched.json(), CALIBRATION)
            assert watched.json()["labels"] == len(ids)

    asyncio.run(scenario())


def test_the_examples_show_what_they_are_for(tmp_path: Path) -> None:
    """The picture is a seven; the upload is admitted, for the factory calibrator is off on it."""

    async def scenario() -> None:
        async with application(tmp_path) as client:
            picture = (EXAMPLES / "seven.png").read_bytes()
            headers = {"content-type": "image/png"}
            seven = (
                await client.post(f"{MODEL}/probabilities", headers=headers, content=picture)
            ).json()
            assert seven["class"] == ["7"]
            upload = (EXAMPLES / "digits_drifted.npz").read_bytes()
            report = (
                await client.post(f"{MODEL}/calibration-sets", headers=NPZ, content=upload)
            ).json()
            assert report["verdict"]["admitted"], report["verdict"]["reasons"]
            assert report["promoted"]
            scores = report["scores"]
            floor = scores["incumbent"]["ece_floor"]
            assert scores["incumbent"]["ece"] > 2 * floor
            assert scores["candidate"]["ece"] < scores["incumbent"]["ece"]
            again = (
                await client.post(f"{MODEL}/calibration-sets", headers=NPZ, content=upload)
            ).json()
            assert again["fit"] == report["fit"]
            assert again["revision"] == report["revision"]

    asyncio.run(scenario())


def test_npy_in_and_out(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with application(tmp_path) as client:
            logits = np.random.default_rng(0).normal(0, 5, (3000, 10)).astype(np.float32)
            stream = io.BytesIO()
            np.save(stream, logits)
            both = {"content-type": "application/x-npy", "accept": "application/x-npy"}
            answer = await client.post(
                f"{MODEL}/probabilities", headers=both, content=stream.getvalue()
            )
            assert answer.headers["content-type"] == "application/x-npy"
            assert answer.headers["trueprob-version"] == "1"
            assert answer.headers["trueprob-revision"] == "1"
            assert answer.headers["trueprob-calibrator"].startswith("smart-")
            probabilities = np.load(io.BytesIO(answer.content))
            rows = {"logits": logits[:5].astype(float).tolist()}
            listed = (await client.post(f"{MODEL}/probabilities", json=rows)).json()
            np.testing.assert_array_equal(np.float32(listed["probabilities"]), probabilities[:5])
            # Bulk answers carry no receipts unless asked; small ones do unless told not to.
            bulk = await client.post(
                f"{MODEL}/probabilities?receipts=true",
                headers={"content-type": "application/x-npy"},
                content=stream.getvalue(),
            )
            assert len(bulk.json()["prediction_ids"]) == 3000
            quiet = await client.post(f"{MODEL}/probabilities?receipts=false", json=rows)
            assert "prediction_ids" not in quiet.json()

    asyncio.run(scenario())


def test_a_model_whose_network_runs_elsewhere(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with application(tmp_path) as client:
            made = await client.put("/v1/models/mine", json={"n_classes": 3})
            assert made.status_code == 201, made.text
            body = {"logits": [[2.0, 0.0, -1.0]]}
            answer = (await client.post("/v1/models/mine/probabilities", json=body)).json()
            expected = np.exp([2.0, 0.0, -1.0]) / np.exp([2.0, 0.0, -1.0]).sum()
            np.testing.assert_allclose(answer["probabilities"][0], expected, rtol=1e-6)
            assert answer["class"] == ["0"]
            picture = (EXAMPLES / "seven.png").read_bytes()
            refused = await client.post(
                "/v1/models/mine/probabilities", headers={"content-type": "image/png"},
                content=picture,
            )  # fmt: skip
            assert refused.status_code == 422
            assert "has no network here" in refused.json()["detail"]

    asyncio.run(scenario())


def test_the_request_id_comes_back(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with application(tmp_path) as client:
            for path in ("/v2/health/live", "/v1/models", "/nothing"):
                mine = await client.get(path, headers={"x-request-id": "abc-1"})
                assert mine.headers["x-request-id"] == "abc-1"
                made = await client.get(path, headers={"x-request-id": "a b\x7f"})
                assert len(made.headers["x-request-id"]) == 32

    asyncio.run(scenario())


def test_an_unforeseen_error_names_the_request_and_nothing_else(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    broken = False

    def clock() -> float:
        if broken:
            raise RuntimeError("a secret")
        return 1_700_000_000.0

    async def scenario() -> None:
        nonlocal broken
        async with application(tmp_path, clock=clock) as client:
            broken = True
            for path in (f"{MODEL}/calibration", f"{MODEL}/probabilities"):
                body = {"logits": [[0.0] * 10]}
                answer = await client.request(
                    "GET" if path.endswith("calibration") else "POST",
                    path, json=body, headers={"x-request-id": "find-me"},
                )  # fmt: skip
                assert answer.status_code == 500
                assert answer.headers["content-type"] == "application/problem+json"
                assert answer.headers["x-request-id"] == "find-me"
                assert "a secret" not in answer.text
                assert "request find-me failed" in caplog.text
                assert "a secret" in caplog.text
                caplog.clear()
            broken = False

    asyncio.run(scenario())


def test_answers_are_valid_json_documents(tmp_path: Path) -> None:
    """No NaN and no Infinity, which Python writes and other languages cannot read."""

    def refuse(name: str) -> None:
        raise AssertionError(f"{name} is not JSON")

    async def scenario() -> None:
        async with application(tmp_path) as client:
            for path in (f"{MODEL}/calibration", MODEL, "/v1/models", "/openapi.json"):
                json.loads((await client.get(path)).content, parse_constant=refuse)

    asyncio.run(scenario())
