"""An environment for each compared server, pinned by its requirements file.

python -m benchmarks.serving.environments [--folder FOLDER]

A server that does not install within the limit is named with the reason in the tables.
"""

from __future__ import annotations

import argparse
import hashlib
import os
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

from benchmarks.calibration.sets import ROOT

LIMIT = 600  # seconds for one environment
HERE = Path(__file__).parent
NAMES = ("mlserver", "litserve", "bentoml", "kserve", "ray")


def default_folder() -> Path:
    """`$SERVING_ENVIRONMENTS`, else an ignored folder of the repository."""
    return Path(os.environ.get("SERVING_ENVIRONMENTS", ROOT / ".venv-serving"))


@dataclass(frozen=True)
class Environment:
    """One server's interpreter, or the reason why there is none."""

    name: str
    folder: Path

    @property
    def python(self) -> Path:
        return self.folder / self.name / "bin" / "python"

    @property
    def requirements(self) -> Path:
        return HERE / f"requirements-{self.name}.txt"

    @property
    def stamp(self) -> Path:
        """Digest of the requirements that were installed."""
        return self.folder / f"{self.name}.installed"

    @property
    def failure(self) -> Path:
        return self.folder / f"{self.name}.failed"

    @property
    def missing(self) -> str | None:
        """Why it cannot be used; None when it can."""
        if self.stamp.is_file() and self.stamp.read_text() == self._digest():
            return None
        if self.failure.is_file():
            return self.failure.read_text("utf-8").strip()
        return "not installed: make bench-serving installs it"

    def versions(self) -> str:
        """The pinned packages as they are installed."""
        names = [line.partition("==")[0].partition("[")[0] for line in self._pins()]
        code = (
            "import sys; from importlib.metadata import version\n"
            "print(', '.join(f'{n} {version(n)}' for n in sys.argv[1:]))"
        )
        command = [str(self.python), "-c", code, *names]
        return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()

    def _pins(self) -> list[str]:
        lines = self.requirements.read_text("utf-8").splitlines()
        return [line for line in lines if line and not line.startswith("#")]

    def _digest(self) -> str:
        return hashlib.sha256(self.requirements.read_bytes()).hexdigest()

    def install(self) -> None:
        """Make it unless it is there; a failure is written down, not raised."""
        if self.missing is None:
            return
        self.folder.mkdir(parents=True, exist_ok=True)
        self.failure.unlink(missing_ok=True)
        digest, start = self._digest(), time.perf_counter()
        print(f"{self.name}: installing", flush=True)
        pip = [str(self.python), "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
        try:
            for command in (
                [sys.executable, "-m", "venv", "--clear", str(self.python.parents[1])],
                [*pip, "-r", str(self.requirements)],
            ):
                left = LIMIT - (time.perf_counter() - start)
                subprocess.run(command, check=True, capture_output=True, text=True, timeout=left)
        except subprocess.TimeoutExpired:
            self.failure.write_text(f"not installed within {LIMIT} s", "utf-8")
        except subprocess.CalledProcessError as error:
            said = [line for line in error.stderr.splitlines() if line.startswith("ERROR")]
            reason = (said or ["pip failed"])[-1].removeprefix("ERROR: ")[:200]
            self.failure.write_text(f"does not install: {reason}", "utf-8")
        else:
            self.stamp.write_text(digest)
        print(f"{self.name}: {self.missing or 'installed'}", flush=True)


def environments(folder: Path) -> dict[str, Environment]:
    """All environments by name, installed or not."""
    return {name: Environment(name, folder) for name in NAMES}


def main(arguments: list[str] | None = None) -> int:
    """Make the missing environments."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.serving.environments")
    parser.add_argument("--folder", type=Path, default=default_folder())
    options = parser.parse_args(arguments)
    for environment in environments(options.folder).values():
        environment.install()
    return 0


if __name__ == "__main__":
    sys.exit(main())
