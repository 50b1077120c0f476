"""The part of ``onnxruntime.InferenceSession`` that the service uses; tests pass their own."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

from numpy.typing import NDArray

__all__ = ["Session"]


class Session(Protocol):
    """A loaded network."""

    def get_providers(self) -> list[str]:
        """Execution providers; the first one runs the network."""

    def get_inputs(self) -> Sequence[Any]:
        """Inputs with ``name``, ``type`` and ``shape``."""

    def get_outputs(self) -> Sequence[Any]:
        """Outputs, as `get_inputs`."""

    def run(
        self, outputs: list[str], feed: dict[str, NDArray[Any]], options: Any = None, /
    ) -> list[Any]:
        """Arrays of the named outputs."""

    def io_binding(self) -> Any:
        """A binding, for `run_with_iobinding`."""

    def run_with_iobinding(self, binding: Any, options: Any = None, /) -> None:
        """Run on bound inputs and outputs."""
