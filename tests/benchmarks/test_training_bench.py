"""The training benchmark's parts run; what they measure is written where the document has room."""

from pathlib import Path

import pytest
import torch
from torch import nn

from benchmarks.training.__main__ import DOCUMENT, PARTS
from benchmarks.training.methods import METHODS, optimiser_of, stepping
from benchmarks.training.networks import NETWORKS, blocks, built
from benchmarks.training.own import ReadyGradients, own_seconds
from benchmarks.training.peers import PAIRS, in_turn, installed
from trueprob_trainer.sharpness_aware import OPTIMISERS, checkpointed


def test_every_optimiser_is_measured() -> None:
    assert {method.optimiser for method in METHODS} == set(OPTIMISERS)


def test_the_networks_have_their_published_sizes() -> None:
    sizes = {
        name: sum(p.numel() for p in built(name, small=True)[0].parameters()) for name in NETWORKS
    }
    assert sizes == {"ResNet-8": 78_042, "ResNet-18": 11_173_962}
    assert [len(blocks(built(name, small=True)[0])) for name in NETWORKS] == [3, 8]


def resnet8() -> nn.Module:
    return NETWORKS["ResNet-8"][0](channels=3, n_classes=10)


def test_each_method_takes_a_step_with_and_without_checkpointing() -> None:
    images, labels = torch.randn(4, 3, 8, 8), torch.tensor([0, 1, 2, 3])
    for method in METHODS:
        network = resnet8()
        step = stepping(optimiser_of(method, network), network, images, labels)
        assert torch.isfinite(step())
        if method.optimiser == "sam":
            with checkpointed(blocks(network)):
                assert torch.isfinite(step())


@pytest.mark.parametrize("side", [1, 3])
def test_each_side_of_each_comparison_runs_on_ready_gradients(side: int) -> None:
    for pair in PAIRS:
        network = resnet8()
        before = network.get_parameter("0.weight").detach().clone()
        passes = ReadyGradients(network, torch.randn(4, 3, 8, 8), torch.tensor([0, 1, 2, 3]))
        if installed(pair[2]):
            step = pair[side](network, passes)  # type: ignore[operator]
            for _ in range(pair[4]):
                own_seconds(step, passes)
            assert passes.seconds > 0
            assert not torch.equal(network.get_parameter("0.weight"), before)


def test_of_two_in_turn_each_begins_every_other_round() -> None:
    order: list[str] = []
    rounds = in_turn(
        lambda: order.append("ours"), lambda: order.append("theirs"), rounds=4, steps=1
    )
    assert len(rounds) == 4
    assert order == ["ours", "theirs", "theirs", "ours"] * 2


def test_the_document_has_room_for_every_part() -> None:
    text = Path(DOCUMENT).read_text("utf-8")
    for part in PARTS:
        assert f"<!-- training:{part}:begin -->" in text
        assert f"<!-- training:{part}:end -->" in text
