"""Faults are counted: what was tried, what survived, what was lost; the table closes the session.

`FAULTS=ci` and `FAULTS=long` try more of each; `make test-faults` does the latter and keeps the
table.
"""

import os
import sys
from collections import defaultdict
from datetime import date
from pathlib import Path

import pytest

HERE = Path(__file__).parent
sys.path[:0] = [str(HERE / "hook"), str(HERE.parent), str(HERE)]


class Tally:
    "How often each fault was tried, and how it ended."

    def __init__(self) -> None:
        self.rows: dict[str, list[int]] = defaultdict(lambda: [0, 0])  # tries, lost

    def add(self, fault: str, lost: str = "") -> None:
        "Count a try; `lost` says what went wrong, empty where nothing did."
        self.rows[fault][0] += 1
        self.rows[fault][1] += bool(lost)
        assert not lost, f"{fault}: {lost}"

    def table(self) -> str:
        lines = ["| fault | tries | survived | lost |", "| --- | ---: | ---: | ---: |"]
        lines += [
            f"| {fault} | {tries:,} | {tries - lost:,} | {lost:,} |"
            for fault, (tries, lost) in self.rows.items()
        ]
        return "\n".join(lines)


TALLY = Tally()


@pytest.fixture
def tally() -> Tally:
    return TALLY


@pytest.fixture
def many():
    "How many tries: `many(short, long)`, or another number in CI."
    from levels import LEVEL  # from the path that was made above

    def choose(short: int, long: int, ci: int | None = None) -> int:
        return {"short": short, "ci": ci or short, "long": long}[LEVEL]

    return choose


def pytest_terminal_summary(terminalreporter):
    from levels import LEVEL

    if TALLY.rows:
        terminalreporter.section("faults")
        terminalreporter.write_line(TALLY.table())
        if place := os.environ.get("FAULT_TABLE"):
            when = f"Last tried on {date.today()}, in the form `{LEVEL}`."
            Path(place).write_text(f"{when}\n\n{TALLY.table()}\n", encoding="utf-8")
