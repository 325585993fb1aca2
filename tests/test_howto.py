"""Each recipe of docs/howto, executed as printed, in a copy of the project."""

import os
import re
import subprocess
import sys
import textwrap
from pathlib import Path
from typing import NamedTuple

import forking
import nbformat
import pytest
import torch
import yaml
from commands import copy_project, environment
from PIL import Image

from mnist_nbdev.base.training_settings import DataSettings
from mnist_nbdev.data.sources import load_dataset

pytestmark = pytest.mark.integration
ROOT = Path(__file__).parent.parent
RECIPES = ROOT / "docs" / "howto"
COPIED = [
    "mnist_nbdev",
    "nbs",
    "config",
    "docs",
    "settings.ini",
    "setup.py",
    "pyproject.toml",
    "README.md",
    "Dockerfile",
    "docker-compose.yml",
    "docker-compose.gpu.yml",
]
# What makes a recipe quick: the sample, one epoch of a small network, and no database.
QUICK = {
    "MLOPS_DATA_SOURCE": "sample",
    "MLOPS_TRAINING_EPOCHS": "1",
    "MLOPS_MODEL_CONV_CHANNELS": "[8, 16]",
    "MLOPS_MODEL_FC_HIDDEN_DIMS": "[32]",
    "MLOPS_INFERENCE_TIMED_RUNS": "10",
    "MLOPS_REGISTRY_TRACK": "false",
}
BLOCK = re.compile(r"^```(?:\{code-block\} )?(\w+)\n((?::\w+: [^\n]*\n)*)(.*?)^```$", re.M | re.S)


class Block(NamedTuple):
    language: str
    options: dict[str, str]
    text: str


def blocks(page: str) -> list[Block]:
    text = (RECIPES / f"{page}.md").read_text(encoding="utf-8")
    assert text.count("\n```") == 2 * len(BLOCK.findall(text)), "a block that no test would see"
    return [
        Block(language, dict(re.findall(r":(\w+): (.*)", options)), body)
        for language, options, body in BLOCK.findall(text)
    ]


def listed() -> list[str]:
    index = (RECIPES / "index.md").read_text(encoding="utf-8")
    return re.findall(r"^[a-z]+$", index, re.M)


@pytest.fixture(scope="module")
def project(tmp_path_factory) -> Path:
    "A copy of the project; what a recipe changes there stays for those that follow."
    folder: Path = tmp_path_factory.mktemp("project")
    copy_project(COPIED, folder)
    digit = load_dataset(DataSettings(source="sample"), seed=0).test.images[0]
    Image.fromarray(digit).save(folder / "digit.png")  # which a reader has already
    return folder


def test_every_recipe_is_in_the_index():
    assert sorted(listed()) == sorted(p.stem for p in RECIPES.glob("*.md") if p.stem != "index")


@pytest.mark.parametrize("page", listed())
def test_the_recipe_works_as_written(project, page):
    for block in blocks(page):
        if "needs-cuda" in block.options.get("class", "") and not torch.cuda.is_available():
            ended = execute(["bash", "-euo", "pipefail", "-c", block.text], project)
            assert ended.returncode == 2
            assert "cuda was requested" in ended.stderr
        elif "caption" in block.options:
            write(block, project)
        elif block.language == "bash":
            done(["bash", "-euo", "pipefail", "-c", block.text], project)
        else:
            assert block.language == "python"
            done([sys.executable, "-c", block.text], project)


def execute(command: list[str], project: Path) -> subprocess.CompletedProcess[str]:
    path = f"{ROOT / 'tests' / 'stand_ins'}:{Path(sys.executable).parent}:{os.environ['PATH']}"
    server = forking.start_server(own=False)
    quick = {"MPLBACKEND": "agg", "FORKING_SERVER": server, **QUICK}
    if "model.architecture" in command[-1]:  # whose size no setting of digitnet changes
        quick = {key: value for key, value in quick.items() if "MLOPS_MODEL" not in key}
    env = environment(PYTHONPATH=str(project), PATH=path, **quick)
    return subprocess.run(
        command, cwd=project, env=env, capture_output=True, text=True, check=False, timeout=300
    )


def done(command: list[str], project: Path) -> None:
    ended = execute(command, project)
    assert ended.returncode == 0, f"{command[-1]}\n{ended.stdout[-2000:]}\n{ended.stderr[-2000:]}"


def write(block: Block, project: Path) -> None:
    "Put a block where its caption says: a file, a new cell, or lines of one."
    name, _, where = block.options["caption"].partition(", ")
    if name.endswith(".ipynb"):
        change(project / name, where, block.text.rstrip("\n"))
        return
    (project / name).parent.mkdir(parents=True, exist_ok=True)
    (project / name).write_text(block.text, encoding="utf-8")
    if name.startswith(".github/"):
        for job in yaml.safe_load(block.text)["jobs"].values():
            for step in job["steps"]:
                done(["bash", "-euo", "pipefail", "-c", step["run"]], project)


def change(path: Path, where: str, text: str) -> None:
    "Change a notebook as a caption says."
    new = nbformat.v4.new_notebook()
    new.metadata["kernelspec"] = {
        "name": "python3",
        "display_name": "python3",
        "language": "python",
    }
    notebook = nbformat.read(path, as_version=4) if path.exists() else new
    cell = nbformat.v4.new_code_cell(text)
    if where == "a new cell tagged parameters":
        cell.metadata["tags"] = ["parameters"]
        notebook.cells.append(cell)
    elif where == "a new cell":
        notebook.cells.append(cell)
    else:
        found = re.fullmatch(r"(a new cell before|before|after|in place of) `(.*)`", where)
        assert found, where
        order, anchor = found.groups()
        (number, line) = next(
            (number, line)
            for number, one in enumerate(notebook.cells)
            if one.cell_type == "code" and re.search(r"^#\| export", one.source, re.M)
            for line, words in enumerate(one.source.split("\n"))
            if words.strip().startswith(anchor)
        )
        if order == "a new cell before":
            notebook.cells.insert(number, cell)
        else:
            lines = notebook.cells[number].source.split("\n")
            indent = lines[line][: len(lines[line]) - len(lines[line].lstrip())]
            start = line + (order == "after")
            lines[start : start + (order == "in place of")] = [textwrap.indent(text, indent)]
            notebook.cells[number].source = "\n".join(lines)
    nbformat.write(notebook, path)
