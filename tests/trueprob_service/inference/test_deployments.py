import asyncio
import time

import pytest

from trueprob.calibrators import IdentityCalibrator
from trueprob_service.errors import ModelNotFound
from trueprob_service.inference.deployment import ServedVersion
from trueprob_service.inference.deployments import Deployments
from trueprob_service.inference.elsewhere import Elsewhere


def empty() -> Deployments:
    return Deployments(
        network_for=lambda served: None,
        meters_for=lambda *labels: labels,  # type: ignore[arg-type, return-value]
    )


def test_a_name_that_is_not_known_is_looked_for_once() -> None:
    deployments, looks = empty(), []

    def look() -> None:
        looks.append(1)
        served = ServedVersion("m", 1, ("a", "b"))
        deployments.deploy(served, IdentityCalibrator(2), "identity", revision=1)

    elsewhere = Elsewhere(deployments, look)

    async def scenario() -> None:
        assert (await elsewhere.current("m")).revision == 1
        assert (await elsewhere.current("m", 1)).revision == 1
        assert len(looks) == 1
        with pytest.raises(ModelNotFound):
            await elsewhere.current("no")

    asyncio.run(scenario())


def test_requests_that_wait_for_one_another_share_a_look() -> None:
    looks: list[float] = []

    def look() -> None:
        looks.append(time.monotonic())
        time.sleep(0.05)

    elsewhere = Elsewhere(empty(), look)

    async def scenario() -> None:
        asked = [elsewhere.current(f"m{index}") for index in range(50)]
        answers = await asyncio.gather(*asked, return_exceptions=True)
        assert all(isinstance(answer, ModelNotFound) for answer in answers)

    asyncio.run(scenario())
    # The first look began before the others asked; one more is for all of them.
    assert len(looks) == 2
