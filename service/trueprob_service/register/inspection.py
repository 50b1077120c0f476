"""A network looked at by itself, and a registered version as a document."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

from trueprob_service.errors import ModelUnavailable
from trueprob_service.inference.network.onnx_model import open_session
from trueprob_service.register.graph import Network, inspect
from trueprob_service.register.options import Ask, Unusable, Wishes
from trueprob_service.register.version import Registered

__all__ = ["described", "inspect_content"]


def inspect_content(content: bytes, wishes: Wishes, ask: Ask) -> Network:
    """Look at a network in a folder by itself, as it will lie in the repository."""
    with tempfile.TemporaryDirectory() as folder:
        alone = Path(folder) / "model.onnx"
        alone.write_bytes(content)
        try:
            session = open_session(alone)
        except ModelUnavailable as error:
            if "external data" in str(error.__cause__).lower():
                raise Unusable(
                    "the network keeps its weights in a second file: save it as one file "
                    "(torch.onnx.export with external_data=False)"
                ) from None
            raise
        return inspect(session, wishes, ask)


def described(registered: Registered) -> dict[str, Any]:
    """What was registered, safe for JSON."""
    version, fitted = registered.version, registered.fit
    document = version.manifest.to_dict()
    return {
        "model": version.name,
        "version": version.version,
        "path": str(version.path),
        "n_classes": version.manifest.n_classes,
        "input": document["input"],
        "output": {"name": version.manifest.output_name, "kind": version.manifest.output_kind},
        "calibrator": None if fitted is None else fitted.calibrator.id,
        "scores": None if fitted is None else fitted.report.to_dict()["scores"],
        "warnings": list(registered.warnings),
    }
