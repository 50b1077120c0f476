"""The limits in the whole service: over TLS, in its metrics, and in its replicas."""

from __future__ import annotations

import socket
import ssl
import subprocess
from pathlib import Path

import httpx
import pytest

from tests.running_service import ROOT, running_service
from trueprob_service.connections.limits import usable_connections

pytestmark = pytest.mark.integration

FLOOD = b"GET /x HTTP/1.1\r\nHost: 127.0.0.1\r\nX: " + b"a" * 40_000


def refused(url: str, flood: bytes = FLOOD, context: ssl.SSLContext | None = None) -> bytes:
    port = int(url.rpartition(":")[2])
    raw = socket.create_connection(("127.0.0.1", port), timeout=20)
    client = raw if context is None else context.wrap_socket(raw, server_hostname="127.0.0.1")
    with client:
        client.sendall(flood)
        data = b""
        while piece := client.recv(1 << 16):
            data += piece
    return data


def test_refusals_are_counted_in_the_metrics_and_predictions_go_on(tmp_path: Path) -> None:
    flags = ("--max-header-bytes", "16384", "--header-seconds", "1")
    with running_service(tmp_path / "state", ROOT / "models", *flags) as service:
        assert refused(service.url).startswith(b"HTTP/1.1 431 ")
        assert refused(service.url, b"GET /x").startswith(b"HTTP/1.1 408 ")
        metrics = service.client.get("/metrics").text
        assert 'trueprob_connection_refusals_total{reason="header_bytes"} 1' in metrics
        assert 'trueprob_connection_refusals_total{reason="header_seconds"} 1' in metrics
        assert 'trueprob_connection_refusals_total{reason="connections"} 0' in metrics
        assert 'trueprob_connections{state="open"} 1' in metrics
        body = (ROOT / "examples" / "digits_logits.json").read_bytes()
        path, kind = "/v1/models/digits/probabilities", {"content-type": "application/json"}
        assert service.client.post(path, content=body, headers=kind).status_code == 200


def test_replicas_have_the_limits_too(tmp_path: Path) -> None:
    with running_service(tmp_path / "state", ROOT / "models", "--replicas", "2") as service:
        assert refused(service.url).startswith(b"HTTP/1.1 431 ")


def test_limits_over_tls(tmp_path: Path) -> None:
    certificate, key = tmp_path / "cert.pem", tmp_path / "key.pem"
    try:
        subprocess.run(
            ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2",
             "-keyout", str(key), "-out", str(certificate), "-subj", "/CN=localhost",
             "-addext", "subjectAltName=IP:127.0.0.1"],
            check=True, capture_output=True,
        )  # fmt: skip
    except FileNotFoundError:
        pytest.skip("openssl is not installed")
    context = ssl.create_default_context(cafile=str(certificate))
    flags = ("--tls-cert", str(certificate), "--tls-key", str(key), "--header-seconds", "1")
    with running_service(tmp_path / "state", ROOT / "models", *flags, scheme="https") as service:
        assert refused(service.url, context=context).startswith(b"HTTP/1.1 431 ")
        assert refused(service.url, b"GET /x", context).startswith(b"HTTP/1.1 408 ")
        assert httpx.get(f"{service.url}/v2/health/ready", verify=context).status_code == 200


def test_a_limit_that_the_open_files_do_not_allow_is_lowered_with_a_warning(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    resource = pytest.importorskip("resource")
    limits = [(1024, 2048)]
    monkeypatch.setattr(resource, "getrlimit", lambda _kind: limits[-1])
    monkeypatch.setattr(resource, "setrlimit", lambda _kind, new: limits.append(new))
    assert usable_connections(700) == 700
    assert limits == [(1024, 2048)]
    assert usable_connections(1000) == 1000
    assert limits[-1] == (1256, 2048)
    assert caplog.text == ""
    assert usable_connections(4096) == 2048 - 256
    assert limits[-1] == (2048, 2048)
    assert "max_connections is 4096" in caplog.text
    assert "1792 connections" in caplog.text
