"""Each error has a status; each route, metric and scope is documented: lists that must agree."""

import asyncio
import inspect
import re
from pathlib import Path

import pytest
from httpx import Response
from prometheus_client.parser import text_string_to_metric_families

from tests.trueprob_service.application import ROOT, application
from trueprob_service import errors
from trueprob_service.edge.keys import new_key
from trueprob_service.edge.problems import STATUS, TITLES, problem_for
from trueprob_service.inference.asgi import HOT_ROUTES
from trueprob_service.metrics.catalogue import LABEL_OUTCOMES, METRICS, PREFIX

ERRORS = [
    value
    for _, value in inspect.getmembers(errors, inspect.isclass)
    if issubclass(value, errors.ServiceError)
]


@pytest.mark.parametrize("error", ERRORS)
def test_every_error_has_a_status_a_title_and_a_place_in_the_tree(
    error: type[errors.ServiceError],
) -> None:
    assert error in STATUS
    assert STATUS[error] in TITLES
    assert re.search(rf"\b{error.__name__}\b", errors.__doc__ or "")
    assert error.__name__ in errors.__all__


@pytest.mark.parametrize("error", [e for e in ERRORS if STATUS[e] != 500])
def test_a_problem_document_names_the_error(error: type[errors.ServiceError]) -> None:
    problem = problem_for(error("what was wrong"))
    assert problem.status == STATUS[error]
    assert b'"detail":"what was wrong"' in problem.body
    assert ("retry-after" in problem.headers) == (problem.status in (429, 503))


@pytest.mark.parametrize("error", [RuntimeError("secret"), errors.InferenceFailed("secret")])
def test_what_went_wrong_inside_is_not_told(error: Exception) -> None:
    problem = problem_for(error)
    assert problem.status == 500
    assert b"secret" not in problem.body


def routes(document: dict) -> set[tuple[str, str]]:
    return {(method.upper(), path) for path, item in document["paths"].items() for method in item}


def openapi(tmp_path: Path) -> dict:
    async def scenario() -> dict:
        async with application(tmp_path) as client:
            return (await client.get("/openapi.json")).json()

    return asyncio.run(scenario())


def test_every_route_is_documented(tmp_path: Path) -> None:
    text = (ROOT / "docs/http-api.md").read_text("utf-8")
    documented: set[tuple[str, str]] = set()
    for heading in re.findall(r"^### (.+)$", text, re.MULTILINE):
        for method, path in re.findall(r"`([A-Z]+) (/\S+?)(?:\?\S+)?`", heading):
            optional = re.search(r"\[(.+)\]", path)
            paths = (
                [path.replace(f"[{optional[1]}]", ""), path.replace("[", "").replace("]", "")]
                if optional
                else [path]
            )
            documented |= {(method, p) for p in paths}
    served = routes(openapi(tmp_path))
    parameter = re.compile(r"\{\w+\}")
    assert {(m, parameter.sub("{}", p)) for m, p in served} == {
        (m, parameter.sub("{}", p)) for m, p in documented
    }


def test_every_hot_route_is_in_the_openapi_document(tmp_path: Path) -> None:
    served = routes(openapi(tmp_path))
    for path, methods in HOT_ROUTES.items():
        assert {(method, path) for method in methods if method != "HEAD"} <= served


def test_every_other_route_asks_for_a_key(tmp_path: Path) -> None:
    _, line = new_key("someone", ["predict"])
    keys = tmp_path / "keys.jsonl"
    keys.write_text(line)
    is_open = {"/metrics", "/v2/health/live", "/v2/health/ready"}

    async def scenario() -> None:
        async with application(tmp_path / "state", api_keys_file=keys) as client:
            document = (await client.get("/openapi.json")).json()
            for method, path in sorted(routes(document)):
                concrete = path.replace("{model}", "digits").replace("{", "").replace("}", "")
                answer = await client.request(method, concrete)
                assert (answer.status_code == 401) == (path not in is_open), (method, path)

    asyncio.run(scenario())


def test_every_metric_is_exported_as_declared(tmp_path: Path) -> None:
    async def scenario() -> str:
        async with application(tmp_path) as client:
            picture = (ROOT / "examples/seven.png").read_bytes()
            path, kind = "/v1/models/digits", {"content-type": "image/png"}
            given = {**kind, "x-prediction-id": "seven"}
            await client.post(f"{path}/probabilities", headers=given, content=picture)
            await client.post(f"{path}/labels", json={"ids": ["seven"], "labels": [7]})
            upload = (ROOT / "examples/digits_drifted.npz").read_bytes()
            npz = {"content-type": "application/x-npz", "prefer": "wait=30"}
            await client.post(
                f"{path}/calibration-sets?promote=shadow", headers=npz, content=upload
            )
            return (await client.get("/metrics")).text

    families = {f.name: f for f in text_string_to_metric_families(asyncio.run(scenario()))}
    seen = {}
    for name, metric in METRICS.items():
        family = families.pop((PREFIX + name).removesuffix("_total"), None)
        assert family is not None, f"{name} is declared but not exported"
        assert family.type == metric.kind, name
        seen[name] = {frozenset(set(sample.labels) - {"le"}) for sample in family.samples}
    assert families == {}, "exported but not declared"
    # Of a version that runs there is no sample, and fit_queue may be empty.
    for name, labels in seen.items():
        declared = frozenset(METRICS[name].labels)
        # `predicted` is there with two classes only.
        assert labels <= {declared, declared - {"predicted"}}, name
        if name not in ("fit_queue", "version_unavailable"):
            assert labels, f"{name} has no sample"


def test_label_outcomes_are_documented_and_created_at_zero_with_the_first_label(
    tmp_path: Path,
) -> None:
    text = (ROOT / "docs/http-api.md").read_text("utf-8")
    assert all(f"`{outcome}`" in text for outcome in LABEL_OUTCOMES)

    async def scenario() -> str:
        async with application(tmp_path) as client:
            before = (await client.get("/metrics")).text
            assert before.count('trueprob_labels_total{model="digits"') == 1
            assert 'trueprob_labels_total{model="digits",outcome="accepted"} 0.0' in before
            answer = await client.post(
                "/v1/models/digits/labels", json={"prediction_ids": ["forged"], "labels": [1]}
            )
            assert answer.is_success
            return (await client.get("/metrics")).text

    exposition = asyncio.run(scenario())
    for outcome in LABEL_OUTCOMES:
        n = float(outcome == "forged")
        assert f'trueprob_labels_total{{model="digits",outcome="{outcome}"}} {n}' in exposition


def test_metrics_are_compressed_for_those_who_accept_it(tmp_path: Path) -> None:
    async def scenario() -> list[Response]:
        async with application(tmp_path) as client:
            return [
                await client.get("/metrics", headers={"accept-encoding": accepted})
                for accepted in (
                    "gzip",
                    "deflate, gzip;q=0.5",
                    "identity",
                    "gzip;q=0",
                    "gzip; q=0.0, br",
                )
            ]

    answers = asyncio.run(scenario())
    codings = [answer.headers.get("content-encoding") for answer in answers]
    assert codings == ["gzip", "gzip", None, None, None]
    for answer in answers:
        assert "trueprob_build_info" in answer.text
        assert answer.headers["vary"] == "accept-encoding"
        assert answer.headers["content-type"].startswith("text/plain; version=")
