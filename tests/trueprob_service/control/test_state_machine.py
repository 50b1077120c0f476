"""Random histories against a model that fits on a page."""

from __future__ import annotations

import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis.stateful import run_state_machine_as_test

from tests.trueprob_service.control.control_plane_machine import ControlPlaneMachine

pytestmark = pytest.mark.slow


@pytest.mark.parametrize(
    "kind", ["sqlite", pytest.param("postgresql", marks=pytest.mark.integration)]
)
def test_any_history_is_as_the_simple_model_says(request: pytest.FixtureRequest, kind: str) -> None:
    if kind == "postgresql":
        new_url = request.getfixturevalue("new_postgres_url")
        database = staticmethod(lambda _folder: new_url())
    else:
        database = staticmethod(lambda folder: f"sqlite:///{folder / 'd.sqlite3'}")
    machine = type("Machine", (ControlPlaneMachine,), {"database": database})
    run_state_machine_as_test(
        machine,
        settings=settings(
            max_examples=3 if kind == "postgresql" else 8,
            stateful_step_count=20,
            phases=[Phase.generate],  # shrinking takes minutes; the seed is fixed
            deadline=None,
            derandomize=True,
            database=None,
            suppress_health_check=list(HealthCheck),
        ),
    )
