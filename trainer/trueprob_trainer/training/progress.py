"""How far a long piece of work has come: one moving line on a terminal, plain lines elsewhere."""

from dataclasses import dataclass
from typing import TextIO


@dataclass(frozen=True)
class Progress:
    """Writes progress to a stream."""

    # a terminal gets one line that is rewritten, anything else about ten lines in all
    stream: TextIO

    def __call__(self, done: int, total: int, text: str) -> None:
        """Say that ``done`` of ``total`` parts are finished."""
        line = f"{done:>{len(str(total))}}/{total}  {text}"
        if self.stream.isatty():
            filled = 24 * done // total
            self.stream.write(f"\r[{'=' * filled}{' ' * (24 - filled)}] {line}\033[K")
            if done == total:
                self.stream.write("\n")
            self.stream.flush()
        elif done == total or done % max(1, total // 10) == 0:
            self.stream.write(line + "\n")


def silent(done: int, total: int, text: str) -> None:
    """Say nothing; same arguments as :class:`Progress`."""
