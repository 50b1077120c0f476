"""What a calibrator learnt about zeros, and what a mask means, at every entrance of the service."""

import asyncio
import io
from pathlib import Path

import httpx
import numpy as np
import pytest

from tests.trueprob_service.application import application
from trueprob import CalibrationSet, logits_from_probabilities
from trueprob.arrays.logits import ZERO_CELL
from trueprob.fitting.methods import fit_rows

pytestmark = pytest.mark.slow

MODEL = "/v1/models/m"
PREDICT = f"{MODEL}/probabilities"
NPY = {"content-type": "application/x-npy"}


def neighbours(n: int = 400, k: int = 4) -> tuple[np.ndarray, np.ndarray]:
    """Votes of five neighbours, of whom each is wrong in three of ten cases."""
    generator = np.random.default_rng(0)
    labels = generator.integers(0, k, n)
    votes = np.where(
        generator.random((n, 5)) < 0.3, generator.integers(0, k, (n, 5)), labels[:, None]
    )
    p = np.stack([(votes == c).mean(axis=1) for c in range(k)], axis=1)
    labels = np.where(generator.random(n) < 0.1, generator.integers(0, k, n), labels)
    return p, labels


def npy(array: np.ndarray) -> bytes:
    stream = io.BytesIO()
    np.save(stream, array)
    return stream.getvalue()


async def live(client: httpx.AsyncClient, **arrays: np.ndarray) -> None:
    """A declared model of four classes whose live calibrator is fitted on these rows."""
    assert (await client.put(MODEL, json={"n_classes": 4})).status_code == 201
    stream = io.BytesIO()
    np.savez(stream, **arrays)
    answer = await client.post(
        f"{MODEL}/calibration-sets?promote=always",
        content=stream.getvalue(),
        headers={"content-type": "application/x-npz", "prefer": "wait=60"},
    )
    assert answer.status_code == 201, answer.text


def test_zeros_are_answered_as_by_the_library(tmp_path: Path) -> None:
    p, labels = neighbours()
    logits = logits_from_probabilities(p)
    calibrator = fit_rows("smart", CalibrationSet(logits, labels)).calibrator
    expected = calibrator.predict_proba(logits[:20])
    assert calibrator.input_stage is not None
    assert (expected[p[:20] == 0] > 1e-3).all()

    async def scenario() -> None:
        async with application(tmp_path) as client:
            await live(client, probabilities=p, labels=labels)
            by_json = await client.post(PREDICT, json={"probabilities": p[:20].tolist()})
            assert by_json.json()["calibrator"] == calibrator.id
            assert np.array_equal(np.float32(by_json.json()["probabilities"]), expected)
            # As logits, a zero is known by its value, also after JSON.
            by_logits = await client.post(PREDICT, json={"logits": logits[:20].tolist()})
            assert by_logits.json()["probabilities"] == by_json.json()["probabilities"]
            by_npy = await client.post(
                f"{PREDICT}?input=probabilities", content=npy(p[:20]), headers=NPY
            )
            assert by_npy.json()["probabilities"] == by_json.json()["probabilities"]
            data = [float(value) for value in logits[:20].ravel()]
            tensor = {"name": "logits", "shape": [20, 4], "datatype": "FP32", "data": data}
            inferred = (await client.post("/v2/models/m/infer", json={"inputs": [tensor]})).json()
            found = {output["name"]: output["data"] for output in inferred["outputs"]}
            assert np.array_equal(np.float32(found["probabilities"]), expected.ravel())

    asyncio.run(scenario())


def test_masks_stay_exactly_zero(tmp_path: Path) -> None:
    generator = np.random.default_rng(1)
    logits = generator.normal(size=(300, 4)).astype(np.float32) * 4
    labels = (logits / 3 + generator.gumbel(size=(300, 4))).argmax(axis=1)
    masked = generator.random((300, 4)) < 0.3
    masked[np.arange(300), labels] = False
    logits[masked] = -np.inf
    calibrator = fit_rows("smart", CalibrationSet(logits, labels)).calibrator

    async def scenario() -> None:
        async with application(tmp_path) as client:
            await live(client, logits=logits, labels=labels)
            answer = await client.post(
                f"{PREDICT}?receipts=true", content=npy(logits[:20]), headers=NPY
            )
            assert answer.status_code == 200, answer.text
            assert answer.json()["calibrator"] == calibrator.id
            found = np.float32(answer.json()["probabilities"])
            assert np.array_equal(found, calibrator.predict_proba(logits[:20]))
            assert (found[masked[:20]] == 0.0).all()
            nothing = await client.post(PREDICT, content=npy(np.full((1, 4), -np.inf)), headers=NPY)
            assert nothing.status_code == 422
            assert "all are masked" in nothing.text
            ids = answer.json()["prediction_ids"]
            body = {"prediction_ids": ids, "labels": labels[:20].tolist()}
            assert (await client.post(f"{MODEL}/labels", json=body)).json()["accepted"] == 20
            metrics = await client.get("/metrics")
            assert metrics.status_code == 200
            # In JSON a mask cannot be written, and a huge number is none.
            huge = await client.post(
                PREDICT,
                content=b'{"logits": [[0, 1, 2, -1e999]]}',
                headers={"content-type": "application/json"},
            )
            assert huge.status_code == 400

    assert (logits[:20] != ZERO_CELL).all()
    asyncio.run(scenario())
