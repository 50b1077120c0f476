"""The clients as `help` and type checkers see them: equal, documented methods."""

from __future__ import annotations

import asyncio
import inspect
import pydoc
import re
from dataclasses import fields, is_dataclass
from pathlib import Path
from types import FunctionType
from typing import Any

import httpx
import pytest
from mypy import api

import trueprob.client as package
from tests.trueprob.client.generate import GENERATED, WRITTEN, async_source
from tests.trueprob_service.application import lifespan
from trueprob.client import AsyncClient, Client
from trueprob_service.app import create_app
from trueprob_service.settings import Settings

METHODS = [
    name
    for name, value in vars(Client).items()
    if isinstance(value, FunctionType) and not name.startswith("_")
]
OWN = ("PartialPrediction", "Prediction")  # arrays: no schema has them

SCRIPT = """
import asyncio
from pathlib import Path

import numpy as np

from trueprob import CalibrationSet
from trueprob.client import AsyncClient, Client, ServiceProblem


def blocking() -> float | None:
    with Client("http://127.0.0.1:8000", key="secret", timeout_seconds=5) as client:
        answer = client.predict("digits", logits=np.zeros((2, 10)))
        assert answer.prediction_ids is not None
        accepted: int = client.label("digits", answer.prediction_ids, ["3", "7"]).accepted
        fit = client.upload("digits", Path("may.npz"), name="may", wait_seconds=60)
        if not fit.ended:
            fit = client.wait_for_fit("digits", fit.fit, seconds=600)
        rows: CalibrationSet = client.download("digits", fit.calibration_set)
        top = client.predict_fields("digits", ["class"], top=accepted, logits=rows.logits)
        names: tuple[str, ...] | None = top.classes
        try:
            client.rollback("digits", revision=answer.revision or 1)
        except ServiceProblem as problem:
            print(problem.code, names)
        return client.calibration("digits").ece


async def awaited() -> float | None:
    async with AsyncClient("http://127.0.0.1:8000", key="secret", timeout_seconds=5) as client:
        answer = await client.predict("digits", logits=np.zeros((2, 10)))
        assert answer.prediction_ids is not None
        counted = await client.label("digits", answer.prediction_ids, ["3", "7"])
        fit = await client.upload("digits", Path("may.npz"), name="may", wait_seconds=60)
        if not fit.ended:
            fit = await client.wait_for_fit("digits", fit.fit, seconds=600)
        rows: CalibrationSet = await client.download("digits", fit.calibration_set)
        top = await client.predict_fields("digits", top=counted.accepted, logits=rows.logits)
        names: tuple[str, ...] | None = top.classes
        print(names, await client.models())
        return (await client.calibration("digits")).ece


print(blocking(), asyncio.run(awaited()))
"""
MISTAKES = """
from trueprob.client import AsyncClient, Client


async def mistakes(blocking: Client, awaited: AsyncClient) -> None:
    blocking.predict("digits", logit=[[1.0]])
    blocking.rollback("digits")
    await blocking.models()
    awaited.predict("digits").model
    blocking.fit("digits", 17)
"""


def test_the_asynchronous_client_is_what_the_script_generates() -> None:
    assert GENERATED.read_text("utf-8") == async_source(WRITTEN.read_text("utf-8"))


def test_both_have_the_same_methods_with_the_same_parameters() -> None:
    assert len(METHODS) > 30
    for name in METHODS:
        ours, theirs = getattr(Client, name), getattr(AsyncClient, name)
        assert inspect.signature(ours) == inspect.signature(theirs), name
        assert inspect.iscoroutinefunction(theirs), name
        assert not inspect.iscoroutinefunction(ours), name
    assert {n for n in vars(AsyncClient) if not n.startswith("_")} == set(METHODS)


@pytest.mark.parametrize("client", [Client, AsyncClient])
@pytest.mark.parametrize("name", METHODS)
def test_every_method_has_a_signature_and_says_what_its_parameters_are(
    client: type[Any], name: str
) -> None:
    signature = inspect.signature(getattr(client, name))
    documented = inspect.getdoc(getattr(client, name))
    assert documented
    parameters = list(signature.parameters.values())[1:]
    assert all(p.kind not in (p.VAR_POSITIONAL, p.VAR_KEYWORD) for p in parameters)
    assert all(p.annotation is not p.empty for p in parameters)
    sections = dict(re.findall(r"(?m)^(\w+)\n-+\n((?:.+\n?)+)", documented))
    said = re.findall(r"(?m)^([\w, ]+?)(?: :.*)?$", sections.get("Parameters", ""))
    names = [word for line in said for word in line.split(", ") if not line.startswith(" ")]
    assert names == [p.name for p in parameters]
    assert ("Returns" in sections) == (signature.return_annotation != "None")


@pytest.mark.parametrize("client", [Client, AsyncClient])
def test_help_shows_the_parameters(client: type[Any]) -> None:
    shown = pydoc.plain(pydoc.render_doc(client.predict))
    for words in ("logits: 'ArrayLike | None' = None", "-> 'Prediction'", "PNG, JPEG or WebP"):
        assert words in shown


def test_an_answer_has_the_fields_of_the_schema_of_its_name(tmp_path: Path) -> None:
    async def schemas() -> dict[str, Any]:
        app = create_app(Settings(state_dir=tmp_path))
        transport = httpx.ASGITransport(app=app)  # type: ignore[arg-type]  # looser scopes
        async with (
            lifespan(app),
            httpx.AsyncClient(transport=transport, base_url="http://localhost") as client,
        ):
            document = (await client.get("/openapi.json")).json()
        found: dict[str, Any] = document["components"]["schemas"]
        return found

    known = asyncio.run(schemas())
    for name in package.__all__:
        answer = getattr(package, name)
        if is_dataclass(answer) and name not in OWN:
            schema = known[name]
            assert {field.name for field in fields(answer)} <= set(schema["properties"]), name


@pytest.mark.slow
def test_type_checkers_know_both_clients(tmp_path: Path) -> None:
    (tmp_path / "script.py").write_text(SCRIPT)
    (tmp_path / "mistakes.py").write_text(MISTAKES)
    options = ["--strict", "--config-file=", f"--cache-dir={tmp_path / 'cache'}"]
    files = [str(tmp_path / name) for name in ("script.py", "mistakes.py")]
    out, err, _ = api.run([*options, "--follow-imports=silent", *files])
    assert err == ""
    for said in (
        'Unexpected keyword argument "logit"',
        'Missing named argument "revision"',
        'Incompatible types in "await"',
        '"Coroutine[Any, Any, Prediction]" has no attribute "model"',
        'Argument 2 to "fit" of "Client" has incompatible type "int"',
    ):
        assert said in out, out
    assert len(re.findall(r"mistakes.py:\d+: error:", out)) == 5, out
    assert "Found 5 errors in 1 file (checked 2 source files)" in out
