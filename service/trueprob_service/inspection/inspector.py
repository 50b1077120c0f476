"""Has networks inspected by a child process, and says in one sentence why one is refused.

`Inspector.check` is what the service asks before it loads a network, and `register` before it
writes one; `Inspector.session` is a session that runs in the child, for `register` to find out what
a network takes and gives. A network that fails in an ordinary way raises the error that it would
raise here.
"""

from __future__ import annotations

import json
import signal
import threading
import time
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from trueprob_service.child_process import Child
from trueprob_service.errors import (
    STOPPING,
    InferenceFailed,
    InvalidRequest,
    ModelUnavailable,
    NetworkRefused,
    ServiceError,
)
from trueprob_service.inference.network.onnx_model import ONNXRUNTIME, runs_on_cpu
from trueprob_service.inspection.limits import available_memory, default_memory, in_words
from trueprob_service.inspection.verdicts import PASSED, NetworkVerdict, Verdicts
from trueprob_service.inspection.worker import (
    MOST_OUTPUT,
    FindFiles,
    OpenNetwork,
    Request,
    RunNetwork,
    TryNetwork,
    serve,
)

__all__ = ["Inspector"]

_SCHEME: Final = 1  # part of a verdict's key: another one after what is looked at has changed
_START_SECONDS: Final = 60.0  # for the child to answer at all: it imports onnxruntime
_END_SECONDS: Final = 2.0
_IDLE_SECONDS: Final = 10.0
_KINDS: Final = {kind.__name__: kind for kind in (InferenceFailed, InvalidRequest)}
_MOST_ARRAYS: Final = 10_000
_Answer = tuple[dict[str, Any], list[bytes]]


class Inspector:
    """Inspects networks in a child process, one at a time. Close it after use."""

    def __init__(
        self,
        *,
        memory: int | None = None,  # bytes that a network may take; default: by its files
        seconds: float = 60.0,  # for loading and running a network
        verdicts: Verdicts | None = None,  # default: nothing is remembered
        count: Callable[[str], None] = lambda _outcome: None,  # called with each of `INSPECTIONS`
        idle_seconds: float | None = _IDLE_SECONDS,  # the child ends after this; None: never
    ) -> None:
        self._memory, self._seconds = memory, seconds
        self._verdicts, self._count = verdicts, count
        target = partial(serve, idle_seconds=idle_seconds)
        self._child = Child(target, name="trueprob-inspect", end_seconds=_END_SECONDS)
        self._asking = threading.Lock()

    def __enter__(self) -> Inspector:
        return self

    def __exit__(self, *_error: object) -> None:
        self.close()

    @property
    def pid(self) -> int | None:
        """Process id of the child; None while there is none."""
        return self._child.pid

    def close(self) -> None:
        """End the child, even in the middle of an inspection."""
        self._child.close()

    def files(self, network: Path, *, thorough: bool = False) -> list[str]:
        """The further files that a network needs, relative to its folder; all are beside it.

        Raises `NetworkRefused` if one lies elsewhere, is missing or cut off. A `thorough` look also
        finds out whether reading the network takes too much memory or time.
        """
        # The child may have another working directory.
        answer, _ = self._ask(FindFiles(network.absolute(), thorough), [network])
        return [str(name) for name in answer["files"]]

    def session(self, network: Path) -> ChildSession:
        """Open a network in the child.

        Raises `NetworkRefused`, or `ModelUnavailable` if it cannot be loaded.
        """
        files = [network, *(network.parent / name for name in self.files(network))]
        answer, _ = self._ask(OpenNetwork(network.absolute()), files)
        return ChildSession(answer, lambda request: self._ask(request, files))

    def check(
        self,
        network: TryNetwork,
        *,
        digests: Mapping[str, str] | None = None,  # of its files, which have been compared
        providers: Sequence[str] = ("cpu",),  # execution providers that will run it
    ) -> None:
        """Load and run a network in the child as the service would, on the CPU.

        Raises `NetworkRefused` if that is not safe, and the error of the network if it fails. On
        another provider than the CPU it may work, so nothing is raised then.
        """
        try:
            self._check(network, digests)
        except NetworkRefused as error:
            if error.reason != STOPPING:
                self._count(error.reason)
            raise
        except ServiceError:
            self._count("failed")
            if runs_on_cpu(providers):
                raise
        else:
            self._count(PASSED)

    def _check(self, network: TryNetwork, digests: Mapping[str, str] | None) -> None:
        if self._verdicts is None or digests is None:
            self._try(network, None if digests is None else digests.keys())
            return
        key = Verdicts.key(
            {
                "scheme": _SCHEME,
                "onnxruntime": ONNXRUNTIME,
                "digests": dict(digests),
                "network": [
                    [str(spec) + spec.name for spec in network.inputs],
                    network.output_name,
                    network.output_kind,
                    network.n_classes,
                    network.max_batch_rows,
                ],
                "limits": [self._memory, self._seconds],
            }
        )
        verdicts = self._verdicts
        verdict = verdicts.get(key)
        if verdict is None:
            patience = _START_SECONDS + 2 * self._seconds
            with verdicts.one_at_a_time(
                patience, hurry=lambda: self._child.closed or verdicts.get(key) is not None
            ):
                verdict = verdicts.get(key)
                if verdict is None:
                    try:
                        self._try(network, digests.keys())
                    except NetworkRefused as error:
                        if error.lasting:
                            verdicts.keep(key, NetworkVerdict(error.reason, error.detail))
                        raise
                    verdict = NetworkVerdict(PASSED)
                    verdicts.keep(key, verdict)
        if verdict.outcome != PASSED:
            raise NetworkRefused(verdict.detail, reason=verdict.outcome)

    def _try(self, network: TryNetwork, listed: Collection[str] | None) -> None:
        names = self.files(network.network)
        for name in names:
            if listed is not None and name not in listed:
                raise NetworkRefused(
                    f"the network's file of weights {name[:100]!r} has no digest in the manifest",
                    reason="files",
                )
        folder = network.network.parent
        absolute = replace(network, network=network.network.absolute())
        self._ask(absolute, [network.network, *(folder / name for name in names)])

    def _ask(self, request: Request, files: Sequence[Path]) -> _Answer:
        try:
            wanted = self._memory or default_memory(files)
        except OSError as error:
            raise _machine(f"a file cannot be read: {error.strerror}") from None
        free = available_memory()
        memory = wanted if free is None else min(wanted, free)
        with self._asking:
            answer, arrays = self._answer(request, memory)
        failure = answer.get("failure")
        if failure is None:
            return answer, arrays
        if failure == "memory":
            if memory < wanted:
                raise _machine(f"the {in_words(memory)} that are free here were not enough")
            raise NetworkRefused(
                f"the network needs more than {in_words(memory)} of memory "
                f"{answer['step']}: the limit is TRUEPROB_INSPECT_MEMORY, by default 4 times its "
                "files and 2 GiB",
                reason="memory",
            )
        if failure == "machine":
            raise _machine(str(answer["detail"]))
        if failure == "files":
            raise NetworkRefused(str(answer["detail"]), reason="files")
        raise _KINDS.get(str(answer["kind"]), ModelUnavailable)(str(answer["detail"]))

    def _answer(self, request: Request, memory: int) -> _Answer:
        """The child's answer, with the step that it was made in, and the bytes of its arrays."""
        for attempt in (1, 2):
            step = None
            try:
                connection = self._child.connection()
                if connection is None:
                    raise _stopping()
                connection.send((request, memory, self._seconds))
                until = time.monotonic() + _START_SECONDS
                while connection.poll(max(0.0, until - time.monotonic())):
                    answer: dict[str, Any] = json.loads(connection.recv_bytes())
                    if "step" not in answer:
                        answer["step"] = step
                        n = min(int(answer.get("arrays", 0)), _MOST_ARRAYS)
                        arrays = [connection.recv_bytes(MOST_OUTPUT) for _ in range(n)]
                        if answer.get("failure") == "memory":
                            self._replace()  # nobody knows what works in it now
                        return answer, arrays
                    if step is None:
                        until = time.monotonic() + self._seconds
                    step = str(answer["step"])
            except (EOFError, OSError):
                code = self._child.join()
                if code == 0 and step is None and attempt == 1:
                    continue  # it had just ended, because it was idle
                raise self._ended(code, step) from None
            self._replace()
            if step is None:
                raise _machine("the process for that did not start")
            raise self._late(step)
        raise AssertionError("the second attempt returns or raises")

    def _replace(self) -> None:
        self._child.terminate()
        self._child.join()

    def _late(self, step: str) -> NetworkRefused:
        return NetworkRefused(
            f"the network took longer than {self._seconds:g} s {step}: the limit is "
            "TRUEPROB_INSPECT_SECONDS",
            reason="time",
        )

    def _ended(self, code: int | None, step: str | None) -> NetworkRefused:
        if self._child.closed:
            return _stopping()
        if code is None or step is None:
            return _machine("the process for that did not start")
        if code in (-getattr(signal, "SIGKILL", 0), -signal.SIGTERM):
            return _machine(f"the system ended the process for that {step}: memory may be short")
        if code == -getattr(signal, "SIGXCPU", 0):
            return self._late(step)
        name = signal.Signals(-code).name if code < 0 else f"exit code {code}"
        return NetworkRefused(
            f"the network ended the process that inspected it {step} ({name}): it may need more "
            "memory than TRUEPROB_INSPECT_MEMORY, or onnxruntime may have a fault",
            reason="crash",
        )


class ChildSession:
    """A `Session` that runs in the child."""

    def __init__(self, described: Mapping[str, Any], ask: Callable[[RunNetwork], _Answer]) -> None:
        self._described = described
        self._ask = ask

    def get_providers(self) -> list[str]:
        """The CPU."""
        return ["CPUExecutionProvider"]

    def get_inputs(self) -> Sequence[Any]:
        """Inputs with ``name``, ``type`` and ``shape``."""
        return self._nodes("inputs")

    def get_outputs(self) -> Sequence[Any]:
        """Outputs, as `get_inputs`."""
        return self._nodes("outputs")

    def run(
        self, outputs: list[str], feed: dict[str, NDArray[Any]], _options: Any = None, /
    ) -> list[Any]:
        """Arrays of the named outputs; of what holds no numbers, the shape or the type's name.

        Raises `NetworkRefused`, or `ModelUnavailable` with the words of onnxruntime.
        """
        answer, arrays = self._ask(RunNetwork(outputs, feed))
        contents = iter(arrays)
        return [_unpacked(each, contents) for each in answer["results"]]

    def io_binding(self) -> Any:
        """Not there: buffers of another process cannot be bound."""
        raise NotImplementedError

    def run_with_iobinding(self, binding: Any, options: Any = None, /) -> None:
        """Not there."""
        raise NotImplementedError

    def _nodes(self, kind: str) -> list[SimpleNamespace]:
        return [
            SimpleNamespace(name=name, type=dtype, shape=shape)
            for name, dtype, shape in self._described[kind]
        ]


def _unpacked(described: Mapping[str, Any], contents: Iterator[bytes]) -> object:
    if "type" in described:
        return type(str(described["type"]), (), {})()
    shape = tuple(map(int, described["shape"]))
    if "dtype" not in described:
        return np.empty(shape, object)
    dtype = np.dtype(str(described["dtype"]))
    content = next(contents)
    return (np.frombuffer(content, dtype) if content else np.empty(0, dtype)).reshape(shape)


def _stopping() -> NetworkRefused:
    return NetworkRefused("the service is stopping", reason=STOPPING, lasting=False)


def _machine(why: str) -> NetworkRefused:
    return NetworkRefused(
        f"the network could not be inspected, and is not loaded before it is: {why}",
        reason="machine",
        lasting=False,
    )
