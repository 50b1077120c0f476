"""`trueprob`: fit, apply, evaluate and draw calibrators on files.

Exit codes: 0 fine, 1 the answer is no, 2 bad input (one line on standard error).
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
    """The arguments themselves are wrong."""


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        raise UsageError(f"{message} (see {self.prog} --help)")


def parser() -> argparse.ArgumentParser:
    """The parser of all commands."""
    top = _Parser(prog="trueprob", description="Calibrated probabilities for classifiers.")
    commands = top.add_subparsers(dest="command", required=True, metavar="COMMAND")
    for command in (fit, apply, evaluate, plot, inspect, collect, export_onnx):
        command.add_parser(commands)
    return top


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command.

    Returns: the exit code.
    """
    try:
        arguments = parser().parse_args(argv)
        code: int = arguments.run(arguments)
    except (UsageError, UnusableFile, TrueprobError) as error:
        sys.stderr.write(f"trueprob: error: {' '.join(str(error).split())}\n")
        return 2
    return code


if __name__ == "__main__":
    sys.exit(main())
