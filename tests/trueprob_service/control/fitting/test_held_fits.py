"""A set that does not belong is held: nothing changes for the clients until somebody forces it."""

from __future__ import annotations

import asyncio
import io
import json
import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import onnxruntime
import pytest
from numpy.typing import NDArray
from scipy.ndimage import rotate
from sqlalchemy import select, update

from tests.trueprob_service.application import ROOT, application
from tests.trueprob_service.control.fitting.test_policy import ON_ALARM, look, raise_alarm
from tests.trueprob_service.control.harness import NPZ, World, npz, overconfident, rows
from tests.trueprob_service.control.upkeep.test_webhook import SETTINGS as WEBHOOK
from trueprob import CalibrationSet, softmax
from trueprob.calibrators import loads_calibrator
from trueprob.drift import ReferenceBins
from trueprob.findings.incumbent_check import check_candidate
from trueprob.fitting.methods import fit_rows
from trueprob.repository.model_repository import ModelRepository
from trueprob_service.control.store.events import webhook_event
from trueprob_service.control.store.tables import fit as fit_table
from trueprob_service.edge.keys import new_key

pytestmark = pytest.mark.slow

MODEL = "/v1/models/digits"
Rows = tuple[NDArray[Any], NDArray[np.int64]]


@pytest.fixture(scope="module")
def digits() -> Rows:
    """256 rows of the test split, as the model knows them."""
    with np.load(ROOT / "examples/digits_test.npz") as arrays:
        return arrays["logits"][:256], arrays["labels"][:256].astype(np.int64)


def shuffled(labels: NDArray[np.int64]) -> NDArray[np.int64]:
    return np.random.default_rng(0).permutation(labels)


# Kind of mistake → the set, and the code that holds it.
WRONG: dict[str, tuple[Callable[[Any, Any], Rows], str]] = {
    "off by one": (lambda x, y: (x, (y + 1) % 10), "class_order"),
    "shuffled": (lambda x, y: (x, shuffled(y)), "unrelated_labels"),
    "one class": (lambda x, y: (x, np.full_like(y, 3)), "one_class"),
    "probabilities": (lambda x, y: (softmax(x), y), "distribution_as_logits"),
    "reversed": (lambda x, y: (x, 9 - y), "class_order"),
    "misaligned": (lambda x, y: (x, np.roll(y, 1)), "rows_misaligned"),
}


async def upload(client: httpx.AsyncClient, wrong: Rows, query: str = "") -> Any:
    buffer = io.BytesIO()
    np.savez(buffer, logits=wrong[0], labels=wrong[1])
    answer = await client.post(
        f"{MODEL}/calibration-sets{query}",
        content=buffer.getvalue(),
        headers={**NPZ, "prefer": "wait=60"},
    )
    assert answer.status_code == 201, answer.text
    return answer.json()


async def answered(client: httpx.AsyncClient, logits: NDArray[np.float32]) -> bytes:
    """The bytes of an answer, without receipts, which differ each time."""
    body = {"logits": logits[:40].tolist()}
    answer = await client.post(f"{MODEL}/probabilities?receipts=false", json=body)
    assert answer.status_code == 200, answer.text
    return answer.content


def test_wrong_sets_change_nothing_until_a_key_forces_them(tmp_path: Path, digits: Rows) -> None:
    key, line = new_key("team-a", ["predict", "calibrate"])
    (tmp_path / "keys.jsonl").write_text(line)

    async def scenario() -> None:
        keys = {"api_keys_file": tmp_path / "keys.jsonl"}
        async with application(tmp_path / "state", **keys) as client:
            client.headers["authorization"] = f"Bearer {key}"
            before = await answered(client, digits[0])
            first = (await client.get(MODEL)).json()["revision"]
            for kind, (mistake, code) in WRONG.items():
                fit = await upload(client, mistake(*digits))
                verdict = fit["verdict"]
                assert (fit["state"], verdict["outcome"]) == ("done", "held"), kind
                assert (verdict["admitted"], fit["promoted"], fit["revision"]) == (
                    False, False, None,
                )  # fmt: skip
                holds = [f for f in verdict["findings"] if f["severity"] == "hold"]
                assert holds[0]["code"] == code, kind
                assert verdict["reasons"][0].startswith(holds[0]["sentence"])
                assert verdict["set"]["rows"] == 256
                assert await answered(client, digits[0]) == before, kind
            for mistake, _ in list(WRONG.values())[:4]:
                fit = await upload(client, mistake(*digits), "?promote=always")
                assert (fit["verdict"]["outcome"], fit["promoted"]) == ("held", True)
                live = (await client.get(MODEL)).json()
                assert (live["calibrator"], live["revision"]) == (
                    fit["calibrator"], fit["revision"],
                )  # fmt: skip
                newest = (await client.get(f"{MODEL}/promotions?limit=1")).json()["items"][0]
                assert (newest["cause"], newest["promoted_by"], newest["fit"]) == (
                    "forced", "team-a", fit["fit"],
                )  # fmt: skip
                assert await answered(client, digits[0]) != before
            await client.post(
                f"{MODEL}/rollback",
                json={"revision": first},
                headers={"if-match": f'"{live["revision"]}"'},
            )
            again = json.loads(await answered(client, digits[0]))
            assert again["probabilities"] == json.loads(before)["probabilities"]

    asyncio.run(scenario())


def test_confidence_that_would_change_on_traffic_but_not_on_the_set_is_held(
    tmp_path: Path, digits: Rows
) -> None:
    logits, labels = digits
    scaled = (5.0 * logits, labels)  # of another export, say; nothing in the set shows it

    async def scenario() -> None:
        async with application(tmp_path) as client:
            alone = await upload(client, scaled, "?promote=never")
            assert alone["verdict"]["outcome"] == "admitted"
            assert alone["verdict"]["traffic"] is None
            for start in range(0, 256, 64):
                await client.post(
                    f"{MODEL}/probabilities", json={"logits": logits[start : start + 64].tolist()}
                )
            with_traffic = await upload(client, scaled)
            verdict = with_traffic["verdict"]
            assert (verdict["outcome"], with_traffic["promoted"]) == ("held", False)
            assert [f["code"] for f in verdict["findings"]] == ["traffic_confidence"]
            assert verdict["traffic"]["rows"] == 64  # 16 rows of each answer
            on_traffic, on_set = verdict["traffic"], verdict["set"]
            assert on_traffic["before"] - on_traffic["after"] > 0.3
            assert on_set["before"] - on_set["after"] < 0.2
            numbers = f"{on_traffic['before']:.3f} → {on_traffic['after']:.3f}"
            assert any(numbers in reason for reason in verdict["reasons"])
            # The same calibrator was admitted before there was traffic; its newest fit decides.
            path = f"{MODEL}/calibrators/{with_traffic['calibrator']}/promote"
            refused = await client.post(path, headers={"if-match": '"1"'})
            assert refused.status_code == 409
            assert "is held: mean confidence" in refused.json()["detail"]
            forced = await client.post(f"{path}?force=true", headers={"if-match": '"1"'})
            assert forced.status_code == 200
            newest = (await client.get(f"{MODEL}/promotions?limit=1")).json()["items"][0]
            assert newest["cause"] == "forced"
            # The sample of traffic is the version's: the new calibrator has it at once.
            honest = await upload(client, digits)
            assert (honest["verdict"]["outcome"], honest["verdict"]["traffic"]["rows"]) == (
                "admitted", 64,
            )  # fmt: skip

    asyncio.run(scenario())


def distorted(images: NDArray[np.uint8], degrees: float, noise: float) -> NDArray[np.uint8]:
    """As in the demo: turned, and with noise."""
    turned = rotate(images.astype(float), degrees, axes=(2, 1), reshape=False, order=1)
    added = np.random.default_rng(len(images)).normal(scale=noise, size=images.shape)
    return np.rint(turned + added).clip(0, 255).astype(np.uint8)


def test_a_worse_world_is_not_held(tmp_path: Path) -> None:
    """The demo's digits, in front of traffic as the model knows it."""
    with np.load(ROOT / "examples/digits_pictures.npz") as file:
        images, labels = file["reserved_images"], file["reserved_labels"]

    async def scenario() -> None:
        async with application(tmp_path) as client:
            with np.load(ROOT / "examples/digits_test.npz") as usual:
                body = {"logits": usual["logits"].tolist()}
            for _ in range(2):
                await client.post(f"{MODEL}/probabilities", json=body)
            buffer = io.BytesIO()
            np.savez(buffer, images=distorted(images, 20.0, 75.0), labels=labels)
            answer = await client.post(
                f"{MODEL}/calibration-sets",
                content=buffer.getvalue(),
                headers={**NPZ, "prefer": "wait=60"},
            )
            fit = answer.json()
            assert fit["scores"]["incumbent"]["accuracy"] < 0.6
            assert (fit["verdict"]["outcome"], fit["verdict"]["findings"]) == ("admitted", [])
            assert fit["promoted"]

    asyncio.run(scenario())


def test_no_harder_world_and_no_class_mix_is_held() -> None:
    version = ModelRepository(ROOT / "models").get("digits", 1)
    factory = loads_calibrator((version.path / "calibrator.json").read_bytes())
    baseline = version.baseline()
    assert baseline is not None
    gaps = ReferenceBins.of_percentiles(baseline.gap_quantiles, baseline.n)
    session = onnxruntime.InferenceSession(version.path / "model.onnx")
    with np.load(ROOT / "examples/digits_pictures.npz") as file:
        pictures = dict(file)

    def logits(images: NDArray[np.uint8]) -> NDArray[np.float32]:
        result: NDArray[np.float32] = session.run(None, {session.get_inputs()[0].name: images})[0]
        return result

    clean = logits(distorted(pictures["test_images"], 0.0, 60.0))
    accuracies = []
    for degrees, noise in [(0, 60), (20, 75), (30, 90), (40, 60), (45, 60), (20, 150), (0, 200)]:
        rows = logits(distorted(pictures["reserved_images"], degrees, noise))
        same = logits(distorted(pictures["test_images"], degrees, noise))
        labels = pictures["reserved_labels"].astype(np.int64)
        accuracies.append(float((rows.argmax(axis=1) == labels).mean()))
        mixes = [labels >= 0, labels < 4] if degrees <= 20 and noise <= 75 else [labels >= 0]
        for kept in mixes:
            data = CalibrationSet(rows[kept], labels[kept])
            fitted = fit_rows("smart", data)
            for traffic in (None, clean, same, np.concatenate([clean[:256], same[:256]])):
                check = check_candidate(factory, fitted, data, traffic=traffic, usual_gaps=gaps)
                assert check.holds == (), (degrees, noise, str(check))
    assert min(accuracies) < 0.25
    assert max(accuracies) > 0.9


# ----- On a declared model -----


def off_by_one(seed: int = 0, n: int = 600) -> bytes:
    logits, labels = rows(seed, n, sharpness=2.5)
    return npz(logits=logits, labels=(labels + 1) % 3)


def test_a_held_calibrator_needs_force_and_never_acts_on_its_own(
    world: World, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING):
        fit = world.upload(off_by_one())
    assert f"fit {fit['fit']} of model m is held: labels look shifted" in caplog.text
    refused = world.promote(fit["calibrator"], 1)
    assert refused.status_code == 409
    assert "is held: labels look shifted by one" in refused.json()["detail"]
    assert "?force=true promotes it anyway" in refused.json()["detail"]
    body = {"calibrator": fit["calibrator"], "policy": "act"}
    refused = world.call("PUT", "/v1/models/m/shadow", json=body)
    assert (refused.status_code, "'tell'" in refused.json()["detail"]) == (409, True)
    shadow = world.call("PUT", "/v1/models/m/shadow", json={"calibrator": fit["calibrator"]})
    assert (shadow.status_code, shadow.json()["policy"]) == (201, "tell")
    assert world.promote(fit["calibrator"], 1, "?force=true").json()["revision"] == 2
    assert world.get("/v1/models/m/promotions")["items"][0]["cause"] == "forced"


def test_labels_that_prefer_a_held_calibrator_do_not_promote_it(sqlite_world: World) -> None:
    """Whoever sends wrong sets may send wrong labels too."""
    world = sqlite_world
    fit = world.upload(off_by_one(), "?promote=shadow")
    shadow = world.get("/v1/models/m/shadow")
    assert (shadow["calibrator"], shadow["policy"]) == (fit["calibrator"], "tell")
    for seed in range(10):
        logits, labels = rows(50 + seed, 400, sharpness=2.5)
        _, _, _, ids = world.predict(logits)
        world.label(ids, ((labels + 1) % 3).tolist())
    assert world.get("/v1/models/m/shadow")["state"] == "better"
    assert world.deployments.current("m").revision == 1
    assert world.promote(fit["calibrator"], 1).status_code == 409


def test_a_held_fit_that_is_repeated_is_held_with_the_calibrator_that_it_has(
    sqlite_world: World,
) -> None:
    logits = rows(7, 400)[0]
    reversed_ = npz(logits=logits, labels=logits.argmin(axis=1))
    first = sqlite_world.upload(reversed_, "?method=temperature")
    codes = [finding["code"] for finding in first["verdict"]["findings"]]
    assert "absurd_temperature" in codes
    assert first["verdict"]["outcome"] == "held"
    sqlite_world.upload(overconfident())  # another pair is live: the request is judged again
    second = sqlite_world.upload(reversed_, "?method=temperature")
    assert (second["fit"] != first["fit"], second["calibrator"]) == (True, first["calibrator"])
    assert second["verdict"]["findings"] == first["verdict"]["findings"]


def test_one_class_is_fitted_by_a_scale_only(sqlite_world: World) -> None:
    logits, labels = rows(8, 900, sharpness=2.5)
    one = labels == 1
    query = "?method=vector&allow_prediction_change=true"
    fit = sqlite_world.upload(npz(logits=logits[one], labels=labels[one]), query)
    assert [f["code"] for f in fit["verdict"]["findings"]] == ["one_class", "scale_only"]
    assert fit["calibrator"].startswith("smart-")
    assert fit["verdict"]["outcome"] != "held"


def test_recent_traffic_comes_from_the_process_that_fits(sqlite_world: World) -> None:
    meters = sqlite_world.deployments.current("m").meters
    recent = rows(9, 300)[0]
    meters.rows = np.concatenate([recent, recent])  # type: ignore[attr-defined]
    fit = sqlite_world.upload(overconfident())
    traffic = fit["verdict"]["traffic"]
    assert traffic["rows"] == 300  # copies are no further evidence
    assert traffic["before"] == pytest.approx(softmax(recent).max(axis=1).mean(), abs=1e-6)
    candidate = sqlite_world.deployments.current("m").calibrator
    after = candidate.predict_proba(recent).max(axis=1).mean()
    assert traffic["after"] == pytest.approx(after, abs=1e-6)
    sentence = f"{traffic['before']:.3f} → {traffic['after']:.3f}, on the set "
    assert sentence in fit["verdict"]["reasons"][-1]


def test_another_mix_of_classes_in_the_traffic_is_reported_and_changes_nothing(
    sqlite_world: World,
) -> None:
    generator = np.random.default_rng(10)
    logits = (2.0 * generator.normal(size=(6_000, 3))).astype(np.float32)
    labels = (logits + generator.gumbel(size=logits.shape)).argmax(axis=1)
    labelled, recent = slice(0, 1_000), slice(1_000, None)
    kept = generator.random(5_000) < np.array([1.0, 0.1, 0.1])[labels[recent]]
    meters = sqlite_world.deployments.current("m").meters
    meters.rows = logits[recent][kept][:512]  # type: ignore[attr-defined]
    data = npz(logits=logits[labelled], labels=labels[labelled])
    before = sqlite_world.deployments.current("m").calibrator
    verdict = sqlite_world.upload(data, "?promote=never")["verdict"]
    found = verdict["label_shift"]
    assert found["advised"], found["sentence"]
    assert found["rows"] == 512
    shares = {each["class_name"]: (each["before"], each["after"]) for each in found["classes"]}
    assert len(shares) == 3
    largest = found["classes"][0]
    assert largest["before"] == pytest.approx(1 / 3, abs=0.05)
    assert largest["after"] == pytest.approx(1 / 1.2, abs=0.08)
    assert sum(after for _, after in shares.values()) == pytest.approx(1.0)
    assert sqlite_world.deployments.current("m").calibrator == before
    # It is no reason of the verdict, and few rows say nothing.
    assert not any("mix of classes" in reason for reason in verdict["reasons"])
    meters.rows = logits[recent][kept][:199]  # type: ignore[attr-defined]
    again = sqlite_world.upload(npz(logits=logits[:900], labels=labels[:900]), "?promote=never")
    assert again["verdict"]["label_shift"] is None


def test_fits_of_the_release_before_have_an_outcome_too(sqlite_world: World) -> None:
    fit = sqlite_world.upload(overconfident())
    with sqlite_world.plane.services.store.write() as transaction:
        old = {"admitted": True, "reasons": ["NLL 0.4 → 0.3 nats"]}
        transaction._connection.execute(update(fit_table).values(verdict=old))
    verdict = sqlite_world.get(f"/v1/models/m/fits/{fit['fit']}")["verdict"]
    assert verdict == {**old, "outcome": "admitted"}


def test_appended_rows_are_stored_and_described_with_what_is_wrong(sqlite_world: World) -> None:
    logits, labels = rows(10, 300)
    path = "/v1/models/m/calibration-sets/may"

    def append(given: NDArray[np.int64], part: slice) -> Any:
        body = {"logits": logits[part].tolist(), "labels": given[part].tolist()}
        answer = sqlite_world.call("POST", f"{path}/rows", json=body)
        assert answer.status_code == 200, answer.text
        return answer.json()

    first = append(labels, slice(0, 30))
    assert [f["code"] for f in first["findings"]] == ["few_rows"]
    wrong = append((labels + 1) % 3, slice(30, 300))
    assert wrong["n"] == 300
    (finding,) = wrong["findings"]
    assert (finding["code"], finding["severity"]) == ("class_order", "hold")
    assert finding["repair"]["labels"] == [2, 0, 1]
    assert sqlite_world.get(path) == {**wrong, "notes": None}  # they are said once
    (listed,) = sqlite_world.get("/v1/models/m/calibration-sets?name=may")["items"]
    assert listed == {**wrong, "findings": None, "notes": None}


def test_a_refit_on_wrong_labels_is_held_counted_and_told(begin: Callable[..., World]) -> None:
    world = begin(settings={**ON_ALARM, **WEBHOOK})
    world.declare()
    logits, labels = rows(11, 300, sharpness=2.5)
    sent = [
        {"id": str(index), "logits": row, "label": label}
        for index, (row, label) in enumerate(
            zip(logits.tolist(), ((labels + 1) % 3).tolist(), strict=True)
        )
    ]
    assert world.call("POST", "/v1/models/m/labels", json={"rows": sent}).json()["accepted"] == 300
    raise_alarm(world)
    before = world.plane.label_statistics()
    assert before.refits["m", "alarm", "held"] == 0  # there before the first, for the alert
    assert ("m", "smart", "held") not in before.fits
    (fit,) = look(world)
    assert (fit["verdict"]["outcome"], fit["promoted"]) == ("held", False)
    assert world.deployments.current("m").revision == 1
    world.clock.now += 60.0
    counted = world.plane.label_statistics()
    assert counted.refits["m", "alarm", "held"] == counted.fits["m", "smart", "held"] == 1
    assert ("m", "alarm", "refused") not in counted.refits
    with world.plane.services.store._engine.connect() as connection:
        bodies = list(connection.execute(select(webhook_event.c.body)).scalars())
    told = [event for event in map(json.loads, bodies) if event["type"].startswith("candidate.")]
    (event,) = told
    assert (event["type"], event["data"]["trigger"]) == ("candidate.held", fit["trigger"])
    assert event["data"]["reasons"] == fit["verdict"]["reasons"]
