"""``/docs`` in a real browser that reaches nothing but the service."""

import subprocess
from pathlib import Path

import pytest

from tests.integration_requirements import require_program
from tests.running_service import ROOT, running_service

pytestmark = pytest.mark.integration


def test_the_documentation_page_works_without_the_internet(tmp_path: Path) -> None:
    chromium = require_program("chromium", "chromium-browser", "google-chrome")
    with running_service(tmp_path / "state", ROOT / "models") as service:
        page = subprocess.run(
            [
                str(chromium), "--headless", "--no-sandbox", "--disable-gpu", "--no-first-run",
                "--disable-background-networking", "--disable-component-update", "--disable-sync",
                # Every host but the service's resolves to nothing.
                "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1",
                f"--user-data-dir={tmp_path / 'profile'}", "--virtual-time-budget=20000",
                "--dump-dom", f"{service.url}/docs",
            ],
            capture_output=True, text=True, timeout=120, check=True,
        ).stdout  # fmt: skip
    # Swagger UI has rendered the routes from openapi.json; the bare page has neither.
    assert "Calibrated probabilities" in page
    assert "/v1/models/{model}/labels" in page.replace("\u200b", "").replace("<wbr>", "")
