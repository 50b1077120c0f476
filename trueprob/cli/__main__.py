"""The command `trueprob`: fits, applies, evaluates and plots calibrators on files.

Exit codes: 0 success; 1 a check failed (a changed file, a fit that was not admitted, adapting that
is not advised); 2 bad input, described in one line on standard error.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from typing import Any, NoReturn

from trueprob.cli import adapt, apply, collect, evaluate, export_onnx, fit, inspect, labels, plot
from trueprob.cli.files import UnusableFile, join_negative
from trueprob.errors import TrueprobError

__all__ = ["main"]

COMMANDS = {
    "fit": fit,
    "apply": apply,
    "evaluate": evaluate,
    "adapt": adapt,
    "plot": plot,
    "inspect": inspect,
    "collect": collect,
    "labels": labels,
    "export-onnx": export_onnx,
}


class UsageError(Exception):
    """The command line cannot be parsed."""


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        raise UsageError(f"{message} (see {self.prog} --help)")

    def parse_args(self, args: Any = None, namespace: Any = None) -> Any:
        """Parse the words; the file of labels may stand behind an option."""
        found, left = self.parse_known_args(args, namespace)
        # argparse has given up an optional argument when it meets an option before it.
        if len(left) == 1 and left[0][:1] != "-" and getattr(found, "labels_npy", "") is None:
            found.labels_npy = left.pop()
        if left:
            self.error(f"unrecognized arguments: {' '.join(left)}")
        return found


def parser(name: str = "") -> argparse.ArgumentParser:
    """Build the parser of one command; of all commands if there is none of that name."""
    top = _Parser(
        prog="trueprob",
        description="Calibrated probabilities for classifiers: fit a calibrator on held-out rows, "
        "apply it, and measure what it improves.",
        epilog="'trueprob COMMAND --help' describes a command. Exit codes: 0 success; 1 a check "
        "failed (a changed file, a fit that was not admitted, adapting that is not advised); "
        "2 bad input.",
    )
    commands = top.add_subparsers(dest="command", required=True, metavar="COMMAND")
    for command in [COMMANDS[name]] if name in COMMANDS else COMMANDS.values():
        command.add_parser(commands)
    return top


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command and return the exit code."""
    words = join_negative(sys.argv[1:] if argv is None else argv)
    try:
        arguments = parser(*words[:1]).parse_args(words)
        code: int = arguments.run(arguments)
    except (UsageError, UnusableFile, TrueprobError) as error:
        sys.stderr.write(f"trueprob: error: {' '.join(str(error).split())}\n")
        return 2
    return code


if __name__ == "__main__":
    sys.exit(main())
