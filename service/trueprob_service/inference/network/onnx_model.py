"""An ONNX network on onnxruntime: checks the provider, warms up, turns rows into logits.

`OnnxModel` is synchronous and belongs to one thread, which
`trueprob_service.inference.network.batcher` owns; concurrent ``run`` calls on a CUDA session have
crashed. With a broken CUDA installation onnxruntime falls back to the CPU without an error, so the
provider of the session is compared with the requested one. On a device, batches are padded to
powers of two. Each of these shapes is run once at the start, so that its buffers exist before the
first request. Batches of free lengths have no bound buffers.

Two runs on the same rows must agree: a network exported in training mode answers at random. If a
run fails, `OnnxModel` finds out by further runs whether the rows are at fault: their values (a
token that the vocabulary lacks) or their length.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Final

import numpy as np
import onnxruntime
from numpy.typing import NDArray

from trueprob.arrays.logits import logits_from_probabilities
from trueprob.errors import InvalidInput
from trueprob_service.errors import (
    InferenceFailed,
    InvalidRequest,
    ModelUnavailable,
    ProviderUnavailable,
)
from trueprob_service.inference.network.cores import usable_cores
from trueprob_service.inference.network.session import Session
from trueprob_service.inference.network.tensors import NamedTensors, Tensors, TensorSpec

__all__ = [
    "LENGTHS",
    "NOT_REPEATABLE",
    "ONNXRUNTIME",
    "OnnxModel",
    "agree",
    "open_session",
    "runs_on_cpu",
]

_LOG: Final = logging.getLogger(__name__)
ONNXRUNTIME: Final[str] = onnxruntime.__version__
_PROVIDERS: Final = {
    "cpu": "CPUExecutionProvider",
    "cuda": "CUDAExecutionProvider",
    "tensorrt": "TensorrtExecutionProvider",
}
LENGTHS: Final = (8, 16, 4, 2, 32, 1, 128)  # tried for free lengths until the network runs
NOT_REPEATABLE: Final = (
    "the network gives different answers when it runs twice on the same rows: dropout or another "
    "random operator is on; export it in evaluation mode (in PyTorch: model.eval())"
)
# onnxruntime's words for an index that its tensor does not have.
_INDEX: Final = re.compile(r"(?:idx|index) ?= ?(-?\d+)(?:.*?\[-?\d+, ?(\d+)\])?")
_DEVICES: Final = {"CUDAExecutionProvider": "cuda", "TensorrtExecutionProvider": "cuda"}


def runs_on_cpu(providers: Sequence[str]) -> bool:
    """Whether networks run on the CPU with these providers, here."""
    if tuple(providers) == ("auto",):
        return _PROVIDERS["cuda"] not in onnxruntime.get_available_providers()
    return providers[0] == "cpu"


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
    options.log_severity_level = 4  # errors are raised; warnings about shapes are for exporters
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

    Raises `ModelUnavailable` if the file cannot be loaded, has other names than the manifest or
    answers at random, `ProviderUnavailable` if it would run on another provider than the requested
    one, and `InferenceFailed` if a first run fails or gives another shape.
    """

    def __init__(
        self,
        model: Path | bytes,  # a file or its content
        *,
        inputs: Sequence[TensorSpec],
        output_name: str,
        n_classes: int,
        output_kind: str = "logits",  # for "probabilities", `run` returns their logarithms
        providers: Sequence[str] = ("cpu",),
        max_batch_rows: int = 64,
        threads: int | None = None,
        open_session: Callable[..., Session] = open_session,
        new_buffer: Callable[..., Any] = onnxruntime.OrtValue.ortvalue_from_shape_and_type,
    ) -> None:
        self._inputs, self._output, self._output_kind = tuple(inputs), output_name, output_kind
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
        self._options = onnxruntime.RunOptions()
        self._bound: dict[int, tuple[dict[str, Any], Any]] = {}
        self._has_lengths = any(isinstance(side, str) for i in inputs for side in i.row_shape)
        self._length: int | None = None  # one that the network runs with; None before it has run
        self._check_names()
        self.fixed_rows = self._fixed_rows()
        self._length = self._warm_up()
        self._check_repeats(self._length)

    def run(self, tensors: Tensors) -> NDArray[np.float32]:
        """Logits of shape (n, k) for n rows.

        Raises `InvalidRequest` if the network cannot take these rows, and `InferenceFailed` if it
        fails otherwise, gives another shape, or numbers that are not probabilities where the
        manifest says so.
        """
        n = len(tensors)
        step = self.fixed_rows or (self._max_batch_rows if self._device else n)
        parts = [self._run_block(tensors[start : start + step]) for start in range(0, n, step)]
        return parts[0] if len(parts) == 1 else np.concatenate(parts)

    @property
    def length(self) -> int:
        """A length of free dimensions that the network runs with."""
        assert self._length is not None  # noqa: S101 - it has run
        return self._length

    def stop(self) -> None:
        """End the present run before its next node; no other run succeeds."""
        self._options.terminate = True

    def _run_block(self, tensors: Tensors) -> NDArray[np.float32]:
        n = len(tensors)
        rows = self._block_rows(n)
        feed = self._feed(tensors, rows)
        try:
            result = self._run_session(feed)
        except Exception as error:
            raise self._explained(feed, error) from error
        one_score = self._n_classes == 2 and result.shape in ((rows,), (rows, 1))
        if result.shape != (rows, self._n_classes) and not one_score:
            raise InferenceFailed(
                f"the network gave {result.shape}, expected ({rows}, {self._n_classes})"
            )
        result = result[:n]
        if self._output_kind == "probabilities":
            try:
                return logits_from_probabilities(
                    result, name=self._output, n_classes=self._n_classes
                )
            except InvalidInput as error:
                raise InferenceFailed(str(error)) from None
        if result.dtype == np.float64 and np.isfinite(result).any():
            # Beyond float32 they would become infinite, and minus infinity masks a class.
            finite = np.abs(result[np.isfinite(result)]).max()
            if finite > np.finfo(np.float32).max:
                raise InferenceFailed(
                    f"output {self._output!r} has {finite:.3g}, which float32 cannot hold"
                )
        result = result.astype(np.float32, copy=False)
        if one_score:  # the logit of class 1, as `as_logits` reads it
            result = np.stack([np.zeros(n, np.float32), result.reshape(n)], axis=1)
        return result

    def _feed(self, tensors: Tensors, rows: int) -> dict[str, NDArray[Any]]:
        """The array of each input, with further rows up to `rows`."""
        if isinstance(tensors, NamedTensors):
            feed = dict(tensors.arrays)
        else:
            feed = {self._inputs[0].name: tensors}
        if rows > len(tensors):
            for spec in self._inputs:
                given = feed[spec.name]
                padded = np.full((rows, *given.shape[1:]), spec.filler, given.dtype)
                padded[: len(given)] = given
                feed[spec.name] = padded
        return feed

    def _run_session(self, feed: dict[str, NDArray[Any]]) -> NDArray[Any]:
        if self._device and not self._has_lengths:
            return self._run_on_device(feed)
        result: NDArray[Any] = self._session.run([self._output], feed, self._options)[0]
        return result

    def _run_on_device(self, feed: dict[str, NDArray[Any]]) -> NDArray[Any]:
        rows = len(next(iter(feed.values())))
        if rows not in self._bound:
            buffers = {
                name: self._new_buffer(tensor.shape, tensor.dtype, self._device, 0)
                for name, tensor in feed.items()
            }
            binding = self._session.io_binding()
            for name, buffer in buffers.items():
                binding.bind_ortvalue_input(name, buffer)
            binding.bind_output(self._output, self._device)
            self._bound[rows] = buffers, binding
        buffers, binding = self._bound[rows]
        for name, tensor in feed.items():
            buffers[name].update_inplace(tensor)
        self._session.run_with_iobinding(binding, self._options)
        result: NDArray[Any] = binding.copy_outputs_to_cpu()[0]
        return result

    def _explained(
        self, feed: dict[str, NDArray[Any]], error: Exception
    ) -> InferenceFailed | InvalidRequest:
        """What a failed run is: the fault of the rows if others run and these fail again."""
        failed = InferenceFailed(f"onnxruntime: {error}")
        rows = len(next(iter(feed.values())))
        # Where memory is short, other rows may run.
        if self._length is None or "alloc" in str(error).lower():
            return failed
        if not self._runs(self._examples(rows, self._length)) or self._runs(feed):
            return failed
        same_shape = {i.name: np.full_like(feed[i.name], i.filler) for i in self._inputs}
        if not self._runs(same_shape):
            if not self._has_lengths:
                return failed
            shapes = ", ".join(f"{name} of shape {array.shape}" for name, array in feed.items())
            return InvalidRequest(
                f"the network cannot run rows of this length ({shapes}); it runs "
                f"a length of {self._length}"
            )
        for spec in self._inputs:
            if not self._runs({**same_shape, spec.name: feed[spec.name]}):
                return InvalidRequest(_out_of_range(spec.name, feed[spec.name], str(error)))
        names = ", ".join(feed)
        return InvalidRequest(f"the network cannot run on these values of {names} together")

    def _runs(self, feed: dict[str, NDArray[Any]]) -> bool:
        try:
            self._run_session(feed)
        except Exception:  # noqa: BLE001 - onnxruntime has no base class for its errors
            return False
        return True

    def _examples(self, rows: int, length: int) -> dict[str, NDArray[Any]]:
        return {spec.name: spec.example(rows, length) for spec in self._inputs}

    def _block_rows(self, n: int) -> int:
        if self.fixed_rows is not None:
            return self.fixed_rows
        if self._device is None:
            return n
        return min(1 << (n - 1).bit_length(), self._max_batch_rows)

    def _warm_up(self) -> int:
        """Run each number of rows that will come; returns the length that the network ran with."""
        lengths = LENGTHS if self._has_lengths else LENGTHS[:1]
        for length in lengths:
            try:
                for rows in self._warm_up_rows():
                    self._run_block(NamedTensors(self._examples(rows, length)))
            except InferenceFailed:
                if length == lengths[-1]:
                    raise
            else:
                return length
        raise AssertionError("the last length returns or raises")

    def _warm_up_rows(self) -> list[int]:
        if self.fixed_rows is not None:
            return [self.fixed_rows]
        if self._device is None:
            # Two rows: a graph that works for one row only fails now, not at the first batch.
            return [1, 2][: self._max_batch_rows]
        powers = range(self._max_batch_rows.bit_length() + 1)
        return sorted({min(1 << power, self._max_batch_rows) for power in powers})

    def _check_repeats(self, length: int) -> None:
        rows = self.fixed_rows or min(2, self._max_batch_rows)
        rng = np.random.default_rng(0)
        tensors = NamedTensors({s.name: s.random(rng, rows, length) for s in self._inputs})
        try:
            first = self._run_block(tensors)
        except (InferenceFailed, InvalidRequest):  # numbers that it cannot take
            tensors = NamedTensors(self._examples(rows, length))
            first = self._run_block(tensors)
        if not agree(first, self._run_block(tensors)):
            raise ModelUnavailable(NOT_REPEATABLE)

    def _check_names(self) -> None:
        for what, wanted, nodes in (
            ("input", [spec.name for spec in self._inputs], self._session.get_inputs()),
            ("output", [self._output], self._session.get_outputs()),
        ):
            names = [node.name for node in nodes]
            for name in wanted:
                if name not in names:
                    raise ModelUnavailable(f"model.onnx has no {what} {name!r}, it has {names}")
        others = {node.name for node in self._session.get_inputs()}
        others -= {spec.name for spec in self._inputs}
        if others:
            raise ModelUnavailable(
                f"model.onnx has an input {min(others)!r} that the manifest does not have"
            )

    def _fixed_rows(self) -> int | None:
        names = {spec.name for spec in self._inputs}
        nodes = (node for node in self._session.get_inputs() if node.name in names and node.shape)
        fixed = {node.shape[0] for node in nodes if isinstance(node.shape[0], int)}
        if len(fixed) > 1:
            raise ModelUnavailable(f"inputs of model.onnx have {sorted(fixed)} rows, expected one")
        return fixed.pop() if fixed else None


def agree(first: NDArray[Any], second: NDArray[Any]) -> bool:
    """Whether two runs on the same rows gave the same numbers, but for the order of sums."""
    finite = np.abs(first[np.isfinite(first)], dtype=np.float64)
    scale = float(finite.max()) if finite.size else 0.0
    return np.allclose(first, second, rtol=1e-2, atol=1e-3 * scale, equal_nan=True)


def _out_of_range(name: str, tensor: NDArray[Any], message: str) -> str:
    """What is wrong with the values of an input, as far as onnxruntime's message says it."""
    found = _INDEX.search(message)
    value = 0 if found is None else int(found.group(1))
    rows, *_ = np.nonzero(tensor == value)
    if found is None or not len(rows):
        return f"{name} has a value that the network cannot take: out of its range"
    largest = found.group(2)
    takes = "it has none such" if largest is None else f"it takes 0 to {largest}"
    return f"{name} has {value} in row {int(rows[0])}, out of the network's range: {takes}"
