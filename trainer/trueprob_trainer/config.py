"""The recipe of a training run: one frozen value that is stored in the manifest.

The first fields are always listed. The others are options that are off by default; an option that
is off is not listed, so a new option changes no existing manifest.
"""

import dataclasses
import json
import math
import typing
from dataclasses import dataclass, field
from typing import Annotated, Any

from trueprob_trainer.errors import BadInput
from trueprob_trainer.sharpness_aware import OPTIMISERS, check_options, default_rho, optimiser_class

SCHEDULES = ("one-cycle", "cosine", "constant")
BASES = ("sgd", "adamw")
DEVICES = ("cpu", "cuda", "auto")
LABEL_NOISE_KINDS = ("symmetric", "asymmetric")
# Field → its allowed values.
CHOICES = {
    "schedule": SCHEDULES,
    "base": BASES,
    "device": DEVICES,
    "label_noise_kind": LABEL_NOISE_KINDS,
}
ALWAYS_LISTED = frozenset(
    {"data", "network", "optimiser", "rho", "learning_rate", "momentum", "weight_decay", "schedule"}
    | {"epochs", "batch_size", "seed", "threads"}
)


@dataclass(frozen=True)
class TrainConfig:
    """Recipe of a run; the defaults are those of the demo model.

    The text beside a type is the help of the command-line option; see :func:`meanings`.
    """

    data: Annotated[
        str,
        "data set: digits, noisy-digits, or KIND:PATH, where KIND is npz, cifar10, cifar100, "
        "folder, idx or parquet",
    ] = "noisy-digits"
    network: Annotated[
        str,
        "network: digits-cnn, resnet-8, resnet-10, resnet-18, resnet-50, wrn-16-4, wrn-28-10, "
        "densenet-121, vit-s-4, or package.module:function",
    ] = "digits-cnn"
    optimiser: Annotated[
        str,
        f"optimiser: {', '.join(OPTIMISERS)}, or package.module:Class; sgd is the base alone",
    ] = "sam"
    # Set to the optimiser's default if it is not given, so it is a number in every stored recipe.
    rho: Annotated[float | None, "radius of the ascent (default: the optimiser's own)"] = None
    # Lower it when the loss jumps.
    learning_rate: Annotated[float, "highest learning rate of the schedule"] = 0.1
    momentum: Annotated[float, "momentum of SGD, or the first beta of AdamW"] = 0.9
    # With a higher value there is less miscalibration to show.
    weight_decay: Annotated[float, "weight decay of the base optimiser"] = 0.0
    schedule: Annotated[str, "schedule of the learning rate"] = "one-cycle"
    # Every train row is predicted correctly long before.
    epochs: Annotated[int, "passes over the train split"] = 100
    # The last, smaller batch of an epoch is left out.
    batch_size: Annotated[int, "rows per step, at least 2"] = 32
    seed: Annotated[int, "seed of the weights, the order of rows, the augmentation and esam"] = 0
    # The order of summation depends on this number.
    threads: Annotated[int, "CPU threads of torch; results repeat for a fixed number only"] = 1

    # Options: off by default, not listed while off.
    calibration_share: Annotated[
        float, "fraction of the rows for calibration; 0: the data set's default"
    ] = 0.0
    test_share: Annotated[
        float, "fraction of the rows for the test; 0: the data set's default, or its test set"
    ] = 0.0
    image_size: Annotated[int, "resize images to this side, in pixels; 0: keep their size"] = 0
    split_seed: Annotated[int, "seed of the split, the subset, the long tail and label noise"] = 0
    train_rows: Annotated[int, "number of rows to train on; 0: all of the train split"] = 0
    long_tail: Annotated[
        float,
        "class sizes fall exponentially by this factor from the first class to the last; 1: off",
    ] = 1.0
    label_noise: Annotated[float, "fraction of the train labels that are made wrong"] = 0.0
    label_noise_kind: Annotated[
        str, "wrong labels are any other class (symmetric) or a similar one (asymmetric)"
    ] = "symmetric"
    start_from: Annotated[str, "run folder or checkpoint with weights to fine-tune"] = ""
    # Radii of layers by the beginning of their parameters' names; the first that fits.
    layer_rho: dict[str, float] = field(default_factory=dict)
    base: Annotated[str, "optimiser that does the descent; adamw suits transformers"] = "sgd"
    # Hyperparameters of one optimiser, such as gamma; empty for its defaults.
    optimiser_options: dict[str, int | float | str] = field(default_factory=dict)
    # 0.05 for transformers.
    warmup: Annotated[
        float, "fraction of the steps in which the rate of a cosine schedule rises"
    ] = 0.0
    label_smoothing: Annotated[float, "probability spread evenly over all classes"] = 0.0
    # 0.2 or 1 in the literature.
    mixup: Annotated[float, "both parameters of mixup's Beta distribution; 0: off"] = 0.0
    crop: Annotated[int, "pad by this many pixels and crop at random; 0: off, 4 for CIFAR"] = 0
    flip: Annotated[bool, "mirror each image, left and right, with probability 1/2"] = False
    cutout: Annotated[
        int, "side in pixels of a random square set to the mean colour; 0: off, 16 for CIFAR-10"
    ] = 0
    ema: Annotated[
        float, "decay per step of the weights' average, which is then scored; 0: off, often 0.999"
    ] = 0.0
    accumulation: Annotated[int, "micro-batches per step; they divide the batch size"] = 1
    bf16: Annotated[bool, "run forward passes in bfloat16; weights stay float32"] = False
    checkpointing: Annotated[
        bool, "run layers again in each backward instead of keeping their activations"
    ] = False
    channels_last: Annotated[bool, "use the memory order that is faster for convolutions"] = False
    deterministic: Annotated[bool, "refuse operations that are not repeatable on a GPU"] = False
    device: Annotated[str, "device; auto takes a GPU if there is one"] = "auto"
    teacher: Annotated[str, "run folders of the teachers to distil from, separated by commas"] = ""
    distill_temperature: Annotated[float, "temperature of distillation"] = 4.0
    distill_alpha: Annotated[
        float, "weight of the teacher in the loss, 0 to 1; the labels have the rest"
    ] = 0.9

    def __post_init__(self) -> None:
        """Refuse a recipe that cannot be trained, naming the field."""
        for name, choices in CHOICES.items():
            value = getattr(self, name)
            if value not in choices:
                raise BadInput(f"{name} must be one of {', '.join(choices)}, got {value}")
        try:
            optimiser_class(self.optimiser)
        except ValueError as problem:
            raise BadInput(str(problem)) from problem
        if self.rho is None:
            object.__setattr__(self, "rho", default_rho(self.optimiser))
        for layer, rho in self.layer_rho.items():
            _require(f"rho of {layer}", rho, float, at_least=0)
        for name in ("epochs", "batch_size", "threads", "accumulation"):
            _require(name, getattr(self, name), int, at_least=1)
        _require("batch_size", self.batch_size, int, at_least=2)  # for BatchNorm
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
        for name in ("flip", "bf16", "checkpointing", "channels_last", "deterministic"):
            if not isinstance(getattr(self, name), bool):
                kind = type(getattr(self, name)).__name__
                raise BadInput(f"{name} must be true or false, got {kind}")
        if self.batch_size % self.accumulation or self.batch_size < 2 * self.accumulation:
            raise BadInput(
                f"accumulation must divide batch_size {self.batch_size} into micro-batches of at "
                f"least two rows, got {self.accumulation}"
            )
        if self.warmup and self.schedule != "cosine":
            raise BadInput(f"warmup needs schedule cosine, got {self.schedule}")
        if self.optimiser == "csam" and (self.mixup or self.teacher):
            raise BadInput("optimiser csam needs class labels: no mixup, no teacher")
        try:
            check_options(self.optimiser, self.optimiser_options)
        except ValueError as problem:
            raise BadInput(f"optimiser_options: {problem}") from problem

    def to_dict(self) -> dict[str, Any]:
        """JSON-safe document: the fields that are always listed, and every option that is on."""
        return {
            f.name: value
            for f in dataclasses.fields(self)
            if (value := getattr(self, f.name)) != _default(f) or f.name in ALWAYS_LISTED
        }

    @classmethod
    def from_dict(cls, document: dict[str, Any]) -> "TrainConfig":
        """Inverse of :meth:`to_dict`; unknown and impossible entries are refused."""
        unknown = set(document) - {f.name for f in dataclasses.fields(cls)}
        if unknown:
            raise BadInput(f"config has unknown entries: {', '.join(sorted(unknown))}")
        return cls(**document)

    def to_json(self) -> str:
        """The document as indented JSON text."""
        return json.dumps(self.to_dict(), indent=1) + "\n"

    def published(self) -> dict[str, Any]:
        """The document for a manifest: only the last part of a path is kept."""
        document = self.to_dict()
        kind, separator, path = self.data.partition(":")
        if separator:
            document["data"] = f"{kind}:{_last_part(path)}"
        for name in ("start_from", "teacher"):
            if name in document:
                document[name] = ",".join(_last_part(p) for p in document[name].split(","))
        return document


def meanings() -> dict[str, str]:
    """What each field means, in words for a command line."""
    hints = typing.get_type_hints(TrainConfig, include_extras=True)
    return {
        name: hint.__metadata__[0]
        for name, hint in hints.items()
        if typing.get_origin(hint) is Annotated
    }


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
