"""Refits after an alarm that names a class: by a class-wise method, or with a word about one."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from tests.trueprob_service.control.fitting.test_policy import ON_ALARM, look
from tests.trueprob_service.control.harness import World, settings_in, start
from trueprob import CalibrationSet, IdentityCalibrator, admit
from trueprob.fitting import auto
from trueprob_service.control.fitting.policy import _AUTO_CLASSES, Trigger

pytestmark = pytest.mark.slow

ALLOWED = {**ON_ALARM, "allow_prediction_change": True}
SETTING = "TRUEPROB_ALLOW_PREDICTION_CHANGE=true"
Rows = tuple[NDArray[np.float32], NDArray[np.int64]]


@pytest.fixture
def begin(tmp_path: Path) -> Iterator[Callable[..., World]]:
    """Starts a world on SQLite, with the model ``m``."""
    worlds: list[World] = []

    def new(n_classes: int = 3, **settings: Any) -> World:
        worlds.append(start(settings_in(tmp_path, **settings)))
        worlds[-1].declare(n_classes=n_classes)
        return worlds[-1]

    yield new
    for world in worlds:
        world.plane.close()


def one_bad_class(seed: int, n: int) -> Rows:
    """Three classes; answers '0' are 45 points too confident on a fifth of the rows."""
    rng = np.random.default_rng(seed)
    predicted = np.where(rng.random(n) < 0.2, 0, rng.integers(1, 3, n))
    confidence = rng.uniform(0.75, 0.99, n)
    right = rng.random(n) < confidence - np.where(predicted == 0, 0.45, 0.0)
    logits = np.log(np.tile((1.0 - confidence)[:, None] / 2.0, 3))
    logits[np.arange(n), predicted] = np.log(confidence)
    labels = np.where(right, predicted, (predicted + rng.integers(1, 3, n)) % 3)
    return logits.astype(np.float32), labels


def send_rows(world: World, sent: Rows) -> None:
    rows = [
        {"id": str(index), "logits": row, "label": label}
        for index, (row, label) in enumerate(zip(sent[0].tolist(), sent[1].tolist(), strict=True))
    ]
    answer = world.call("POST", "/v1/models/m/labels", json={"rows": rows})
    assert answer.json()["accepted"] == len(rows), answer.text


def answer_and_label(world: World, seed: int, n: int = 1500) -> Any:
    """Predict and label by receipt; returns the calibration since the promotion."""
    logits, labels = one_bad_class(seed, n)
    _, _, _, ids = world.predict(logits)
    assert world.label(ids, labels.tolist()).json()["accepted"] == n
    return world.get("/v1/models/m/calibration")


def worst_gap(calibration: Any) -> float:
    return max(abs(each["frequency"] - each["confidence"]) for each in calibration["classes"])


def test_where_predictions_may_change_the_class_is_repaired(
    begin: Callable[..., World], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(auto, "N_DIVISIONS_WHEN_SMALL", 1)  # a third of the time
    world = begin(**ALLOWED)
    before = answer_and_label(world, 1)
    alarms = world.get("/v1/models/m/alarms")["items"]
    assert {a["worst_class"]["class_name"] for a in alarms if a.get("worst_class")} == {"0"}
    assert worst_gap(before) > 0.35
    send_rows(world, one_bad_class(2, 600))
    (fit,) = look(world)
    assert (fit["method"], fit["promoted"]) == ("auto", True), fit["verdict"]["reasons"]
    assert fit["trigger"].startswith("alarm:")
    scores = fit["scores"]
    assert scores["candidate"]["class_error"] < scores["incumbent"]["class_error"] / 2
    assert not any(SETTING in reason for reason in fit["verdict"]["reasons"])
    assert worst_gap(answer_and_label(world, 3)) < 0.15


def test_where_they_may_not_the_report_names_the_setting_and_the_gain(
    begin: Callable[..., World],
) -> None:
    world = begin(**ON_ALARM)
    answer_and_label(world, 1)
    rows = one_bad_class(2, 600)
    send_rows(world, rows)
    (fit,) = look(world)
    # One map for all classes makes the class error worse.
    assert (fit["method"], fit["promoted"]) == ("smart", False)
    assert fit["verdict"]["reasons"][0].startswith("debiased class error")
    (advice,) = (reason for reason in fit["verdict"]["reasons"] if SETTING in reason)
    assert advice.startswith("the alarm names class '0', and smart has one map for all classes")
    assert "would be admitted" in advice
    said = re.search(r"would change NLL by −(0\.\d{3}) nats", advice)
    assert said is not None, advice
    allowed = admit(IdentityCalibrator(3), "smart-vector", CalibrationSet(*rows))
    assert allowed.scores["candidate"] is not None
    gain = fit["scores"]["candidate"]["nll"] - allowed.scores["candidate"].nll
    assert float(said[1]) == pytest.approx(gain, abs=6e-4)
    assert gain > 0.05


@pytest.mark.parametrize("settings", [ON_ALARM, ALLOWED])
def test_an_alarm_without_a_class_is_answered_as_before(
    begin: Callable[..., World], settings: dict[str, Any]
) -> None:
    world = begin(**settings)
    with world.plane.services.store.write() as transaction:
        live = transaction.promotions.live("m")
        assert live is not None
        transaction.alarms.add(
            model="m", revision=live.revision, version=1, calibrator=live.calibrator,
            statistic="evidence", log10=2.1, threshold_log10=2.0, tolerance=0.02, counted=900,
            raised_at=world.clock.now,
        )  # fmt: skip
    send_rows(world, one_bad_class(2, 300))
    (fit,) = look(world)
    assert fit["method"] == "smart"
    assert not any(SETTING in reason for reason in fit["verdict"]["reasons"])


@pytest.mark.parametrize(
    ("configured", "n_classes", "method"),
    [
        ("smart", 3, "auto"),
        ("vector", 3, "vector"),
        ("auto", 3, "auto"),
        ("temperature", _AUTO_CLASSES + 1, "smart-vector"),
        ("smart", 2, "smart"),  # that is smart-binary
        ("temperature", 2, "auto"),
    ],
)
def test_a_class_wise_method_of_the_settings_stays(
    begin: Callable[..., World], configured: str, n_classes: int, method: str
) -> None:
    world = begin(n_classes, **{**ALLOWED, "fit_method": configured, "refit_policy": "off"})
    trigger = Trigger("alarm:1", world.deployments.current("m").served, (1,), of_class=True)
    chosen = world.plane.services.refit_policy._class_wise_method(trigger)
    assert (chosen or configured) == method
