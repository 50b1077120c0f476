"""Both clients against the real application, and the blocking one against a real server."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest

import trueprob
from tests.running_service import running_service
from tests.trueprob_service.application import ROOT, lifespan
from tests.trueprob_service.inspections import shared_verdicts
from trueprob.client import AsyncClient, Client, ServiceProblem, ServiceUnreachable
from trueprob_service.app import create_app
from trueprob_service.settings import Settings


@asynccontextmanager
async def connected(state_dir: Path, **values: Any) -> AsyncIterator[AsyncClient]:
    """A client of a service in this process."""
    app = create_app(
        Settings(state_dir=state_dir, model_repository=ROOT / "models", **values),
        verdicts=shared_verdicts(),
    )
    transport = httpx.ASGITransport(app=app)  # type: ignore[arg-type]  # looser scopes
    async with lifespan(app), AsyncClient("http://localhost", transport=transport) as client:
        yield client


def overconfident(seed: int = 0, n: int = 600) -> trueprob.CalibrationSet:
    rng = np.random.default_rng(seed)
    logits = rng.normal(0.0, 2.0, (n, 3))
    labels = np.argmax(logits + rng.gumbel(size=(n, 3)), axis=1)
    return trueprob.CalibrationSet((2.5 * logits).astype(np.float32), labels)


@pytest.mark.slow
def test_a_model_from_its_declaration_to_going_back(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with connected(tmp_path, fit_method="temperature") as client:
            assert (await client.readiness())["ready"] is True
            new = await client.declare("m", class_names=["a", "b", "c"])
            assert (new.revision, new.class_names, new.versions[0].live) == (
                1,
                ("a", "b", "c"),
                True,
            )
            rows = overconfident()
            fit = await client.upload("m", rows, name="may", wait_seconds=60)
            assert fit.ended
            assert fit.verdict is not None
            assert fit.verdict.admitted
            assert (fit.promoted, fit.revision) == (True, 2)
            assert (await client.fit("m", fit.fit)).calibrator == fit.calibrator
            assert [f.fit for f in await client.fits("m")] == [fit.fit]
            (stored,) = await client.calibration_sets("m", name="may")
            described = await client.calibration_set("m", rows.digest)
            assert (stored.findings, described.findings) == (None, ())
            assert replace(stored, findings=()) == described
            assert (stored.digest, stored.names, stored.n) == (rows.digest, ("may",), 600)

            answer = await client.predict("m", logits=rows.logits[:5])
            assert answer.prediction_ids is not None
            assert (answer.calibrator, answer.revision) == (fit.calibrator, 2)
            assert fit.calibrator is not None
            calibrator = await client.calibrator("m", fit.calibrator)
            expected = calibrator.predict_proba(rows.logits[:5])
            assert np.array_equal(answer.probabilities, expected)
            # Exactly what the receipts carry: a client's own sums agree with the service's.
            assert np.array_equal(answer.confidence, expected.max(axis=1).astype(np.float64))
            assert answer.temperature is not None
            assert answer.classes == tuple("abc"[p] for p in answer.prediction)
            counted = await client.label("m", answer.prediction_ids, list(answer.classes))
            assert (counted.accepted, counted.outcomes) == (5, ())
            again = await client.label("m", answer.prediction_ids, list(answer.classes))
            assert (again.duplicate, again.outcomes[4].outcome) == (5, "duplicate")
            held = await client.calibration("m", window="1h")
            assert (held.labels, held.observed_accuracy) == (5, 1.0)
            assert (held.alarm, held.change_threshold_log10) == (None, 5.0)
            sure = np.random.default_rng(3).uniform(8.0, 9.0, (90, 3)) * [1.0, 0.0, 0.0]
            wrong = await client.predict("m", logits=sure)
            wrong_ids = wrong.prediction_ids
            assert wrong_ids is not None
            await client.label("m", wrong_ids, [1] * 90)
            raised = await client.alarms("m")
            assert [alarm.statistic for alarm in raised] == ["change", "evidence"]
            assert (await client.calibration("m")).alarm == raised[0]
            known = await client.acknowledge("m", raised[0].id)
            assert known == await client.acknowledge("m", raised[0].id)
            assert known.acknowledged_at is not None
            assert (await client.calibration("m")).change_log10 == 0.0
            assert "trueprob_bin_labels_total" in await client.metrics()

            with pytest.raises(ServiceProblem) as caught:
                await client.rollback("m", revision=1)
            assert (caught.value.status, caught.value.code) == (412, "stale_revision")
            assert (await client.rollback("m", revision=2)).calibrator == new.calibrator
            promoted = await client.promote("m", fit.calibrator, revision=3)
            assert (await client.rollback("m", revision=promoted.revision, to=3)).revision == 5
            assert [p.cause for p in await client.promotions("m")] == [
                "rollback", "admitted", "rollback", "admitted", "factory",
            ]  # fmt: skip
            live = {c.calibrator: c.live for c in await client.calibrators("m")}
            assert live == {new.calibrator: True, fit.calibrator: False}
            assert {m.model for m in await client.models()} == {"m", "digits", "cifar10"}
            assert (await client.model("m")).revision == 5
            began = await client.start_shadow("m", fit.calibrator, policy="tell")
            assert (began.calibrator, began.revision, began.state) == (fit.calibrator, 5, "running")
            assert await client.shadow("m") == began
            await client.end_shadow("m")
            assert (await client.shadow("m")).state == "removed"
            watch = await client.shadow("m", role="predecessor")  # of the last promotion
            assert (watch.role, watch.revision, watch.state) == ("predecessor", 4, "superseded")
            with pytest.raises(ServiceProblem, match="live revision is 5"):
                await client.delete_model("m", revision=4)
            await client.delete_model("m", revision=5)
            rows = await client.audit(model="m", outcome="done", limit=3)
            assert [(row["action"], row["revision"]) for row in rows] == [
                ("model.delete", 5), ("shadow.end", 5), ("shadow.start", 5),
            ]  # fmt: skip
            more = await client.audit(model="m", outcome="done", before=rows[-1]["id"], limit=1)
            assert [row["action"] for row in more] == ["pair.rollback"]
            assert await client.audit(actor="key:nobody") == ()
            assert {m.model for m in await client.models()} == {"digits", "cifar10"}

    asyncio.run(scenario())


@pytest.mark.slow
def test_sets_that_grow_and_fits_of_them(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with connected(tmp_path, fit_method="temperature") as client:
            await client.declare("m", class_names=["a", "b", "c"])
            rows = overconfident()
            table = tmp_path / "rows.csv"
            lines = ["label,logit_a,logit_b,logit_c"]
            for row, label in zip(rows.logits[:300], rows.labels[:300], strict=True):
                lines.append(",".join(["abc"[label], *map(str, row)]))
            table.write_text("\n".join(lines))
            assert (await client.append("m", "may", table)).n == 300
            rest = {"logits": rows.logits[300:], "labels": ["abc"[y] for y in rows.labels[300:]]}
            grown = await client.append("m", "may", rest)
            assert grown == await client.append("m", "may", rest)
            assert (grown.digest, grown.n) == (rows.digest, 600)
            assert (await client.download("m", "may")).digest == rows.digest
            queued = await client.start_fit("m", "may")
            fit = await client.wait_for_fit("m", queued.fit, seconds=60)
            assert (fit.state, fit.promoted) == ("done", True)
            with pytest.raises(ServiceProblem, match="already done"):
                await client.cancel_fit("m", fit.fit)
            await client.delete_calibration_set("m", "may")
            assert await client.calibration_sets("m") == ()

    asyncio.run(scenario())


@pytest.mark.slow
def test_rows_with_labels_and_a_fit_of_them(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with connected(tmp_path, fit_method="temperature") as client:
            await client.declare("m", class_names=["a", "b", "c"])
            rows = overconfident()
            ids = [f"scan {index}" for index in range(600)]
            names = ["abc"[label] for label in rows.labels]
            first = await client.label_rows("m", ids[:400], rows.logits[:400], names[:400])
            assert (first.accepted, first.outcomes) == (400, ())
            both = await client.label_rows("m", ids, rows.logits, rows.labels, version=1)
            assert (both.accepted, both.duplicate) == (200, 400)
            fit = await client.start_fit("m", source="refit-window", wait_seconds=60)
            assert (fit.state, fit.n, fit.calibration_set) == ("done", 600, rows.digest)

    asyncio.run(scenario())


@pytest.mark.integration
def test_pictures_probabilities_and_a_key(tmp_path: Path) -> None:
    from trueprob_service.edge.keys import new_key

    key, line = new_key("someone", ["predict"])
    keys = tmp_path / "keys.jsonl"
    keys.write_text(line)
    picture = (ROOT / "examples/seven.png").read_bytes()
    with (
        running_service(
            tmp_path / "state", ROOT / "models", "--api-keys-file", str(keys)
        ) as server,
        Client(server.url, key=key) as client,
    ):
        answer = client.predict("digits", images=[picture, picture])
        assert answer.prediction.tolist() == [7, 7]
        assert len(answer.prediction_ids or ()) == 2
        logs = client.predict("digits", log_probabilities=np.log(answer.probabilities))
        assert logs.prediction.tolist() == [7, 7]
        bare = client.predict("digits", probabilities=answer.probabilities, receipts=False)
        assert bare.prediction_ids is None
        with pytest.raises(ServiceProblem) as caught:
            client.declare("m", n_classes=3)
        assert caught.value.status == 403
        with Client(server.url) as stranger, pytest.raises(ServiceProblem) as caught:
            stranger.models()
        assert caught.value.status == 401
        server.kill()
        with pytest.raises(ServiceUnreachable):
            client.rollback("digits", revision=1)


@pytest.mark.slow
def test_predictions_and_labels_by_own_ids(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with connected(tmp_path) as client:
            logits = np.random.default_rng(0).normal(size=(6, 10)).astype(np.float32)
            seven = (ROOT / "examples" / "seven.png").read_bytes()
            logits[1, 3] = -np.inf  # a mask
            await client.predict("digits", logits=logits[:2], ids=["a", "b"])
            await client.predict("digits", logits=logits[2:3], ids=[17], binary=True)
            await client.predict("digits", images=[seven], ids=["picture"])
            fields = ["prediction"]
            await client.predict_fields("digits", fields, logits=logits[4:], ids=["x", "a"])
            ids = ["a", "b", "17", "picture", "x", "nobody"]
            counted = await client.label_by_id("digits", ids, [1, 2, 3, 7, 5, 6], wait_seconds=0)
            assert (counted.accepted, counted.rejected) == (5, 1)
            assert [(each.index, each.outcome) for each in counted.outcomes] == [
                (0, "replaced"),
                (5, "unknown_id"),
            ]
            again = await client.label_by_id("digits", [17, "b"], [3, 9], wait_seconds=0)
            assert [each.outcome for each in again.outcomes] == ["duplicate", "conflict"]
            with pytest.raises(ServiceProblem, match="ids must differ"):
                await client.predict("digits", logits=logits[:2], ids=["a", "a"])

    asyncio.run(scenario())
