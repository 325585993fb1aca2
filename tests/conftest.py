"""What several test files share."""

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from browsing import CHROMIUM

sys.path.append(str(Path(__file__).parent.parent / "docs"))


@pytest.fixture(scope="session")
def browser() -> Iterator[Any]:
    "Chromium without a window."
    if CHROMIUM is None:
        pytest.skip("no browser is here: apt-get install chromium")
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        flags = ["--no-sandbox", "--disable-gpu"]
        chromium = playwright.chromium.launch(executable_path=CHROMIUM, args=flags)
        yield chromium
        chromium.close()
