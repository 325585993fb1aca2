"""Is this checkout slower than another commit? Both do the same in turn, on the same machine.

    make ci-performance BASE=main

Whole commands are timed, as a user starts them. Each is done once before it counts; then the two
sides take turns, and swap who begins. What counts is the ratio of the two times of a turn: noise
that lasts longer than a turn cancels. The interval is Student's, of the ratios' logarithms. A row
fails when even its lower end is above the allowed ratio; the exit code is 1 then.
"""

import argparse
import contextlib
import os
import subprocess  # nosec B404
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import Image
from scipy.stats import ttest_1samp

from mnist_nbdev.base.files import write_text
from mnist_nbdev.runs.environment import processor_name

ROOT = Path(__file__).parent.parent
ALLOWED = 1.05
NEW_RUN = ("run", "--fresh", "--exit-zero", "--set", "registry.track=false")
COMMANDS = {  # what is compared -> words, turns
    "`--help`": (("--help",), 20),
    "`predict` one image": (("predict", "digit.png", "--model", "latest"), 10),
    "`run --preset debug`": ((*NEW_RUN, "--preset", "debug"), 6),
    "`run --preset fast --mode train`": ((*NEW_RUN, "--preset", "fast", "--mode", "train"), 5),
}


class Row(NamedTuple):
    "A command, and how long it took in each turn."

    name: str
    base: list[float]  # seconds
    head: list[float]

    @property
    def ratio(self) -> tuple[float, float, float]:  # mean, lower and upper end; 1: as fast
        logs = np.log(self.head) - np.log(self.base)
        if np.ptp(logs) == 0:
            return (float(np.exp(logs[0])),) * 3
        ends = ttest_1samp(logs, 0).confidence_interval(0.95)
        return tuple(float(np.exp(value)) for value in (logs.mean(), *ends))

    @property
    def slower(self) -> bool:
        return self.ratio[1] > ALLOWED


def table(rows: list[Row], base: str) -> str:
    "The comparison as Markdown."
    slow = [row.name for row in rows if row.slower]
    lines = [
        f"## Speed against {base}",
        "",
        f"**Slower: {', '.join(slow)}.**" if slow else "Nothing is slower beyond doubt.",
        "",
        f"| command | turns | {base}, s | this, s | this / {base} | 95 % interval |",
        "| --- | ---: | ---: | ---: | ---: | --- |",
    ]
    for row in rows:
        mean, lower, upper = row.ratio
        before, now = np.median(row.base), np.median(row.head)
        lines.append(
            f"| {row.name} | {len(row.base)} | {before:.2f} | {now:.2f} "
            f"| {mean:.3f} | {lower:.3f} to {upper:.3f} |"
        )
    lines += ["", f"{processor_name()}, {os.cpu_count()} cores; seconds are medians."]
    return "\n".join(lines) + "\n"


@contextlib.contextmanager
def checkout(commit: str) -> Iterator[Path]:
    "Another commit's files, in a folder that goes away again."
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place) / "base"
        git = ("git", "-C", str(ROOT), "worktree")
        added = subprocess.run(  # nosec B603
            [*git, "add", "--quiet", "--detach", str(folder), commit],
            capture_output=True,
            text=True,
            check=False,
        )
        if added.returncode:
            sys.exit(f"There is no commit {commit} here: {added.stderr.strip()}")
        try:
            yield folder
        finally:
            subprocess.run([*git, "remove", "--force", str(folder)], check=True)  # nosec B603


def call(words: tuple[str, ...], tree: Path, folder: Path) -> None:
    "Run a command of a checkout to its end, in a folder of its own; it must succeed."
    ended = subprocess.run(  # nosec B603
        [sys.executable, "-m", "mnist_nbdev", *words],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(tree)},
        capture_output=True,
        text=True,
        check=False,
    )
    if ended.returncode:
        sys.exit(f"{' '.join(words)} of {tree} ended with {ended.returncode}: {ended.stderr}")


def seconds(words: tuple[str, ...], tree: Path, folder: Path) -> float:
    "How long a command of a checkout takes."
    began = time.perf_counter()
    call(words, tree, folder)
    return time.perf_counter() - began


def compare(trees: tuple[Path, Path]) -> list[Row]:
    rows = {name: ([], []) for name in COMMANDS}
    with tempfile.TemporaryDirectory() as place:
        folders = [Path(place) / side for side in ("base", "head")]
        for tree, folder in zip(trees, folders, strict=True):
            folder.mkdir()
            stroke = np.zeros((28, 28), np.uint8)
            stroke[5:23, 13:15] = 255
            Image.fromarray(stroke).save(folder / "digit.png")
            seconds((*NEW_RUN, "--preset", "debug"), tree, folder)  # whose model predicts
        for name, (words, turns) in COMMANDS.items():
            for turn in range(turns + 1):
                for side in (0, 1) if turn % 2 else (1, 0):
                    took = seconds(words, trees[side], folders[side])
                    if turn:
                        rows[name][side].append(took)
            print(f"{name}: {Row(name, *rows[name]).ratio[0]:.3f}", file=sys.stderr)
    return [Row(name, *times) for name, times in rows.items()]


def main() -> int:
    parser = argparse.ArgumentParser(description="Compare this checkout's speed with a commit's.")
    parser.add_argument("base", help="a commit, a branch or a tag")
    parser.add_argument("--out", type=Path, help="where the table goes, besides standard output")
    given = parser.parse_args()
    with checkout(given.base) as tree:
        rows = compare((tree, ROOT))
    found = table(rows, given.base[:12])
    print(found)
    if given.out:
        write_text(given.out, found)
    return int(any(row.slower for row in rows))


if __name__ == "__main__":
    sys.exit(main())
