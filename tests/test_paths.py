"""docs/paths.md names the files that requests really run through."""

from pathlib import Path

import pytest

from tests.request_paths import PAGE, all_paths, page

pytestmark = pytest.mark.slow


def test_the_page_of_paths_is_what_a_run_finds(tmp_path: Path) -> None:
    assert PAGE.read_text("utf-8") == page(all_paths(tmp_path))
