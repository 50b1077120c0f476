"""Two DDP processes take, to the last bit, the steps of one process with the same micro-batches."""

import subprocess
import sys
from pathlib import Path

import pytest
import torch

from tests.trueprob_trainer.sharpness_aware.two_ranks import CASES, HALVES, STEPS, WORLD
from tests.trueprob_trainer.small_problems import batches, closure_of, sgd, small
from trueprob_trainer.sharpness_aware import OPTIMISERS, LookSAM

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[3]
State = dict[str, torch.Tensor]
STATISTICS = ("running_mean", "running_var", "num_batches_tracked")


@pytest.fixture(scope="module")
def ranks(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, tuple[State, State]]]:
    folder = tmp_path_factory.mktemp("ranks")
    command = [
        sys.executable,
        "-W",
        "error",
        "-m",
        "tests.trueprob_trainer.sharpness_aware.two_ranks",
    ]
    started = [
        subprocess.Popen([*command, str(rank), str(folder)], cwd=ROOT) for rank in range(WORLD)
    ]
    assert [process.wait(timeout=120) for process in started] == [0] * WORLD
    for rank in range(WORLD):
        refusal = (folder / f"refused{rank}.txt").read_text()
        assert "with a DDP model rank_local must be True, got False" in refusal
    return [torch.load(folder / f"rank{rank}.pt", weights_only=True) for rank in range(WORLD)]


@pytest.mark.parametrize("case", CASES)
def test_two_ranks_are_one_process_with_two_micro_batches(
    case: str, ranks: list[dict[str, tuple[State, State]]]
) -> None:
    name, options = CASES[case]
    m_sharpness = {k: v for k, v in options.items() if k != "rank_local"}
    if "rank_local" in options:
        m_sharpness["m_sharpness"] = True
    model = small()
    optimiser = OPTIMISERS[name](sgd(model), model=model, **m_sharpness)
    for images, labels in batches(STEPS):
        optimiser.step([closure_of(model, images[half], labels[half]) for half in HALVES])
    for key, value in model.state_dict().items():
        if key.rpartition(".")[2] not in STATISTICS:
            for rank, results in enumerate(ranks):
                assert torch.equal(results[case][0][key], value), f"rank {rank}, {key}"


@pytest.mark.parametrize("case", CASES)
def test_running_statistics_differ_between_ranks_until_they_are_averaged(
    case: str, ranks: list[dict[str, tuple[State, State]]]
) -> None:
    for key in ("body.1.running_mean", "body.1.running_var"):
        own = [results[case][0][key] for results in ranks]
        averaged = [results[case][1][key] for results in ranks]
        assert not torch.equal(own[0], own[1])
        torch.testing.assert_close(averaged[0], (own[0] + own[1]) / 2)
        assert torch.equal(averaged[0], averaged[1])
    assert {int(results[case][0]["body.1.num_batches_tracked"]) for results in ranks} == {STEPS}


def test_rank_local_climbs_are_other_steps_than_global_ones(
    ranks: list[dict[str, tuple[State, State]]],
) -> None:
    for case in CASES:
        name, _, local = case.partition(", ")
        if local and name in CASES:
            a, b = (ranks[0][c][0]["head.weight"] for c in (case, name))
            assert float((a - b).abs().max()) > 1e-5


def test_what_reuses_gradients_refuses_to_climb_by_rank() -> None:
    model = small()
    for option in ("rank_local", "m_sharpness"):
        with pytest.raises(ValueError, match="that of all ranks and micro-batches"):
            LookSAM(sgd(model), model=model, **{option: True})
    with pytest.raises(RuntimeError, match="LookSAM has no collect"):
        LookSAM(sgd(model)).collect()
