"""``/docs`` in a real browser that reaches nothing but the service."""

from pathlib import Path

import pytest

from tests.browser import document
from tests.running_service import ROOT, running_service

pytestmark = pytest.mark.integration


def test_the_documentation_page_works_without_the_internet(tmp_path: Path) -> None:
    with running_service(tmp_path / "state", ROOT / "models") as service:
        page = document(f"{service.url}/docs", tmp_path / "profile", seconds=20)
    # Swagger UI has rendered the routes from openapi.json; the bare page has neither.
    assert "Calibrated probabilities" in page
    assert "/v1/models/{model}/labels" in page.replace("\u200b", "").replace("<wbr>", "")
