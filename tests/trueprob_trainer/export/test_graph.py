"""The exported graph agrees with the network for any batch, or the export is refused."""

import copy
import functools

import numpy as np
import onnx
import pytest
import torch

from trueprob_trainer.config import TrainConfig
from trueprob_trainer.data import Split
from trueprob_trainer.errors import ParityError
from trueprob_trainer.export.graph import (
    OPSET,
    Exported,
    check_parity,
    export,
    onnx_logits,
    onnx_of,
)
from trueprob_trainer.networks.classifier import predict_logits
from trueprob_trainer.training.finished_run import Training
from trueprob_trainer.training.loop import train_with

pytestmark = pytest.mark.slow


@functools.cache
def trained() -> Training:
    return train_with(TrainConfig(epochs=3))


@functools.cache
def exported() -> Exported:
    training = trained()
    training.model.train()  # export() is expected to put it right
    return export(training.model, training.data.of(Split.CALIBRATION)[0])


def test_parity_holds_on_real_images_in_every_batch_size() -> None:
    training, made = trained(), exported()
    images, _ = training.data.of(Split.TEST)
    assert made.largest_difference < 1e-4
    assert check_parity(made.content, training.model, images, batches=(1, 2, 7, 64, 512)) < 1e-4
    assert not training.model.training


def test_the_graph_is_one_file_with_the_names_and_types_that_the_manifest_states() -> None:
    model = onnx.load_from_string(exported().content)
    assert [(o.domain, o.version) for o in model.opset_import] == [("", OPSET)]
    image, logits = model.graph.input[0], model.graph.output[0]
    assert (len(model.graph.input), image.name, logits.name) == (1, "image", "logits")
    assert image.type.tensor_type.elem_type == onnx.TensorProto.UINT8
    sides = [d.dim_param or d.dim_value for d in image.type.tensor_type.shape.dim]
    assert sides == ["batch", 8, 8, 1]
    assert len(exported().content) < 300_000


def test_the_graph_names_no_file_of_the_machine_that_made_it() -> None:
    for trace in (b".py", b"stack_trace", b"/home", b"/root", b"site-packages"):
        assert trace not in exported().content


class CentredWhileTraining(torch.nn.Module):
    """Subtracts the batch's mean in training mode, as BatchNorm does by definition."""

    def __init__(self, model: torch.nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        logits = self.model(image)
        return logits - logits.mean(dim=0) if self.training else logits


def test_a_graph_exported_in_training_mode_is_refused() -> None:
    model = CentredWhileTraining(copy.deepcopy(trained().model))
    images, _ = trained().data.of(Split.CALIBRATION)
    with pytest.warns(UserWarning, match="training mode"):  # torch exports it all the same
        wrong = onnx_of(model.train(), images[:2])
    with pytest.raises(ParityError, match="differ by"):
        check_parity(wrong, model, images)
    assert export(model.train(), images).largest_difference < 1e-4


def test_another_networks_graph_is_refused() -> None:
    training = trained()
    images, _ = training.data.of(Split.CALIBRATION)
    other = train_with(TrainConfig(epochs=1, seed=1))
    with pytest.raises(ParityError, match=r"at most 0\.0001 is allowed"):
        check_parity(exported().content, other.model, images)


@pytest.mark.parametrize("n", [1, 10])
def test_few_images_are_repeated_for_the_parity_check(n: int) -> None:
    training = trained()
    few = training.data.of(Split.CALIBRATION)[0][:n]
    assert export(training.model, few).largest_difference < 1e-4
    other = train_with(TrainConfig(epochs=1, seed=1))
    with pytest.raises(ParityError, match=r"at most 0\.0001 is allowed"):
        check_parity(exported().content, other.model, few)


class Louder(torch.nn.Module):
    """Logits of hundreds of nats, as early in training."""

    def __init__(self, model: torch.nn.Module, offset: float = 0.0) -> None:
        super().__init__()
        self.model, self.offset = model, offset

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        """Logits times 100."""
        logits: torch.Tensor = 100 * self.model(image) + self.offset
        return logits


def test_beyond_fifty_nats_the_tolerance_is_relative() -> None:
    training = trained()
    images = training.data.of(Split.CALIBRATION)[0][:64]
    content = onnx_of(Louder(training.model).eval(), images[:2])
    assert np.abs(predict_logits(Louder(training.model), images[:1])).max() > 300
    check_parity(content, Louder(training.model, offset=4e-4), images)
    with pytest.raises(ParityError, match="differ by"):
        check_parity(content, Louder(training.model, offset=1e-2), images)


def test_large_inputs_are_answered_in_parts() -> None:
    images, _ = trained().data.of(Split.TEST)
    whole = onnx_logits(exported().content, images)
    assert whole.shape == (len(images), 10)
    np.testing.assert_allclose(onnx_logits(exported().content, images, 100), whole, atol=1e-4)
    np.testing.assert_allclose(predict_logits(trained().model, images, 9), whole, atol=1e-4)
