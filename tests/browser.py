"""The page of a service in a real browser that reaches nothing but the service."""

from __future__ import annotations

import html
import re
import subprocess
from pathlib import Path

from tests.integration_requirements import require_program
from tests.running_service import RunningService


def rendered(service: RunningService, profile: Path, model: str = "digits") -> str:
    """The page's document, as the browser has it after its scripts have run."""
    return document(f"{service.url}/#{model}", profile)


def document(url: str, profile: Path, *, seconds: int = 4) -> str:
    """The document at an address, as the browser has it after its scripts have run."""
    chromium = require_program("chromium", "chromium-browser", "google-chrome")
    page = subprocess.run(
        [
            str(chromium), "--headless", "--no-sandbox", "--disable-gpu", "--no-first-run",
            "--disable-background-networking", "--disable-component-update", "--disable-sync",
            # Every host but the service's resolves to nothing.
            "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1",
            f"--user-data-dir={profile}", f"--virtual-time-budget={1000 * seconds}",
            "--dump-dom", url,
        ],
        capture_output=True, text=True, timeout=120, check=True,
    ).stdout  # fmt: skip
    return html.unescape(page)


def text_of(page: str, element: str) -> str:
    """Text of the element with this id, which has no children."""
    found = re.search(rf'id="{element}"[^>]*>([^<]*)<', page)
    assert found is not None, element
    return found[1]


def listed(page: str) -> dict[str, list[str]]:
    """Model → the further cells of its row, in the order of the page."""
    body = re.search(r'<tbody id="models">(.*?)</tbody>', page)
    assert body is not None
    rows = re.findall(r"<tr><td><a [^>]*>([^<]*)</a></td>(.*?)</tr>", body[1])
    return {model: re.findall(r"<td[^>]*>([^<]*)</td>", cells) for model, cells in rows}
