"What a run records of the packages, the commit and the processor, on machines of all kinds."

import os
import platform
import subprocess
from importlib import metadata
from pathlib import Path

import pytest

from mnist_nbdev.runs import environment
from mnist_nbdev.runs.environment import git_state, processor_name

pytestmark = pytest.mark.unit


def test_the_required_packages_are_those_that_a_run_needs():
    names = environment._requirements()
    assert names == sorted(names, key=str.lower)
    assert {"torch", "PyYAML", "nh3"} <= set(names)
    assert "nbdev" not in names


@pytest.mark.parametrize(
    ("lines", "names"), [(["b>=1; extra == 'x'", "c[d]<2", "A"], ["A", "c"]), (None, [])]
)
def test_extras_and_versions_are_no_part_of_a_package_s_name(monkeypatch, lines, names):
    monkeypatch.setattr(metadata, "requires", lambda name: {"mnist-nbdev": lines}[name])
    assert environment._requirements() == names


def test_a_checkout_that_is_not_installed_names_no_package(monkeypatch):
    monkeypatch.setattr(metadata, "requires", lambda name: metadata.version(f"{name}-elsewhere"))
    assert environment._requirements() == []


def test_the_processor_is_the_first_that_linux_lists(monkeypatch):
    cpuinfo = "processor\t: 0\nmodel name\t: Fast: 3 GHz\nmodel name\t: Slow\n"
    monkeypatch.setattr(Path, "read_text", lambda path: {Path("/proc/cpuinfo"): cpuinfo}[path])
    assert processor_name() == "Fast: 3 GHz"


def test_without_cpuinfo_the_processor_is_what_python_knows(monkeypatch):
    monkeypatch.setattr(Path, "read_text", lambda path: (path / "missing").readlink())
    assert processor_name() == (platform.processor() or platform.machine())
    monkeypatch.setattr(platform, "processor", lambda: "")
    assert processor_name() == platform.machine()


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
