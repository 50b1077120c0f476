import numpy as np
import pytest

from trueprob.calibrators import IdentityCalibrator, TemperatureCalibrator
from trueprob_service.errors import ModelNotFound, VersionNotFound
from trueprob_service.inference.answer import compute
from trueprob_service.inference.deployment import ServedVersion, Shadow
from trueprob_service.inference.deployments import Deployments
from trueprob_service.receipts.receipt import Receipts, digest64
from trueprob_service.receipts.secrets import ReceiptKey

NAMES = ("a", "b", "c")


class Closable:
    """A network that remembers whether it was stopped."""

    failure: str | None = None

    def __init__(self) -> None:
        self.closed = False

    async def run(self, images: np.ndarray) -> np.ndarray:
        return images

    def close(self) -> None:
        self.closed = True


def deployments(built: list[tuple[str, int]] | None = None) -> Deployments:
    def network_for(served: ServedVersion) -> Closable:
        if built is not None:
            built.append((served.model, served.version))
        return Closable()

    return Deployments(network_for=network_for, meters_for=lambda *labels: labels)  # type: ignore[arg-type, return-value]


def deploy(
    target: Deployments, version: int, revision: int | None, temperature: float = 1.0
) -> None:
    calibrator = TemperatureCalibrator(3, temperature)
    served = ServedVersion("m", version, NAMES)
    target.deploy(served, calibrator, calibrator.id, revision=revision)


def test_a_promotion_replaces_what_answers() -> None:
    target = deployments()
    deploy(target, 1, 1, 1.0)
    before = target.current("m")
    deploy(target, 1, 2, 2.0)
    after = target.current("m")
    assert (before.revision, after.revision) == (1, 2)
    assert before.calibrator_id != after.calibrator_id
    assert before.network is after.network  # loaded once, whatever is promoted


def test_an_older_revision_that_comes_late_changes_nothing() -> None:
    target = deployments()
    deploy(target, 1, 3, 3.0)
    deploy(target, 1, 2, 2.0)
    assert target.current("m").revision == 3


def test_the_live_version_does_not_lose_its_revision_to_somebody_who_knows_less() -> None:
    target = deployments()
    deploy(target, 1, 3, 3.0)
    deploy(target, 1, None, 2.0)
    assert target.current("m").revision == 3


def test_a_model_that_is_removed_is_gone_and_may_come_back() -> None:
    removed: list[str] = []
    target = Deployments(
        network_for=lambda served: None,
        meters_for=lambda *labels: labels,  # type: ignore[arg-type, return-value]
        on_remove=removed.append,
    )
    deploy(target, 1, 3)
    assert target.names() == {"m"}
    target.remove("m")
    assert (target.names(), removed) == (set(), ["m"])
    deploy(target, 1, 1)
    assert target.current("m").revision == 1


def test_another_version_answers_by_number_and_has_no_revision() -> None:
    target = deployments()
    deploy(target, 2, 1)
    deploy(target, 1, None)
    assert target.current("m").served.version == 2
    assert target.current("m", 1).revision is None
    deploy(target, 1, 2)  # version 1 goes live
    assert target.current("m").served.version == 1
    assert target.current("m", 2).revision is None
    assert target.current("m", 2).served.version == 2


def test_what_is_not_there_is_named() -> None:
    target = deployments()
    with pytest.raises(ModelNotFound, match="no model named 'm'"):
        target.current("m")
    deploy(target, 1, 1)
    with pytest.raises(VersionNotFound, match="model 'm' has no version 2"):
        target.current("m", 2)


def test_a_network_is_built_once_a_version_and_closed_at_the_end() -> None:
    built: list[tuple[str, int]] = []
    target = deployments(built)
    deploy(target, 1, 1)
    deploy(target, 1, 2, 2.0)
    deploy(target, 2, None)
    assert built == [("m", 1), ("m", 2)]
    networks = [target.current("m", version).network for version in (1, 2)]
    target.close()
    assert all(network.closed for network in networks)  # type: ignore[union-attr]


def test_live_lists_each_model_once() -> None:
    target = deployments()
    deploy(target, 1, 1)
    deploy(target, 2, None)
    other = IdentityCalibrator(3)
    target.deploy(ServedVersion("a", 7, NAMES), other, other.id, revision=1)
    assert [(d.served.model, d.served.version) for d in target.live()] == [("a", 7), ("m", 1)]


def test_class_lists_that_differ_have_different_digests() -> None:
    lists = [("a", "b"), ("b", "a"), ("a", "c"), ("ab", "c"), ("a", "bc"), ("a", "b", "c")]
    digests = {ServedVersion("m", 1, names).class_list_digest for names in lists}
    assert len(digests) == len(lists)


def shadow() -> Shadow:
    calibrator = TemperatureCalibrator(3, 2.0)
    return Shadow(calibrator, calibrator.id)


@pytest.mark.parametrize("role", ["candidate", "predecessor"])
def test_a_shadow_follows_the_revision_that_it_is_of(role: str) -> None:
    target = deployments()
    deploy(target, 1, 4)
    target.shadow("m", 3, role, shadow())
    target.shadow("other", 4, role, shadow())
    assert getattr(target.current("m"), role) is None
    target.shadow("m", 4, role, shadow())
    live = target.current("m")
    assert getattr(live, role) == shadow()
    assert [live.candidate, live.predecessor].count(None) == 1
    assert live.revision == 4
    deploy(target, 2, 5)
    assert getattr(target.current("m"), role) is None
    assert getattr(target.current("m", 1), role) is None


@pytest.mark.parametrize("role", ["candidate", "predecessor"])
def test_receipts_say_what_the_shadow_answers(role: str) -> None:
    target = deployments()
    deploy(target, 1, 1)
    target.shadow("m", 1, role, shadow())
    logits = np.array([[0.0, 2.0, 1.0], [5.0, 0.0, 0.0]], np.float32)
    receipts = Receipts([ReceiptKey(1, bytes(32))], clock=lambda: 1.0)
    ids = compute(target.current("m"), logits).prediction_ids(receipts)
    softer = TemperatureCalibrator(3, 2.0).predict_proba(logits)
    for row, expected in zip(ids, softer, strict=True):
        found = getattr(receipts.verify(row), role)
        assert found == (
            expected.argmax(),
            np.float64(expected.max()),
            digest64(shadow().calibrator_id),
        )


def test_receipts_of_one_input_share_a_group_and_others_do_not() -> None:
    target = deployments()
    deploy(target, 1, 1)
    receipts = Receipts([ReceiptKey(1, bytes(32))], clock=lambda: 1.0)
    logits = np.array([[0.0, 2.0, 1.0], [5.0, 0.0, 0.0], [0.0, 2.0, 1.0]], np.float32)
    same_again = np.asfortranarray(logits)
    found = [
        receipts.verify(each).group
        for rows in (logits, same_again)
        for each in compute(target.current("m"), rows).prediction_ids(receipts)
    ]
    assert found[0] == found[2] == found[3] == found[5] != found[1] == found[4]
    assert 0 not in found
