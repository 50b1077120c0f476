"""The soak finds what grows, fails or becomes slower; what is lost, the torture's tests have."""

from __future__ import annotations

import subprocess
import sys
import time

import numpy as np
import pytest

from benchmarks.soak.__main__ import main, text_of
from benchmarks.soak.run import (
    Finding,
    SoakOutcome,
    bytes_per_label,
    latencies,
    latency_findings,
    status_findings,
)
from benchmarks.soak.watch import ProcessWatch, Reading, growth_of
from benchmarks.torture.request_log import Request

MEMORY = "memory, MiB"


def readings(values: np.ndarray, quantity: str = MEMORY) -> list[Reading]:
    return [Reading(float(at), {quantity: float(value)}) for at, value in enumerate(values)]


def test_growth_is_that_of_the_line_after_the_warm_up() -> None:
    warm_up = np.concatenate([np.linspace(0.0, 100.0, 100), np.full(200, 100.0)])
    growth = growth_of("p", MEMORY, readings(warm_up), 8.0)
    assert growth is not None
    assert growth.growth == pytest.approx(0.0, abs=0.1)
    assert not growth.grows
    growth = growth_of("p", MEMORY, readings(100.0 + 0.1 * np.arange(300)), 8.0)
    assert growth is not None
    assert growth.growth == pytest.approx(20.0, rel=0.02)
    assert growth.low < 20.0 < growth.high + 0.2
    assert growth.grows
    assert str(growth).startswith("p grows: memory, MiB by 19.9 (")


def test_noise_is_no_growth_and_does_not_hide_one() -> None:
    noise = np.random.default_rng(0).normal(0.0, 5.0, 300)
    quiet = growth_of("p", MEMORY, readings(150.0 + noise), 8.0)
    leaking = growth_of("p", MEMORY, readings(150.0 + noise + 0.15 * np.arange(300)), 8.0)
    assert quiet is not None
    assert leaking is not None
    assert (quiet.grows, leaking.grows) == (False, True)


def test_too_few_readings_say_nothing() -> None:
    assert growth_of("p", MEMORY, readings(np.arange(19.0)), 8.0) is None
    assert growth_of("p", MEMORY, [], 8.0) is None


LEAKS = {
    MEMORY: "kept.append(bytearray(1 << 19))",
    "descriptors": "kept.append(open('/dev/null'))",
    "threads": "threading.Thread(target=time.sleep, args=(60,), daemon=True).start()",
    "": "pass",
}


@pytest.mark.parametrize("leak", LEAKS)
def test_a_process_that_leaks_is_found(leak: str) -> None:
    code = (
        "import threading, time\nkept = []\nprint('on', flush=True)\n"
        f"while True:\n    {LEAKS[leak]}\n    time.sleep(0.02)"
    )
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE) as process:
        try:
            assert process.stdout is not None
            process.stdout.readline()
            with ProcessWatch({"stand-in": process.pid}, interval_seconds=0.02) as watch:
                # Until enough was leaked, however busy the machine is.
                deadline = time.monotonic() + (60.0 if leak else 2.0)
                while time.monotonic() < deadline:
                    time.sleep(0.1)
                    if any(each.grows for each in watch.growths()):
                        break
        finally:
            process.kill()
    grown = [each.quantity for each in watch.growths() if each.grows]
    assert grown == ([leak] if leak else [])
    assert watch.ended == []


def test_a_process_that_ends_is_noticed() -> None:
    with subprocess.Popen([sys.executable, "-c", ""]) as process:
        process.wait()
        with ProcessWatch({"stand-in": process.pid}, interval_seconds=0.01) as watch:
            time.sleep(0.2)
    assert watch.ended == ["stand-in"]


def request(kind: str, outcome: str, seconds: float = 0.001, ended: float = 0.0) -> Request:
    return Request(ended, kind, outcome, seconds)


@pytest.mark.parametrize(
    ("kind", "outcome", "found"),
    [
        ("predict", "200", False),
        ("predict", "503", True),
        ("predict", "no answer", True),
        ("label", "500", True),
        ("label", "422", True),
        ("raw", "422", False),
        ("raw", "502", True),
        ("raw", "no answer", True),
        ("control", "412", False),
        ("control", "404", True),
        ("upload", "201", False),
        ("upload", "409", True),
    ],
)
def test_every_failed_request_is_a_finding(kind: str, outcome: str, found: bool) -> None:
    sentences = list(status_findings([request("predict", "200"), request(kind, outcome)]))
    assert sentences == ([f"1 requests ({kind}) were answered with {outcome}"] if found else [])


@pytest.mark.parametrize(("last", "slower"), [(0.001, False), (0.004, False), (0.02, True)])
def test_predictions_that_become_slower_are_found(last: float, slower: bool) -> None:
    steady = [request("predict", "200", 0.001, at) for at in np.linspace(0.0, 75.0, 300)]
    late = [request("predict", "200", last, at) for at in np.linspace(75.1, 99.0, 100)]
    quarters = latencies([*steady, *late, request("label", "200", 9.0, 99.0)], 0.0, 100.0)
    assert quarters["quarter 1"] == {"p50": 1.0, "p99": 1.0}
    assert quarters["quarter 4"]["p50"] == pytest.approx(1000 * last)
    assert bool(list(latency_findings(quarters))) is slower
    assert list(latency_findings({})) == []


def test_the_size_of_the_database_is_per_label_after_the_warm_up() -> None:
    rows = [
        Reading(at, {"bytes": 1e6 * (at < 3) + 100.0 * at, "labels": float(at)}) for at in range(30)
    ]
    assert bytes_per_label(rows) == pytest.approx(100.0)
    assert bytes_per_label([Reading(0.0, {"bytes": 1.0, "labels": 0.0})] * 9) is None
    assert bytes_per_label([]) is None


def test_the_text_has_the_verdict_and_each_finding() -> None:
    outcome = SoakOutcome(
        1.0, {"predict": {"200": 3}}, [], {}, None, 10, 20, 1, 2, 3,
        [Finding("growth", "replica 0 grows")],
    )  # fmt: skip
    text = text_of(outcome)
    assert "| predict | 3 × 200 |" in text
    assert "1 things are wrong\n- growth: replica 0 grows" in text


def test_wrong_options_are_refused() -> None:
    for options in (["--minutes", "0"], ["--rate", "-1"]):
        with pytest.raises(SystemExit) as error:
            main(options)
        assert error.value.code == 2
