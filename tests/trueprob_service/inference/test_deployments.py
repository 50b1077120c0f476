import asyncio
import threading
import time

import pytest

from trueprob.calibrators import IdentityCalibrator
from trueprob_service.errors import ModelNotFound
from trueprob_service.inference.deployment import ServedVersion
from trueprob_service.inference.deployments import DeploymentLookup, Deployments


def empty() -> Deployments:
    return Deployments(
        network_for=lambda served: None,
        meters_for=lambda *labels: labels,  # type: ignore[arg-type, return-value]
    )


def test_an_unknown_model_is_searched_in_the_database_once() -> None:
    deployments, refreshes = empty(), []

    def refresh() -> None:
        refreshes.append(1)
        served = ServedVersion("m", 1, ("a", "b"))
        deployments.deploy(served, IdentityCalibrator(2), "identity", revision=1)

    lookup = DeploymentLookup(deployments, refresh)

    async def scenario() -> None:
        assert (await lookup.current("m")).revision == 1
        assert (await lookup.current("m", 1)).revision == 1
        assert len(refreshes) == 1
        with pytest.raises(ModelNotFound):
            await lookup.current("no")

    asyncio.run(scenario())


def test_requests_that_wait_at_the_same_time_share_a_refresh() -> None:
    refreshes: list[float] = []

    def refresh() -> None:
        refreshes.append(time.monotonic())
        time.sleep(0.05)

    lookup = DeploymentLookup(empty(), refresh)

    async def scenario() -> None:
        requests = [lookup.current(f"m{index}") for index in range(50)]
        answers = await asyncio.gather(*requests, return_exceptions=True)
        assert all(isinstance(answer, ModelNotFound) for answer in answers)

    asyncio.run(scenario())
    # The first refresh began before the other requests; one more serves all of them.
    assert len(refreshes) == 2


def test_a_network_that_takes_long_holds_up_no_other() -> None:
    begun, go_on, built = threading.Event(), threading.Event(), []

    def network_for(served: ServedVersion) -> None:
        if served.model == "slow":
            begun.set()
            assert go_on.wait(60)
        built.append(served.model)

    deployments = Deployments(
        network_for=network_for,
        meters_for=lambda *labels: labels,  # type: ignore[arg-type, return-value]
    )

    def deploy(model: str) -> None:
        served = ServedVersion(model, 1, ("a", "b"))
        deployments.deploy(served, IdentityCalibrator(2), "identity", revision=1)

    slow = threading.Thread(target=deploy, args=("slow",))
    slow.start()
    assert begun.wait(60)
    deploy("other")
    assert built == ["other"]
    go_on.set()
    slow.join()
    assert built == ["other", "slow"]
    assert deployments.names() == {"other", "slow"}
    deployments.remove("slow")
    deploy("slow")
    assert built == ["other", "slow", "slow"]
