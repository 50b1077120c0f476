"""A service of the demo's own, where none runs: free port, empty state, default settings."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from service.demo.errors import BadInput

__all__ = ["own_service"]

_LISTENS: Final = re.compile(r"Trueprob listens on (\S+) ")
_PATIENCE_SECONDS: Final = 30


@contextmanager
def own_service(models: Path) -> Iterator[str]:
    """Start one, yield its URL, stop it and remove its state.

    Parameters
    ----------
    models : Path
        The model repository.

    Raises
    ------
    BadInput
        It does not start.
    """
    with tempfile.TemporaryDirectory(prefix="trueprob-demo-") as folder:
        log = Path(folder) / "service.log"
        command = [
            sys.executable, "-m", "service", "serve", "--port", "0",
            "--state-dir", str(Path(folder) / "state"), "--model-repository", str(models),
        ]  # fmt: skip
        # Settings meant for another service (its keys, its database) are not this one's.
        environment = {k: v for k, v in os.environ.items() if not k.startswith("TRUEPROB_")}
        with log.open("w") as file:
            process = subprocess.Popen(  # noqa: S603  # our own interpreter, fixed arguments
                command, stdout=subprocess.PIPE, stderr=file, text=True, env=environment,
                start_new_session=True,  # Ctrl-C is the demo's to handle
            )  # fmt: skip
            try:
                yield _address(process, log)
            finally:
                _stop(process)


def _address(process: subprocess.Popen[str], log: Path) -> str:
    if process.stdout is None:
        raise AssertionError("its output is a pipe")
    match = _LISTENS.match(process.stdout.readline())
    if match is None:
        process.wait(_PATIENCE_SECONDS)
        last = (log.read_text().strip().splitlines() or ["it said nothing"])[-1]
        raise BadInput(f"the demo's own service did not start: {last}")
    return match[1]


def _stop(process: subprocess.Popen[str]) -> None:
    process.terminate()
    try:
        process.wait(_PATIENCE_SECONDS)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
    if process.stdout is not None:
        process.stdout.close()
