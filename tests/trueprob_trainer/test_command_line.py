"""The commands: what they write and print, their exit codes and their help."""

import argparse
import json
from pathlib import Path

import pytest

from trueprob_trainer.__main__ import build_parser, main
from trueprob_trainer.config import CHOICES
from trueprob_trainer.data import DATA, READERS
from trueprob_trainer.evaluation.corruptions import CORRUPTIONS
from trueprob_trainer.networks import NETWORKS
from trueprob_trainer.sharpness_aware import OPTIMISERS, meanings_of, options_of

TINY = ["train", "--epochs", "3", "--batch-size", "64"]


@pytest.mark.slow
def test_train_evaluate_export_register_examples(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run, models = str(tmp_path / "run"), str(tmp_path / "models")
    assert main([*TINY, "--run", run]) == 0
    assert "trained 3 epochs" in capsys.readouterr().out
    assert main(["evaluate", "--run", run, "--json"]) == 0
    scores = json.loads(capsys.readouterr().out)
    assert list(scores) == ["uncalibrated", "temperature", "smart"]
    assert json.loads((tmp_path / "run" / "evaluation.json").read_text()) == scores
    assert main(["evaluate", "--run", run]) == 0
    assert "noise floor" in capsys.readouterr().out
    assert main(["export", "--run", run]) == 0
    assert (tmp_path / "run" / "model.onnx").exists()
    register = ["register", "--run", run, "--name", "tiny", "--models", models]
    assert main([*register, "--note", "Origin: a shelf.", "--note", "Licence: none."]) == 0
    first = str(tmp_path / "models" / "tiny" / "1")
    card = (tmp_path / "models" / "tiny" / "1" / "MODEL_CARD.md").read_text()
    assert "- Origin: a shelf.\n- Licence: none.\n" in card
    assert main([*register, "--compare-with", first]) == 0
    assert "agree within the noise floor: yes" in capsys.readouterr().out
    output = str(tmp_path / "examples")
    assert main(["examples", "--model", first, "--output", output]) == 0
    assert len(list((tmp_path / "examples").iterdir())) == 6


@pytest.mark.slow
def test_distil_resume_and_logs_as_typed(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    teacher, student = str(tmp_path / "teacher"), str(tmp_path / "student")
    short = ["--epochs", "2", "--batch-size", "64", "--data", "digits"]
    assert main(["train", *short, "--run", teacher]) == 0
    distil = ["distill", *short, "--run", student, "--optimiser", "sgd", "--flip", "--csv"]
    assert main([*distil, "--teacher", teacher]) == 0
    assert (tmp_path / "student" / "metrics.csv").read_text().count("\n") == 3
    config = json.loads((tmp_path / "student" / "config.json").read_text())
    assert (config["teacher"], config["flip"]) == (teacher, True)
    capsys.readouterr()
    assert main(["train", "--run", student, "--resume"]) == 0
    assert "trained 2 epochs" in capsys.readouterr().out
    assert main(["train", "--run", student, "--resume", "--seed", "3"]) == 2
    assert "seed is 0 in this run and --resume keeps it, got 3" in capsys.readouterr().err
    other = ["--teacher", str(tmp_path / "none"), "--run", str(tmp_path / "new")]
    assert main(["distill", *short, *other]) == 2
    assert not (tmp_path / "new").exists()


TWO_FACED = """
import torch

class TwoFaced(torch.nn.Linear):
    def forward(self, x):
        logits = super().forward(x.flatten(1))
        return logits + 1 if torch.compiler.is_compiling() else logits

def network(*, channels, n_classes):
    return TwoFaced(64 * channels, n_classes)
"""


@pytest.mark.slow
def test_without_parity_nothing_is_written_and_the_exit_code_is_one(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "two_faced.py").write_text(TWO_FACED)
    monkeypatch.syspath_prepend(str(tmp_path))
    run, models = tmp_path / "run", tmp_path / "models"
    network = ["--network", "two_faced:network", "--learning-rate", "0.01"]
    assert main(["train", "--epochs", "1", *network, "--run", str(run)]) == 0
    before = sorted(run.iterdir())
    assert main(["export", "--run", str(run)]) == 1
    assert main(["register", "--run", str(run), "--name", "x", "--models", str(models)]) == 1
    assert capsys.readouterr().err.count("nats between torch and onnxruntime") == 2
    assert sorted(run.iterdir()) == before
    assert not models.exists()


@pytest.mark.slow
def test_a_disagreement_is_exit_code_one(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shipped = Path(__file__).parents[2] / "models" / "digits" / "1"
    assert main(["train", "--epochs", "1", "--run", str(tmp_path / "run")]) == 0
    register = ["register", "--run", str(tmp_path / "run"), "--name", "digits"]
    register += ["--models", str(tmp_path / "models"), "--compare-with", str(shipped)]
    code = main(register)
    captured = capsys.readouterr()
    assert code == 1
    assert "agree within the noise floor: no" in captured.out
    # Libraries may log before; the last line is what a user reads.
    assert captured.err.splitlines()[-1].startswith("trainer: test scores do not agree with")


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["train", "--run", "{tmp}/run", "--rho", "-1"], "rho must be finite and at least 0"),
        (["train", "--run", "{tmp}/run", "--data", "cifar"], "data must be one of"),
        (["train", "--run", "{tmp}/run", "--network", "vgg"], "network must be one of"),
        (["evaluate", "--run", "{tmp}/none"], "no readable config.json"),
        (["export", "--run", "{tmp}/none"], "no readable config.json"),
        (["register", "--run", "{tmp}/none", "--name", "x"], "no readable config.json"),
        (["examples", "--model", "{tmp}"], "a version folder is models/NAME/VERSION"),
        (["examples", "--model", "{tmp}/digits/3"], "digits/3"),
    ],
)
def test_bad_input_is_one_line_and_exit_code_two(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], sentence: str
) -> None:
    assert main([argument.format(tmp=tmp_path) for argument in arguments]) == 2
    error = capsys.readouterr().err
    assert sentence in error
    assert error.count("\n") == 1
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("arguments", [[], ["fly"], ["train"], ["train", "--epochs", "two"]])
def test_a_mistyped_command_is_one_line_and_exit_code_two(
    capsys: pytest.CaptureFixture[str], arguments: list[str]
) -> None:
    with pytest.raises(SystemExit) as stopped:
        main(arguments)
    assert stopped.value.code == 2
    assert capsys.readouterr().err.count("\n") == 1


def commands() -> dict[str, argparse.ArgumentParser]:
    (group,) = [a for a in build_parser()._actions if isinstance(a, argparse._SubParsersAction)]
    return dict(group.choices)


def helps(command: str) -> dict[str, str]:
    """Help of each option of a command, as it is printed."""
    return {
        action.option_strings[-1]: (action.help or "").replace("%%", "%")
        for action in commands()[command]._actions
    }


@pytest.mark.parametrize("command", ["", *commands()])
def test_every_command_prints_its_help(capsys: pytest.CaptureFixture[str], command: str) -> None:
    with pytest.raises(SystemExit) as stopped:
        main([*command.split(), "--help"])
    assert stopped.value.code == 0
    text = capsys.readouterr().out
    assert text.startswith("usage: trueprob-trainer")
    assert all(name in text for name in (helps(command) if command else commands()))


@pytest.mark.parametrize("command", commands())
def test_every_option_has_a_help_text(command: str) -> None:
    assert [option for option, text in helps(command).items() if len(text) < 12] == []


@pytest.mark.parametrize("optimiser", OPTIMISERS)
def test_the_help_of_a_hyperparameter_names_its_optimiser_default_and_meaning(
    optimiser: str,
) -> None:
    text = helps("train")
    meanings = meanings_of(optimiser)
    for name, default in options_of(optimiser).items():
        if name == "seed":  # the recipe's
            continue
        assert len(meanings[name]) > 20, name
        entries = [
            entry.split(" (default: ") for entry in text[f"--{name.replace('_', '-')}"].split(". ")
        ]
        (rest,) = [rest for names, rest in entries if optimiser in names.split(", ")]
        assert rest.lower() == f"{default}): {meanings[name]}".lower()


def test_the_help_lists_what_can_be_chosen() -> None:
    text, evaluate = helps("train"), helps("evaluate")
    assert [name for name in (*DATA, *READERS) if name not in text["--data"]] == []
    assert [name for name in NETWORKS if name not in text["--network"]] == []
    assert [name for name in CORRUPTIONS if name not in evaluate["--corruptions"]] == []
    for field, choices in CHOICES.items():
        assert ", ".join(choices) in text[f"--{field.replace('_', '-')}"]
