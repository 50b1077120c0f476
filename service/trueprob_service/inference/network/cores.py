"""The number of cores that this process may use; in a container, fewer than the machine has.

`control_groups` finds the folders that say so, for other limits too.
"""

from __future__ import annotations

import math
import os
from pathlib import Path

__all__ = ["control_groups", "read_text", "usable_cores"]


def usable_cores(
    cgroups: Path = Path("/sys/fs/cgroup"), membership: Path = Path("/proc/self/cgroup")
) -> int:
    """Cores of the affinity mask, or of the tightest CPU quota if that is less; at least 1.

    Control groups v2: ``cpu.max`` of the process's group and of its parents. v1:
    ``cpu.cfs_quota_us`` at the root.
    """
    affinity = getattr(os, "sched_getaffinity", None)  # not on macOS
    cores = len(affinity(0)) if affinity is not None else os.cpu_count() or 1
    groups = control_groups(cgroups, membership, "cpu")
    quotas = [quota for folder in groups if (quota := _quota(folder))]
    return max(1, min([cores, *(math.ceil(quota) for quota in quotas)]))


def control_groups(cgroups: Path, membership: Path, controller: str) -> list[Path]:
    """Folders of the process's control group and its parents, and of a controller in version 1."""
    own = ""
    for line in read_text(membership).splitlines():
        if line.startswith("0::"):
            own = line.removeprefix("0::").strip().lstrip("/")
    # Inside a container the path is the host's and may not exist under the mount.
    above = [cgroups / part for part in (Path(own), *Path(own).parents)]
    return [*above, cgroups / controller]


def _quota(folder: Path) -> float | None:
    parts = read_text(folder / "cpu.max").split()
    if len(parts) != 2:
        parts = [read_text(folder / f"cpu.cfs_{name}_us").strip() for name in ("quota", "period")]
    quota, period = parts
    if not (quota.isdigit() and period.isdigit() and int(period) > 0):
        return None  # "max" in version 2, -1 in version 1: no limit
    return int(quota) / int(period)


def read_text(path: Path) -> str:
    """The text of a file of the kernel; empty if there is none."""
    try:
        return path.read_text("ascii")
    except (OSError, UnicodeDecodeError):
        return ""
