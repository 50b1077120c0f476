"""The network of a served version: an `OnnxModel` owned by a `Batcher`."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from trueprob_service.inference.deployment import Network, ServedVersion
from trueprob_service.inference.network.batcher import Batcher
from trueprob_service.inference.network.cores import usable_cores
from trueprob_service.inference.network.input import NetworkInput
from trueprob_service.inference.network.onnx_model import OnnxModel
from trueprob_service.metrics.telemetry import Telemetry
from trueprob_service.settings import Settings

__all__ = ["network_builder"]


def network_builder(
    settings: Settings, telemetry: Telemetry
) -> Callable[[ServedVersion], Network | None]:
    """The factory that `Deployments` builds networks with.

    Returns: gives a warm `Batcher`, or None for a version without ``model.onnx``. Raises
    `ModelUnavailable` when the network cannot be run as the manifest says.
    """

    def build(served: ServedVersion) -> Network | None:
        manifest = served.manifest
        if manifest is None or manifest.input is None or "model.onnx" not in manifest.files:
            return None
        taken = NetworkInput.of(manifest.input)
        open_model = partial(
            OnnxModel,
            settings.model_repository / served.model / str(served.version) / "model.onnx",
            input_name=manifest.input.name,
            output_name=manifest.output_name,
            row_shape=taken.row_shape,
            dtype=taken.dtype,
            n_classes=served.n_classes,
            output_kind=manifest.output_kind,
            providers=settings.execution_providers,
            max_batch_rows=settings.max_batch_rows,
            # Each replica its share of the cores.
            threads=max(1, usable_cores() // settings.replicas),
        )

        def load() -> OnnxModel:
            model = open_model()
            telemetry.name_provider(served.model, served.version, model.provider)
            return model

        return Batcher(
            load,
            max_batch_rows=settings.max_batch_rows,
            queue_rows=settings.queue_rows,
            observe=partial(telemetry.observe_batch, served.model),
            name=f"{served.model}/{served.version}",
        )

    return build
