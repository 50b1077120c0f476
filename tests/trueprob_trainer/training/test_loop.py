"""Runs: repeatable results, a complete folder, and refusal of wrong recipes by field."""

import dataclasses
import io
import json
from pathlib import Path

import numpy as np
import pytest
import torch

from trueprob import detailed_scores, score, softmax
from trueprob_trainer.config import TrainConfig
from trueprob_trainer.data import Split
from trueprob_trainer.errors import BadInput
from trueprob_trainer.networks import network_function
from trueprob_trainer.networks.classifier import predict_logits
from trueprob_trainer.training.building import build_model
from trueprob_trainer.training.finished_run import load_training
from trueprob_trainer.training.loop import train_with
from trueprob_trainer.training.progress import Progress
from trueprob_trainer.training.run_folder import RunFolder

TINY = TrainConfig(epochs=2, batch_size=64, seed=5)


@pytest.mark.slow
def test_the_same_config_gives_the_same_network_to_the_last_bit() -> None:
    before = torch.random.get_rng_state(), torch.get_num_threads()
    first, second = train_with(TINY), train_with(TINY)
    for a, b in zip(
        first.model.state_dict().values(), second.model.state_dict().values(), strict=True
    ):
        assert torch.equal(a, b)
    assert first.history == second.history
    assert torch.equal(torch.random.get_rng_state(), before[0])
    assert torch.get_num_threads() == before[1]
    other = train_with(dataclasses.replace(TINY, seed=6))
    assert other.history != first.history


@pytest.mark.slow
def test_a_run_folder_holds_what_is_needed_to_go_on(tmp_path: Path) -> None:
    run = RunFolder.create(tmp_path / "run", TINY)
    training = train_with(TINY, run=run)
    assert sorted(p.name for p in run.path.iterdir()) == [
        "checkpoint.pt",
        "config.json",
        "metrics.jsonl",
    ]
    assert run.config() == TINY
    lines = (run.path / "metrics.jsonl").read_text().splitlines()
    assert [json.loads(line) for line in lines] == list(training.history)
    last = training.history[-1]
    held_out, labels = training.data.of(Split.CALIBRATION)
    scores = score(softmax(predict_logits(training.model, held_out)), labels)
    assert last["held_out_accuracy"] == pytest.approx(scores.accuracy, abs=1e-12)
    assert last["held_out_nll"] == pytest.approx(scores.nll, abs=1e-12)
    debiased = detailed_scores(softmax(predict_logits(training.model, held_out)), labels)
    assert last["held_out_ece"] == pytest.approx(debiased.debiased_ece, abs=1e-12)
    again = load_training(run)
    images, _ = training.data.of(Split.TEST)
    assert np.array_equal(
        predict_logits(again.model, images), predict_logits(training.model, images)
    )
    momentum = run.checkpoint()["optimiser"]["state"]
    assert all("momentum_buffer" in entry for entry in momentum.values())


def test_an_earlier_run_is_replaced_only_when_asked(tmp_path: Path) -> None:
    RunFolder.create(tmp_path / "run", TINY)
    with pytest.raises(BadInput, match="--overwrite"):
        RunFolder.create(tmp_path / "run", TINY)
    RunFolder.create(tmp_path / "run", dataclasses.replace(TINY, seed=1), overwrite=True)
    assert RunFolder(tmp_path / "run").config().seed == 1


def test_a_folder_that_is_no_run_is_never_removed(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text("{}")
    (tmp_path / "thesis.tex").write_text("years of work")
    with pytest.raises(BadInput, match="files that are not of a run"):
        RunFolder.create(tmp_path, TINY, overwrite=True)
    assert len(list(tmp_path.iterdir())) == 2
    with pytest.raises(BadInput, match="is a file"):
        RunFolder.create(tmp_path / "thesis.tex", TINY)


def test_folders_without_a_finished_run_are_refused(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match=r"no readable config\.json"):
        load_training(RunFolder(tmp_path / "nothing"))
    run = RunFolder.create(tmp_path / "run", TINY)
    with pytest.raises(BadInput, match=r"no readable checkpoint\.pt"):
        load_training(run)
    run.write("checkpoint.pt", b"half a file")
    with pytest.raises(BadInput, match=r"no readable checkpoint\.pt"):
        load_training(run)
    run.save_checkpoint({"model": {}, "seconds": 1.0})
    with pytest.raises(BadInput, match="does not hold a finished run"):
        load_training(run)


@pytest.mark.parametrize(
    ("field", "value", "sentence"),
    [
        ("optimiser", "adam", "optimiser must be one of sgd, sam, .*, got adam"),
        ("schedule", "step", "schedule must be one of one-cycle, cosine, constant, got step"),
        ("rho", -1.0, "rho must be finite and at least 0, got -1.0"),
        ("rho", float("nan"), "rho must be finite"),
        ("learning_rate", "fast", "learning_rate must be a number, got str"),
        ("epochs", 0, "epochs must be finite and at least 1, got 0"),
        ("epochs", 1.5, "epochs must be an integer, got float"),
        ("batch_size", 1, "batch_size must be finite and at least 2, got 1"),
        ("seed", True, "seed must be an integer, got bool"),
        ("base", "lion", "base must be one of sgd, adamw, got lion"),
        ("device", "tpu", "device must be one of cpu, cuda, auto, got tpu"),
        ("ema", 1.0, "ema must be finite and at least 0 and below 1, got 1.0"),
        ("label_noise", 1.0, "label_noise must be finite and at least 0 and below 1"),
        ("long_tail", 0.5, "long_tail must be finite and at least 1, got 0.5"),
        ("flip", 1, "flip must be true or false, got int"),
        ("accumulation", 5, "accumulation must divide batch_size 32"),
        ("accumulation", 32, "micro-batches of at least two rows, got 32"),
        ("warmup", 0.1, "warmup needs schedule cosine, got one-cycle"),
        (
            "optimiser_options",
            {"gamma": 1},
            "optimiser sam takes no options, got gamma",
        ),
    ],
)
def test_an_impossible_recipe_is_refused_by_field(field: str, value: object, sentence: str) -> None:
    with pytest.raises(BadInput, match=sentence):
        TrainConfig(**{field: value})  # type: ignore[arg-type]


def test_a_config_survives_json_and_unknown_entries_do_not() -> None:
    assert TrainConfig.from_dict(json.loads(TINY.to_json())) == TINY
    with pytest.raises(BadInput, match="unknown entries: gamma"):
        TrainConfig.from_dict({"gamma": 1})


def test_a_batch_larger_than_the_split_is_refused() -> None:
    with pytest.raises(BadInput, match="batch_size must be at most 424 rows, got 425"):
        train_with(dataclasses.replace(TINY, batch_size=425))


@pytest.mark.slow
def test_a_loss_that_explodes_ends_the_run_with_a_sentence() -> None:
    with pytest.raises(BadInput, match="lower learning_rate"):
        train_with(dataclasses.replace(TINY, learning_rate=1e30, schedule="constant"))


def test_a_network_of_the_users_is_found_by_module_and_function() -> None:
    network = network_function("torch.nn:Identity")
    assert network is torch.nn.Identity
    for name, sentence in [
        (
            "resnet",
            "network must be one of digits-cnn, resnet-8, .* or module:function, got resnet",
        ),
        ("no_such_module:f", "cannot be imported"),
        ("torch.nn:no_such_function", "cannot be imported"),
        ("math:pi", "must be a function, got float"),
    ]:
        with pytest.raises(BadInput, match=sentence):
            network_function(name)


@pytest.mark.slow
def test_preprocessing_standardises_the_train_split() -> None:
    training = train_with(dataclasses.replace(TINY, epochs=1))
    model = build_model(TINY, training.data)
    images, _ = training.data.of(Split.TRAIN)
    standardised = (torch.from_numpy(images).float() - model.mean) * model.scale
    assert float(standardised.mean()) == pytest.approx(0, abs=1e-4)
    assert float(standardised.std()) == pytest.approx(1, abs=1e-3)


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_progress_is_one_moving_line_on_a_terminal_and_ten_elsewhere() -> None:
    terminal, file = Terminal(), io.StringIO()
    for done in range(1, 101):
        Progress(terminal)(done, 100, "loss")
        Progress(file)(done, 100, "loss")
    assert terminal.getvalue().count("\n") == 1
    assert file.getvalue().splitlines()[0] == " 10/100  loss"
    assert len(file.getvalue().splitlines()) == 10


def test_every_option_is_in_the_documents() -> None:
    text = (Path(__file__).parents[3] / "docs" / "training.md").read_text("utf-8")
    options = [
        f"--{field.name.replace('_', '-')}"
        for field in dataclasses.fields(TrainConfig)
        # named one by one by its optimiser, and a part of --rho
        if field.name not in ("optimiser_options", "layer_rho")
    ]
    assert [option for option in options if f"`{option}`" not in text] == []


def test_an_option_that_is_off_is_not_listed_and_one_that_is_on_is() -> None:
    assert list(TINY.to_dict())[-1] == "threads"
    harder = dataclasses.replace(TINY, label_noise=0.2, flip=True)
    assert harder.to_dict() == {**TINY.to_dict(), "label_noise": 0.2, "flip": True}
    assert TrainConfig.from_dict(json.loads(harder.to_json())) == harder


def test_a_manifest_names_no_folder_of_the_machine() -> None:
    config = TrainConfig(data="npz:/home/me/a.npz", start_from="runs/one", teacher="/r/a,/r/b/")
    published = config.published()
    assert published["data"] == "npz:a.npz"
    assert (published["start_from"], published["teacher"]) == ("one", "a,b")
    assert TINY.published() == TINY.to_dict()
