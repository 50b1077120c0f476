"""What a service exports, over real HTTP, with statistics that the test sets."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Iterator, Sequence
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Final

import numpy as np

from trueprob.drift import (
    ErrorInterval,
    ErrorSums,
    LiveVerdict,
    ReferenceBins,
    VerdictState,
    live_verdict,
)
from trueprob.scores.binned import BinnedCalibration
from trueprob_service.metrics.label_statistics import (
    AlarmFigures,
    ClassFigures,
    ControlStatistics,
    PairStatistics,
)
from trueprob_service.metrics.recent_traffic import TrafficReference
from trueprob_service.metrics.telemetry import Telemetry

MODEL, VERSION, CALIBRATOR = "digits", 1, "smart-3f9a1c0d2b7e"
TOLERANCE = 0.02
OFF = LiveVerdict(VerdictState.OFF, "", 0.031, 0.12, 1542)
UNKNOWN = LiveVerdict(VerdictState.UNKNOWN, "", 0.0, 0.3, 200, 4700)


_NOTHING: Final = BinnedCalibration.zeros()
_SHADOW: Final = (MODEL, str(VERSION), "smart-ffffffffffff", "candidate")


class Exporter:
    """A replica's metrics: its own counts, and the totals that all replicas share."""

    def __init__(self) -> None:
        self.telemetry = Telemetry(version="0.1.0", commit="test")
        self.meters = self.telemetry.meters_for(
            MODEL, VERSION, CALIBRATOR, "smart", 1, _reference()
        )
        self.telemetry.name_provider(MODEL, VERSION, "CPUExecutionProvider")
        self.statistics = ControlStatistics(pairs=(_pair(BinnedCalibration.zeros()),))
        self.telemetry.export_statistics(
            lambda _totals: replace(self.statistics, read_at=time.time()), tolerance=TOLERANCE
        )
        self.telemetry.export_health(lambda: {"database": "locked"}, lambda: [(MODEL, VERSION)])
        self.telemetry.export_memory(
            lambda: {
                "remembered_total": 40.0,
                "remembered_dropped_total": 0.0,
                "remembered_forgotten_total": 0.0,
                "remembered_lag_seconds": 0.1,
            }
        )
        self.telemetry.export_connections(lambda: ({"open": 1}, {"headers": 1}))
        self.address = ""
        self._kept: bytes | None = None

    def count(
        self,
        totals: BinnedCalibration,
        by_prediction: tuple[BinnedCalibration, ...] = (),
    ) -> None:
        """Export these totals from the next scrape on."""
        self.statistics = ControlStatistics(
            pairs=(_pair(totals, OFF, by_prediction), _live("young", UNKNOWN)),
            fits={(MODEL, "smart", "admitted"): 1, (MODEL, "smart", "failed"): 1},
            fit_queue={(MODEL, "smart"): 0},
            promotions={(MODEL, "smart", "admitted"): 1},
            alarms={(MODEL, "change"): 0, (MODEL, "evidence"): 0},
            refits={(MODEL, "alarm", "promoted"): 1},
            gauges={
                "shadow_better_log10": {_SHADOW: 0.7},
                "shadow_worse_log10": {_SHADOW: -0.2},
                "shadow_threshold_log10": {_SHADOW: 2.0},
                "webhook_waiting": {("alarm.raised",): 0},
                "remembered_rows": {(MODEL,): 40},
                "remembered_bytes": {(MODEL,): 2000},
                "remembered_oldest_timestamp_seconds": {(MODEL,): time.time() - 3600},
            },
        )

    def replace(self, calibrator: str, *, keeps_old: bool) -> None:
        """Promote another calibrator; the old pair is kept as long as its labels may arrive."""
        self.telemetry.meters_for(MODEL, VERSION, calibrator, "smart", 2)
        (old, *_) = (pair for pair in self.statistics.pairs if pair.calibrator == CALIBRATOR)
        unlabelled = {"totals": _NOTHING, "by_prediction": (_NOTHING, _NOTHING), "by_class": {}}
        new = replace(old, calibrator=calibrator, **unlabelled)
        kept = (replace(old, live=False),) if keeps_old else ()
        self.statistics = ControlStatistics(pairs=(*kept, new))

    def state(self, verdicts: Sequence[LiveVerdict]) -> None:
        """Export these verdicts from the next scrape on, of models named by their positions."""
        pairs = tuple(_live(str(i), verdict) for i, verdict in enumerate(verdicts))
        self.statistics = ControlStatistics(pairs=pairs)
        self._kept = self.telemetry.exposition()  # a scrape may take 200 ms

    def exposition(self) -> bytes:
        return self._kept or self.telemetry.exposition()

    def work(self, n: int = 40) -> None:
        """Do a little of everything that is counted in the process."""
        confidence = np.linspace(0.3, 0.99, n)
        self.meters.observe(
            np.linspace(0.1, 8.0, n, dtype=np.float32),
            np.full(n, 1.3),
            confidence,
            np.stack([confidence, 1 - confidence], axis=1).astype(np.float32),
            np.zeros((n, 2), np.float32),
        )
        for route, status in (
            ("/v1/models/{model}/probabilities", 200),
            ("/v1/models/{model}/probabilities", 422),
            ("/v1/models/{model}/labels", 503),
        ):
            self.telemetry.observe_request(route, status, 0.004)
        self.telemetry.observe_batch(MODEL, rows=8, seconds=0.01, delays=[0.001, 0.002], waiting=3)
        self.telemetry.count_inspection("memory")
        self.telemetry.count_labels(MODEL, "accepted", 3, [5.0, 60.0, 4000.0])


def _reference() -> TrafficReference:
    bins = ReferenceBins.of_percentiles(np.linspace(0.0, 8.0, 101), 600)
    return TrafficReference(gap=bins, confidence=bins, calibrator=CALIBRATOR)


def verdict_of(
    since_promotion: ErrorSums,
    since_change: ErrorSums | None = None,
    *,
    evidence_alarm: bool = False,
    change_alarm: bool = False,
) -> LiveVerdict:
    """The verdict at the exporter's tolerance."""
    return live_verdict(
        ErrorInterval(),
        since_promotion=since_promotion,
        since_change=since_change,
        tolerance=TOLERANCE,
        evidence_alarm=evidence_alarm,
        change_alarm=change_alarm,
    )


def _live(model: str, verdict: LiveVerdict) -> PairStatistics:
    nothing = BinnedCalibration.zeros()
    return PairStatistics(
        model, VERSION, CALIBRATOR, live=True, totals=nothing, window=nothing, baseline_ece=None,
        verdict=verdict,
    )  # fmt: skip


def _pair(
    totals: BinnedCalibration,
    verdict: LiveVerdict | None = None,
    by_prediction: tuple[BinnedCalibration, ...] = (),
) -> PairStatistics:
    """A pair that has the counters of two classes, and those of more."""
    everything = sum(by_prediction, totals)
    columns = (everything.count, everything.confidence, everything.correct, everything.variance)
    return PairStatistics(
        MODEL,
        VERSION,
        CALIBRATOR,
        live=True,
        totals=totals,
        window=everything,
        baseline_ece=0.013,
        alarm=AlarmFigures(0.4, 2.0, 1.1, 5.0),
        verdict=verdict,
        classes=ClassFigures(0.03, 0.01, 0.02, 0.05, 1),
        by_prediction=by_prediction,
        by_class={"six": tuple(float(sums.sum()) for sums in columns)},
    )


@contextlib.contextmanager
def serve_exporter() -> Iterator[Exporter]:
    """An exporter on a free port of loopback until the block ends."""
    exporter = Exporter()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            text = exporter.exposition()
            self.send_response(200)
            self.send_header("Content-Type", Telemetry.content_type)
            self.send_header("Content-Length", str(len(text)))
            self.end_headers()
            self.wfile.write(text)

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - its name
            """Nothing: a scrape is no news."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    exporter.address = f"127.0.0.1:{server.server_address[1]}"
    try:
        yield exporter
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
