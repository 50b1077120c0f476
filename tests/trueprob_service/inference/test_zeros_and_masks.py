"""What a calibrator learnt about zeros, and what a mask means, at every entrance of the service."""

import asyncio
import io
import json
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
            # A huge number is no mask.
            huge = await client.post(
                PREDICT,
                content=b'{"logits": [[0, 1, 2, -1e999]]}',
                headers={"content-type": "application/json"},
            )
            assert huge.status_code == 400

    assert (logits[:20] != ZERO_CELL).all()
    asyncio.run(scenario())


def masked_rows(n: int = 300) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Logits, labels, and which classes are masked: never the label's, often all others."""
    generator = np.random.default_rng(1)
    logits = generator.normal(size=(n, 4)).astype(np.float32) * 4
    labels = (logits / 3 + generator.gumbel(size=(n, 4))).argmax(axis=1)
    masked = generator.random((n, 4)) < 0.5
    masked[np.arange(n), labels] = False
    return logits, labels, masked


JSON = {"content-type": "application/json"}
WINDOW = {"source": "refit-window"}


def with_nulls(logits: np.ndarray, masked: np.ndarray) -> list[list[float | None]]:
    return np.where(masked, None, logits.astype(object)).tolist()


def rows_of(logits: list[list[float | None]], labels: np.ndarray) -> list[dict[str, object]]:
    return [
        {"id": f"r{i}", "logits": logits[i], "label": int(labels[i])} for i in range(len(logits))
    ]


def test_masks_in_json_are_those_of_arrays(tmp_path: Path) -> None:
    logits, labels, masked = masked_rows()
    rows = np.where(masked, -np.inf, logits)
    nulls = with_nulls(logits, masked)
    as_infinity = json.dumps({"logits": rows[:20].tolist()}).encode()
    assert b"-Infinity" in as_infinity

    async def scenario() -> None:
        async with application(tmp_path) as client:
            await live(client, logits=rows, labels=labels)
            expected = (await client.post(PREDICT, content=npy(rows[:20]), headers=NPY)).json()
            for body in (as_infinity, json.dumps({"logits": nulls[:20], "masked": True}).encode()):
                answer = await client.post(PREDICT, content=body, headers=JSON)
                assert answer.json()["probabilities"] == expected["probabilities"]
            refused = await client.post(PREDICT, json={"logits": nulls[:20]})
            assert refused.status_code == 422
            assert 'only with "masked": true' in refused.json()["detail"]

            sets = f"{MODEL}/calibration-sets"
            given = {"logits": nulls, "labels": labels.tolist()}
            infinite = json.dumps({"logits": rows.tolist(), "labels": labels.tolist()}).encode()
            digests = []
            for body in (json.dumps({**given, "masked": True}).encode(), infinite):
                stored = await client.post(f"{sets}/s/rows", content=body, headers=JSON)
                assert stored.status_code in (200, 201), stored.text
                digests.append(stored.json()["digest"])
            assert len(set(digests)) == 1  # the same rows
            assert digests[0] == CalibrationSet(rows, labels).digest
            refused = await client.post(f"{sets}/s/rows", json=given)
            assert refused.status_code == 422
            assert 'null masks a class only with "masked": true' in refused.json()["detail"]
            wrong = dict(given, labels=(masked.argmax(axis=1)).tolist(), masked=True)
            refused = await client.post(f"{sets}/s/rows", json=wrong)
            assert refused.status_code == 422
            assert (
                "labels must be classes that are not masked: those of" in refused.json()["detail"]
            )

            sent = rows_of(nulls, labels)
            path = f"{MODEL}/labels"
            refused = await client.post(path, json={"rows": sent})
            assert refused.status_code == 422
            assert "must be a number, got null, which masks a class only" in refused.text
            first = await client.post(path, json={"rows": sent[:100], "masked": True})
            assert first.json()["accepted"] == 100
            body = json.dumps({"rows": rows_of(rows.tolist(), labels)[100:]}).encode()
            second = await client.post(path, content=body, headers=JSON)
            assert second.json()["accepted"] == 200
            bad = {"id": "x", "logits": [None, 1, 2, 3], "label": 0}
            refused = await client.post(path, json={"rows": [*sent[:1], bad], "masked": True})
            assert refused.status_code == 422
            assert "those of 1 of 2 rows are, such as rows[1].label" in refused.json()["detail"]
            # The refit window is what was sent.
            fit = await client.post(f"{MODEL}/fits", json=WINDOW, headers={"prefer": "wait=60"})
            assert fit.status_code in (200, 201), fit.text
            assert fit.json()["state"] == "done", fit.text

    asyncio.run(scenario())


def test_a_declared_threshold_masks_at_every_entrance(tmp_path: Path) -> None:
    logits, labels, masked = masked_rows()
    rows, exact = np.where(masked, -1e9, logits), np.where(masked, -np.inf, logits)
    declared = {"n_classes": 4, "mask_below": -1e9}

    async def scenario() -> None:
        async with application(tmp_path) as client:
            assert (await client.put(MODEL, json=declared)).status_code == 201
            for same in (declared, {"n_classes": 4}):
                assert (await client.put(MODEL, json=same)).status_code == 200
            for other in ({"mask_below": -1e4}, {"mask_below": -1e9, "zeros": "mask"}):
                answer = await client.put(MODEL, json={"n_classes": 4, **other})
                assert (answer.status_code, "other masks" in answer.text) == (409, True)
            for wrong in ({"mask_below": -1e39}, {"mask_below": "low"}, {"zeros": "no"}):
                answer = await client.put("/v1/models/n", json={"n_classes": 4, **wrong})
                assert answer.status_code == 422
            answer = (await client.post(PREDICT, json={"logits": rows[:20].tolist()})).json()
            assert ((np.array(answer["probabilities"]) == 0.0) == masked[:20]).all()

            stream = io.BytesIO()
            np.savez(stream, logits=rows, labels=labels)
            fit = await client.post(
                f"{MODEL}/calibration-sets?promote=always",
                content=stream.getvalue(),
                headers={"content-type": "application/x-npz", "prefer": "wait=60"},
            )
            assert fit.status_code == 201, fit.text
            fitted = fit.json()["calibrator"]
            document = (await client.get(f"{MODEL}/calibrators/{fitted}")).json()
            assert document["input_stage"] == {"zeros": None, "clip": None, "mask_below": -1e9}
            expected = fit_rows("smart", CalibrationSet(exact, labels)).calibrator
            answer = (await client.post(PREDICT, json={"logits": rows[:20].tolist()})).json()
            assert answer["calibrator"] == fitted
            found = np.float32(answer["probabilities"])
            assert np.array_equal(found, expected.predict_proba(exact[:20]))
            asked = f"{PREDICT}?return=logit_gap,confidence"
            answer = (await client.post(asked, json={"logits": rows[:20].tolist()})).json()
            alone = masked[:20].sum(axis=1) == 3
            assert alone.any()
            assert (np.array(answer["logit_gap"])[alone] == 1e6).all()
            assert (np.array(answer["confidence"])[alone] == 1.0).all()
            nothing = await client.post(PREDICT, json={"logits": [[0.0] * 4, [-1e9] * 4]})
            assert nothing.status_code == 422
            assert "in row 1 all are masked at or below mask_below" in nothing.json()["detail"]

            path = f"{MODEL}/labels"
            bad = {"id": "x", "logits": [-1e9, 1, 2, 3], "label": 0}
            refused = await client.post(path, json={"rows": [bad]})
            assert refused.status_code == 422
            assert "such as rows[0].label" in refused.json()["detail"]
            sent = rows_of(rows.tolist(), labels)
            assert (await client.post(path, json={"rows": sent})).json()["accepted"] == 300
            refit = await client.post(f"{MODEL}/fits", json=WINDOW, headers={"prefer": "wait=60"})
            assert refit.json()["state"] == "done", refit.text
            kept = (await client.get(f"{MODEL}/calibrators/{refit.json()['calibrator']}")).json()
            assert kept["input_stage"]["mask_below"] == -1e9
            metrics = (await client.get("/metrics")).text
            assert "NaN" not in "".join(x for x in metrics.splitlines() if "logit_gap" in x)

    asyncio.run(scenario())


def test_a_declared_zero_is_a_mask(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with application(tmp_path) as client:
            declared = {"n_classes": 4, "zeros": "mask"}
            assert (await client.put(MODEL, json=declared)).status_code == 201
            p = [[0.5, 0.25, 0.25, 0.0], [0.0, 0.0, 1.0, 0.0]]
            answer = (await client.post(PREDICT, json={"probabilities": p})).json()
            assert answer["probabilities"] == p
            refused = await client.post(
                f"{MODEL}/calibration-sets", json={"probabilities": p, "labels": [0, 1]}
            )
            assert refused.status_code == 422
            assert "is 0 no mask here?" in refused.json()["detail"]

    asyncio.run(scenario())
