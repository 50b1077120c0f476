"""The child process that inspects networks: reads, opens and runs them within limits.

The parent sends a request with its limits, the child answers with one JSON document and the bytes
of arrays. Nothing that the child sends is unpickled: a network that took it over could say anything
but make the parent do anything. Before each step the child sends the step's name, so that the
parent can say what a child that ended was doing.
"""

from __future__ import annotations

import json
import re
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from mmap import ACCESS_READ, mmap
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from trueprob.errors import InvalidInput
from trueprob.onnx_export.graph_content import weight_files
from trueprob_service.errors import ServiceError
from trueprob_service.inference.network.cores import usable_cores
from trueprob_service.inference.network.onnx_model import OnnxModel, open_session
from trueprob_service.inference.network.session import Session
from trueprob_service.inference.network.tensors import NamedTensors, Tensors, TensorSpec
from trueprob_service.inspection.limits import address_space, become_expendable, limited

__all__ = [
    "MOST_OUTPUT",
    "FindFiles",
    "OpenNetwork",
    "Request",
    "RunNetwork",
    "TryNetwork",
    "serve",
]

THREADS: Final = min(4, usable_cores())  # each takes address space; no result depends on them
# A batch that takes longer is the last: the next would take twice the time and memory.
_LAST_SECONDS: Final = 0.25
_LENGTHS: Final = (128, 512)  # tried beyond the one that the network was warmed up with
_LARGE: Final = 1e6  # scale of the large numbers that a network is tried with
_LARGE_INTEGER: Final = 127
MOST_OUTPUT: Final = 1 << 30  # bytes of all outputs of a run
# What NumPy, the C++ library, onnxruntime and the kernel say when there is no memory left.
_NO_MEMORY: Final = re.compile(
    r"bad.?alloc|failed to allocate|(cannot|unable to) allocate|out of memory|not enough memory",
    re.IGNORECASE,
)
_NO_MEMORY_ERRNO: Final = 12


@dataclass(frozen=True)
class FindFiles:
    """Find the files that a network needs, without opening it."""

    network: Path
    thorough: bool = False  # read a network that names none too, for those who read it afterwards


@dataclass(frozen=True)
class OpenNetwork:
    """Open a session, for `RunNetwork`."""

    network: Path


@dataclass(frozen=True)
class RunNetwork:
    """Run the session that is open."""

    outputs: list[str]
    feed: dict[str, NDArray[Any]]


@dataclass(frozen=True)
class TryNetwork:
    """Load a network as the service does, and run it on small and large rows."""

    network: Path
    inputs: tuple[TensorSpec, ...]
    output_name: str
    output_kind: str
    n_classes: int
    max_batch_rows: int


Request = FindFiles | OpenNetwork | RunNetwork | TryNetwork
Say = Callable[[str], None]  # called with the name of the next step


def serve(connection: Connection, idle_seconds: float | None = None) -> None:
    """Answer requests until the parent closes the pipe, or is silent for so long."""
    become_expendable()
    session: Session | None = None
    base = 0

    def say(step: str) -> None:
        connection.send_bytes(json.dumps({"step": step}).encode())

    while connection.poll(idle_seconds):
        try:
            request, memory, seconds = connection.recv()
        except EOFError:
            return
        say("")
        if not isinstance(request, RunNetwork):
            session, base = None, address_space()
        arrays: list[NDArray[Any]] = []
        answer: dict[str, Any]
        try:
            with limited(base + memory, seconds * THREADS):
                if isinstance(request, FindFiles):
                    answer = {"files": _files(request, say)}
                elif isinstance(request, OpenNetwork):
                    session = _opened(request.network, say)
                    answer = _described(session)
                elif isinstance(request, RunNetwork):
                    assert session is not None  # noqa: S101 - the parent opens it first
                    rows = max((len(each) for each in request.feed.values()), default=0)
                    say(f"while it ran on {rows} rows")
                    answer, arrays = _packed(session.run(request.outputs, request.feed))
                else:
                    _try(request, say)
                    answer = {}
        except Exception as error:  # noqa: BLE001 - whatever it is, the parent decides
            answer, arrays = _failure(error), []
        connection.send_bytes(json.dumps(answer).encode())
        for array in arrays:
            connection.send_bytes(array.tobytes())


def _files(request: FindFiles, say: Say) -> list[str]:
    say("while it was read")
    network = request.network
    if network.stat().st_size == 0:
        return []
    with network.open("rb") as stream, mmap(stream.fileno(), 0, access=ACCESS_READ) as content:
        # Every reference to another file has this word; most networks have none.
        names_files = content.find(b"location") >= 0
    if not names_files and not request.thorough:
        return []
    return sorted(weight_files(network.read_bytes(), network.parent, strict=names_files))


def _opened(network: Path, say: Say) -> Session:
    say("while it was loaded")
    return open_session(network, threads=THREADS)


def _described(session: Session) -> dict[str, Any]:
    nodes = {"inputs": session.get_inputs(), "outputs": session.get_outputs()}
    return {kind: [[n.name, n.type, n.shape] for n in each] for kind, each in nodes.items()}


def _packed(results: Sequence[Any]) -> tuple[dict[str, Any], list[NDArray[Any]]]:
    """A description of results, and those that are arrays of numbers."""
    described: list[dict[str, Any]] = []
    arrays: list[NDArray[Any]] = []
    for result in results:
        if not isinstance(result, np.ndarray):
            described.append({"type": type(result).__name__})
        elif result.dtype.kind in "biuf":
            described.append({"dtype": result.dtype.str, "shape": result.shape})
            arrays.append(result)
        else:
            described.append({"shape": result.shape})
    if sum(array.nbytes for array in arrays) > MOST_OUTPUT:
        raise MemoryError("the outputs are too large")
    return {"results": described, "arrays": len(arrays)}, arrays


def _try(request: TryNetwork, say: Say) -> None:
    """Load and run a network; raises what the service would run into."""

    def opened(network: Path, **_options: Any) -> Session:
        session = _opened(network, say)
        say("while it ran on one and two rows")
        return session

    model = OnnxModel(
        request.network,
        inputs=request.inputs,
        output_name=request.output_name,
        output_kind=request.output_kind,
        n_classes=request.n_classes,
        max_batch_rows=request.max_batch_rows,
        threads=THREADS,
        open_session=opened,
    )
    for what, batches in _further(request, model):
        for step, tensors in batches:
            say(f"while it ran on {step}")
            started = time.perf_counter()
            try:
                model.run(tensors)
            except ServiceError as error:
                if _is_memory(error):
                    raise
                break  # rows that it cannot take, such as tokens that its vocabulary lacks
            if what != "numbers" and time.perf_counter() - started > _LAST_SECONDS:
                break


def _further(
    request: TryNetwork, model: OnnxModel
) -> Iterator[tuple[str, Iterator[tuple[str, Tensors]]]]:
    """Batches beyond those of a start: more rows, longer rows, larger numbers."""
    rng = np.random.default_rng(0)

    def drawn(rows: int, length: int) -> Tensors:
        return NamedTensors({i.name: i.random(rng, rows, length) for i in request.inputs})

    few = model.fixed_rows or min(2, request.max_batch_rows)
    if model.fixed_rows is None:
        sizes = (4 << power for power in range(request.max_batch_rows.bit_length()))
        rows = [*(n for n in sizes if n < request.max_batch_rows), request.max_batch_rows]
        yield "rows", ((f"{n} rows", drawn(n, model.length)) for n in rows)
    if any(isinstance(side, str) for i in request.inputs for side in i.row_shape):
        longer = [n for n in _LENGTHS if n > model.length]
        yield "lengths", ((f"rows of length {n}", drawn(few, n)) for n in longer)
    large = NamedTensors({i.name: _large(i, rng, few, model.length) for i in request.inputs})
    yield "numbers", iter([("large numbers", large)])


def _large(spec: TensorSpec, rng: np.random.Generator, rows: int, length: int) -> NDArray[Any]:
    """Rows of numbers that are larger than those of ordinary inputs."""
    drawn = spec.random(rng, rows, length)
    if drawn.dtype.kind == "f":
        most = min(_LARGE, float(np.finfo(drawn.dtype).max) / 8)
        return (np.clip(np.abs(drawn.astype(np.float64)), 1, 5) * most).astype(drawn.dtype)
    if drawn.dtype.kind == "b" or spec.filler:
        return drawn
    return np.full_like(drawn, _LARGE_INTEGER)


def _failure(error: Exception) -> dict[str, Any]:
    if _is_memory(error):
        return {"failure": "memory"}
    if isinstance(error, InvalidInput):
        return {"failure": "files", "detail": error.message}
    if isinstance(error, OSError):
        return {"failure": "machine", "detail": f"a file cannot be read: {error.strerror}"}
    detail = error.detail if isinstance(error, ServiceError) else str(error)
    return {"failure": "other", "kind": type(error).__name__, "detail": detail[:2000]}


def _is_memory(error: BaseException | None) -> bool:
    """Whether an error, or one that it was raised from, is a lack of memory."""
    while error is not None:
        if isinstance(error, MemoryError) or getattr(error, "errno", None) == _NO_MEMORY_ERRNO:
            return True
        if _NO_MEMORY.search(str(error)):
            return True
        error = error.__cause__ or error.__context__
    return False
