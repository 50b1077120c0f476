"""Markdown tables, printed and written between markers."""

from __future__ import annotations

import os
import platform
import re
from collections.abc import Iterable, Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

PACKAGES = (
    "numpy",
    "scipy",
    "torch",
    "scikit-learn",
    "netcal",
    "probmetrics",
    "river",
)


def table(header: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A markdown table; the first column is text, the rest are numbers."""
    lines = ["| " + " | ".join(header) + " |", "|---|" + "---:|" * (len(header) - 1)]
    lines += ["| " + " | ".join(row) + " |" for row in rows]
    return "\n".join(lines)


def percent(value: float, digits: int = 2) -> str:
    return "–" if value != value else f"{100 * value:.{digits}f}"


def nats(value: float, digits: int = 4) -> str:
    return "–" if value != value else f"{value:.{digits}f}"


def machine(names: Sequence[str] = PACKAGES) -> str:
    """The machine: cores, Python and the relevant packages."""
    packages = []
    for name in names:
        try:
            packages.append(f"{name} {version(name)}")
        except PackageNotFoundError:
            packages.append(f"{name} not installed")
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return f"{cores} cores, Python {platform.python_version()}, {', '.join(packages)}"


def write_section(path: Path, section: str, text: str, *, benchmark: str = "calibration") -> None:
    """Replace what is between `<!-- BENCHMARK:SECTION:begin -->` and its end.

    Raises
    ------
    ValueError
        The file has no such markers.
    """
    begin, end = (f"<!-- {benchmark}:{section}:{edge} -->" for edge in ("begin", "end"))
    document = path.read_text("utf-8")
    pattern = re.compile(f"{re.escape(begin)}.*?{re.escape(end)}", re.S)
    if not pattern.search(document):
        raise ValueError(f"{path.name} has no markers of section {section}")
    replaced = pattern.sub(lambda _: f"{begin}\n{text.strip()}\n{end}", document)
    path.write_text(replaced, "utf-8")
