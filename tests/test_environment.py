"What a run records of the packages, the commit and the processor, on machines of all kinds."

import os
import subprocess
from pathlib import Path

import pytest

from mnist_nbdev.runs.environment import git_state

pytestmark = pytest.mark.unit


def git(folder: Path, *words: str) -> None:
    identity = ["-c", "user.name=tester", "-c", "user.email=tester@example.org"]
    subprocess.run(["git", *identity, *words], cwd=folder, check=True)


def test_the_clean_filter_of_notebooks_neither_delays_nor_changes_the_state(tmp_path):
    (tmp_path / ".gitattributes").write_text("*.ipynb filter=notebook\n")
    (tmp_path / "a.ipynb").write_text("{}\n")
    git(tmp_path, "init", "--quiet")
    git(tmp_path, "add", ".")
    git(tmp_path, "commit", "--quiet", "--message=first")
    git(tmp_path, "config", "filter.notebook.clean", "touch called; echo other")
    os.utime(tmp_path / "a.ipynb", (1, 1))  # as after a checkout: git reads it again
    assert git_state(tmp_path)["clean"]
    (tmp_path / "a.ipynb").write_text("[]\n")
    assert not git_state(tmp_path)["clean"]
    assert not (tmp_path / "called").exists()
