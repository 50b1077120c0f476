"""One ONNX network on onnxruntime: providers verified, warmed up, images in, logits out.

`OnnxModel` is synchronous and belongs to one thread (concurrent ``run`` on a CUDA session has
crashed for others); `service.inference.batcher` owns that thread. With a broken CUDA installation
onnxruntime falls back to the CPU without a word, so the provider that a session really has is
compared with what was asked for, and a difference is an error.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

import numpy as np
import onnxruntime
from numpy.typing import NDArray

from service.errors import InferenceFailed, ModelUnavailable

__all__ = ["OnnxModel"]

_PROVIDERS: Final = {
    "cpu": "CPUExecutionProvider",
    "cuda": "CUDAExecutionProvider",
    "tensorrt": "TensorrtExecutionProvider",
}


class OnnxModel:
    """A session and the names of its input and output.

    Parameters
    ----------
    path : Path
        The ``model.onnx``.
    input_name, output_name : str
        As the manifest names them.
    image_shape : tuple of int
        (height, width, channels) of one image.
    n_classes : int
    providers : sequence of {"cpu", "cuda", "tensorrt"}
        In order of preference; the session must really run on the first.
    threads : int, optional
        Threads of one run; 0 lets onnxruntime take the cores it finds.

    Raises
    ------
    ModelUnavailable
        The file cannot be loaded, has other names or shapes than the manifest says, or would run
        on another provider than the one that was asked for.
    """

    def __init__(
        self,
        path: Path,
        *,
        input_name: str,
        output_name: str,
        image_shape: tuple[int, int, int],
        n_classes: int,
        providers: Sequence[str] = ("cpu",),
        threads: int = 0,
    ) -> None:
        self._input, self._output = input_name, output_name
        self._n_classes = n_classes
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        options.log_severity_level = 3  # errors: its warnings about shapes are for exporters
        asked = [_PROVIDERS[provider] for provider in providers]
        missing = sorted(set(asked) - set(onnxruntime.get_available_providers()))
        if missing:
            raise ModelUnavailable(f"onnxruntime here has no {missing[0]}")
        if "cuda" in providers or "tensorrt" in providers:
            onnxruntime.preload_dlls()
        try:
            self._session = onnxruntime.InferenceSession(str(path), options, providers=asked)
        except Exception as error:
            raise ModelUnavailable(
                f"model.onnx cannot be loaded: {type(error).__name__}"
            ) from error
        self.provider: str = self._session.get_providers()[0]
        if self.provider != asked[0]:
            raise ModelUnavailable(f"asked for {asked[0]}, onnxruntime took {self.provider}")
        self._check_names()
        self.fixed_rows = self._fixed_rows()
        self.run(np.zeros((self.fixed_rows or 1, *image_shape), np.uint8))

    def run(self, images: NDArray[np.uint8]) -> NDArray[np.float32]:
        """Logits of a batch.

        Parameters
        ----------
        images : ndarray of shape (n, height, width, channels), uint8

        Returns
        -------
        ndarray of shape (n, k), float32

        Raises
        ------
        InferenceFailed
            onnxruntime raised, or gave another shape than (n, k).
        """
        n = len(images)
        rows = self.fixed_rows
        if rows is None or rows == n:
            return self._run(images)[:n]
        # A network exported for one batch size: run it in blocks, the last one padded.
        logits = np.empty((n, self._n_classes), np.float32)
        block = np.zeros((rows, *images.shape[1:]), images.dtype)
        for start in range(0, n, rows):
            some = images[start : start + rows]
            block[: len(some)] = some
            logits[start : start + rows] = self._run(block)[: len(some)]
        return logits

    def _run(self, images: NDArray[np.uint8]) -> NDArray[np.float32]:
        try:
            (logits,) = self._session.run([self._output], {self._input: images})
        except Exception as error:
            raise InferenceFailed(f"onnxruntime: {error}") from error
        result: NDArray[Any] = logits
        if result.shape != (len(images), self._n_classes):
            raise InferenceFailed(
                f"the network gave {result.shape}, expected ({len(images)}, {self._n_classes})"
            )
        return result.astype(np.float32, copy=False)

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
