"""Real runs: two minutes of the soak, and meanwhile every fault once on services of their own."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing, suppress
from pathlib import Path

import pytest

from benchmarks.control.postgres_server import PostgresServer
from benchmarks.torture.faults import own_faults
from benchmarks.torture.own_service import OwnService
from benchmarks.torture.run import Outcome, Torture
from tests.integration_requirements import require_module, require_program

pytestmark = [pytest.mark.integration, pytest.mark.slow]
ROOT = Path(__file__).parents[2]
HOLD_SECONDS = 1.0


@pytest.fixture(scope="module")
def soak(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[subprocess.Popen[str], Path]]:
    """The soak of two minutes; it hardly takes a core and runs beside the other tests."""
    result = tmp_path_factory.mktemp("soak") / "result.json"
    command = [sys.executable, "-m", "benchmarks.soak", "--minutes", "2", "--rate", "10"]
    with subprocess.Popen(
        [*command, "--json", str(result)], cwd=ROOT, stdout=subprocess.PIPE, text=True
    ) as process:
        try:
            yield process, result
        finally:
            with suppress(ProcessLookupError):
                process.terminate()


def tortured(folder: Path, postgres: PostgresServer | None, of: str = "") -> Outcome:
    """What came of all faults, or of those of one thing."""
    with closing(OwnService(folder, postgres, seed=1)) as service:
        faults = [each for each in own_faults(service, HOLD_SECONDS) if each.what.startswith(of)]
        return Torture(service, faults, seed=1, operate=True, around_seconds=0.5).run()


def test_every_fault_on_sqlite(soak: object, tmp_path: Path) -> None:
    outcome = tortured(tmp_path, None)
    assert outcome.disagreements == []
    faults = {each.fault for each in outcome.episodes}
    assert (len(outcome.episodes), faults) == (7, {"kill", "stop", "fill", "hang", "restart"})
    assert outcome.labels > 100
    assert outcome.rows > 100
    assert outcome.uploads > 1
    assert outcome.promotions > 1
    assert outcome.answers > 100


def test_faults_of_the_database_on_postgresql(soak: object, tmp_path: Path) -> None:
    require_module("psycopg")
    for name in ("initdb", "postgres", "pg_isready"):
        require_program(name)
    with closing(PostgresServer()) as server:
        outcome = tortured(tmp_path, server, "the database")
    assert outcome.disagreements == []
    assert sorted(each.fault for each in outcome.episodes) == ["hang", "kill"]
    assert outcome.labels > 100


def test_two_minutes_of_the_soak(soak: tuple[subprocess.Popen[str], Path]) -> None:
    process, result = soak
    said, _ = process.communicate(timeout=240)
    outcome = json.loads(result.read_text())
    # How fast it answers hangs on what else the machine does.
    assert [each for each in outcome["findings"] if each["kind"] != "latency"] == [], said
    assert {each["process"] for each in outcome["growths"]} == {"parent", "replica 0", "replica 1"}
    assert {"predict", "label", "upload", "control", "ready", "raw"} <= outcome["requests"].keys()
    assert outcome["labels"] > 500
    assert outcome["uploads"] > 1
