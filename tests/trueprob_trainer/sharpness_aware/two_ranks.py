"""One of two processes that train together; arguments: RANK FOLDER.

Writes what each case ends with, for test_sharpness_distributed.
"""

import sys
from datetime import timedelta
from pathlib import Path
from typing import Any

import torch
from torch import nn

from tests.trueprob_trainer.small_problems import batches, closure_of, sgd, small
from trueprob_trainer.sharpness_aware import OPTIMISERS, average_running_statistics

WORLD = 2
HALVES = (slice(0, 8), slice(8, 16))
STEPS = 4
LOCAL = ("sam", "asam", "fisher-sam", "csam", "functional-sam", "periodic-sam")
CASES: dict[str, tuple[str, dict[str, Any]]] = {
    **{name: (name, {"gamma": 1.0} if name == "esam" else {}) for name in OPTIMISERS},
    **{f"{name}, rank-local": (name, {"rank_local": True}) for name in LOCAL},
    "fisher-sam by samples, rank-local": ("fisher-sam", {"fisher": "samples", "rank_local": True}),
}


def main(rank: int, folder: Path) -> None:
    torch.set_num_threads(1)
    torch.distributed.init_process_group(
        "gloo",
        init_method=f"file://{folder}/meeting",
        rank=rank,
        world_size=WORLD,
        timeout=timedelta(seconds=60),
    )
    results = {}
    for case, (name, options) in CASES.items():
        model = small(seed=rank)  # DDP hands out rank 0's
        ddp = nn.parallel.DistributedDataParallel(
            model, find_unused_parameters=True, forward_sync_buffers=False
        )
        optimiser = OPTIMISERS[name](sgd(model), model=ddp, **options)
        for images, labels in batches(STEPS):
            optimiser.step(closure_of(ddp, images[HALVES[rank]], labels[HALVES[rank]]))
        own = {k: v.clone() for k, v in model.state_dict().items()}
        average_running_statistics(ddp)
        results[case] = (own, model.state_dict())
    try:
        OPTIMISERS["fisher-sam"](sgd(model), model=ddp, fisher="samples")
    except ValueError as problem:
        (folder / f"refused{rank}.txt").write_text(str(problem))
    torch.save(results, folder / f"rank{rank}.pt")
    torch.distributed.destroy_process_group()


if __name__ == "__main__":
    main(int(sys.argv[1]), Path(sys.argv[2]))
