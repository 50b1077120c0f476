"""The errors of the trainer, as one tree.

::

    TrainerError
    ├── BadInput            an argument, a file or a run folder is unusable      exit code 2
    ├── Interrupted         a signal stopped the run, which was saved            128 + signal
    └── CheckFailed         a check was made and failed                          exit code 1
        ├── ParityError     the exported graph does not agree with the network
        ├── PrecisionLoss   a graph in smaller precision loses too much accuracy
        └── Disagreement    a repeated training does not reproduce the scores
"""


class TrainerError(Exception):
    """Root of the tree; the message is one sentence for a person at the terminal."""


class BadInput(TrainerError, ValueError):
    """An argument, a file or a run folder that cannot be used."""


class Interrupted(TrainerError):
    """A signal stopped the run, which was saved."""

    def __init__(self, number: int, message: str) -> None:
        super().__init__(message)
        self.number = number


class CheckFailed(TrainerError):
    """A check was made and failed."""


class ParityError(CheckFailed):
    """The exported graph does not agree with the network."""


class PrecisionLoss(CheckFailed):
    """A graph in smaller precision loses more accuracy than is allowed."""


class Disagreement(CheckFailed):
    """A repeated training does not reproduce the scores of the shipped version."""
