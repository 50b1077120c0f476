"""onnxruntime alone, in its own process: the cost of the network without a server.

Reads a job as JSON on standard input, prints its outcome as one line of JSON.
"""

from __future__ import annotations

import json
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
from numpy.typing import NDArray

from benchmarks.serving.pictures import decode


def session_of(job: dict[str, Any]) -> onnxruntime.InferenceSession:
    """A session that runs on the requested provider."""
    if job["provider"] != "CPUExecutionProvider":
        onnxruntime.preload_dlls()
    session = onnxruntime.InferenceSession(job["model"], providers=[job["provider"]])
    if session.get_providers()[0] != job["provider"]:
        raise RuntimeError(f"onnxruntime took {session.get_providers()[0]}")
    return session


def runner(
    session: onnxruntime.InferenceSession, images: NDArray[np.uint8], *, bound: bool
) -> Callable[[], object]:
    """One run of a batch; if bound, it keeps its output buffer, as in onnxruntime's benchmarks."""
    name, output = session.get_inputs()[0].name, session.get_outputs()[0].name
    if not bound:
        return lambda: session.run([output], {name: images})
    binding = session.io_binding()

    def run() -> object:
        binding.bind_cpu_input(name, images)
        binding.bind_output(output)
        session.run_with_iobinding(binding)
        return binding.copy_outputs_to_cpu()

    return run


def rate(run: Callable[[], object], rows: int, seconds: float) -> float:
    """Rows per second, after one run to warm up."""
    run()
    start = time.perf_counter()
    done = 0
    while time.perf_counter() - start < seconds:
        run()
        done += rows
    return done / (time.perf_counter() - start)


def main() -> None:
    """Rates of the batch sizes, or the latency of one picture from its bytes."""
    job = json.load(sys.stdin)
    session = session_of(job)
    picture = Path(job["picture"]).read_bytes()
    pixels = decode(picture)
    bound = job["provider"] != "CPUExecutionProvider"
    outcome: dict[str, Any] = {"provider": session.get_providers()[0]}
    if job["batches"]:
        outcome["rates"] = {
            size: rate(
                runner(session, np.stack([pixels] * size), bound=bound), size, job["seconds"]
            )
            for size in job["batches"]
        }
    else:
        taken = []
        name = session.get_inputs()[0].name
        end = time.perf_counter() + job["seconds"]
        while time.perf_counter() < end or len(taken) < 5:
            start = time.perf_counter()
            session.run(None, {name: decode(picture)[None]})
            taken.append(time.perf_counter() - start)
        outcome["p50"] = statistics.median(taken[1:])
    print(json.dumps(outcome))


if __name__ == "__main__":
    main()
