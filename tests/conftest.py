"""What several test files share."""

import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from browsing import CHROMIUM
from commands import QUICK, call

HERE = Path(__file__).parent
sys.path.append(str(HERE.parent / "docs" / "tools"))
sys.path[:0] = [str(HERE / "faults" / "hook"), str(HERE / "faults")]


def pytest_configure(config: pytest.Config) -> None:
    "Count faults, wherever they are tried, in one table."
    import tally

    config.pluginmanager.register(tally)


# Files that take minutes, the longest first: two processes end together when these begin early.
LONG = [
    *("test_killed_runs.py", "test_howto.py", "test_stages.py", "test_benchmark.py"),
    *("test_release_story.py", "test_site.py", "test_lab.py", "test_runs.py"),
]


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    def place(item: pytest.Item) -> int:
        return LONG.index(item.path.name) if item.path.name in LONG else len(LONG)

    items.sort(key=place)


COMMANDS = ["test_command_line", "test_settings_cli"]


@pytest.fixture(scope="module", autouse=True)
def commands_are_counted(request: pytest.FixtureRequest) -> Iterator[None]:
    "Coverage counts the lines of other processes where commands are the subject, and there alone."
    # With it, a run takes 21 s instead of 12.
    counted = request.module.__name__ in COMMANDS
    passed_on = None if counted else os.environ.pop("COVERAGE_PROCESS_CONFIG", None)
    yield
    if passed_on is not None:
        os.environ["COVERAGE_PROCESS_CONFIG"] = passed_on


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


@pytest.fixture(scope="session")
def quick_project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    "A folder with a quick run, `first`, which nobody changes; other runs may be added."
    folder = tmp_path_factory.mktemp("project")
    ended = call("run", *QUICK, "--run-id", "first", folder=folder)
    assert ended.code == 3, ended.err
    return folder
