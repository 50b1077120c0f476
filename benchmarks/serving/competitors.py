"""The other servers: how each is started, requested and read."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.serving.cases import Case, npy
from benchmarks.serving.load import Request
from benchmarks.serving.processes import free_port
from benchmarks.serving.servers import (
    APPLICATIONS,
    BARE,
    JSON,
    NPY,
    OURS,
    Server,
    by_content,
    json_body,
    module,
)
from benchmarks.serving.stage import Stage


def _fastapi(case: Case) -> Request:
    base = f"/models/{case.model}"
    if case.binary:
        return Request(f"{base}/npy", npy(case.logits), {"Content-Type": NPY})
    body = json_body({"logits": case.rows})
    return Request(f"{base}/probabilities", body, {"Content-Type": JSON})


def _open_inference(case: Case) -> Request:
    data = [value for row in case.rows for value in row]
    tensor = {"name": "logits", "shape": [case.n, case.k], "datatype": "FP32", "data": data}
    path = f"/v2/models/{case.model}/infer"
    return Request(path, json_body({"inputs": [tensor]}), {"Content-Type": JSON})


def _mlserver(case: Case) -> Request | None:
    return None if case.binary else _open_inference(case)


def _kserve(case: Case) -> Request:
    if not case.binary:
        return _open_inference(case)
    raw = case.logits.tobytes()
    tensor = {"name": "logits", "shape": [case.n, case.k], "datatype": "FP32",
              "parameters": {"binary_data_size": len(raw)}}  # fmt: skip
    head = json_body({"inputs": [tensor], "parameters": {"binary_data_output": True}})
    headers = {"Content-Type": "application/octet-stream",
               "Inference-Header-Content-Length": str(len(head))}  # fmt: skip
    return Request(f"/v2/models/{case.model}/infer", head + raw, headers)


def _tensors(body: bytes, case: Case) -> NDArray[Any]:
    if case.binary:
        raw = np.frombuffer(body[-4 * case.n * case.k :], np.float32)
        return raw.reshape(case.n, case.k)
    (tensor,) = (t for t in json.loads(body)["outputs"] if t["name"] == "probabilities")
    return np.asarray(tensor["data"]).reshape(case.n, case.k)


def _litserve(case: Case) -> Request:
    if not case.binary:
        body = json_body({"model": case.model, "logits": case.rows})
        return Request("/predict", body, {"Content-Type": JSON})
    edge = b"--serving-bench"
    body = b"\r\n".join([
        edge, b'Content-Disposition: form-data; name="model"', b"", case.model.encode(),
        edge, b'Content-Disposition: form-data; name="file"; filename="logits.npy"',
        b"Content-Type: application/x-npy", b"", npy(case.logits), edge + b"--", b"",
    ])  # fmt: skip
    return Request(
        "/predict", body, {"Content-Type": "multipart/form-data; boundary=serving-bench"}
    )


def _bentoml(case: Case) -> Request | None:
    if case.binary:
        return None
    return Request(f"/{case.model}", json_body({"logits": case.rows}), {"Content-Type": JSON})


def _ray(case: Case) -> Request:
    if case.binary:
        return Request(f"/{case.model}", npy(case.logits), {"Content-Type": NPY})
    return Request(f"/{case.model}", json_body({"logits": case.rows}), {"Content-Type": JSON})


def _bentoml_command(python: str, port: int, _: Stage) -> list[str]:
    application = f"{APPLICATIONS}.bentoml_app:Calibrated"
    return [python, "-m", "bentoml", "serve", application, "--host", "127.0.0.1",
            "--port", str(port)]  # fmt: skip


def _mlserver_command(python: str, port: int, stage: Stage) -> list[str]:
    ports = [f"MLSERVER_{what}_PORT={n}" for what, n in
             (("HTTP", port), ("GRPC", free_port()), ("METRICS", free_port()))]  # fmt: skip
    return ["/usr/bin/env", *ports, python, "-m", "mlserver.cli.main", "start",
            str(stage.folder / "mlserver")]  # fmt: skip


FASTAPI = Server(
    "FastAPI, pydantic lists", module("fastapi_lists"), _fastapi, by_content, ready="/openapi.json"
)
MLSERVER = Server("MLServer", _mlserver_command, _mlserver, _tensors, "mlserver")
LITSERVE = Server(
    "LitServe", module("litserve_app"), _litserve, by_content, "litserve", ready="/health"
)
BENTOML = Server("BentoML", _bentoml_command, _bentoml, by_content, "bentoml", ready="/readyz")
KSERVE = Server("KServe", module("kserve_app"), _kserve, _tensors, "kserve", ready="/v2/models")
RAY = Server("Ray Serve", module("ray_app"), _ray, by_content, "ray", ready="/-/healthz")

SERVERS = (OURS, BARE, FASTAPI, MLSERVER, LITSERVE, BENTOML, KSERVE, RAY)
