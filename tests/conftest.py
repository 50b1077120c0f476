"""Hypothesis profiles, and the marker of the tests that start PostgreSQL.

Profile `gate` is for every run, `nightly` has twenty times the examples. One is chosen by the
variable HYPOTHESIS_PROFILE or the option --hypothesis-profile.
"""

import logging
import os
from collections.abc import Iterator

import pytest
from hypothesis import settings

settings.register_profile("gate", max_examples=100, derandomize=True, deadline=None)
settings.register_profile("nightly", max_examples=2000, deadline=None, print_blob=True)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "gate"))


@pytest.fixture(autouse=True)
def logging_as_before() -> Iterator[None]:
    """A test that starts the service in its own process leaves no handler and no level behind."""
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    yield
    root.handlers[:] = handlers
    root.setLevel(level)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if starts_postgresql(item):
            item.add_marker(pytest.mark.integration)


def starts_postgresql(item: pytest.Item) -> bool:
    """Whether the server is asked for by a fixture, or by the kind of database."""
    parameters = item.callspec.params if hasattr(item, "callspec") else {}
    fixtures = getattr(item, "fixturenames", ())
    return "new_postgres_url" in fixtures or parameters.get("database_url") == "postgresql"
