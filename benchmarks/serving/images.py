"""Pictures through a ResNet-18: batching in the service, beside a plain loop of onnxruntime."""

from __future__ import annotations

import base64
import importlib.util
import json
import statistics
import subprocess
import sys
from collections import defaultdict
from collections.abc import Mapping
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from benchmarks.calibration.report import table
from benchmarks.calibration.sets import ROOT
from benchmarks.serving.cases import Case
from benchmarks.serving.competitors import LITSERVE, MLSERVER
from benchmarks.serving.environments import Environment
from benchmarks.serving.load import Load, Request, closed_loop
from benchmarks.serving.pictures import SIDE, decode, make_picture
from benchmarks.serving.servers import JSON, OURS, Server, json_body
from benchmarks.serving.spread import judged, middle, ratio, ratios
from benchmarks.serving.stage import Stage, add_mlserver_network
from trueprob.calibrators import dumps_calibrator
from trueprob.repository.manifest import InputSpec, Manifest
from trueprob.repository.model_repository import ModelRepository

CLASSES, CLIENTS = 1000, 32
BATCHES = (1, 2, 4, 8, 16, 32, 64)
SHARE, ALONE = 0.9, 1.15  # of the plain loop's rows a second; of its latency of one picture
CPU, CUDA = "CPUExecutionProvider", "CUDAExecutionProvider"
TOLERANCE = {CPU: 1e-5, CUDA: 1e-2}  # of a probability; CUDA convolves in TF32
ONE = Case(1, CLASSES, binary=False)


def add_network(stage: Stage) -> None:
    """Register the network under the name `images`, for ours and for MLServer."""
    from benchmarks.serving.resnet import onnx_resnet18

    manifest = Manifest(
        "images",
        1,
        CLASSES,
        tuple(map(str, range(CLASSES))),
        input=InputSpec(
            name="image",
            dtype="uint8",
            shape=("batch", SIDE, SIDE, 3),
            layout="NHWC",
            preprocessing={"mode": "RGB", "resize": [SIDE, SIDE]},
        ),
    )
    document = dumps_calibrator(stage.calibrators[CLASSES], None)
    files = {"model.onnx": onnx_resnet18(CLASSES), "calibrator.json": document}
    ModelRepository(stage.models).add(manifest, files)
    add_mlserver_network(stage)


def plain(stage: Stage, picture: Path, provider: str, batches: tuple[int, ...], seconds: float):
    """The measurements of `plain_loop`, in its own process."""
    job = {"model": str(stage.network), "picture": str(picture), "provider": provider,
           "batches": batches, "seconds": seconds}  # fmt: skip
    command = [sys.executable, "-m", "benchmarks.serving.plain_loop"]
    answer = subprocess.run(
        command, check=True, cwd=ROOT, input=json.dumps(job), text=True, stdout=subprocess.PIPE
    )
    return json.loads(answer.stdout)


def probabilities(stage: Stage, picture: bytes) -> NDArray[np.float32]:
    """The answer of the library for the network's logits on the CPU."""
    import onnxruntime

    session = onnxruntime.InferenceSession(str(stage.network), providers=[CPU])
    (logits,) = session.run(None, {"image": decode(picture)[None]})
    return stage.calibrators[CLASSES].predict_proba(logits)


def requests(picture: bytes, stage: Stage) -> dict[str, Request]:
    """The same picture, in the form of each server."""
    text = base64.b64encode(picture).decode()
    tensor = {"name": "image", "shape": [1, 1], "datatype": "BYTES", "data": [text],
              "parameters": {"content_type": "base64"}}  # fmt: skip
    ours = Request("/v1/models/images/probabilities", picture, {"Content-Type": "image/jpeg"})
    return {
        OURS.name: ours.with_key(stage.key),
        MLSERVER.name: Request(
            "/v2/models/images/infer", json_body({"inputs": [tensor]}), {"Content-Type": JSON}
        ),
        LITSERVE.name: Request("/predict", json_body({"image": text}), {"Content-Type": JSON}),
    }


def more_arguments(server: Server, provider: str) -> list[str]:
    if server is OURS:
        return ["--execution-providers", "cpu" if provider == CPU else "cuda,cpu"]
    return ["images"] if server is LITSERVE else []


def images_report(
    stage: Stage,
    environments: Mapping[str, Environment],
    *,
    small: bool,
    provider: str = CPU,
) -> str:
    """The tables: 32 clients, and one client alone."""
    if importlib.util.find_spec("torch") is None:
        return "Not measured: torch, which makes the network, is not in this environment."
    if not stage.network.is_file():
        add_network(stage)
    rounds, seconds = (2, 4) if small else (7, 20)
    content = make_picture(0)
    picture = stage.folder / "picture.jpg"
    picture.write_bytes(content)
    found = plain(stage, picture, provider, BATCHES, seconds / 4)["rates"]
    best = int(max(found, key=lambda size: found[size]))
    asked = requests(content, stage)
    expected = probabilities(stage, content)
    servers = [OURS, *([MLSERVER, LITSERVE] if provider == CPU else [])]
    failed = {s.name: environments[s.environment].missing for s in servers if s.environment}
    failed = {name: reason for name, reason in failed.items() if reason}
    loaded: dict[str, list[Load]] = defaultdict(list)
    alone: dict[str, list[Load]] = defaultdict(list)
    loop: list[float] = []
    one: list[float] = []
    for _ in range(rounds):
        (rate,) = plain(stage, picture, provider, (best,), seconds)["rates"].values()
        loop.append(rate)
        one.append(1000 * plain(stage, picture, provider, (), seconds / 2)["p50"])
        for server in servers:
            if server.name in failed:
                continue
            environment = environments.get(server.environment or "")
            python = str(environment.python) if environment else sys.executable
            request = asked[server.name]
            try:
                with server.running(python, stage, *more_arguments(server, provider)) as process:
                    found_here = server.probabilities(request.send(process.port), ONE)
                    if not np.allclose(found_here, expected, atol=TOLERANCE[provider]):
                        raise RuntimeError(f"{server.name} answers otherwise than the library")
                    for loads, clients in ((loaded, CLIENTS), (alone, 1)):
                        load = closed_loop(
                            process.port, request, connections=clients, seconds=seconds, slow=True
                        )
                        loads[server.name].append(load)
            except (RuntimeError, OSError) as error:
                if server is OURS:
                    raise
                print(f"{server.name}: {error}", file=sys.stderr)
                failed[server.name] = str(error).splitlines()[0][:200]
    return _text(provider, best, found, loop, one, loaded, alone, servers, failed, len(content))


def _text(
    provider: str,
    best: int,
    found: Mapping[str, float],
    loop: list[float],
    one: list[float],
    loaded: Mapping[str, list[Load]],
    alone: Mapping[str, list[Load]],
    servers: list[Server],
    failed: Mapping[str, str],
    size: int,
) -> str:
    bound = " with I/O binding" if provider == CUDA else ""
    rows = [[f"onnxruntime's loop{bound}, batches of {best}", middle(loop), "", middle(one), ""]]
    for server in servers:
        if server.name in failed:
            rows.append([f"{server.name}: {failed[server.name]}", "", "", "", ""])
            continue
        rates = [load.rate for load in loaded[server.name]]
        single = [1000 * load.p50 for load in alone[server.name]]
        rows.append(
            [server.name, middle(rates), ratio(rates, loop), middle(single), ratio(single, one)]
        )
    header = [
        "server", f"rows a second, {CLIENTS} clients", "over the loop",
        "one client alone, median ms", "over decoding and `session.run`",
    ]  # fmt: skip
    ours = [load.rate for load in loaded[OURS.name]]
    single = [1000 * load.p50 for load in alone[OURS.name]]
    sizes = ", ".join(f"{name}: {rate:.1f}" for name, rate in found.items())
    introduction = (
        f"ResNet-18, {SIDE} × {SIDE}, {CLASSES} classes, random weights, on `{provider}`; one "
        f"made JPEG of {size / 1000:.1f} kB, one a request, answered in full with receipts. "
        "The loop runs pixels that are decoded already. Our own generator; nothing is pinned to "
        f"cores. The loop's rows a second by batch size: {sizes}."
    )
    return "\n".join(
        [
            introduction,
            "",
            table(header, rows),
            "",
            judged(
                f"at least {SHARE} of the loop's rows a second",
                SHARE,
                {f"{CLIENTS} clients": statistics.median(ratios(ours, loop))},
            ),
            judged(
                f"at most {ALONE} times decoding and `session.run` alone",
                ALONE,
                {"one client": statistics.median(ratios(single, one))},
                at_most=True,
            ),
        ]
    )


def gpu_report(stage: Stage, environments: Mapping[str, Environment], *, small: bool) -> str:
    """The tables on CUDA, or a line that says why there is none."""
    import onnxruntime

    if CUDA not in onnxruntime.get_available_providers():
        return "Not measured: onnxruntime here has no CUDAExecutionProvider."
    try:
        listed = subprocess.run(["nvidia-smi", "-L"], check=True, capture_output=True, text=True)
    except (OSError, subprocess.CalledProcessError):
        return "Not measured: CUDAExecutionProvider is there, but no GPU answers."
    text = images_report(stage, environments, small=small, provider=CUDA)
    device = listed.stdout.splitlines()[0].partition(" (UUID")[0]
    return f"{device}.\n\n{text}"
