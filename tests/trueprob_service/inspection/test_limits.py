"""The limits of the child: what a network may need, and what the machine has."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from trueprob_service.inspection.limits import (
    available_memory,
    bytes_held,
    default_memory,
    in_words,
)

GIB = 1 << 30
RESERVED = 1 << 29  # address space that is never used


def test_holes_of_a_file_do_not_count(tmp_path: Path) -> None:
    full, sparse = tmp_path / "full", tmp_path / "sparse"
    full.write_bytes(b"x" * 100_000)
    with sparse.open("wb") as stream:
        stream.truncate(100 * GIB)
        stream.seek(50 * GIB)
        stream.write(b"x" * 8192)
    assert bytes_held(full) == 100_000
    assert 8192 <= bytes_held(sparse) <= 8192 + (1 << 16)
    assert default_memory([full]) == 4 * 100_000 + 2 * GIB
    assert default_memory([sparse, full]) < 4 * 200_000 + 2 * GIB
    (tmp_path / "empty").write_bytes(b"")
    assert default_memory([tmp_path / "empty"]) == 2 * GIB


@pytest.mark.parametrize(
    ("files", "free"),
    [
        ({}, 8 * GIB),
        ({"memory.max": "max", "memory.current": "5"}, 8 * GIB),
        (
            {"memory.max": f"{GIB}", "memory.current": f"{GIB // 2}", "memory.stat": "anon 7\n"},
            GIB // 2,
        ),
        (
            {
                "memory.max": f"{GIB}",
                "memory.current": f"{GIB}",
                "memory.stat": f"anon 7\ninactive_file {GIB // 4}\nslab 1\n",
            },
            GIB // 4,
        ),
        ({"memory.max": f"{GIB}", "memory.current": f"{2 * GIB}"}, 0),
        ({"memory.max": f"{64 * GIB}", "memory.current": "0"}, 8 * GIB),
        (
            {
                "memory/memory.limit_in_bytes": f"{GIB}",
                "memory/memory.usage_in_bytes": f"{GIB // 2}",
                "memory/memory.stat": f"total_inactive_file {GIB // 8}\n",
            },
            GIB // 2 + GIB // 8,
        ),
        (
            {
                "memory/memory.limit_in_bytes": "9223372036854771712",
                "memory/memory.usage_in_bytes": "1",
            },
            8 * GIB,
        ),
    ],
)
def test_the_tightest_of_machine_and_container_counts(
    tmp_path: Path, files: dict[str, str], free: int
) -> None:
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(text)
    (tmp_path / "membership").write_text("0::/\n")
    (tmp_path / "meminfo").write_text(
        f"MemTotal: 1 kB\nMemAvailable:   {8 * GIB // 1024} kB\nSwapFree: 1 kB\n"
    )
    found = available_memory(tmp_path, tmp_path / "membership", tmp_path / "meminfo")
    assert found == free + RESERVED


def test_where_nothing_says_what_is_free_it_is_not_known(tmp_path: Path) -> None:
    assert available_memory(tmp_path, tmp_path / "none", tmp_path / "none") is None


@pytest.mark.skipif(sys.platform != "linux", reason="limits of Linux")
def test_the_limits_hold_inside_and_end_with_the_context(tmp_path: Path) -> None:
    code = f"""
from trueprob_service.inspection.limits import address_space, become_expendable, limited
become_expendable()
base = address_space()
with limited(base + (64 << 20), 10):
    bytearray(32 << 20)
    try:
        bytearray(128 << 20)
    except MemoryError:
        print("memory")
bytearray(128 << 20)
try:
    with open({str(tmp_path / "file")!r}, "wb", buffering=0) as stream:
        stream.write(b"x")
except OSError as error:
    print(error.errno)
print(open("/proc/self/oom_score_adj").read().strip(), flush=True)
with limited(1 << 40, 0.0):
    while True:
        pass
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert done.stdout.split() == ["memory", "27", "1000"]
    assert done.returncode == -24  # SIGXCPU


def test_sizes_in_words() -> None:
    assert [in_words(n) for n in (1 << 28, 3 << 29, 10 * GIB)] == ["256 MiB", "1.5 GiB", "10.0 GiB"]
