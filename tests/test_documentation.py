"""What the README and the pages under docs/ show runs, and prints what is shown."""

import functools
import json
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from trueprob_service.server import quickstart

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text("utf-8")
QUICKSTART = (ROOT / "docs/quickstart.md").read_text("utf-8")
DOCUMENTS = [*sorted(ROOT.glob("*.md")), *sorted((ROOT / "docs").glob("*.md"))]
PROGRAMS = {
    "trueprob": "trueprob",
    "trueprob-service": "trueprob_service",
    "trueprob-trainer": "trueprob_trainer",
}


def blocks(language: str) -> list[object]:
    """Every fenced block of a language in all documents; `text` or no language is not run."""
    return [
        pytest.param(block, id=f"{document.name}-{number}")
        for document in DOCUMENTS
        for number, block in enumerate(
            re.findall(rf"^```{language}\n(.*?)^```", document.read_text("utf-8"), re.M | re.S)
        )
    ]


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda document: document.name)
def test_every_block_has_a_language_that_a_test_knows(document: Path) -> None:
    """The queries in promql are run by tests/monitoring."""
    fences = re.findall(r"^```(.*)$", document.read_text("utf-8"), re.M)
    languages, ends = fences[::2], fences[1::2]
    assert set(ends) <= {""}
    assert set(languages) <= {"python", "sh", "json", "yaml", "promql", "text", ""}


@pytest.mark.slow
@pytest.mark.parametrize("block", blocks("python"))
def test_a_python_block_runs_and_prints_what_its_comment_says(block: str, tmp_path: Path) -> None:
    # Not in the environment of the tests; their warnings are theirs.
    others = [name for name in ("lightning", "accelerate", "transformers") if name in block]
    for name in others:
        pytest.importorskip(name)
    shutil.copytree(ROOT / "examples", tmp_path / "examples")
    run = subprocess.run(
        [sys.executable, *([] if others else ["-W", "error"]), "-c", block],
        cwd=tmp_path, check=True, timeout=120, capture_output=True, text=True,
    )  # fmt: skip
    for shown in re.findall(r"^print\(.*\)  # (.*)$", block, re.M):
        assert shown in run.stdout.splitlines()


@pytest.mark.parametrize("block", blocks("json"))
def test_a_json_block_parses(block: str) -> None:
    json.loads(block)


@pytest.mark.parametrize("block", blocks("yaml"))
def test_a_yaml_block_parses(block: str) -> None:
    assert yaml.safe_load(block)


@functools.cache
def help_of(package: str, command: str) -> str:
    """What a command prints with `--help`."""
    arguments = [sys.executable, "-m", package, *command.split(), "--help"]
    run = subprocess.run(
        arguments, cwd=ROOT, check=True, timeout=120, capture_output=True, text=True
    )
    return run.stdout


@pytest.mark.slow
@pytest.mark.parametrize("block", blocks("sh"))
def test_a_shell_block_has_known_commands_targets_and_flags(block: str) -> None:
    subprocess.run(["bash", "-n"], input=block, check=True, text=True)
    targets = re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text("utf-8"), re.M)
    for line in block.replace("\\\n", " ").splitlines():
        words = line.partition(" #")[0].replace("python -m trueprob_", "trueprob-").split()
        if words[:1] == ["make"]:
            assert words[1] in targets
        if not words or words[0] not in PROGRAMS:
            continue
        package = PROGRAMS[words[0]]
        command = words[1] if len(words) > 1 and not words[1].startswith("-") else ""
        if command in ("audit", "keys"):
            command += f" {words[2]}"
        known = help_of(package, command or ("serve" if package == "trueprob_service" else ""))
        for flag in re.findall(r"(?<!\S)--[a-z][a-z0-9-]*", " ".join(words)):
            assert re.search(rf"{flag}\b", known), f"{flag} is no option of {package} {command}"


@pytest.mark.slow
@pytest.mark.parametrize("program", PROGRAMS)
def test_the_page_of_commands_lists_every_command(program: str) -> None:
    listed = re.findall(r"^ {4}([a-z]+(?:-[a-z]+)*)(?: |$)", help_of(PROGRAMS[program], ""), re.M)
    assert len(listed) >= 5
    page = (ROOT / "docs/cli.md").read_text("utf-8")
    rows = " ".join(re.findall(rf"^\| `{program} .*$", page, re.M))
    for command in listed:
        assert re.search(rf"\b{command}\b", rows), command


# The id is a digest of every bit of the fit, so it is the machine's.
ID = re.compile(r"smart-[0-9a-f]{12}")


@pytest.fixture(scope="module")
def told(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, str]]:
    """The folder in which the README's commands ran, and what each printed."""
    folder = tmp_path_factory.mktemp("readme")
    (folder / "examples").symlink_to(ROOT / "examples")
    lines = re.findall(r"^trueprob .*$", README, re.M)
    assert [line.split()[1] for line in lines] == ["fit", "evaluate", "apply"]
    return folder, {line: command(line, folder).stdout for line in lines}


def command(line: str, folder: Path) -> subprocess.CompletedProcess[str]:
    """Run a shown command of `trueprob`."""
    return subprocess.run(
        [sys.executable, "-m", *shlex.split(line)],
        cwd=folder, check=True, timeout=60, capture_output=True, text=True,
    )  # fmt: skip


def words_of(text: str) -> list[list[str]]:
    """Words of each line, without ids."""
    return [ID.sub("ID", line).split() for line in text.splitlines()]


def test_the_commands_of_the_readme_run_and_tell_what_is_shown(
    told: tuple[Path, dict[str, str]],
) -> None:
    folder, printed = told
    assert (folder / "probabilities.npy").is_file()
    shown = QUICKSTART.split("$ trueprob fit examples")[1].split("```")[0]
    for line in printed:
        assert line in QUICKSTART
    evaluated = printed[next(line for line in printed if "evaluate" in line)]
    rows = words_of(shown)[2:]
    assert len(rows) == 7
    for row in rows:
        assert row in words_of(evaluated), row
    cells = {
        " ".join(row[:-4]): (float(row[-4]), float(row[-2]))
        for row in rows
        if row[-1] in ("%", "nats")
    }
    (ece, ece_after), (nll, nll_after) = cells["ECE"], cells["NLL"]
    assert ece_after < ece
    assert nll_after < nll
    assert f"# ECE {ece:.1f}% -> {ece_after:.1f}%" in README
    assert f"# NLL {nll:.3f} -> {nll_after:.3f}" in README


def test_other_conditions_are_told_as_shown(told: tuple[Path, dict[str, str]]) -> None:
    line = re.search(r"^\$ (trueprob evaluate examples/digits_drifted.*)$", QUICKSTART, re.M)
    assert line is not None
    run = command(line[1], told[0])
    shown = QUICKSTART.split(line[0])[1].split("```")[0].strip()
    for row in words_of(shown):
        assert row in words_of(run.stdout + run.stderr), row
    strict = [sys.executable, "-m", *line[1].split(), "--strict"]
    assert subprocess.run(strict, cwd=told[0], capture_output=True, timeout=60).returncode == 1


def test_the_curl_lines_are_those_that_the_service_prints() -> None:
    printed = quickstart("http://127.0.0.1:8000", Path("examples"))
    lines = [line.strip() for line in printed.splitlines() if line.startswith("  curl")]
    assert len(lines) == 3
    for line in lines:
        assert line in QUICKSTART
    assert lines[0] in README


def test_the_shown_registration_runs(tmp_path: Path) -> None:
    line = next(
        line for line in QUICKSTART.splitlines() if line.startswith("trueprob-service regis")
    )
    arguments = [*shlex.split(line)[1:], "--models", str(tmp_path)]
    subprocess.run(
        [sys.executable, "-m", "trueprob_service", *arguments], cwd=ROOT, check=True, timeout=60
    )
    assert (tmp_path / "my-digits/1/calibrator.json").is_file()


def test_the_shown_diagram_is_what_its_command_draws(told: tuple[Path, dict[str, str]]) -> None:
    (line,) = re.findall(r"^trueprob plot examples.*$", QUICKSTART, re.M)
    command(line, told[0])
    number = re.compile(r"\d+\.\d+|\d+")
    drawn, shown = (
        ID.sub("ID", path.read_text("utf-8"))
        for path in (told[0] / "reliability.svg", ROOT / "docs/images/reliability.svg")
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


def glossary_terms() -> list[str]:
    """The terms in bold."""
    text = (ROOT / "docs/glossary.md").read_text("utf-8")
    return re.findall(r"\*\*(.+?)\*\*", text)


def test_the_glossary_has_each_term_once() -> None:
    terms = glossary_terms()
    assert len(terms) > 40
    assert len(set(terms)) == len(terms)


@pytest.mark.parametrize("term", glossary_terms())
def test_a_term_of_the_glossary_is_used(term: str) -> None:
    """In a document or in the source, with spaces, hyphens or underscores between its words."""
    pages = [page for page in DOCUMENTS if page.name != "glossary.md"]
    sources = [path for part in ("trueprob", "service", "trainer") for path in
               (ROOT / part).rglob("*.py")]  # fmt: skip
    pattern = re.compile(r"[\s_-]+".join(map(re.escape, term.split())), re.I)
    assert any(pattern.search(path.read_text("utf-8")) for path in [*pages, *sources])


@pytest.mark.parametrize("page", ["CONTRIBUTING.md", "docs/architecture.md"])
def test_every_file_that_a_page_for_developers_names_exists(page: str) -> None:
    names = re.findall(r"`([\w/.*-]+\.(?:py|yml|md|txt))`", (ROOT / page).read_text("utf-8"))
    folders = [
        "",
        "service",
        "service/trueprob_service",
        "service/trueprob_service/control",
        "service/trueprob_service/inference",
        "trueprob/client",
    ]
    assert names
    for name in names:
        if "NAME" not in name:
            assert any(list((ROOT / folder).glob(name)) for folder in folders), name
