"""Limits of a process that opens networks from outside: memory, time of the processor, files.

Memory is the address space that a network adds to the process, on Linux; macOS and Windows do not
enforce such a limit. What the machine has free is the other bound: without it the kernel would end
some process, and not always the right one.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Final

from trueprob_service.inference.network.cores import control_groups, read_text

if sys.platform != "win32":
    import resource

__all__ = [
    "address_space",
    "available_memory",
    "become_expendable",
    "bytes_held",
    "default_memory",
    "in_words",
    "limited",
]

_GIB: Final = 1 << 30
# onnxruntime lays weights out anew for its kernels, and folds constants: copies of some of them.
_TIMES_FILES: Final = 4
# Stacks and heaps of threads take address space that is never used: it may exceed what is free.
_UNUSED: Final = 1 << 29
_UNLIMITED: Final = 1 << 60  # version 1 of control groups says about 2^63 for no limit


def default_memory(files: Iterable[Path]) -> int:
    """Bytes that a network with these files may need: 4 times what they hold, and 2 GiB."""
    return _TIMES_FILES * sum(map(bytes_held, files)) + 2 * _GIB


def bytes_held(file: Path) -> int:
    """Bytes of a file without its holes, which take no space and declare as much as one likes."""
    with file.open("rb") as stream:
        descriptor, size = stream.fileno(), os.fstat(stream.fileno()).st_size
        if not hasattr(os, "SEEK_HOLE"):  # Windows
            return size
        held = position = 0
        while position < size:
            try:
                start = os.lseek(descriptor, position, os.SEEK_DATA)
            except OSError:  # only a hole is left
                break
            position = os.lseek(descriptor, start, os.SEEK_HOLE)
            held += position - start
        return held


def available_memory(
    groups: Path = Path("/sys/fs/cgroup"),
    membership: Path = Path("/proc/self/cgroup"),
    machine: Path = Path("/proc/meminfo"),
) -> int | None:
    """Bytes that a further process may use, in its container too; None where nothing says it."""
    lines = read_text(machine).splitlines()
    free = [int(line.split()[1]) * 1024 for line in lines if line.startswith("MemAvailable:")]
    for folder in control_groups(groups, membership, "memory"):
        for limit, usage, cache in (
            ("memory.max", "memory.current", "inactive_file"),
            ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file"),
        ):
            most, used = (read_text(folder / name).strip() for name in (limit, usage))
            if most.isdigit() and used.isdigit() and int(most) < _UNLIMITED:
                # Files in memory are dropped when memory is short.
                statistics = read_text(folder / "memory.stat").splitlines()
                pairs = (line.split() for line in statistics)
                dropped = sum(int(value) for name, value in pairs if name == cache)
                free.append(max(0, int(most) - int(used) + dropped))
    return min(free) + _UNUSED if free else None


def become_expendable() -> None:
    """Let this process write no file, leave no core dump, and be the first to end without memory.

    Pipes may be written.
    """
    with suppress(OSError):
        Path("/proc/self/oom_score_adj").write_text("1000")
    if sys.platform != "win32":
        for what in (resource.RLIMIT_FSIZE, resource.RLIMIT_CORE):
            with suppress(OSError, ValueError):
                resource.setrlimit(what, (0, 0))


def address_space() -> int:
    """Bytes of address space that this process has; 0 where nothing says it."""
    pages = read_text(Path("/proc/self/statm")).split()
    return int(pages[0]) * os.sysconf("SC_PAGE_SIZE") if pages else 0


@contextmanager
def limited(memory: int, cpu_seconds: float) -> Iterator[None]:
    """Context in which this process has so much address space and time of the processor.

    Beyond the space allocations fail; beyond the time the kernel ends the process (SIGXCPU), so
    that it does not run for ever if its parent was killed.
    """
    if sys.platform == "win32":
        yield
        return
    usage = resource.getrusage(resource.RUSAGE_SELF)
    used = usage.ru_utime + usage.ru_stime
    before = [
        (what, resource.getrlimit(what), wanted)
        for what, wanted in (
            (resource.RLIMIT_AS, memory),
            (resource.RLIMIT_CPU, int(used + cpu_seconds) + 1),
        )
    ]
    try:
        for what, (soft, hard), wanted in before:
            tightest = min([wanted, *(each for each in (soft, hard) if each >= 0)])
            with suppress(OSError, ValueError):  # macOS
                resource.setrlimit(what, (tightest, hard))
        yield
    finally:
        for what, limits, _ in before:
            with suppress(OSError, ValueError):
                resource.setrlimit(what, limits)


def in_words(n: int) -> str:
    """A number of bytes for a sentence."""
    return f"{n / _GIB:.1f} GiB" if n >= _GIB else f"{n / (1 << 20):.0f} MiB"
