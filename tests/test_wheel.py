"""The wheel, beside other packages and folders that are called `service` and `trainer`."""

from __future__ import annotations

import os
import subprocess
import sys
import zipfile
from importlib import metadata
from pathlib import Path

import pytest

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[1]
PACKAGES = {"trueprob", "trueprob_service", "trueprob_trainer"}
COMMANDS = {entry.name: entry.module for entry in metadata.distribution("trueprob").entry_points}


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> zipfile.ZipFile:
    folder = tmp_path_factory.mktemp("dist")
    command = [sys.executable, "-m", "hatchling", "build", "--target", "wheel"]
    subprocess.run(
        [*command, "--directory", str(folder)], cwd=ROOT, check=True, capture_output=True
    )
    return zipfile.ZipFile(next(folder.glob("*.whl")))


@pytest.fixture(scope="module")
def crowded(wheel: zipfile.ZipFile, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """Where packages are installed, and a working folder; each has a `service` and a `trainer`."""
    site, work = tmp_path_factory.mktemp("site"), tmp_path_factory.mktemp("work")
    wheel.extractall(site)
    for name in ("service", "trainer"):
        (site / name).mkdir()
        (site / name / "__init__.py").write_text("raise ImportError('another project')\n")
    (work / "trainer.py").write_text("raise ImportError('a file of the user')\n")
    (work / "service").mkdir()
    (work / "service" / "__init__.py").write_text("raise ImportError('a folder of the user')\n")
    return site, work


def run(crowded: tuple[Path, Path], *arguments: str) -> str:
    site, work = crowded
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(work), str(site)])}
    return subprocess.run(
        [sys.executable, *arguments],
        cwd=work,
        env=environment,
        check=True,
        capture_output=True,
        text=True,
    ).stdout


def test_the_wheel_holds_three_packages_and_nothing_else_at_its_top(wheel: zipfile.ZipFile) -> None:
    tops = {name.partition("/")[0] for name in wheel.namelist()}
    assert {top for top in tops if not top.endswith(".dist-info")} == PACKAGES
    names = set(wheel.namelist())
    assert {f"{package}/py.typed" for package in PACKAGES} <= names
    assert "trueprob_service/web/index.html" in names
    assert "trueprob/models/digits/1/manifest.json" in names
    assert not any("monitoring" in name for name in names)


@pytest.mark.parametrize("command", COMMANDS)
def test_a_command_runs_beside_packages_of_the_old_names(
    crowded: tuple[Path, Path], command: str
) -> None:
    """As the console script does it, and with `python -m`: the same modules."""
    module = COMMANDS[command]
    script = (
        f"import sys; from {module} import main; print(sys.modules['{module}'].__file__); "
        f"sys.argv = ['{command}', '--help']; main()"
    )
    where, *shown = run(crowded, "-c", script).splitlines()
    assert Path(where).is_relative_to(crowded[0])
    assert f"usage: {command}" in "\n".join(shown)
    assert f"usage: {command}" in run(crowded, "-m", module.removesuffix(".__main__"), "--help")
