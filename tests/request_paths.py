"""The source files that a request runs through, found by running it.

``python -m tests.request_paths`` writes docs/paths.md; a test compares the page with a new run.

Each request is sent twice before, so that what happens once (imports, caches, the first read of a
model) is not counted. Every thread is watched but the canary's, which serves no request; the
process that fits is not.
"""

from __future__ import annotations

import asyncio
import io
import sys
import tempfile
import threading
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager, redirect_stdout
from pathlib import Path
from types import FrameType

import httpx
import numpy as np

from tests.trueprob_service.application import ROOT, application
from trueprob.cli.__main__ import main

PAGE = ROOT / "docs" / "paths.md"
SOURCES = ("trueprob", "service", "trainer")
MODEL = "/v1/models/digits"

Send = Callable[[httpx.AsyncClient, int], Awaitable[httpx.Response]]


class Watch:
    """Collects the files of ours whose functions are called while it is on, in any thread."""

    def __init__(self) -> None:
        self._on = False
        self._names: set[str] = set()

    def __call__(self, frame: FrameType, _event: str, _argument: object) -> None:
        """Called by Python at every call; returning None leaves the lines unwatched."""
        of_canary = threading.current_thread().name in ("trueprob-canary", "trueprob-probe")
        if self._on and not of_canary and frame.f_code.co_name != "<module>":
            self._names.add(frame.f_code.co_filename)

    @contextmanager
    def files(self) -> Iterator[list[str]]:
        """The list is filled at the end of the block: paths from the root, sorted."""
        found: list[str] = []
        self._names.clear()
        self._on = True
        try:
            yield found
        finally:
            self._on = False
            paths = (Path(name) for name in self._names)
            inside = (path.relative_to(ROOT) for path in paths if path.is_relative_to(ROOT))
            found += sorted(path.as_posix() for path in inside if path.parts[0] in SOURCES)


def overconfident_set(seed: int) -> bytes:
    """An `.npz` of 600 rows whose logits are four times too large."""
    rng = np.random.default_rng(seed)
    logits = 6 * rng.normal(size=(600, 10)).astype(np.float32)
    labels = np.argmax(logits / 4 + rng.gumbel(size=logits.shape), axis=1)
    buffer = io.BytesIO()
    np.savez(buffer, logits=logits, labels=labels)
    return buffer.getvalue()


async def predict(client: httpx.AsyncClient, turn: int) -> httpx.Response:
    row = [turn + 0.25 * column for column in range(10)]
    return await client.post(f"{MODEL}/probabilities", json={"logits": [row]})


async def predict_picture(client: httpx.AsyncClient, _turn: int) -> httpx.Response:
    return await client.post(
        f"{MODEL}/probabilities",
        content=(ROOT / "examples" / "seven.png").read_bytes(),
        headers={"content-type": "image/png"},
    )


async def upload(client: httpx.AsyncClient, turn: int) -> httpx.Response:
    return await client.post(
        f"{MODEL}/calibration-sets",
        content=overconfident_set(turn),
        headers={"content-type": "application/x-npz", "prefer": "wait=60"},
    )


async def service_paths(state_dir: Path) -> dict[str, list[str]]:
    """Files of each kind of request, in a service with the shipped models."""
    watch = Watch()
    threading.settrace(watch)
    sys.settrace(watch)
    try:
        quiet = {"poll_seconds": 3600, "repository_poll_seconds": 0, "sweep_seconds": 86400}
        async with application(state_dir, **quiet) as client:
            found = {
                "Logits": await warm_files(watch, client, predict),
                "A picture": await warm_files(watch, client, predict_picture),
            }
            ids = [(await predict(client, 10 + turn)).json()["prediction_ids"] for turn in range(3)]

            async def label(client: httpx.AsyncClient, turn: int) -> httpx.Response:
                body = {"prediction_ids": ids[turn], "labels": [3]}
                return await client.post(f"{MODEL}/labels", json=body)

            found["A label"] = await warm_files(watch, client, label)
            found["A calibration set"] = await warm_files(watch, client, upload)
            return found
    finally:
        sys.settrace(None)
        threading.settrace(None)  # type: ignore[arg-type]  # the way to end it


async def warm_files(watch: Watch, client: httpx.AsyncClient, send: Send) -> list[str]:
    """Files of the third time that a request is sent."""
    for turn in range(3):
        with watch.files() as files:
            answer = await send(client, turn)
        assert answer.status_code < 300, answer.text
    return files


def fit_path(folder: Path) -> list[str]:
    """Files of the second `trueprob fit` in a process."""
    (folder / "set.npz").write_bytes(overconfident_set(0))
    command = ["fit", str(folder / "set.npz"), "-o", str(folder / "calibrator.json")]
    watch = Watch()
    sys.settrace(watch)
    try:
        for _ in range(2):
            with watch.files() as files, redirect_stdout(io.StringIO()):
                assert main(command) == 0
    finally:
        sys.settrace(None)
    return files


def all_paths(folder: Path) -> dict[str, list[str]]:
    """Title → files."""
    found = asyncio.run(service_paths(folder / "state"))
    return {**found, "`trueprob fit`": fit_path(folder)}


def page(found: dict[str, list[str]]) -> str:
    """The text of docs/paths.md."""
    head = (
        "The source files that each kind of request runs through once the service is warm. "
        "Written by `python -m tests.request_paths`; a test compares this page with a new run. "
        "The process that fits is not watched."
    )
    parts = [f"# Paths\n\n{head}\n"]
    for title, files in found.items():
        lines = "\n".join(f"- `{name}`" for name in files)
        parts.append(f"## {title}\n{len(files)} files:\n\n{lines}\n")
    return "\n".join(parts)


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as name:
        PAGE.write_text(page(all_paths(Path(name))), "utf-8")
