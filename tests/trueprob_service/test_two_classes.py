"""A model of two classes: the default fit, its answers, and what keeps predictions."""

from __future__ import annotations

import asyncio
import io
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from numpy.typing import NDArray

from tests.trueprob_service.application import application
from trueprob.client import AsyncClient, ServiceProblem
from trueprob_service.settings import Settings

pytestmark = pytest.mark.slow

Rows = tuple[NDArray[np.float32], NDArray[np.int64]]


def judge(n: int, seed: int = 0) -> Rows:
    """A judge that says yes too often and too surely."""
    rng = np.random.default_rng(seed)
    x = rng.normal(0.0, 1.5, n)
    labels = (rng.random(n) < 1.0 / (1.0 + np.exp(0.4 - 1.2 * x))).astype(np.int64)
    s = (2.5 * x + 2.2).astype(np.float32)
    return np.stack([np.zeros_like(s), s], axis=1), labels


def rows(of: Rows) -> dict[str, Any]:
    return {"logits": of[0], "labels": of[1]}


def run(
    state_dir: Path, scenario: Callable[[AsyncClient, httpx.AsyncClient], Any], **settings: Any
) -> None:
    async def started() -> None:
        context: AbstractAsyncContextManager[httpx.AsyncClient] = application(state_dir, **settings)
        async with context as http:
            client = AsyncClient("http://localhost", transport=http._transport)
            await client.declare("judge", class_names=["no", "yes"])
            await scenario(client, http)

    asyncio.run(started())


def test_the_default_fit_calibrates_class_1_and_every_answer_says_the_same(tmp_path: Path) -> None:
    async def scenario(client: AsyncClient, http: httpx.AsyncClient) -> None:
        fit = await client.upload("judge", rows(judge(600)), wait_seconds=60)
        assert (fit.method, fit.promoted) == ("smart-binary", True), fit.verdict
        assert fit.calibrator is not None
        document = (await http.get(f"/v1/models/judge/calibrators/{fit.calibrator}")).json()
        calibrator = await client.calibrator("judge", fit.calibrator)
        assert calibrator.kind == "smart-binary", document
        logits, labels = judge(80, seed=1)
        expected = calibrator.calibrated(logits)
        assert (expected.prediction != logits.argmax(axis=1)).any()
        for binary in (False, True):
            answer = await client.predict("judge", logits=logits, receipts=True, binary=binary)
            assert np.array_equal(answer.probabilities, expected.probabilities)
            assert np.array_equal(answer.prediction, expected.prediction)
            assert np.array_equal(answer.probabilities.argmax(axis=1), answer.prediction)
            assert answer.log_odds is not None
            assert np.array_equal(answer.log_odds, expected.log_odds)
            assert answer.temperature is None
        assert answer.prediction_ids is not None
        counted = await client.label("judge", answer.prediction_ids, labels.tolist())
        assert counted.accepted == 80
        seen = await client.calibration("judge")
        assert seen.observed_accuracy == pytest.approx((expected.prediction == labels).mean())

        one = {"logits": logits[:1].tolist()}
        plain = (await http.post("/v1/models/judge/probabilities", json=one)).json()
        assert plain["log_odds"] == expected.log_odds[:1].tolist()
        named = await http.post("/v1/models/judge/probabilities?return=log_odds", json=one)
        assert named.json() == {"log_odds": expected.log_odds[:1].tolist()}

        metadata = (await http.get("/v2/models/judge")).json()
        outputs = {each["name"]: each for each in metadata["outputs"]}
        assert outputs["log_odds"] == {"name": "log_odds", "datatype": "FP64", "shape": [-1]}
        assert "temperature" not in outputs
        tensor = {"name": "logits", "datatype": "FP32", "shape": [80, 2], "data": logits.tolist()}
        answered = (await http.post("/v2/models/judge/infer", json={"inputs": [tensor]})).json()
        found = {each["name"]: each for each in answered["outputs"]}
        assert found["log_odds"]["data"] == expected.log_odds.tolist()
        assert found["prediction"]["data"] == expected.prediction.tolist()
        asked = {
            "inputs": [tensor],
            "outputs": [{"name": "log_odds", "parameters": {"binary_data": True}}],
        }
        raw = await http.post("/v2/models/judge/infer", json=asked)
        length = int(raw.headers["inference-header-content-length"])
        assert np.array_equal(np.frombuffer(raw.content[length:], "<f8"), expected.log_odds)

    run(tmp_path, scenario)


def test_one_score_per_row_is_answered_in_its_form(tmp_path: Path) -> None:
    async def scenario(client: AsyncClient, http: httpx.AsyncClient) -> None:
        z = np.array([-3.0, 0.5, 2.25])
        p = 1.0 / (1.0 + np.exp(-z))
        route = "/v1/models/judge/probabilities"
        two = await client.predict("judge", logits=np.stack([np.zeros(3), z], axis=1))
        sent = {"logits": z, "probabilities": p, "log_probabilities": np.log(p)}
        for name, values in sent.items():
            for shape in ((3,), (3, 1)):
                values = values.reshape(shape)
                answer = (await http.post(route, json={name: values.tolist()})).json()
                found = np.array(answer["probabilities"])
                assert found.shape == shape
                assert found.reshape(-1) == pytest.approx(two.probabilities[:, 1], rel=1e-5)
                assert answer["p1"] == found.reshape(-1).tolist()
                assert answer["prediction"] == two.prediction.tolist()
                assert len(answer["prediction_ids"]) == 3
                by_client = await client.predict("judge", **{name: values})
                assert by_client.probabilities.shape == shape
        stream = io.BytesIO()
        np.save(stream, z.astype(np.float32))
        headers = {"content-type": "application/x-npy", "accept": "application/x-npy"}
        raw = await http.post(route, content=stream.getvalue(), headers=headers)
        assert np.array_equal(np.load(io.BytesIO(raw.content)), two.probabilities[:, 1])
        rounded = {"probabilities": [[0.33, 0.66], [0.5, 0.5]]}
        answer = (await http.post(route, json=rounded)).json()
        assert answer["normalised"] is True
        exact = {"probabilities": [[1 / 3, 2 / 3], [0.5, 0.5]]}
        expected = (await http.post(route, json=exact)).json()
        assert "normalised" not in expected
        assert answer["probabilities"] == [
            pytest.approx(row, rel=1e-5) for row in expected["probabilities"]
        ]
        # Of two columns P(class 1) is given when asked for.
        columns = {"logits": [[0.0, 0.5]]}
        assert "p1" not in (await http.post(route, json=columns)).json()
        named = (await http.post(f"{route}?return=p1", json=columns)).json()
        assert named == {"p1": [pytest.approx(float(two.probabilities[1, 1]))]}
        partial = await client.predict_fields("judge", ["p1"], logits=z)
        assert partial.p1 is not None
        assert np.array_equal(partial.p1, two.probabilities[:, 1])

        logits, labels = judge(60)
        sets = [
            (await client.upload("judge", {**rows_, "labels": labels}, promote="never"))
            for rows_ in ({"logits": logits[:, 1]}, {"logits": logits})
        ]
        assert sets[0].calibration_set == sets[1].calibration_set
        document = {"logits": logits[:, 1].tolist(), "labels": labels.tolist()}
        url = "/v1/models/judge/calibration-sets?promote=never"
        sent_as_json = (await http.post(url, json=document)).json()
        assert sent_as_json["calibration_set"] == sets[0].calibration_set

        await client.declare("three", n_classes=3)
        route = "/v1/models/three/probabilities"
        refused = await http.post(route, json={"logits": [1.3]})
        assert refused.status_code == 422
        assert "one number per row is for two classes" in refused.json()["detail"]
        refused = await http.post(f"{route}?return=p1", json={"logits": [[1, 2, 3]]})
        assert refused.status_code == 422
        assert "this model has 3" in refused.json()["detail"]

    run(tmp_path, scenario)


def test_predictions_are_kept_where_that_is_asked_for(tmp_path: Path) -> None:
    async def scenario(client: AsyncClient, http: httpx.AsyncClient) -> None:
        kept = await client.upload(
            "judge", rows(judge(600)), keep_prediction=True, promote="never", wait_seconds=60
        )
        assert kept.method == "smart"
        assert kept.calibrator is not None
        assert kept.calibrator.startswith("smart-")
        assert not kept.calibrator.startswith("smart-binary")
        assert kept.verdict is not None
        (said,) = (reason for reason in kept.verdict.reasons if "smart-binary" in reason)
        assert said.startswith(
            "smart keeps predictions: smart-binary, which may change predictions"
        )
        assert "would change NLL by −0." in said
        assert said.endswith("and would be admitted; method=smart without keep_prediction fits it")
        free = await client.upload("judge", rows(judge(600)), promote="never", wait_seconds=60)
        assert (free.method, free.fit != kept.fit) == ("smart-binary", True)
        assert free.verdict is not None
        assert not any("keeps predictions" in reason for reason in free.verdict.reasons)
        again = await client.start_fit(
            "judge", free.calibration_set, keep_prediction=True, promote="never"
        )
        assert again.fit == kept.fit
        answer = await client.predict("judge", logits=judge(5)[0])
        assert answer.log_odds is None
        plain = await http.post(
            "/v1/models/judge/probabilities?return=log_odds,prediction",
            json={"logits": judge(5)[0].tolist()},
        )
        assert set(plain.json()) == {"prediction"}

        for query, sentence in (
            ({"keep_prediction": True, "allow_prediction_change": True}, "contradict each other"),
            ({"keep_prediction": True, "method": "smart-binary"}, "may change predictions"),
        ):
            with pytest.raises(ServiceProblem, match=sentence) as refused:
                await client.upload("judge", rows(judge(60)), **query)
            assert refused.value.status == 422
        await client.declare("three", class_names=["a", "b", "c"])
        with pytest.raises(ServiceProblem, match="for two classes, got 3: use smart"):
            await client.start_fit("three", source="refit-window", method="smart-binary")

        live = (await client.model("judge")).calibrator
        shadow = await client.start_shadow("judge", free.calibrator or "")
        assert (await client.model("judge")).calibrator == live  # nothing changes by itself
        assert shadow.calibrator == free.calibrator

    run(tmp_path, scenario)


def test_the_setting_keeps_predictions_of_fits_that_do_not_say(tmp_path: Path) -> None:
    async def scenario(client: AsyncClient, _http: httpx.AsyncClient) -> None:
        fit = await client.upload("judge", rows(judge(300)), wait_seconds=60)
        assert fit.method == "smart"
        asked = await client.upload(
            "judge", rows(judge(300)), keep_prediction=False, promote="never", wait_seconds=60
        )
        assert asked.method == "smart-binary"

    run(tmp_path, scenario, keep_prediction=True)


@pytest.mark.parametrize(
    ("settings", "sentence"),
    [
        ({"keep_prediction": True, "allow_prediction_change": True}, "contradict each other"),
        ({"keep_prediction": True, "fit_method": "smart-binary"}, "may change predictions"),
        ({"fit_method": "vector"}, "set allow_prediction_change=true"),
    ],
)
def test_settings_that_contradict_one_another_are_refused(
    tmp_path: Path, settings: dict[str, Any], sentence: str
) -> None:
    with pytest.raises(ValueError, match=sentence):
        Settings(state_dir=tmp_path, **settings)
    assert Settings(state_dir=tmp_path, fit_method="smart-binary").fit_method == "smart-binary"
