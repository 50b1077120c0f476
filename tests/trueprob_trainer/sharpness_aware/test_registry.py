"""Optimisers by name: their options, training with each, refusal of wrong use."""

import json
import re
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.trueprob_trainer.small_problems import batches, closure_of, sgd, small
from trueprob_trainer.__main__ import main
from trueprob_trainer.config import TrainConfig
from trueprob_trainer.errors import BadInput
from trueprob_trainer.sharpness_aware import (
    CSAM,
    ESAM,
    OPTIMISERS,
    SAM,
    FisherSAM,
    FunctionalSAM,
    LookSAM,
    MomentumSAM,
    Plain,
    PreconditionedFunctionalSAM,
    WrappedOptimizer,
    check_options,
    options_of,
)
from trueprob_trainer.training.building import build_optimiser
from trueprob_trainer.training.loop import train_with

DOCUMENT = (Path(__file__).parents[3] / "docs/sharpness-aware.md").read_text("utf-8")
OPTIONS: dict[str, dict[str, object]] = {
    "sgd": {},
    "sam": {},
    "periodic-sam": {"k": 10},
    "asam": {"eta": 0.01},
    "fisher-sam": {"eta": 1.0, "fisher": "gradient", "fisher_unit": "mean", "decay": 0.0},
    "esam": {"beta": 0.6, "gamma": 0.5, "seed": 0},
    "looksam": {"k": 5, "alpha": 0.1},
    "momentum-sam": {},
    "csam": {"gamma": 1.0},
    "functional-sam": {},
    "preconditioned-sam": {"eps": 1e-8, "beta2": 0.999, "norm": "perturbation"},
    "preconditioned-functional-sam": {"eps": 1e-8, "beta2": 0.999, "norm": "perturbation"},
}


def test_every_optimiser_says_its_options() -> None:
    assert {name: options_of(name) for name in OPTIMISERS} == OPTIONS


@pytest.mark.parametrize(
    ("name", "options", "sentence"),
    [
        ("sam", {"k": 5}, "optimiser sam takes no options, got k"),
        ("looksam", {"beta": 1.0}, "optimiser looksam takes k, alpha, got beta"),
        ("looksam", {"k": 2.5}, "k must be of type int, got float"),
        ("csam", {"gamma": "much"}, "gamma must be of type float, got str"),
        ("csam", {"gamma": True}, "gamma must be of type float, got bool"),
    ],
)
def test_wrong_options_are_refused(name: str, options: dict[str, Any], sentence: str) -> None:
    with pytest.raises(ValueError, match=sentence):
        check_options(name, options)
    with pytest.raises(BadInput, match=f"optimiser_options: {sentence}"):
        TrainConfig(optimiser=name, optimiser_options=options)


@pytest.mark.slow
def test_options_reach_the_optimiser_from_the_command_line(tmp_path: Path) -> None:
    run = tmp_path / "run"
    typed = f"train --optimiser looksam --k 3 --alpha 0.2 --epochs 1 --run {run}"
    assert main(typed.split()) == 0
    config = TrainConfig.from_dict(json.loads((run / "config.json").read_text()))
    assert config.optimiser_options == {"k": 3, "alpha": 0.2}
    optimiser = build_optimiser(config, small())
    assert isinstance(optimiser, LookSAM)
    assert (optimiser.k, optimiser.alpha) == (3, 0.2)


def test_label_free_targets_are_refused_where_the_loss_needs_labels() -> None:
    with pytest.raises(BadInput, match="csam needs class labels"):
        TrainConfig(optimiser="csam", mixup=0.2)


@pytest.mark.slow
@pytest.mark.parametrize("name", OPTIMISERS)
def test_the_training_loop_takes_each(name: str) -> None:
    radius = 1e-4 if name.startswith("preconditioned") else 0.05
    training = train_with(
        TrainConfig(optimiser=name, rho=radius, epochs=3, batch_size=64, learning_rate=0.05)
    )
    assert training.history[-1]["loss"] < training.history[0]["loss"]


def test_what_the_optimiser_refuses_is_bad_input() -> None:
    config = TrainConfig(optimiser="csam", optimiser_options={"gamma": -1})
    with pytest.raises(BadInput, match="gamma must be finite and at least 0"):
        train_with(config)
    with pytest.raises(BadInput, match="base must keep a momentum"):
        train_with(TrainConfig(optimiser="momentum-sam", momentum=0.0))


@pytest.mark.parametrize(
    ("build", "options"),
    [
        (CSAM, {}),
        (ESAM, {}),
        (FunctionalSAM, {}),
        (PreconditionedFunctionalSAM, {}),
        (FisherSAM, {"fisher": "samples"}),
    ],
)
def test_what_needs_more_than_gradients_says_so(build: type[SAM], options: dict[str, Any]) -> None:
    model = small()
    optimiser = build(sgd(model), **options)
    torch.nn.functional.cross_entropy(model(batches(1)[0][0]), batches(1)[0][1]).backward()  # type: ignore[no-untyped-call]
    for call in (optimiser.ascend, optimiser.descend):
        with pytest.raises(RuntimeError, match=r"needs more than gradients: call step\(closure\)"):
            call()


@pytest.mark.parametrize(
    ("build", "options", "sentence"),
    [
        (LookSAM, {"k": 0}, "k must be an integer and at least 1, got 0"),
        (LookSAM, {"alpha": -1}, "alpha must be finite and at least 0"),
        (ESAM, {"beta": 0.0}, "beta must be above 0"),
        (ESAM, {"gamma": 1.5}, "gamma must be between 0 and 1, got 1.5"),
        (FisherSAM, {"fisher": "full"}, "fisher must be one of gradient, samples, got full"),
        (FisherSAM, {"decay": 1.0}, "decay must be at least 0 and below 1"),
        (PreconditionedFunctionalSAM, {"eps": 0.0}, "eps must be above 0"),
        (PreconditionedFunctionalSAM, {"beta2": 1.0}, "beta2 must be at least 0 and below 1"),
        (SAM, {"clip_norm": 0.0}, "clip_norm must be above 0"),
    ],
)
def test_impossible_hyperparameters_are_refused(
    build: type[WrappedOptimizer], options: dict[str, Any], sentence: str
) -> None:
    with pytest.raises(ValueError, match=sentence):
        build(sgd(small()), **options)


def test_a_momentum_that_is_not_there_is_refused() -> None:
    with pytest.raises(ValueError, match="got SGD with momentum 0"):
        MomentumSAM(torch.optim.SGD(small().parameters(), lr=0.1))


def test_no_micro_batch_is_refused() -> None:
    for build in (SAM, Plain):
        with pytest.raises(RuntimeError, match="needs closure"):
            build(sgd(small())).step([])


def test_a_second_micro_batch_that_fails_leaves_nothing_behind() -> None:
    model = small()
    closure = closure_of(model, *batches(1)[0])
    start = [p.detach().clone() for p in model.parameters()]
    optimiser = SAM(sgd(model), model=model, m_sharpness=True)

    def failing(rows: torch.Tensor | None = None) -> tuple[torch.Tensor, torch.Tensor]:
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        optimiser.step([closure, failing])
    assert all(torch.equal(p, s) for p, s in zip(model.parameters(), start, strict=True))
    expected = small()
    optimiser.step(closure)
    SAM(sgd(expected), model=expected).step(closure_of(expected, *batches(1)[0]))
    torch.testing.assert_close(model.head.weight, expected.head.weight)


def test_the_document_names_every_optimiser_and_option() -> None:
    for name, build in OPTIMISERS.items():
        (row,) = [line for line in DOCUMENT.splitlines() if line.startswith(f"| `{name}` |")]
        assert f"`{build.__name__}`" in row
        assert set(re.findall(r"`(\w+)`", row.split("|")[-2])) == set(options_of(name))
