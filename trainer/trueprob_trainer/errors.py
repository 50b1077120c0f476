"""What can go wrong in the trainer, as one tree.

::

    TrainerError
    ├── BadInput            an argument, a file or a run folder is unusable      exit code 2
    ├── Interrupted         a signal asked the run to stop; it was saved         128 + signal
    └── AnswerIsNo          everything worked and the answer is no               exit code 1
        ├── ParityError     the exported graph does not answer as the network
        ├── PrecisionLoss   in a smaller precision it is too often wrong
        └── Disagreement    a repeated training does not reproduce its figures
"""


class TrainerError(Exception):
    """Root of the tree; the message is one sentence for the person at the terminal."""


class BadInput(TrainerError, ValueError):
    """An argument, a file or a run folder that cannot be used."""


class Interrupted(TrainerError):
    """A signal asked the run to stop, and it was saved."""

    def __init__(self, number: int, message: str) -> None:
        super().__init__(message)
        self.number = number


class AnswerIsNo(TrainerError):
    """Everything worked and the answer is no."""


class ParityError(AnswerIsNo):
    """The exported graph does not answer as the network that it was exported from."""


class PrecisionLoss(AnswerIsNo):
    """A graph in a smaller precision is less often right than is allowed."""


class Disagreement(AnswerIsNo):
    """A repeated training does not reproduce the figures of the shipped version."""
