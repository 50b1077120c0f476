"""docs/recipes.md in other people's frameworks: the steps are SAM's, to the last bits.

The frameworks are no part of the environment of the tests: `pip install lightning accelerate
transformers`.
"""

import re
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from trueprob_trainer.sharpness_aware import SAM, Plain

pytestmark = [
    pytest.mark.slow,
    # Those of the frameworks are theirs.
    pytest.mark.filterwarnings("default"),
]
RECIPES = (Path(__file__).parents[3] / "docs/recipes.md").read_text("utf-8")
BLOCKS = re.findall(r"^```python\n(.*?)^```", RECIPES, re.M | re.S)
GENERATOR = torch.Generator().manual_seed(0)
IMAGES = torch.randn(64, 4, generator=GENERATOR)
LABELS = torch.randint(0, 3, (64,), generator=GENERATOR)


def network() -> nn.Sequential:
    with torch.random.fork_rng():
        torch.manual_seed(1)
        return nn.Sequential(nn.Linear(4, 8), nn.BatchNorm1d(8), nn.Linear(8, 3))


def base(model: nn.Module) -> torch.optim.SGD:
    return torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)


def by_hand(build: Any) -> nn.Module:
    model = network()
    optimiser = build(base(model), 0.05, model=model)
    for images, labels in zip(IMAGES.split(16), LABELS.split(16), strict=True):
        optimiser.step(lambda images=images, labels=labels: (model(images), labels))
    return model


def check(model: nn.Module) -> None:
    expected, plain = by_hand(SAM).state_dict(), by_hand(Plain).state_dict()
    for name, value in model.state_dict().items():
        torch.testing.assert_close(value, expected[name], rtol=1e-6, atol=1e-7)
    assert not torch.allclose(model.state_dict()["0.weight"], plain["0.weight"], atol=1e-4)


def batches() -> Any:
    rows = torch.utils.data.TensorDataset(IMAGES, LABELS)
    return torch.utils.data.DataLoader(rows, batch_size=16)


def test_a_framework_that_gives_a_closure_makes_the_same_steps() -> None:
    lightning = pytest.importorskip("lightning")

    class Classifier(lightning.LightningModule):  # type: ignore[misc,name-defined]
        def __init__(self) -> None:
            super().__init__()
            self.network = network()

        def training_step(self, batch: tuple[Tensor, Tensor]) -> Tensor:
            images, labels = batch
            return nn.functional.cross_entropy(self.network(images), labels)

        def configure_optimizers(self) -> SAM:
            return SAM(base(self.network), 0.05, model=self)

    module = Classifier()
    lightning.Trainer(
        max_epochs=1, accelerator="cpu", logger=False, enable_checkpointing=False,
        enable_progress_bar=False, enable_model_summary=False,
    ).fit(module, batches())  # fmt: skip
    check(module.network)


def test_a_prepared_optimiser_makes_the_same_steps() -> None:
    accelerate = pytest.importorskip("accelerate")
    accelerator = accelerate.Accelerator(cpu=True)
    own = network()
    model, optimiser, loader = accelerator.prepare(own, SAM(base(own), 0.05, model=own), batches())
    for images, labels in loader:

        def closure(images: Tensor = images, labels: Tensor = labels) -> Tensor:
            optimiser.zero_grad()
            loss: Tensor = nn.functional.cross_entropy(model(images), labels)
            accelerator.backward(loss)
            return loss

        optimiser.step(closure)
    check(own)


def test_the_trainers_own_step_descends(tmp_path: Path) -> None:
    transformers = pytest.importorskip("transformers")
    pytest.importorskip("accelerate")
    names: dict[str, Any] = {}
    (block,) = [b for b in BLOCKS if "SamTrainer(Trainer)" in b]
    exec(block.split("torch.manual_seed(0)")[0], names)
    classifier = names["Classifier"]()
    classifier.network = network()

    class InOrder(names["SamTrainer"]):  # type: ignore[misc]
        def create_optimizer(self, *_: Any, **__: Any) -> SAM:
            self.sam = self.optimizer = SAM(base(classifier.network), 0.05)
            return self.sam

        def get_train_dataloader(self) -> Any:
            rows = [{"images": i, "labels": y} for i, y in zip(IMAGES, LABELS, strict=True)]
            return torch.utils.data.DataLoader(rows, batch_size=16)  # type: ignore[arg-type]

    settings = transformers.TrainingArguments(
        str(tmp_path), per_device_train_batch_size=16, num_train_epochs=1, use_cpu=True,
        report_to="none", save_strategy="no", disable_tqdm=True, max_grad_norm=0.0,
        lr_scheduler_type="constant",
    )  # fmt: skip
    rows = [{"images": i, "labels": int(y)} for i, y in zip(IMAGES, LABELS, strict=True)]
    InOrder(classifier, settings, train_dataset=rows).train()
    check(classifier.network)


def test_without_a_framework_step_descends_after_ascend_and_else_needs_a_closure() -> None:
    model = network()
    optimiser = SAM(base(model), 0.05)
    with pytest.raises(RuntimeError, match="step needs closure"):
        optimiser.step()
    for images, labels in zip(IMAGES.split(16), LABELS.split(16), strict=True):
        running = {n: b.clone() for n, b in model.named_buffers()}
        nn.functional.cross_entropy(model(images), labels).backward()  # type: ignore[no-untyped-call]
        moved = {n: b.clone() for n, b in model.named_buffers()}
        optimiser.ascend()
        nn.functional.cross_entropy(model(images), labels).backward()  # type: ignore[no-untyped-call]
        with torch.no_grad():
            for name, buffer in model.named_buffers():
                buffer.copy_(moved[name])
        assert optimiser.step() is None
        assert any(not torch.equal(b, running[n]) for n, b in model.named_buffers())
    check(model)
