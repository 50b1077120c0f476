"""Every training run of the benchmark: its part, its recipe and its tests.

Digits are the demo's noisy ones. CIFAR-10 is 2 000 of its images without augmentation for 25 epochs
of ResNet-8: there SGD really becomes overconfident; with 10 000 images and flips the same network
underfits and shows nothing.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from trueprob_trainer.config import TrainConfig
from trueprob_trainer.sharpness_aware import OPTIMISERS, options_of

SEEDS = (0, 1, 2)
DIGITS = TrainConfig(data="noisy-digits")
CIFAR = TrainConfig(
    network="resnet-8",
    train_rows=2000,
    epochs=25,
    batch_size=64,
    weight_decay=5e-4,
    channels_last=True,  # one thread: two are much slower on a machine that others use, too
)


@dataclass(frozen=True)
class Member:
    """An optimiser with its paper's values for CIFAR-10, unless noted."""

    name: str
    rho: float = 0.05
    options: tuple[tuple[str, float], ...] = ()


MEMBERS = (
    Member("sgd"),
    Member("sam"),
    Member("asam", 0.5),
    Member("csam", options=(("gamma", 1.0),)),
    Member("functional-sam"),
    Member("looksam", options=(("alpha", 0.1),)),  # the published 0.7 collapses at batch 64
    Member("momentum-sam", 0.3),
)
ROBUST = ("sgd", "sam", "csam")  # also under label noise and corruption
GAMMAS, RHOS = (0.0, 0.5, 1.0, 2.0), (0.02, 0.05, 0.1, 0.2)


@dataclass(frozen=True)
class Cell:
    """One run.

    `row` is its line of the part's table; cells of one row differ by the seed alone.
    """

    part: str
    row: str
    config: TrainConfig
    corrupted: bool = False

    @property
    def key(self) -> str:
        """File name of its result."""
        return re.sub(r"[^a-z0-9.]+", "-", f"{self.part} {self.row} {self.config.seed}".lower())


def known(name: str) -> str | None:
    """The name of an optimiser in the registry, or None."""
    spelled = {key.replace("-", "").replace("_", ""): key for key in OPTIMISERS}
    return spelled.get(name.replace("-", ""))


def with_member(config: TrainConfig, member: Member, seed: int) -> TrainConfig:
    optimiser = known(member.name)
    assert optimiser is not None
    takes = options_of(optimiser)
    options = {name: value for name, value in member.options if name in takes}
    return dataclasses.replace(
        config, optimiser=optimiser, rho=member.rho, optimiser_options=options, seed=seed
    )


def cells(
    cifar: Path | None, folder: Path, *, seeds: tuple[int, ...] = SEEDS, epochs: int = 0
) -> Iterator[Cell]:
    """All runs, the most informative first, so that a short budget gives complete tables.

    Parameters
    ----------
    cifar : Path or None
        `cifar10_jpeg.npz`.
    folder : Path
        Where teachers' run folders are.
    seeds : tuple of int
    epochs : int
        Instead of the recipes' own, to try the harness.
    """
    digits, pictures = (dataclasses.replace(c, epochs=epochs or c.epochs) for c in (DIGITS, CIFAR))
    members = [member for member in MEMBERS if known(member.name)]
    robust = [member for member in members if member.name in ROBUST]
    for seed in seeds:
        for member in members:
            yield Cell("digits", member.name, with_member(digits, member, seed))
    if cifar is not None:
        pictures = dataclasses.replace(pictures, data=f"npz:{cifar}")
        for seed in seeds:
            for member in members:
                config = with_member(pictures, member, seed)
                yield Cell("cifar10", member.name, config, corrupted=member in robust)
    for seed in seeds:
        for rate in (0.2, 0.4):
            for member in robust:
                noisy = dataclasses.replace(digits, label_noise=rate)
                row = f"{member.name}, noise {rate:.0%}"
                yield Cell("label noise", row, with_member(noisy, member, seed))
    if known("csam"):
        pairs = dict.fromkeys([(g, 0.05) for g in GAMMAS] + [(1.0, r) for r in RHOS])
        for seed in seeds:
            for gamma, rho in pairs:
                member = Member("csam", rho, (("gamma", gamma),))
                row = f"gamma {gamma:g}, rho {rho:g}"
                yield Cell("csam sensitivity", row, with_member(digits, member, seed))
    for seed in seeds:
        for teacher in [m for m in robust if m.name != "csam"]:
            for student in [m for m in robust if m.name != "csam"]:
                config = dataclasses.replace(
                    with_member(digits, student, seed),
                    teacher=str(folder / f"teacher-{teacher.name}-{seed}"),
                )
                row = f"{teacher.name} teacher, {student.name} student"
                yield Cell("distillation", row, config)


def teacher_recipe(config: TrainConfig) -> TrainConfig:
    """Recipe of the teacher that a student's config names: `…/teacher-OPTIMISER-SEED`."""
    _, name, seed = Path(config.teacher).name.split("-")
    plain = dataclasses.replace(config, teacher="")
    member = next(member for member in MEMBERS if member.name == name)
    # Another seed than the student's, or both would begin with the same weights.
    return with_member(plain, member, int(seed) + 1000)
