"""Networks uploaded over HTTP: a version that is there and not live, or nothing at all."""

from __future__ import annotations

import asyncio
import io
import os
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import onnx
import pytest

from service.app import create_app
from service.auth import new_key
from service.errors import InvalidRequest
from service.form_parts import form_parts
from service.register.upload import UploadedForm, register_apart, register_form
from service.settings import Settings
from tests.service.application import lifespan
from tests.service.register.networks import network, weights
from trueprob.client import AsyncClient, ServiceProblem
from trueprob.client.versions import _form
from trueprob.repository import ModelRepository

SHAPE = ("n", 4, 2, 3)


def onnx_bytes(folder: Path, shape: Sequence[Any] = SHAPE, **options: Any) -> bytes:
    options = {"dtype": "uint8", "weight": 0.01, **options}
    return network(folder / "m.onnx", shape, **options).read_bytes()


@asynccontextmanager
async def service(folder: Path, **values: Any) -> AsyncIterator[AsyncClient]:
    settings = Settings(
        state_dir=folder / "state",
        model_repository=folder / "models",
        **{"allow_model_upload": True, "repository_poll_seconds": 0, **values},
    )
    app = create_app(settings)
    transport = httpx.ASGITransport(app=app)  # type: ignore[arg-type]  # looser scopes
    async with lifespan(app), AsyncClient("http://service", transport=transport) as client:
        yield client


def left(folder: Path) -> list[str]:
    """Whatever lies in the model repository and among the uploads."""
    places = (folder / "models", folder / "state" / "uploads")
    return sorted(path.name for place in places for path in place.rglob("*") if path.is_file())


def form(folder: Path, parts: dict[str, bytes], **values: Any) -> UploadedForm:
    body, headers = _form(parts)
    (folder / "body").write_bytes(body)
    known = {
        "path": folder / "body", "content_type": headers["content-type"],
        "repository": folder / "models", "model": "mine", "version": 1, "providers": ("cpu",),
        "max_bytes": 1 << 20, "created_at": time.time(),
    }  # fmt: skip
    return UploadedForm(**{**known, **values})


def test_a_second_version_is_there_and_not_live(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (120, *SHAPE[1:]), np.uint8)
    logits = images.reshape(120, -1) @ (0.01 * weights(24, 3))
    labels = np.argmax(logits + rng.gumbel(size=logits.shape), axis=1)

    async def scenario() -> None:
        async with service(tmp_path) as client:
            first = await client.add_version("mine", onnx_bytes(tmp_path), class_names="abc")
            assert (first.version, first.live, first.calibrator) == (1, True, None)
            second = await client.add_version(
                "mine",
                tmp_path / "m.onnx",
                class_names=["a", "b", "c"],
                calibration={"images": images, "labels": labels},
                method="temperature",
            )
            assert (second.version, second.live, second.n_classes) == (2, False, 3)
            assert second.input["layout"] == "NHWC"
            assert second.calibrator is not None
            assert second.scores is not None
            described = await client.model("mine")
            assert (described.version, described.revision) == (1, 1)
            assert [v.version for v in described.versions] == [2, 1]
            answer = await client.predict("mine", logits=logits[:3].astype(np.float32), version=2)
            assert (answer.calibrator, answer.revision) == (second.calibrator, None)
            assert (await client.promote_version("mine", 2, revision=1)).version == 2

    asyncio.run(scenario())
    version = ModelRepository(tmp_path / "models").get("mine", 2)
    version.verify()
    assert version.manifest.training["source"] == "uploaded"
    assert not any(name.endswith(".part") for name in left(tmp_path))


def test_it_is_off_by_default_and_needs_the_scope_admin(tmp_path: Path) -> None:
    key, line = new_key("fitter", ["predict", "label", "calibrate"])
    keys = tmp_path / "keys.jsonl"
    keys.write_text(line)
    assert Settings().allow_model_upload is False

    async def scenario() -> None:
        async with service(tmp_path, allow_model_upload=False) as client:
            with pytest.raises(ServiceProblem, match="uploading models is off") as caught:
                await client.add_version("mine", b"")
            assert caught.value.status == 403
        settings = Settings(
            state_dir=tmp_path / "state", api_keys_file=keys, allow_model_upload=True
        )
        app = create_app(settings)
        transport = httpx.ASGITransport(app=app)  # type: ignore[arg-type]  # looser scopes
        async with (
            lifespan(app),
            AsyncClient("http://service", key=key, transport=transport) as client,
        ):
            with pytest.raises(ServiceProblem, match="lacks the scope 'admin'") as caught:
                await client.add_version("mine", b"x")
            assert caught.value.status == 403

    asyncio.run(scenario())
    assert left(tmp_path) == []


def test_what_is_refused_leaves_nothing(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with service(tmp_path, max_upload_bytes=200_000) as client:
            await client.declare("declared", n_classes=3)
            post = client._http.post
            for model, request, status, sentence in (
                ("mine", {"content": b"x"}, 415, "multipart/form-data"),
                ("..", {"files": {"model": b"x"}}, 404, ""),
                ("a b", {"files": {"model": b"x"}}, 422, "the model's name must be"),
                ("declared", {"files": {"model": b"x"}}, 409, "was declared over HTTP"),
                ("mine", {"files": {"model": bytes(300_000)}}, 413, "at most 200000"),
                ("mine", {"files": {"model": b"no graph"}}, 422, "cannot be loaded"),
            ):
                answer = await post(f"/v1/models/{model}/versions", **request)
                assert answer.status_code == status, (model, answer.text)
                assert sentence in answer.json()["detail"]
            assert {m.model for m in await client.models()} == {"declared"}

    asyncio.run(scenario())
    assert left(tmp_path) == []


@pytest.mark.parametrize(
    ("parts", "sentence"),
    [
        ({}, "must have a part model"),
        ({"layers": b"3"}, "unknown part 'layers'; expected model, calibration, class_names"),
        ({"class_names": b"a\nb"}, "class_names has 2 names"),
        ({"class_names": b'["a", 1]'}, "part class_names must be a JSON list"),
        ({"class_names": b"\xff"}, "part class_names must be a text"),
        ({"method": b"magic"}, "part method must be one of"),
        ({"mean": b"0.5"}, "part mean is for networks of floats"),
        ({"layout": b"NCHW"}, "part layout must be NHWC for shape"),
        ({"calibration": b"no rows"}, "calibration"),
    ],
)
def test_what_is_wrong_with_a_form_is_said_by_its_part(
    tmp_path: Path, parts: dict[str, bytes], sentence: str
) -> None:
    model = {} if not parts else {"model": onnx_bytes(tmp_path)}
    with pytest.raises(InvalidRequest) as caught:
        register_form(form(tmp_path, {**model, **parts}))
    assert sentence in caught.value.detail
    assert "--" not in caught.value.detail
    assert not (tmp_path / "models").exists()


def test_what_the_graph_does_not_say_is_asked_for_by_its_part(tmp_path: Path) -> None:
    content = onnx_bytes(tmp_path, ("n", 3, 4, 2), dtype="float32", weight=1.0)
    with pytest.raises(InvalidRequest, match="say it with part mean and part std"):
        register_form(form(tmp_path, {"model": content}))
    document = register_form(form(tmp_path, {"model": content, "mean": b"0.5", "std": b"0.2"}))
    assert document["input"]["preprocessing"]["mean"] == 0.5


def test_a_calibration_set_that_inflates_too_far_is_refused(tmp_path: Path) -> None:
    buffer = io.BytesIO()
    np.savez_compressed(buffer, logits=np.zeros((100_000, 3), np.float32), labels=np.zeros(100_000))
    parts = {"model": onnx_bytes(tmp_path), "calibration": buffer.getvalue()}
    with pytest.raises(InvalidRequest, match="calibration"):
        register_form(form(tmp_path, parts))
    assert not (tmp_path / "models").exists()


def test_a_network_that_never_ends_is_given_up(tmp_path: Path) -> None:
    upload = form(tmp_path, {"model": onnx_bytes(tmp_path)})
    with pytest.raises(InvalidRequest, match=r"not ready after 0.01 s"):
        register_apart(upload, seconds=0.01)
    assert not (tmp_path / "models").exists()


def test_a_form_that_cannot_be_read_takes_nothing_else_down(tmp_path: Path) -> None:
    upload = form(tmp_path, {"model": onnx_bytes(tmp_path)})
    os.truncate(upload.path, upload.path.stat().st_size - 20)
    with pytest.raises(Exception, match=r"truncated|not multipart"):
        form_parts(upload.path, upload.content_type)
    with pytest.raises(Exception, match=r"truncated|not multipart") as caught:
        register_apart(upload, seconds=60)
    assert type(caught.value).__name__ == "BadRequest"


def test_external_weights_are_refused(tmp_path: Path) -> None:
    graph = onnx.load(network(tmp_path / "m.onnx", SHAPE, dtype="uint8", n_classes=300))
    onnx.save(
        graph, tmp_path / "out.onnx", save_as_external_data=True, location="w", size_threshold=0
    )
    with pytest.raises(InvalidRequest, match="second file"):
        register_form(form(tmp_path, {"model": (tmp_path / "out.onnx").read_bytes()}))
