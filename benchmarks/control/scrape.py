"""What a scrape costs with many models and promotions: series, bytes and seconds of CPU."""

from __future__ import annotations

import gzip
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

import numpy as np

from benchmarks.calibration.report import table
from benchmarks.serving.spread import judged, middle
from trueprob.scores.binned import BinnedCalibration
from trueprob_service.control.plane import ControlPlane
from trueprob_service.control.store.promotions import PromotionRow
from trueprob_service.inference.deployments import Deployments
from trueprob_service.metrics.telemetry import Telemetry
from trueprob_service.settings import Settings

CLASSES: Final = 10
ROWS: Final = 20  # answered for each model between two scrapes, and labelled
SCRAPE_SECONDS: Final = 15.0
DAY: Final = 86_400.0
CASES: Final = ((1, 1), (1, 25), (50, 1), (50, 25), (500, 1), (500, 25))  # models, promotions
CPU_LIMITS: Final = {"full": 0.6, "summary": 0.15}  # seconds a scrape of 500 models
SERIES_LIMITS: Final = {"full": 250, "summary": 60}  # a model with traffic


@dataclass
class Clock:
    """Seconds since 1970, set by the benchmark."""

    now: float = 1_800_000_000.0

    def __call__(self) -> float:
        return self.now


@dataclass
class Scrapes:
    """What the scrapes of one case gave and took."""

    series: int = 0
    size: int = 0
    compressed: int = 0
    busy: list[float] = field(default_factory=list)  # every model has new answers and labels
    answered: list[float] = field(default_factory=list)  # every model has new answers
    quiet: list[float] = field(default_factory=list)  # nothing new
    compressing: list[float] = field(default_factory=list)


@dataclass
class Service:
    """A control plane with its metrics, without HTTP."""

    clock: Clock
    telemetry: Telemetry
    deployments: Deployments
    plane: ControlPlane

    def add(self, model: str, promotions: int) -> None:
        """Declare a model, with promotions of the past that had traffic and labels."""
        services = self.plane.services
        services.declarations.declare(model, n_classes=CLASSES, class_names=None, by=None)
        random = np.random.default_rng(len(model))
        with services.store.write() as transaction:
            first = transaction.promotions.live(model)
            assert first is not None
            row = transaction.calibrators.get(model, 1, first.calibrator)
            assert row is not None
            for revision in range(1, promotions):
                past = f"identity-{revision:012d}"
                document, kind = row.document, row.kind
                transaction.calibrators.add(
                    model, 1, calibrator_id=past, kind=kind, document=document, origin="fit",
                    admitted=True, calibration_set=None, now=self.clock(),
                )  # fmt: skip
                binned = BinnedCalibration.of(random.uniform(0, 1, 99), random.random(99) < 0.5)
                transaction.bins.add(
                    model, revision, version=1, calibrator=past, hour=0, new=[binned]
                )
                live = first.calibrator if revision == promotions - 1 else past
                at = self.clock() - 40 * DAY + revision
                transaction.promotions.append(
                    PromotionRow(model, revision + 1, 1, live, "admitted", None, None, None, at)
                )
        for revision in range(1, promotions):
            past = f"identity-{revision:012d}"
            meters = self.telemetry.meters_for(model, 1, past, "identity", revision, None)
            meters.observe(*_answer(random))

    def answer(self, model: str, random: np.random.Generator) -> None:
        """Answer rows."""
        self.deployments.current(model).meters.observe(*_answer(random))

    def work(self, model: str, random: np.random.Generator) -> None:
        """Answer rows and count their labels."""
        live = self.deployments.current(model)
        assert live.revision is not None
        gap, temperature, confidence, probabilities, logits = _answer(random)
        live.meters.observe(gap, temperature, confidence, probabilities, logits)
        ids = self.plane.receipts.issue(
            model=live.served.model_digest, version=1, revision=live.revision,
            class_list=live.served.class_list_digest, prediction=logits.argmax(axis=1),
            confidence=confidence.astype(np.float64),
        )  # fmt: skip
        labels = [int(random.choice(CLASSES, p=row / row.sum())) for row in probabilities]
        self.plane.services.receipt_labels.count(model, ids, labels)

    def scrape(self) -> tuple[bytes, float]:
        """The exposition a scrape interval later, and the CPU seconds that it took."""
        self.clock.now += SCRAPE_SECONDS
        start = time.thread_time()
        text = self.telemetry.exposition()
        return text, time.thread_time() - start


def _answer(random: np.random.Generator) -> tuple[np.ndarray, ...]:
    logits = random.normal(0, 2, (ROWS, CLASSES)).astype(np.float32)
    exponentials = np.exp(logits)
    probabilities = exponentials / exponentials.sum(axis=1, keepdims=True)
    ordered = np.sort(logits, axis=1)
    gap = ordered[:, -1] - ordered[:, -2]
    return gap, np.ones(ROWS), probabilities.max(axis=1), probabilities, logits


@contextmanager
def _service(folder: Path, detail: str) -> Iterator[Service]:
    settings = Settings(
        state_dir=folder / "state", model_repository=folder / "models", metrics_detail=detail
    )
    clock = Clock()
    telemetry = Telemetry(version="0", commit="c", detail=settings.metrics_detail)
    deployments = Deployments(
        network_for=lambda _served: None,
        meters_for=telemetry.meters_for,
        on_remove=telemetry.remove_live_pair,
    )
    plane = ControlPlane(
        settings, deployments=deployments, clock=clock, count_label=telemetry.count_labels
    )
    plane.start()
    telemetry.export_statistics(plane.label_statistics, tolerance=settings.alarm_tolerance)
    try:
        yield Service(clock, telemetry, deployments, plane)
    finally:
        plane.close()


def measure(models: int, promotions: int, detail: str, rounds: int) -> Scrapes:
    """Scrapes of one case, each after new answers and labels of every model, and one without."""
    random, found = np.random.default_rng(0), Scrapes()
    with tempfile.TemporaryDirectory() as name, _service(Path(name), detail) as service:
        names = [f"model-{index}" for index in range(models)]
        for each in names:
            service.add(each, promotions)
        service.plane.sync()
        service.scrape()
        for _ in range(rounds):
            for each in names:
                service.work(each, random)
            text, seconds = service.scrape()
            found.busy.append(seconds)
            for each in names:
                service.answer(each, random)
            found.answered.append(service.scrape()[1])
            found.quiet.append(service.scrape()[1])
            start = time.thread_time()
            found.compressed = len(gzip.compress(text, 1))
            found.compressing.append(time.thread_time() - start)
        found.series = sum(not line.startswith(b"#") for line in text.splitlines())
        found.size = len(text)
    return found


def scrape_report(*, small: bool = False) -> str:
    """The table; `small` leaves out the largest cases and runs two rounds instead of five."""
    rounds, cases = (2, CASES[:4]) if small else (5, CASES)
    found = {
        (detail, *case): measure(*case, detail, rounds)
        for case in cases
        for detail in ("full", "summary")
    }
    rows = [
        [
            f"{models} × {promotions}, `{detail}`",
            f"{of.series}",
            f"{of.series / models:.0f}",
            f"{of.size / 1e6:.2f}",
            f"{of.compressed / 1e6:.2f}",
            middle(of.busy),
            middle(of.answered),
            middle(of.quiet),
            middle(of.compressing),
        ]
        for (detail, models, promotions), of in found.items()
    ]
    header = ["models × promotions", "series", "a model", "MB", "MB gzip", "CPU s, new labels",
              "CPU s, new answers", "CPU s, nothing new", "CPU s, gzip"]  # fmt: skip
    how = (
        f"The control plane and the metrics of one process on SQLite, without HTTP. {ROWS} rows of "
        f"{CLASSES} classes of every model are answered and labelled before a scrape (new "
        "labels), only answered (new answers), or neither. CPU of the scraping thread: reading the "
        "database, statistics and text. Promotions but the newest are older than the receipts' "
        f"time to live. {rounds} rounds; median, smallest and largest."
    )
    largest = max(models for _, models, _ in found)
    judgements = []
    for detail in ("full", "summary"):
        of = {f"{m} × {p}": each for (d, m, p), each in found.items() if d == detail}
        most = {name: each for name, each in of.items() if name.startswith(f"{largest} ")}
        judgements += [
            judged(
                f"series a model with traffic at most {SERIES_LIMITS[detail]}, `{detail}`",
                SERIES_LIMITS[detail],
                {name: each.series / int(name.split()[0]) for name, each in most.items()},
                at_most=True,
            ),
            judged(
                f"CPU of a scrape of {largest} models at most {CPU_LIMITS[detail]} s, `{detail}`",
                CPU_LIMITS[detail],
                {
                    f"{name}, {new}": float(np.median(seconds))
                    for name, each in most.items()
                    for new, seconds in (("labels", each.busy), ("answers", each.answered))
                },
                at_most=True,
            ),
        ]
    return "\n".join([how, "", table(header, rows), "", *judgements])
