"""Networks: published numbers of weights, parity after export, networks of the user."""

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from trueprob_trainer.errors import BadInput
from trueprob_trainer.export.graph import export
from trueprob_trainer.networks import NETWORKS, build_network
from trueprob_trainer.networks.classifier import ImageClassifier
from trueprob_trainer.networks.convolutional import (
    BasicBlock,
    Bottleneck,
    dense_network,
    residual_network,
    wide_residual_network,
)
from trueprob_trainer.networks.vision_transformer import VisionTransformer
from trueprob_trainer.training.building import start_from

SMALL = {"channels": 3, "n_classes": 4}


def n_weights(network: nn.Module) -> int:
    return sum(parameter.numel() for parameter in network.parameters())


def own(name: str, *, channels: int = 3, n_classes: int = 10) -> nn.Module:
    with torch.device("meta"):  # shapes without memory
        return build_network(name, channels=channels, n_classes=n_classes, image_size=(32, 32))


# The ImageNet networks' totals are those of the papers' tables (11.7, 25.6, 8.0 and 22.1 million)
# to the last weight; here the stem is a 3x3 convolution and there are 10 classes, not 1 000.
@pytest.mark.parametrize(
    ("name", "on_imagenet", "stem", "features"),
    [
        ("resnet-18", 11_689_512, 64, 512),
        ("resnet-50", 25_557_032, 64, 2048),
        ("densenet-121", 7_978_856, 64, 1024),
    ],
)
def test_the_imagenet_networks_differ_from_the_papers_by_stem_and_classes_alone(
    name: str, on_imagenet: int, stem: int, features: int
) -> None:
    stem_change = 3 * stem * (7 * 7 - 3 * 3)
    class_change = 990 * (features + 1)
    assert n_weights(own(name)) == on_imagenet - stem_change - class_change


def test_the_transformer_differs_from_deit_s_by_patches_positions_and_classes_alone() -> None:
    patches = 384 * 3 * (16 * 16 - 4 * 4)
    positions = 384 * (14 * 14 - 8 * 8)
    assert n_weights(own("vit-s-4")) == 22_050_664 - patches - positions - 990 * 385


@pytest.mark.parametrize(
    ("name", "millions"),
    [("wrn-16-4", 2.7), ("wrn-28-10", 36.5), ("resnet-8", 0.08), ("resnet-10", 0.69)],
)
def test_the_cifar_networks_have_the_published_size(name: str, millions: float) -> None:
    assert round(n_weights(own(name)) / 1e6, len(str(millions)) - 2) == pytest.approx(
        millions, abs=0.06 if millions > 1 else 0.003
    )


def test_the_basic_block_family_has_the_size_of_the_first_paper() -> None:
    # Table 6: ResNet-20 has 0.27 million weights and ResNet-56 0.85 million.
    for n_blocks, millions in ((3, 0.27), (9, 0.85)):
        network = residual_network(BasicBlock, (n_blocks,) * 3, 16, channels=3, n_classes=10)
        assert n_weights(network) / 1e6 == pytest.approx(millions, abs=0.01)


TINY = {
    "basic": lambda: residual_network(BasicBlock, (1, 1), 8, **SMALL),
    "bottleneck": lambda: residual_network(Bottleneck, (1, 1), 4, **SMALL),
    "wide": lambda: wide_residual_network(10, 1, **SMALL),
    "dense": lambda: dense_network((1, 2), 4, **SMALL),
    "transformer": lambda: VisionTransformer(
        **SMALL, image_size=(8, 8), patch=4, width=16, depth=1, n_heads=2
    ),
}


@pytest.mark.slow
@pytest.mark.parametrize("kind", TINY)
def test_every_kind_of_network_trains_and_exports_with_parity(kind: str) -> None:
    torch.manual_seed(0)
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (64, 8, 8, 3), dtype=np.uint8)
    labels = torch.from_numpy(rng.integers(0, 4, 64))
    model = ImageClassifier(TINY[kind](), np.full(3, 127.5), np.full(3, 74.0))
    optimiser = torch.optim.AdamW(model.parameters(), lr=0.01)
    losses = []
    for _ in range(6):
        loss = nn.functional.cross_entropy(model(torch.from_numpy(images)), labels)
        optimiser.zero_grad()
        loss.backward()
        assert all(p.grad is not None for p in model.parameters()), "a weight is not used"
        optimiser.step()
        losses.append(loss.item())
    assert losses[-1] < losses[0]
    if kind != "basic":  # the bottleneck's operators, all of them
        assert export(model, images).largest_difference < 1e-4


def test_a_users_network_is_built_by_module_and_function(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "their_networks.py").write_text(
        "from torch import nn\n"
        "def flat(*, channels, n_classes, image_size):\n"
        "    n = channels * image_size[0] ** 2\n"
        "    return nn.Sequential(nn.Flatten(), nn.Linear(n, n_classes))\n"
        "def nothing(*, channels, n_classes): return 7\n"
        "def narrow(n): return None\n"
        "constant = 3\n"
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    shape = {"channels": 3, "n_classes": 4, "image_size": (6, 6)}
    network = build_network("their_networks:flat", **shape)
    assert network(torch.zeros(2, 3, 6, 6)).shape == (2, 4)
    for name, sentence in (
        ("their_networks:nothing", "must return a torch module, got int"),
        ("their_networks:narrow", "cannot be built"),
        ("their_networks:constant", "must be a function, got int"),
        ("their_networks:absent", "cannot be imported"),
        ("vgg", "network must be one of digits-cnn, resnet-8"),
    ):
        with pytest.raises(BadInput, match=sentence):
            build_network(name, **shape)


def test_an_image_that_cannot_be_cut_into_patches_is_refused() -> None:
    with pytest.raises(BadInput, match="multiples of 4"):
        build_network("vit-s-4", channels=3, n_classes=10, image_size=(30, 32))


def test_fine_tuning_takes_all_but_the_classes(tmp_path: Path) -> None:
    shape = {"channels": 3, "image_size": (8, 8)}
    old = build_network("resnet-8", n_classes=10, **shape)
    new = build_network("resnet-8", n_classes=3, **shape)
    fresh = new.state_dict()["8.weight"].clone()
    torch.save({"model": {f"network.{k}": v for k, v in old.state_dict().items()}}, tmp_path / "a")
    assert start_from(new, tmp_path / "a") == ("8.weight", "8.bias")
    for name, value in new.state_dict().items():
        expected = fresh if name == "8.weight" else old.state_dict()[name]
        assert name == "8.bias" or torch.equal(value, expected), name


def test_what_cannot_be_started_from_is_refused(tmp_path: Path) -> None:
    network = build_network("resnet-8", n_classes=3, channels=3, image_size=(8, 8))
    torch.save(own("wrn-16-4").to_empty(device="cpu").state_dict(), tmp_path / "wide")
    torch.save({"weights": [1, 2]}, tmp_path / "list")
    (tmp_path / "half").write_bytes(b"half a file")
    for name, sentence in (
        ("wide", "another network"),
        ("list", "must hold named tensors"),
        ("half", "cannot be read as a checkpoint"),
        ("none", "cannot be read as a checkpoint"),
    ):
        with pytest.raises(BadInput, match=sentence):
            start_from(network, tmp_path / name)


def test_every_network_has_a_row_in_the_documents() -> None:
    text = (Path(__file__).parents[3] / "docs" / "training.md").read_text("utf-8")
    assert [name for name in NETWORKS if f"`{name}`" not in text] == []
