"""Faults are counted: tries, survivals, losses; the table closes the session."""

import os
from collections import defaultdict
from datetime import date
from pathlib import Path
from typing import Any

from levels import LEVEL


class Tally:
    "How often each fault was tried, and how it ended."

    def __init__(self) -> None:
        self.rows: dict[str, list[int]] = defaultdict(lambda: [0, 0])  # tries, lost

    def add(self, fault: str, lost: str = "") -> None:
        "Count a try; `lost` says what went wrong, empty where nothing did."
        self.rows[fault][0] += 1
        self.rows[fault][1] += bool(lost)
        assert not lost, f"{fault}: {lost}"

    def table(self, when: str, kept: str = "") -> str:
        "The rows of this session, and those of an earlier table that it did not try."
        lines = {}
        for line in kept.splitlines():
            fault = line.strip("|").split("|")[0].strip()
            if line.startswith("| ") and fault != "fault" and not fault.startswith("---"):
                lines[fault] = line
        for fault, (tries, lost) in self.rows.items():
            lines[fault] = f"| {fault} | {tries:,} | {tries - lost:,} | {lost:,} | {when} |"
        head = [
            "| fault | tries | survived | lost | last tried |",
            "| --- | ---: | ---: | ---: | --- |",
        ]
        return "\n".join([*head, *lines.values()])


TALLY = Tally()


def pytest_sessionfinish(session: Any) -> None:
    "A worker hands its rows to the process that started it."
    if hasattr(session.config, "workeroutput"):
        session.config.workeroutput["faults"] = dict(TALLY.rows)


def pytest_testnodedown(node: Any) -> None:
    for fault, (tries, lost) in getattr(node, "workeroutput", {}).get("faults", {}).items():
        TALLY.rows[fault][0] += tries
        TALLY.rows[fault][1] += lost


def pytest_terminal_summary(terminalreporter: Any) -> None:
    if TALLY.rows:
        terminalreporter.section("faults")
        when = f"{date.today()}, {LEVEL}"
        terminalreporter.write_line(TALLY.table(when))
        if place := os.environ.get("FAULT_TABLE"):
            path = Path(place)
            kept = path.read_text(encoding="utf-8") if path.exists() else ""
            path.write_text(TALLY.table(when, kept) + "\n", encoding="utf-8")
