"""Label statistics of a window and for Prometheus."""

from __future__ import annotations

import io
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from tests.trueprob_service.control.harness import World, npz, overconfident, rows
from trueprob.scores.binned import BinnedCalibration
from trueprob_service.control.store.label_sums import N_BLOCKS, advance, by_part

pytestmark = pytest.mark.slow

KEYS = {
    "evidence_log10",
    "evidence_threshold_log10",
    "change_log10",
    "change_threshold_log10",
    "alarm",
    "model",
    "version",
    "calibrator",
    "revision",
    "window",
    "labels",
    "ece",
    "ece_floor",
    "verdict",
    "class_error_low",
    "class_error_high",
    "classes",
    "drift_ratio",
    "expected_accuracy",
    "observed_accuracy",
    "advice",
    "bins",
    "binary",
    "baseline",
}


def send_labels(world: World, seed: int, n: int, sharpness: float = 1.0) -> BinnedCalibration:
    logits, labels = rows(seed, n, sharpness=sharpness)
    _, confidence, prediction, ids = world.predict(logits)
    assert world.label(ids, labels.tolist()).json()["accepted"] == n
    return BinnedCalibration.of(confidence, prediction == labels)


def test_without_labels_there_is_no_verdict(world: World) -> None:
    answer = world.get("/v1/models/m/calibration")
    assert set(answer) == KEYS
    assert answer["window"] == "24h"
    assert (answer["labels"], answer["ece"]) == (0, None)
    assert answer["verdict"] == {
        "state": "unknown",
        "sentence": "Too few labels to tell: none has come yet.",
        "error_low": 0.0,
        "error_high": 1.0,
        "labels": 0,
        "labels_needed": None,
    }
    assert "Send labels" in answer["advice"]
    assert len(answer["bins"]) == 15
    assert answer["baseline"] == {}


def test_the_figures_of_calibrated_predictions(world: World) -> None:
    expected = send_labels(world, 20, 1200)
    answer = world.get("/v1/models/m/calibration")
    assert answer["labels"] == 1200
    assert answer["ece"] == pytest.approx(expected.ece(), abs=1e-12)
    assert answer["ece_floor"] == pytest.approx(expected.ece_floor(), abs=1e-12)
    assert answer["expected_accuracy"] == pytest.approx(expected.mean_confidence(), abs=1e-12)
    assert answer["observed_accuracy"] == pytest.approx(expected.accuracy(), abs=1e-12)
    assert answer["verdict"]["state"] == "unknown"  # 1 200 labels prove little
    assert answer["verdict"]["labels"] == 1200
    assert sum(entry["count"] for entry in answer["bins"]) == 1200


def send_two_classes(world: World, seed: int, n: int) -> tuple[BinnedCalibration, dict[str, Any]]:
    """Labels of predictions whose P(class 1) is too high; its sums, and the calibration."""
    generator = np.random.default_rng(seed)
    logits = generator.normal(0, 2, (n, 2)).astype(np.float32)
    labels = (logits + generator.gumbel(size=(n, 2))).argmax(axis=1)
    logits[:, 1] += 1.0
    live, *_, ids = world.predict(logits)
    assert world.label(ids, labels.tolist()).json()["accepted"] == n
    probability = live.calibrator.predict_proba(logits)[:, 1]
    return BinnedCalibration.of(probability, labels), world.get("/v1/models/m/calibration")


def test_two_classes_have_the_probability_of_class_1(begin: Callable[..., World]) -> None:
    world = begin()
    world.declare(n_classes=2)
    assert world.get("/v1/models/m/calibration")["binary"] is None
    expected, answer = send_two_classes(world, 1, 900)
    binary = answer["binary"]
    assert (binary["class_name"], binary["labels"]) == ("1", 900)
    assert binary["ece"] == pytest.approx(expected.ece(), abs=1e-6)
    assert binary["ece"] > 2 * answer["ece"]  # errors of the two classes cancel in the confidence
    assert binary["ece_floor"] == pytest.approx(expected.ece_floor(), abs=1e-6)
    assert binary["probability"] == pytest.approx(expected.mean_confidence(), abs=1e-6)
    assert binary["frequency"] == pytest.approx(expected.accuracy())
    for name in ("count", "confidence", "correct"):
        got = [each[name] for each in binary["bins"]]
        assert got == pytest.approx(getattr(expected, name), abs=1e-4)
    assert sum(each["count"] for each in answer["bins"]) == 900
    world.clock.now += 60.0
    (pair,) = world.plane.label_statistics().pairs
    assert (pair.totals.n, pair.by_class) == (0, {})
    of_0, of_1 = pair.by_prediction
    both = of_0 + of_1
    assert (both.n, both.count[:7].sum()) == (900, 0)  # of the confidence
    assert min(of_0.n, of_1.n) > 100
    assert (of_0.complement() + of_1).ece() == binary["ece"]


def test_labels_from_before_the_upgrade_are_in_the_bins_but_in_no_class(world: World) -> None:
    old = BinnedCalibration.of(np.array([0.7, 0.9]), np.array([True, False]))
    with world.plane.services.store.write() as transaction:
        transaction.models.lock("m")
        live = transaction.promotions.live("m")
        assert live is not None
        key = {"version": live.version, "calibrator": live.calibrator}
        hour = int(world.clock.now // 3600)
        transaction.bins.add("m", live.revision, **key, hour=hour, new=[old])
        new = by_part(np.array([0.8]), np.array([True]), np.array([0]), n_classes=2)
        empty = BinnedCalibration.zeros()
        transaction.bins.add("m", live.revision, **key, hour=hour, new=new)
        window = transaction.bins.since("m", **key, hour=hour)
        parts = transaction.bins.running()["m", live.version, live.calibrator]
        assert parts.labels == window.labels
        assert (parts.unknown, parts.class_0, parts.class_1) == (old, new[1], empty)
    assert window.labels.n == 3
    assert (window.class_1.n, window.class_1.correct.sum()) == (1, 0)
    assert window.class_1.mean_confidence() == pytest.approx(0.2)


@pytest.mark.parametrize("n_classes", [3, 16, 17])
def test_few_classes_have_totals_of_each_over_all_promotions(
    begin: Callable[..., World], n_classes: int
) -> None:
    world = begin()
    world.declare(n_classes=n_classes)
    sums = np.zeros((4, n_classes))
    for seed, revision in ((70, 2), (71, 4)):
        logits, labels = rows(seed, 400, n_classes)
        _, confidence, prediction, ids = world.predict(logits)
        assert world.label(ids, labels.tolist()).json()["accepted"] == 400
        gap = (prediction == labels) - confidence
        columns = (np.ones(400), confidence, prediction == labels, gap**2)
        sums += [np.bincount(prediction, each, n_classes) for each in columns]
        world.upload(npz(logits=2.5 * logits, labels=labels), "?promote=always")
        assert world.rollback(revision).is_success
    world.clock.now += 60.0
    (pair,) = [pair for pair in world.plane.label_statistics().pairs if pair.live]
    if n_classes == 17:
        assert pair.by_class == {}
        return
    assert list(pair.by_class) == [str(index) for index in range(n_classes)]
    np.testing.assert_allclose(np.transpose([*pair.by_class.values()]), sums, rtol=1e-12)
    assert pair.totals.n == sums[0].sum() == 800
    fitted = next(pair for pair in world.plane.label_statistics().pairs if not pair.live)
    assert set(fitted.by_class.values()) == {(0.0, 0.0, 0.0, 0.0)}
    assert world.call("DELETE", "/v1/models/m", headers={"if-match": '"5"'}).is_success
    world.declare(n_classes=n_classes)
    world.clock.now += 60.0
    (again,) = world.plane.label_statistics().pairs
    assert set(again.by_class.values()) == {(0.0, 0.0, 0.0, 0.0)}


def test_a_class_that_is_off_by_itself_is_advised_a_fit_by_class(
    begin: Callable[..., World],
) -> None:
    world = begin()
    world.declare(n_classes=2)
    _, answer = send_two_classes(world, 2, 1200)
    assert answer["alarm"]["worst_class"]["class_name"] in ("0", "1")
    assert "calibration-sets and promote what is admitted" in answer["advice"]
    assert "with two classes smart fits a smart-binary" in answer["advice"]
    generator = np.random.default_rng(3)
    logits = generator.normal(0, 2, (400, 2))
    labels = (logits + generator.gumbel(size=(400, 2))).argmax(axis=1)
    logits[:, 1] += 1.0
    with io.BytesIO() as file:
        np.savez(file, logits=logits.astype(np.float32), labels=labels)
        fit = world.upload(file.getvalue())
    assert (fit["method"], fit["promoted"]) == ("smart-binary", True)


def test_all_classes_off_alike_are_not_advised_a_fit_by_class(world: World) -> None:
    send_labels(world, 21, 1500, sharpness=2.5)
    answer = world.get("/v1/models/m/calibration")
    assert answer["verdict"]["state"] == "off"
    assert "allow_prediction_change" not in answer["advice"]


def verdict_everywhere(world: World) -> dict[str, Any]:
    """The verdict of one model, which the list and the metrics must repeat."""
    verdict: dict[str, Any] = world.get("/v1/models/m/calibration")["verdict"]
    (listed,) = world.get("/v1/models")["items"]
    assert listed["verdict"] == world.get("/v1/models/m")["verdict"] == verdict
    world.clock.now += 60.0
    (pair,) = [pair for pair in world.plane.label_statistics().pairs if pair.live]
    assert pair.verdict is not None
    assert vars(pair.verdict) == verdict
    return verdict


def test_the_verdict_goes_from_unknown_over_an_alarm_to_proven(world: World) -> None:
    send_labels(world, 22, 50)
    assert verdict_everywhere(world)["state"] == "unknown"
    send_labels(world, 21, 1500, sharpness=2.5)
    off = verdict_everywhere(world)
    assert off["state"] == "off"
    alarms = world.get("/v1/models/m/alarms")["items"]
    assert {alarm["statistic"] for alarm in alarms} == {"change", "evidence"}
    for alarm in alarms:
        world.call("POST", f"/v1/models/m/alarms/{alarm['id']}/acknowledge")
    assert verdict_everywhere(world)["state"] == "off"  # evidence stands until a promotion
    world.upload(overconfident(), "?promote=always")
    fresh = verdict_everywhere(world)
    assert (fresh["state"], fresh["labels"]) == ("unknown", 0)


def test_the_sums_since_a_change_are_told_apart_from_those_since_the_promotion(
    sqlite_world: World,
) -> None:
    world = sqlite_world
    before = send_labels(world, 31, 6000)
    for seed in range(100):
        send_labels(world, 40 + seed, 20, sharpness=2.5)
        verdict = verdict_everywhere(world)
        if verdict["state"] != "unknown":
            break
    assert verdict["state"] == "changed_lately"
    assert verdict["sentence"] == "Changed lately: no labels since the alarm."
    send_labels(world, 200, 40, sharpness=2.5)
    (alarm,) = world.get("/v1/models/m/alarms")["items"]
    assert verdict_everywhere(world)["labels"] == 40
    world.call("POST", f"/v1/models/m/alarms/{alarm['id']}/acknowledge")
    later = verdict_everywhere(world)
    assert (later["state"], later["labels"]) == ("unknown", 40)
    state = world.plane.services.store
    with state.read() as transaction:
        row = transaction.alarm_states.get("m", 1)
    assert row is not None
    assert row.interval is not None
    assert row.interval["promotion"]["n"] == before.n + 20 * (seed + 1) + 40
    assert row.interval["change"]["n"] == 40


def test_a_large_tolerance_is_proven_by_few_labels(begin: Callable[..., World]) -> None:
    world = begin(settings={"alarm_tolerance": 0.1})
    world.declare()
    send_labels(world, 25, 3000)
    verdict = verdict_everywhere(world)
    assert verdict["state"] == "within_tolerance"
    assert verdict["error_high"] <= 0.1
    assert world.get("/v1/models/m/calibration")["advice"] == "Nothing to do."


def test_windows_hold_whole_hours(world: World) -> None:
    send_labels(world, 23, 10)
    world.clock.now += 5 * 3600
    send_labels(world, 24, 7)
    labels = {
        window: world.get(f"/v1/models/m/calibration?window={window}")["labels"]
        for window in ("1h", "4h", "5h", "24h", "7d")
    }
    assert labels == {"1h": 7, "4h": 7, "5h": 17, "24h": 17, "7d": 17}
    for wrong in ("0h", "1", "h", "1w", "-1h", "9999999h", "1.5h", "999999d"):
        answer = world.call("GET", f"/v1/models/m/calibration?window={wrong}")
        assert answer.status_code == 422
        assert "window" in answer.json()["detail"]


def test_a_window_sums_all_promotions_of_the_live_pair(world: World) -> None:
    send_labels(world, 25, 10)
    world.upload(overconfident())
    send_labels(world, 26, 5)
    world.rollback(2)
    send_labels(world, 27, 3)
    assert world.get("/v1/models/m/calibration")["labels"] == 13


def test_running_totals_survive_a_restart_and_never_fall(begin: Callable[..., World]) -> None:
    world = begin()
    world.declare()
    first = send_labels(world, 28, 100)
    world.plane.close()
    restarted = begin(clock=world.clock)
    second = send_labels(restarted, 29, 100)
    restarted.clock.now += 60.0
    (pair,) = restarted.plane.label_statistics().pairs
    np.testing.assert_allclose(
        pair.totals.confidence, first.confidence + second.confidence, rtol=0, atol=1e-12
    )
    assert (pair.totals.count == first.count + second.count).all()


def test_fits_and_promotions_are_counted(world: World) -> None:
    world.upload(overconfident())
    world.upload(overconfident(), "?promote=never")
    world.clock.now += 60.0
    reading = world.plane.label_statistics()
    # Zeros: what raises an alert by its first 1, and one for sums over all methods.
    assert {key for key, n in reading.promotions.items() if not n} == {
        ("m", "identity", "reverted"),
        ("m", "smart", "reverted"),
    }
    assert reading.refits == {("m", "alarm", "held"): 0, ("m", "rows", "held"): 0}
    assert {key: n for key, n in reading.fits.items() if n} == {
        ("m", "smart", "admitted"): 1,
        ("m", "smart", "refused"): 1,
    }
    assert reading.fit_queue == {}
    promotions = {key: n for key, n in reading.promotions.items() if n}
    assert promotions == {("m", "identity", "factory"): 1, ("m", "smart", "admitted"): 1}


def test_pairs_are_reported_until_their_labels_can_no_longer_arrive(world: World) -> None:
    send_labels(world, 41, 30)
    world.upload(overconfident())
    send_labels(world, 42, 20)
    world.rollback(2)
    world.clock.now += 60.0
    reading = world.plane.label_statistics()
    assert [(pair.live, pair.totals.n, pair.window.n) for pair in reading.pairs] == [
        (True, 30, 30),
        (False, 20, 0),  # the window of a pair that is not live is not read
    ]
    world.clock.now += world.settings.receipt_ttl_seconds + 1.0
    (live,) = world.plane.label_statistics().pairs
    assert (live.live, live.calibrator) == (True, reading.pairs[0].calibrator)


def test_totals_are_read_only_when_they_are_exported(world: World) -> None:
    send_labels(world, 43, 30)
    world.clock.now += 60.0
    assert world.plane.label_statistics(False).pairs[0].totals.n == 0
    assert world.plane.label_statistics(True).pairs[0].totals.n == 30  # in the same second


def test_only_pairs_with_new_labels_or_alarms_are_judged_anew(world: World) -> None:
    for model in ("still", "busy"):
        world.declare(model)
    for model, seed in (("still", 44), ("busy", 45)):
        logits, labels = rows(seed, 200)
        assert world.label(world.predict(logits, model)[3], labels.tolist(), model).is_success
    world.clock.now += 60.0
    before = {pair.model: pair for pair in world.plane.label_statistics().pairs}
    logits, labels = rows(46, 900, sharpness=4.0)
    ids = world.predict(logits, "busy")[3]
    assert world.label(ids, labels.tolist(), "busy").is_success
    world.clock.now += 60.0
    after = {pair.model: pair for pair in world.plane.label_statistics().pairs}
    assert after["still"].verdict is before["still"].verdict
    assert after["busy"].verdict != before["busy"].verdict
    (alarm, *_) = world.get("/v1/models/busy/alarms")["items"]
    assert world.get("/v1/models/busy")["verdict"]["state"] == vars(after["busy"].verdict)["state"]
    assert alarm["acknowledged_at"] is None


def alarm_figures(world: World) -> dict[str, float]:
    """The figures of the metrics, which must be those of the page to the last bit."""
    world.clock.now += 60.0
    (pair,) = world.plane.label_statistics().pairs
    assert pair.alarm is not None
    figures = vars(pair.alarm)
    shown = world.get("/v1/models/m/calibration")
    assert figures == {name: shown[name] for name in figures}
    return figures


def test_figures_of_a_release_before_and_of_other_settings_are_computed_anew(
    begin: Callable[..., World],
) -> None:
    world = begin()
    world.declare()
    send_labels(world, 48, 300, sharpness=2.0)
    first = alarm_figures(world)
    assert first["change_log10"] > 1.0
    with world.plane.services.store.write() as transaction:
        row = transaction.alarm_states.get("m", 1)
        assert row is not None
        stored = (row.evidence_log10, row.change_log10)
        assert stored == (first["evidence_log10"], first["change_log10"])
        old = replace(row, rules=None, evidence_log10=None, change_log10=None, updated_at=1.0)
        transaction.alarm_states.put(old)
    assert alarm_figures(world) == first
    world.plane.close()
    other = begin(clock=world.clock, settings={"alarm_tolerance": 0.1})
    second = alarm_figures(other)
    assert second["evidence_log10"] < first["evidence_log10"]
    send_labels(other, 49, 50)
    assert alarm_figures(other) != second


def test_the_figures_of_classes_are_those_of_the_sums(world: World) -> None:
    logits, labels = rows(47, 800, sharpness=3.0)
    _, confidence, prediction, ids = world.predict(logits)
    assert world.label(ids, labels.tolist()).is_success
    world.clock.now += 60.0
    figures = world.plane.label_statistics().pairs[0].classes
    assert figures is not None
    gaps = (prediction == labels) - confidence
    error = sum(abs(gaps[prediction == c].sum()) for c in range(3)) / 800
    spread = sum(np.sqrt((gaps[prediction == c] ** 2).sum()) for c in range(3))
    assert figures.class_error_ratio == pytest.approx(error, rel=1e-12)
    assert figures.class_error_floor_ratio == pytest.approx(np.sqrt(2 / np.pi) * spread / 800)
    shown = world.get("/v1/models/m/calibration")
    assert figures.class_error_low_ratio == shown["class_error_low"] > 0
    assert figures.class_error_high_ratio == shown["class_error_high"]
    tolerance = world.settings.alarm_class_tolerance
    assert figures.classes_off == sum(each["low"] > tolerance for each in shown["classes"]) > 0


def test_a_reading_is_cached_and_repeated_while_the_database_is_away(sqlite_world: World) -> None:
    sqlite_world.clock.now += 60.0
    reading = sqlite_world.plane.label_statistics()
    send_labels(sqlite_world, 30, 5)
    assert sqlite_world.plane.label_statistics() is reading
    sqlite_world.clock.now += 60.0
    fresh = sqlite_world.plane.label_statistics()
    assert fresh.pairs[0].totals.n == 5
    database = sqlite_world.settings.state_dir / "trueprob.sqlite3"
    parts = sqlite_world.plane.services
    parts.store.close()  # an open connection would still read the file
    database.rename(database.with_suffix(".away"))
    database.mkdir()  # a folder of that name cannot be opened as a database
    sqlite_world.clock.now += 60.0
    assert sqlite_world.plane.label_statistics() is fresh
    assert sqlite_world.label(["x"], [0]).status_code == 503


def test_many_labels_at_once_leave_the_ring_that_single_ones_do() -> None:
    confidence = np.random.default_rng(1).uniform(0, 1, 1234)
    correct = confidence > 0.3
    newest, ring = None, {}
    for index in range(1234):
        part = slice(index, index + 1)
        for sequence, block in advance(newest, confidence[part], correct[part], window_labels=200):
            newest = ring[sequence % N_BLOCKS] = (sequence, block)
    together = advance(None, confidence, correct, window_labels=200)
    assert [sequence for sequence, _ in together] == sorted(
        sequence for sequence, _ in ring.values()
    )
    for sequence, block in together:
        alone = ring[sequence % N_BLOCKS][1]
        np.testing.assert_allclose(block.confidence, alone.confidence, atol=1e-12)


def test_the_ring_holds_the_last_labels_in_ten_blocks() -> None:
    rng = np.random.default_rng(0)
    ring: dict[int, BinnedCalibration] = {}
    newest = None
    confidence = np.empty(0)
    for n in (1, 19, 5, 200, 3, 20, 777, 50):
        new = rng.uniform(0, 1, n)
        confidence = np.concatenate([confidence, new])
        for sequence, block in advance(newest, new, new > 0.5, window_labels=200):
            ring[sequence % N_BLOCKS] = block
            newest = (sequence, block)
        total = sum(ring.values(), BinnedCalibration.zeros())
        held = int(total.n)
        assert min(len(confidence), 181) <= held <= 200
        last = confidence[len(confidence) - held :]
        expected = BinnedCalibration.of(last, last > 0.5)
        np.testing.assert_allclose(total.confidence, expected.confidence, atol=1e-12)
        assert (total.count == expected.count).all()
