"""An ONNX network on onnxruntime: checks the provider, warms up, turns rows into logits.

`OnnxModel` is synchronous and belongs to one thread, which
`trueprob_service.inference.network.batcher` owns; concurrent ``run`` calls on a CUDA session have
crashed. With a broken CUDA installation onnxruntime falls back to the CPU without an error, so the
provider of the session is compared with the requested one. On a device, batches are padded to
powers of two. Each of these shapes is run once at the start, so that its buffers exist before the
first request.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Final

import numpy as np
import onnxruntime
from numpy.typing import NDArray

from trueprob.arrays.logits import logits_from_probabilities
from trueprob.errors import InvalidInput
from trueprob_service.errors import InferenceFailed, ModelUnavailable, ProviderUnavailable
from trueprob_service.inference.network.cores import usable_cores
from trueprob_service.inference.network.session import Session

__all__ = ["OnnxModel", "open_session"]

_LOG: Final = logging.getLogger(__name__)
_PROVIDERS: Final = {
    "cpu": "CPUExecutionProvider",
    "cuda": "CUDAExecutionProvider",
    "tensorrt": "TensorrtExecutionProvider",
}
_DEVICES: Final = {"CUDAExecutionProvider": "cuda", "TensorrtExecutionProvider": "cuda"}


def open_session(
    model: Path | bytes, *, providers: Sequence[str] = ("cpu",), threads: int | None = None
) -> Session:
    """Open a session of onnxruntime.

    Raises `ModelUnavailable` if the network cannot be loaded, and `ProviderUnavailable` if
    onnxruntime was built without a requested provider.
    """
    available = onnxruntime.get_available_providers()
    if tuple(providers) == ("auto",):
        providers = ("cuda", "cpu") if _PROVIDERS["cuda"] in available else ("cpu",)
    asked = [_PROVIDERS[provider] for provider in providers]
    missing = sorted(set(asked) - set(available))
    if missing:
        raise ProviderUnavailable(
            f"execution_providers asks for {missing[0]}, which onnxruntime here does not have"
        )
    if "cuda" in providers or "tensorrt" in providers:
        onnxruntime.preload_dlls()
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = usable_cores() if threads is None else threads
    options.log_severity_level = 3  # errors only: warnings about shapes are for exporters
    source = model if isinstance(model, bytes) else str(model)
    try:
        session: Session = onnxruntime.InferenceSession(source, options, providers=asked)
    except Exception as error:
        raise ModelUnavailable(f"model.onnx cannot be loaded: {type(error).__name__}") from error
    if session.get_providers()[0] != asked[0]:
        _LOG.warning("onnxruntime could not use %s", asked[0])
    return session


class OnnxModel:
    """A session whose inputs and outputs are checked against the manifest.

    Raises `ModelUnavailable` if the file cannot be loaded or has other names than the manifest,
    `ProviderUnavailable` if it would run on another provider than the requested one, and
    `InferenceFailed` if a first run fails or gives another shape.
    """

    def __init__(
        self,
        model: Path | bytes,  # a file or its content
        *,
        input_name: str,
        output_name: str,
        row_shape: Sequence[int],
        n_classes: int,
        dtype: str = "uint8",  # of the input, NumPy's name
        output_kind: str = "logits",  # for "probabilities", `run` returns their logarithms
        providers: Sequence[str] = ("cpu",),
        max_batch_rows: int = 64,
        threads: int | None = None,
        open_session: Callable[..., Session] = open_session,
        new_buffer: Callable[..., Any] = onnxruntime.OrtValue.ortvalue_from_shape_and_type,
    ) -> None:
        self._input, self._output, self._output_kind = input_name, output_name, output_kind
        self._n_classes, self._max_batch_rows = n_classes, max_batch_rows
        self._session = open_session(model, providers=providers, threads=threads)
        self.provider: str = self._session.get_providers()[0]
        asked = _PROVIDERS.get(providers[0], self.provider)
        if self.provider != asked:
            raise ProviderUnavailable(
                f"execution_providers asks for {asked} first, onnxruntime took {self.provider}; "
                "auto would allow that"
            )
        self._device = _DEVICES.get(self.provider)
        self._new_buffer = new_buffer
        self._bound: dict[int, tuple[Any, Any]] = {}
        self._check_names()
        self.fixed_rows = self._fixed_rows()
        for rows in self._warm_up_rows():
            self.run(np.zeros((rows, *row_shape), dtype))

    def run(self, tensor: NDArray[Any]) -> NDArray[np.float32]:
        """Logits of shape (n, k) for n rows.

        Raises `InferenceFailed` if onnxruntime raises or gives another shape, or numbers that are
        not probabilities where the manifest says so.
        """
        n = len(tensor)
        step = self.fixed_rows or (self._max_batch_rows if self._device else n)
        parts = [self._run_block(tensor[start : start + step]) for start in range(0, n, step)]
        return parts[0] if len(parts) == 1 else np.concatenate(parts)

    def _run_block(self, tensor: NDArray[Any]) -> NDArray[np.float32]:
        n = len(tensor)
        rows = self._block_rows(n)
        if rows != n:
            padded = np.zeros((rows, *tensor.shape[1:]), tensor.dtype)
            padded[:n] = tensor
            tensor = padded
        try:
            result = self._run_on_device(tensor) if self._device else self._run_on_cpu(tensor)
        except Exception as error:
            raise InferenceFailed(f"onnxruntime: {error}") from error
        if result.shape != (rows, self._n_classes):
            raise InferenceFailed(
                f"the network gave {result.shape}, expected ({rows}, {self._n_classes})"
            )
        if self._output_kind != "probabilities":
            return result[:n].astype(np.float32, copy=False)
        try:
            return logits_from_probabilities(result[:n], name=self._output)
        except InvalidInput as error:
            raise InferenceFailed(str(error)) from None

    def _run_on_cpu(self, tensor: NDArray[Any]) -> NDArray[Any]:
        result: NDArray[Any] = self._session.run([self._output], {self._input: tensor})[0]
        return result

    def _run_on_device(self, tensor: NDArray[Any]) -> NDArray[Any]:
        rows = len(tensor)
        if rows not in self._bound:
            buffer = self._new_buffer(tensor.shape, tensor.dtype, self._device, 0)
            binding = self._session.io_binding()
            binding.bind_ortvalue_input(self._input, buffer)
            binding.bind_output(self._output, self._device)
            self._bound[rows] = buffer, binding
        buffer, binding = self._bound[rows]
        buffer.update_inplace(tensor)
        self._session.run_with_iobinding(binding)
        result: NDArray[Any] = binding.copy_outputs_to_cpu()[0]
        return result

    def _block_rows(self, n: int) -> int:
        if self.fixed_rows is not None:
            return self.fixed_rows
        if self._device is None:
            return n
        return min(1 << (n - 1).bit_length(), self._max_batch_rows)

    def _warm_up_rows(self) -> list[int]:
        if self.fixed_rows is not None:
            return [self.fixed_rows]
        if self._device is None:
            # Two rows: a graph that works for one row only fails now, not at the first batch.
            return [1, 2][: self._max_batch_rows]
        powers = range(self._max_batch_rows.bit_length() + 1)
        return sorted({min(1 << power, self._max_batch_rows) for power in powers})

    def _check_names(self) -> None:
        for what, name, nodes in (
            ("input", self._input, self._session.get_inputs()),
            ("output", self._output, self._session.get_outputs()),
        ):
            names = [node.name for node in nodes]
            if name not in names:
                raise ModelUnavailable(f"model.onnx has no {what} {name!r}, it has {names}")

    def _fixed_rows(self) -> int | None:
        (node,) = (node for node in self._session.get_inputs() if node.name == self._input)
        rows = node.shape[0] if node.shape else None
        return rows if isinstance(rows, int) else None
