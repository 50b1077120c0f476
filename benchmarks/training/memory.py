"""Peak memory of a step beyond that of an idle process, relative to plain SGD.

Each method has a process of its own. On the CPU the peak of the resident set is read, with tensors
given back to the system as they are freed; on a GPU the peak of allocated memory.
"""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
from pathlib import Path

from benchmarks.calibration.report import table
from benchmarks.calibration.sets import ROOT
from benchmarks.training.methods import METHODS, optimiser_of, stepping
from benchmarks.training.networks import NETWORKS, blocks, built

CHECKPOINTED = "SAM, checkpointed"


def resident(line: str) -> int:
    """Bytes of VmRSS or VmHWM in /proc/self/status."""
    status = Path("/proc/self/status").read_text()
    return 1024 * int(status.split(line + ":")[1].split()[0])


def peak(network_name: str, method_name: str, *, small: bool) -> int:
    """Measure one method, in a process of its own."""
    import torch

    from trueprob_trainer.sharpness_aware import checkpointed

    torch.set_num_threads(1)
    torch.nn.functional.conv2d(torch.zeros(1, 3, 8, 8), torch.zeros(3, 3, 3, 3))  # loads oneDNN
    idle = resident("VmRSS")
    network, images, labels = built(network_name, small=small)
    method = next(m for m in METHODS if m.name == method_name.removesuffix(", checkpointed"))
    step = stepping(optimiser_of(method, network), network, images, labels)
    again = blocks(network) if method_name == CHECKPOINTED else []
    with checkpointed(again) if again else contextlib.nullcontext():
        step()
        if torch.cuda.is_available():
            torch.cuda.reset_peak_memory_stats()
        else:
            Path("/proc/self/clear_refs").write_text("5")  # the peak begins anew
        for _ in range(method.cycle):
            step()
    if torch.cuda.is_available():
        return torch.cuda.max_memory_allocated()
    return resident("VmHWM") - idle


def in_own_process(network: str, method: str, *, small: bool) -> int:
    code = "import sys; from benchmarks.training.memory import peak; "
    code += "print(peak(sys.argv[1], sys.argv[2], small=sys.argv[3] == '1'))"
    environment = {**os.environ, "MALLOC_MMAP_THRESHOLD_": "65536", "MALLOC_TRIM_THRESHOLD_": "0"}
    command = [sys.executable, "-c", code, network, method, str(int(small))]
    run = subprocess.run(
        command, cwd=ROOT, env=environment, check=True, capture_output=True, text=True
    )
    return int(run.stdout)


def memory_report(*, small: bool = False) -> str:
    """One table: megabytes of SGD, ratios of the others."""
    names = [method.name for method in METHODS] + [CHECKPOINTED]
    found = {
        network: {name: in_own_process(network, name, small=small) for name in names}
        for network in NETWORKS
    }
    body = []
    for name in names:
        row = [name]
        for network, peaks in found.items():
            ratio = peaks[name] / peaks["SGD"]
            row.append(f"{peaks[name] / 1e6:.0f} MB" if name == "SGD" else f"{ratio:.2f}")
            if name == CHECKPOINTED:
                row[-1] += f" ({peaks[name] / found[network]['SAM']:.2f} of SAM)"
        body.append(row)
    return table(["optimiser", *NETWORKS], body)
