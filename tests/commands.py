"""Calling `mnist-nbdev` as a shell does: in a process and a folder of its own."""

import json
import logging
import os
import select
import shutil
import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any, NamedTuple

import forking

ROOT = Path(__file__).parent.parent
# Small enough that a whole run takes seconds, on data that come with the packages.
QUICK = ("--preset", "debug")


class Ended(NamedTuple):
    "How a command ended, and what it said."

    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        return json.loads(self.out)


def copy_project(names: Iterable[str], folder: Path) -> None:
    "Copy files and folders of the checkout, as they are committed."
    ignored = shutil.ignore_patterns("__pycache__", ".ipynb_checkpoints", "node_modules")
    for name in names:
        if (ROOT / name).is_dir():
            shutil.copytree(ROOT / name, folder / name, ignore=ignored)
        else:
            shutil.copy(ROOT / name, folder)


# In commands and kernels too, our own code must not use what is on its way out. Other packages' own
# warnings count in the tests' process alone: pyproject.toml excuses some by message.
MODULES = [path.relative_to(ROOT).with_suffix("") for path in ROOT.glob("mnist_nbdev/*/[a-z]*.py")]
OURS = ["__main__", *(".".join(module.parts) for module in MODULES)]
GOING_AWAY = ["DeprecationWarning", "PendingDeprecationWarning", "FutureWarning"]
WARNINGS = ",".join(f"error::{kind}:{module}" for kind in GOING_AWAY for module in OURS)


def environment(**variables: str) -> dict[str, str]:
    "This process's environment without settings, plus `variables`."
    kept = {name: value for name, value in os.environ.items() if not name.startswith("MLOPS_")}
    return {**kept, "PYTHONWARNINGS": WARNINGS, **variables}


def start(*words: str, folder: Path, **variables: str) -> subprocess.Popen[str]:
    "Start a command and go on."
    return subprocess.Popen(
        [sys.executable, "-m", "mnist_nbdev", *words],
        cwd=folder,
        env=environment(**variables),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def call(*words: str, folder: Path, afresh: bool = False, **variables: str) -> Ended:
    "Run a command to its end: in a process with its imports made already, or in one `afresh`."
    if not afresh and hasattr(os, "pidfd_open"):
        return Ended(*forking.run(words, folder, environment(**variables), timeout_s=300))
    process = start(*words, folder=folder, **variables)
    out, err = process.communicate(timeout=300)
    return Ended(process.returncode, out, err)


def git(folder: Path, *words: str, **variables: str) -> str:
    "What git prints in a folder, for somebody who has no habits and no name of their own."
    who = {
        f"GIT_{role}_{what}": "a@b"
        for role in ("AUTHOR", "COMMITTER")
        for what in ("NAME", "EMAIL")
    }
    env = {**os.environ, **who, "GIT_CONFIG_GLOBAL": os.devnull, **variables}
    ended = subprocess.run(
        ["git", *words], cwd=folder, capture_output=True, text=True, check=True, env=env
    )
    return ended.stdout


def close_logs() -> None:
    "Close the files of the log of this process."
    root = logging.getLogger("mnist_nbdev")
    for handler in list(root.handlers):
        root.removeHandler(handler)
        handler.close()


def read_until(process: subprocess.Popen[str], text: str) -> str:
    "What a command says on standard error, up to the line that holds `text`."
    assert process.stderr is not None
    said = ""
    for line in process.stderr:
        said += line
        if text in line:
            return said
    raise AssertionError(f"{text!r} never came; it said:\n{said}")


def descendants(pid: int) -> list[int]:
    "The processes that a process has started, and those that they have."
    parents = {}
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            parents[int(stat.parent.name)] = int(stat.read_text().rsplit(")", 1)[1].split()[1])
        except OSError:
            continue
    found = [pid]
    for one in found:
        found += [child for child, parent in parents.items() if parent == one]
    return found[1:]


def wait_for_end(pid: int, seconds: float = 30.0) -> bool:
    "Whether a process that is not our child ends in time."
    try:
        handle = os.pidfd_open(pid)
    except ProcessLookupError:
        return True
    try:
        return bool(select.select([handle], [], [], seconds)[0])
    finally:
        os.close(handle)
