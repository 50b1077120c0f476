"""The command `trueprob`: fits, applies, evaluates and plots calibrators on files.

Exit codes: 0 success; 1 a check failed (a changed file, a fit that was not admitted); 2 bad
input, described in one line on standard error.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from typing import NoReturn

from trueprob.cli import apply, collect, evaluate, export_onnx, fit, inspect, plot
from trueprob.cli.files import UnusableFile
from trueprob.errors import TrueprobError

__all__ = ["main"]


class UsageError(Exception):
    """The command line cannot be parsed."""


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        raise UsageError(f"{message} (see {self.prog} --help)")


def parser() -> argparse.ArgumentParser:
    """Build the parser of all commands."""
    top = _Parser(
        prog="trueprob",
        description="Calibrated probabilities for classifiers: fit a calibrator on held-out rows, "
        "apply it, and measure what it improves.",
        epilog="'trueprob COMMAND --help' describes a command. Exit codes: 0 success; 1 a check "
        "failed (a changed file, a fit that was not admitted); 2 bad input.",
    )
    commands = top.add_subparsers(dest="command", required=True, metavar="COMMAND")
    for command in (fit, apply, evaluate, plot, inspect, collect, export_onnx):
        command.add_parser(commands)
    return top


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command and return the exit code."""
    try:
        arguments = parser().parse_args(argv)
        code: int = arguments.run(arguments)
    except (UsageError, UnusableFile, TrueprobError) as error:
        sys.stderr.write(f"trueprob: error: {' '.join(str(error).split())}\n")
        return 2
    return code


if __name__ == "__main__":
    sys.exit(main())
