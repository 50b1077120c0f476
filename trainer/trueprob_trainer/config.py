"""Everything that decides a training run, as one frozen value that goes into the manifest.

The first fields are the demo's recipe and always written down. The others are options that are off
unless asked for; one that is off is not listed, so that adding an option changes no manifest.
"""

import dataclasses
import json
import math
from dataclasses import dataclass, field
from typing import Any

from trueprob_trainer.errors import BadInput
from trueprob_trainer.sharpness_aware import OPTIMISERS, check_options

SCHEDULES = ("one-cycle", "cosine", "constant")
BASES = ("sgd", "adamw")
DEVICES = ("cpu", "cuda", "auto")
LABEL_NOISE_KINDS = ("symmetric", "asymmetric")


@dataclass(frozen=True)
class TrainConfig:
    """Recipe of a run; the defaults are those of the demo model."""

    data: str = "noisy-digits"  # a name, or KIND:PATH
    network: str = "digits-cnn"
    optimiser: str = "sam"
    rho: float = 0.05  # radius of the ascent; the paper's value for CIFAR-10
    learning_rate: float = 0.1  # peak of the schedule; lower it when the loss jumps
    momentum: float = 0.9
    weight_decay: float = 0.0  # raising it calibrates better and leaves less to show
    schedule: str = "one-cycle"
    epochs: int = 100  # far past the point where the training rows are all right
    batch_size: int = 32  # rows; the last, smaller batch of an epoch is left out
    seed: int = 0  # weights and order of rows; the split has a seed of its own
    threads: int = 1  # of torch; sums come out in one order only for a fixed number

    # Options: off by default, not listed while off.
    calibration_share: float = 0.0  # of the rows; 0 takes the data set's own
    test_share: float = 0.0  # likewise; only where the data bring no test set
    image_size: int = 0  # pixels a side to resize pictures to; 0 keeps theirs
    split_seed: int = 0  # split, subset, long tail and label noise
    train_rows: int = 0  # train on so many rows only; 0 on all
    long_tail: float = 1.0  # rows of the first class over those of the last
    label_noise: float = 0.0  # share of train labels made wrong
    label_noise_kind: str = "symmetric"
    start_from: str = ""  # run folder or checkpoint to fine-tune
    base: str = "sgd"  # what the optimiser wraps; adamw for transformers
    # Its own hyperparameters, such as gamma; empty for its defaults.
    optimiser_options: dict[str, int | float | str] = field(default_factory=dict)
    warmup: float = 0.0  # share of the steps in which a cosine's rate rises; 0.05 for transformers
    label_smoothing: float = 0.0
    mixup: float = 0.0  # both parameters of the Beta distribution; 0.2 or 1 in the literature
    crop: int = 0  # pixels of black added on each side before cropping; 4 for CIFAR
    flip: bool = False  # left and right, half of the time
    cutout: int = 0  # side of a square set to the mean; 16 for CIFAR-10
    ema: float = 0.0  # decay of the weights' average, which is then what is scored; 0.999
    accumulation: int = 1  # micro-batches a step; batch_size is that of the step
    bf16: bool = False  # forward passes in bfloat16; weights stay float32
    channels_last: bool = False  # memory order; quicker for convolutions, same mathematics
    deterministic: bool = False  # refuse operations that are not repeatable (GPU)
    device: str = "cpu"  # auto takes a GPU where there is one
    teacher: str = ""  # run folders to distil from, separated by commas
    distill_temperature: float = 4.0
    distill_alpha: float = 0.9  # weight of the teacher against the labels

    def __post_init__(self) -> None:
        """Refuse what cannot be trained.

        Raises `BadInput`: naming the field, what it must be and what came.
        """
        for name, choices in (
            ("optimiser", tuple(OPTIMISERS)),
            ("schedule", SCHEDULES),
            ("base", BASES),
            ("device", DEVICES),
            ("label_noise_kind", LABEL_NOISE_KINDS),
        ):
            value = getattr(self, name)
            if value not in choices:
                raise BadInput(f"{name} must be one of {', '.join(choices)}, got {value}")
        for name in ("epochs", "batch_size", "threads", "accumulation"):
            _require(name, getattr(self, name), int, at_least=1)
        _require("batch_size", self.batch_size, int, at_least=2)  # BatchNorm needs two rows
        for name in ("seed", "split_seed", "image_size", "train_rows", "crop", "cutout"):
            _require(name, getattr(self, name), int, at_least=0)
        for name in ("rho", "learning_rate", "momentum", "weight_decay", "mixup"):
            _require(name, getattr(self, name), float, at_least=0)
        _require("long_tail", self.long_tail, float, at_least=1)
        for name in ("calibration_share", "test_share", "label_noise", "warmup"):
            _require(name, getattr(self, name), float, at_least=0, below=1)
        for name in ("label_smoothing", "ema"):
            _require(name, getattr(self, name), float, at_least=0, below=1)
        _require("distill_alpha", self.distill_alpha, float, at_least=0, below=1 + 1e-9)
        _require("distill_temperature", self.distill_temperature, float, at_least=0.1)
        for name in ("flip", "bf16", "channels_last", "deterministic"):
            if not isinstance(getattr(self, name), bool):
                kind = type(getattr(self, name)).__name__
                raise BadInput(f"{name} must be true or false, got {kind}")
        if self.batch_size % self.accumulation or self.batch_size < 2 * self.accumulation:
            raise BadInput(
                f"accumulation must divide batch_size {self.batch_size} into parts of two rows or "
                f"more, got {self.accumulation}"
            )
        if self.warmup and self.schedule != "cosine":
            raise BadInput(f"warmup goes with schedule cosine, got {self.schedule}")
        if self.optimiser == "csam" and (self.mixup or self.teacher):
            raise BadInput("optimiser csam needs class labels: no mixup, no teacher")
        try:
            check_options(self.optimiser, self.optimiser_options)
        except ValueError as problem:
            raise BadInput(f"optimiser_options: {problem}") from problem

    def to_dict(self) -> dict[str, Any]:
        """JSON-safe document: the recipe, and every option that is on."""
        return {
            f.name: value
            for f in dataclasses.fields(self)
            if (value := getattr(self, f.name)) != _default(f) or f.name in ALWAYS_LISTED
        }

    @classmethod
    def from_dict(cls, document: dict[str, Any]) -> "TrainConfig":
        """Inverse of :meth:`to_dict`.

        Parameters
        ----------
        document : dict

        Returns
        -------
        TrainConfig

        Raises
        ------
        BadInput
            An unknown or impossible entry.
        """
        unknown = set(document) - {f.name for f in dataclasses.fields(cls)}
        if unknown:
            raise BadInput(f"config has unknown entries: {', '.join(sorted(unknown))}")
        return cls(**document)

    def to_json(self) -> str:
        """The document as indented JSON text."""
        return json.dumps(self.to_dict(), indent=1) + "\n"

    def published(self) -> dict[str, Any]:
        """The document for a manifest: of a path only its last part, for it names the machine."""
        document = self.to_dict()
        kind, separator, path = self.data.partition(":")
        if separator:
            document["data"] = f"{kind}:{_last_part(path)}"
        for name in ("start_from", "teacher"):
            if name in document:
                document[name] = ",".join(_last_part(p) for p in document[name].split(","))
        return document


ALWAYS_LISTED = frozenset(
    [
        "data",
        "network",
        "optimiser",
        "rho",
        "learning_rate",
        "momentum",
        "weight_decay",
        "schedule",
        "epochs",
        "batch_size",
        "seed",
        "threads",
    ]
)


def _default(f: "dataclasses.Field[Any]") -> Any:
    return {} if f.default is dataclasses.MISSING else f.default


def _last_part(path: str) -> str:
    return path.rstrip("/").rpartition("/")[2]


def _require(
    name: str,
    value: object,
    kind: type[int] | type[float],
    *,
    at_least: float,
    below: float = math.inf,
) -> None:
    expected = "an integer" if kind is int else "a number"
    if not isinstance(value, int if kind is int else int | float) or isinstance(value, bool):
        raise BadInput(f"{name} must be {expected}, got {type(value).__name__}")
    if not (math.isfinite(value) and at_least <= value < below):
        limit = "" if below == math.inf else f" and below {below:.0f}"
        raise BadInput(f"{name} must be finite and at least {at_least}{limit}, got {value}")
