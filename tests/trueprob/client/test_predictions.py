"""Predictions through a client: whole, named fields, the top classes; in JSON and as .npz."""

from __future__ import annotations

import asyncio
import json
from dataclasses import fields
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.running_service import running_service
from tests.trueprob.client.test_service import connected
from tests.trueprob_service.application import ROOT
from trueprob.client import AsyncClient, Client, PartialPrediction, Prediction, ServiceProblem
from trueprob.client.answers import partial_prediction_from, prediction_from
from trueprob.client.requests import NPZ
from trueprob.client.transport import HttpResponse
from trueprob.errors import InvalidInput
from trueprob_service.inference.wire import npy as wire_npz

LOGITS = np.random.default_rng(0).normal(0, 4, (400, 10)).astype(np.float32)


def equal(left: Any, right: Any) -> bool:
    if isinstance(left, np.ndarray):
        return left.dtype == right.dtype and np.array_equal(left, right)
    return bool(left == right)


async def compare(client: AsyncClient) -> None:
    whole = await client.predict("digits", logits=LOGITS, receipts=False)
    binary = await client.predict("digits", logits=LOGITS, receipts=False, binary=True)
    for each in fields(Prediction):
        assert equal(getattr(whole, each.name), getattr(binary, each.name)), each.name
    with_ids = await client.predict("digits", logits=LOGITS, binary=True)
    assert with_ids.prediction_ids is not None
    counted = await client.label("digits", with_ids.prediction_ids, with_ids.prediction)
    assert counted.accepted == 400

    for as_npz in (False, True):
        some = await client.predict_fields(
            "digits",
            ["logits", "logit_gap", "class", "top_indices", "top_classes", "top_probabilities"],
            top=3,
            logits=LOGITS,
            binary=as_npz,
        )
        assert (some.version, some.calibrator) == (whole.version, whole.calibrator)
        assert some.revision == whole.revision
        assert some.probabilities is some.prediction is some.prediction_ids is None
        assert equal(some.logits, LOGITS)
        order = np.argsort(-whole.probabilities, axis=1, kind="stable")[:, :3]
        assert equal(some.top_indices, order)
        assert equal(some.top_probabilities, np.take_along_axis(whole.probabilities, order, 1))
        assert some.top_classes is not None
        assert some.top_classes[0] == tuple(map(str, order[0]))
        assert some.classes == whole.classes
        ranked = np.sort(LOGITS, axis=1)
        assert some.logit_gap is not None
        assert np.allclose(some.logit_gap, ranked[:, -1] - ranked[:, -2], atol=1e-6)

        short = await client.predict_fields("digits", top=2, logits=LOGITS, binary=as_npz)
        assert short.probabilities is None
        assert equal(short.confidence, whole.confidence)
        assert short.top_probabilities is not None
        assert short.top_probabilities.shape == (400, 2)
        ids = await client.predict_fields("digits", ["prediction_ids"], logits=LOGITS)
        assert len(ids.prediction_ids or ()) == 400
        other = await client.predict_fields("digits", logits=LOGITS[:2], version=1, binary=as_npz)
        assert other.revision == whole.revision  # the live one, by its number
    with pytest.raises(ServiceProblem, match="unknown field 'nothing'"):
        await client.predict_fields("digits", ["nothing"], logits=LOGITS)
    with pytest.raises(InvalidInput, match="exactly one of"):
        await client.predict_fields("digits", ["class"], logits=LOGITS, images=[b""])


def test_the_asynchronous_client(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with connected(tmp_path) as client:
            await compare(client)

    asyncio.run(scenario())


def test_names_and_temperatures_of_a_declared_model(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with connected(tmp_path) as client:
            await client.declare("m", class_names=["ä", "b"])
            for binary in (False, True):
                answer = await client.predict("m", logits=[[1.0, 2.0]], binary=binary)
                assert answer.classes == ("b",)
                assert answer.temperature is not None
                assert answer.temperature.tolist() == [1.0]
                part = await client.predict_fields(
                    "m", ["temperature", "class"], logits=[[1.0, 2.0]], binary=binary
                )
                assert part.classes == ("b",)
                assert equal(part.temperature, answer.temperature)

    asyncio.run(scenario())


def test_what_is_null_is_none_in_either_form() -> None:
    headers = {"trueprob-version": "2", "trueprob-calibrator": "isotonic-0"}
    shared = {"model": "m", "version": 2, "calibrator": "isotonic-0", "prediction": [1],
              "class": ["b"], "confidence": [0.9], "probabilities": [[0.1, 0.9]]}  # fmt: skip
    text = json.dumps({**shared, "revision": None, "temperature": None}).encode()
    replies = (
        HttpResponse(200, {**headers, "content-type": "application/json"}, text),
        HttpResponse(200, {**headers, "content-type": NPZ}, wire_npz.encode_npz(shared)),
    )
    for reply in replies:
        answer, part = prediction_from(reply), partial_prediction_from(reply)
        assert answer.temperature is answer.revision is answer.prediction_ids is None
        assert part.temperature is part.revision is None
        assert (answer.version, part.version, part.classes) == (2, 2, ("b",))
        assert equal(part.probabilities, answer.probabilities)


@pytest.mark.integration
def test_the_blocking_client(tmp_path: Path) -> None:
    with (
        running_service(tmp_path / "state", ROOT / "models") as server,
        Client(server.url) as client,
    ):
        picture = (ROOT / "examples/seven.png").read_bytes()
        part: PartialPrediction = client.predict_fields(
            "digits", ["class", "top_classes"], top=2, images=[picture], binary=True
        )
        assert part.classes == ("7",)
        assert part.top_classes is not None
        assert part.top_classes[0][0] == "7"
        assert client.predict("digits", images=[picture], binary=True).prediction.tolist() == [7]
