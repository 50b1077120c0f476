"""What the README shows really runs, and what it prints is what is printed."""

import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from service.server import quickstart

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text("utf-8")
DOCUMENTS = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]


@pytest.mark.parametrize("block", re.findall(r"^```python\n(.*?)^```", README, re.M | re.S))
def test_a_python_block_runs(block: str, tmp_path: Path) -> None:
    subprocess.run(
        [sys.executable, "-W", "error", "-c", block], cwd=tmp_path, check=True, timeout=120
    )


def test_the_curl_lines_are_those_that_the_service_prints() -> None:
    printed = quickstart("http://127.0.0.1:8000", Path("examples"))
    lines = [line.strip() for line in printed.splitlines() if line.startswith("  curl")]
    assert len(lines) == 3
    for line in lines:
        assert line in README


def test_the_shown_fit_is_what_the_command_prints(tmp_path: Path) -> None:
    shown = README.split("$ trueprob fit examples/digits_calibration.npz")[1].split("```")[0]
    command = [
        sys.executable,
        "-m",
        "trueprob",
        "fit",
        str(ROOT / "examples/digits_calibration.npz"),
    ]
    printed = subprocess.run(
        [*command, "-o", str(tmp_path / "calibrator.json")],
        capture_output=True, text=True, check=True, timeout=60,
    ).stdout  # fmt: skip
    # The id is a digest of every bit of the fit, so it and the seconds are the machine's.
    varying = re.compile(r"\d+\.\d+ s,|smart-[0-9a-f]{12}")
    printed_lines = [varying.sub("", line).split() for line in printed.splitlines()]
    for line in shown.splitlines()[1:]:
        assert varying.sub("", line).split() in [*printed_lines, []], line


def test_the_shown_registration_runs(tmp_path: Path) -> None:
    line = next(line for line in README.splitlines() if line.startswith("trueprob-service regis"))
    arguments = [*shlex.split(line)[1:], "--models", str(tmp_path)]
    subprocess.run([sys.executable, "-m", "service", *arguments], cwd=ROOT, check=True, timeout=60)
    assert (tmp_path / "my-digits/1/calibrator.json").is_file()


def test_the_shown_diagram_is_what_its_command_draws(tmp_path: Path) -> None:
    line = next(line for line in README.splitlines() if line.startswith("trueprob plot examples"))
    arguments = shlex.split(line)[1:]
    arguments[-1] = str(tmp_path / "drawn.svg")
    subprocess.run([sys.executable, "-m", "trueprob", *arguments], cwd=ROOT, check=True, timeout=60)
    number = re.compile(r"\d+\.\d+|\d+")
    drawn, shown = (
        path.read_text("utf-8")
        for path in (tmp_path / "drawn.svg", ROOT / "docs/images/reliability.svg")
    )
    assert number.sub("", drawn) == number.sub("", shown)
    # The last digit of a coordinate is the machine's.
    values = [[float(text) for text in number.findall(picture)] for picture in (drawn, shown)]
    assert values[0] == pytest.approx(values[1], abs=0.02)


def anchors(document: Path) -> set[str]:
    """Anchors of a document's headings, as GitHub makes them."""
    text = re.sub(r"^```.*?^```", "", document.read_text("utf-8"), flags=re.M | re.S)
    headings = re.findall(r"^#+ (.+)$", text, flags=re.M)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda document: document.name)
def test_every_relative_link_leads_somewhere(document: Path) -> None:
    for target in re.findall(r"\]\(([^)\s]+)\)", document.read_text("utf-8")):
        if target.startswith("https://"):
            continue
        file, _, anchor = target.partition("#")
        linked = document.parent / file if file else document
        assert linked.exists(), target
        assert not anchor or anchor in anchors(linked), target
