"""Two versions of one model on disk: which answers, and what it says of itself."""

import asyncio
from dataclasses import replace
from pathlib import Path

import onnxruntime
import pytest

from tests.trueprob_service.application import ROOT, application
from trueprob.calibrators import IdentityCalibrator, dumps_calibrator
from trueprob.repository.model_repository import ModelRepository

pytestmark = pytest.mark.slow

MODEL = "/v1/models/digits"
SEVEN = {"content": (ROOT / "examples/seven.png").read_bytes(),
         "headers": {"content-type": "image/png"}}  # fmt: skip


def two_versions(folder: Path) -> Path:
    """The demo model as version 1, and with the identity for a factory calibrator as version 2."""
    shipped = ModelRepository(ROOT / "models").get("digits", 1)
    files = {name: (shipped.path / name).read_bytes() for name in shipped.manifest.files}
    repository = ModelRepository(folder)
    repository.add(shipped.manifest, files)
    files["calibrator.json"] = dumps_calibrator(IdentityCalibrator(10))
    repository.add(replace(shipped.manifest, version=2), files)
    return folder


def test_a_version_that_is_not_live_answers_by_number_and_signs_nothing(tmp_path: Path) -> None:
    models = two_versions(tmp_path / "models")

    async def scenario() -> None:
        async with application(tmp_path / "state", model_repository=models) as client:
            live = (await client.post(f"{MODEL}/probabilities", **SEVEN)).json()
            assert (live["version"], live["revision"]) == (2, 1)  # the highest, at first sight
            assert live["calibrator"].startswith("identity-")
            assert len(live["prediction_ids"]) == 1

            other = (await client.post(f"{MODEL}/probabilities?version=1", **SEVEN)).json()
            assert (other["version"], other["revision"]) == (1, None)
            assert other["calibrator"].startswith("smart-")
            assert "prediction_ids" not in other
            assert other["probabilities"] != live["probabilities"]

    asyncio.run(scenario())


def test_a_version_goes_live_by_a_call_and_back_by_another(tmp_path: Path) -> None:
    models = two_versions(tmp_path / "models")

    async def scenario() -> None:
        async with application(tmp_path / "state", model_repository=models) as client:
            unguarded = await client.put(MODEL, json={"live_version": 1})
            assert unguarded.status_code == 428
            seen = {"if-match": '"1"'}
            moved = await client.put(MODEL, json={"live_version": 1}, headers=seen)
            assert moved.status_code == 200, moved.text
            answer = (await client.post(f"{MODEL}/probabilities", **SEVEN)).json()
            assert (answer["version"], answer["revision"]) == (1, 2)
            stale = await client.put(MODEL, json={"live_version": 2}, headers=seen)
            assert stale.status_code == 412
            back = await client.post(f"{MODEL}/rollback", headers={"if-match": '"2"'})
            assert back.status_code == 200, back.text
            answer = (await client.post(f"{MODEL}/probabilities", **SEVEN)).json()
            assert (answer["version"], answer["revision"]) == (2, 3)
        # After a restart it is as it was.
        async with application(tmp_path / "state", model_repository=models) as client:
            answer = (await client.post(f"{MODEL}/probabilities", **SEVEN)).json()
            assert (answer["version"], answer["revision"]) == (2, 3)

    asyncio.run(scenario())


def test_a_damaged_version_is_refused_and_the_rest_goes_on(tmp_path: Path) -> None:
    models = two_versions(tmp_path / "models")
    network = models / "digits" / "1" / "model.onnx"
    network.write_bytes(network.read_bytes()[:-1] + b"?")

    async def scenario() -> None:
        async with application(tmp_path / "state", model_repository=models) as client:
            answer = await client.post(f"{MODEL}/probabilities", **SEVEN)
            assert answer.json()["version"] == 2
            refused = await client.post(f"{MODEL}/probabilities?version=1", **SEVEN)
            assert refused.status_code == 404
            text = (await client.get(MODEL)).text
            assert "model.onnx" in text  # the reason, where an operator looks

    asyncio.run(scenario())


def test_a_provider_that_was_asked_for_and_is_not_there_stops_the_start(tmp_path: Path) -> None:
    if "CUDAExecutionProvider" in onnxruntime.get_available_providers():
        pytest.skip("this onnxruntime has CUDA")

    async def scenario() -> None:
        async with application(tmp_path / "state", execution_providers=("cuda", "cpu")):
            pass

    with pytest.raises(AssertionError, match="asks for CUDAExecutionProvider, which"):
        asyncio.run(scenario())


def test_the_metrics_say_where_a_network_runs(tmp_path: Path) -> None:
    async def scenario() -> str:
        async with application(tmp_path / "state") as client:
            return (await client.get("/metrics")).text

    assert (
        'trueprob_network_info{model="digits",provider="CPUExecutionProvider",version="1"} 1.0'
        in asyncio.run(scenario())
    )
