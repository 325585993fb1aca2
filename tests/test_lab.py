"""The notebooks in JupyterLab, opened in a browser; and what git makes of what is saved there."""

import json
import os
import re
import shutil
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import nbformat
import pytest
from commands import copy_project, environment, git

pytestmark = pytest.mark.integration
ROOT = Path(__file__).parent.parent
COPIED = ["mnist_nbdev", "nbs", "config", "docs", "settings.ini", ".gitattributes", ".ci"]
BIN = Path(sys.executable).parent


@pytest.fixture(scope="module")
def checkout(tmp_path_factory) -> Path:
    "A copy of the checkout under a name with a space, as a git repository with this environment."
    folder: Path = tmp_path_factory.mktemp("a clone") / "mnist nbdev"
    folder.mkdir()
    copy_project(COPIED, folder)
    (folder / ".venv").symlink_to(BIN.parent)
    text = (ROOT / ".ci" / "setup").read_text(encoding="utf-8")
    found = re.search(r"^git_habits\(\) \{.*?^\}", text, re.M | re.S)
    assert found
    git(folder, "init", "-q", "-b", "main")
    script = f'set -eu\nsay() {{ echo "$*" >&2; exit 1; }}\n{found[0]}\ngit_habits'
    subprocess.run(["bash", "-c", script], cwd=folder, check=True)
    (folder / ".gitignore").write_text(".venv\n__pycache__\nartifacts\nlogs\n.ipynb_checkpoints\n")
    git(folder, "add", "-A")
    commit(folder, "Begin")
    return folder


def commit(folder: Path, subject: str) -> None:
    git(folder, "commit", "-q", "-a", "-m", subject)


def as_lab_saves(path: Path, counted: int = 7) -> None:
    "A notebook with all that JupyterLab adds when somebody runs and saves it."
    notebook = nbformat.read(path, as_version=4)
    for cell in notebook.cells:
        if cell.cell_type == "code":
            cell.execution_count = counted
            cell.metadata["execution"] = {"iopub.execute_input": "2026-01-31T12:00:00Z"}
    notebook.metadata["language_info"] = {"name": "python", "version": "3.12.1"}
    notebook.metadata.kernelspec["display_name"] = "mnist-nbdev"
    nbformat.write(notebook, path)


# Git


def test_a_notebook_that_was_only_run_is_no_change_for_git(checkout):
    as_lab_saves(checkout / "nbs/base/02_statistics.ipynb")
    assert git(checkout, "diff") == ""
    git(checkout, "add", "-A")
    assert git(checkout, "diff", "--cached") == ""


def test_two_people_who_change_different_cells_of_a_notebook_are_merged(checkout):
    path = checkout / "nbs/data/12_augmentation.ipynb"

    def change(number: int, words: str) -> None:
        notebook = nbformat.read(path, as_version=4)
        notebook.cells[number].source += words
        nbformat.write(notebook, path)
        as_lab_saves(path, number)
        commit(checkout, words)

    git(checkout, "checkout", "-q", "-b", "theirs")
    change(0, "\n\nTheirs.")
    git(checkout, "checkout", "-q", "main")
    change(-1, "\n\nOurs.")
    git(checkout, "merge", "-q", "theirs", "-m", "Merge")
    merged = nbformat.read(path, as_version=4)
    assert merged.cells[0].source.endswith("Theirs.")
    assert merged.cells[-1].source.endswith("Ours.")


def test_a_file_that_is_no_notebook_is_committed_as_it_is(checkout):
    path = checkout / "broken.ipynb"
    path.write_text("<<<<<<< not JSON\n")
    git(checkout, "add", "broken.ipynb")
    assert git(checkout, "show", ":broken.ipynb") == "<<<<<<< not JSON\n"
    git(checkout, "rm", "-q", "--force", "broken.ipynb")


# JupyterLab


@pytest.fixture(scope="module")
def lab(checkout, tmp_path_factory) -> Iterator[str]:
    "The address of a JupyterLab on the copy, as `make lab` starts it, in an empty home."
    home = tmp_path_factory.mktemp("home")
    settings = home / "labsettings"
    settings.mkdir()
    ours = json.loads((ROOT / "docs" / "lab-settings.json").read_text(encoding="utf-8"))
    whole = {"@jupyterlab/notebook-extension:tracker": {"windowingMode": "none"}}
    (settings / "overrides.json").write_text(json.dumps({**ours, **whole}), encoding="utf-8")
    env = environment(
        HOME=str(home),
        PYTHONPATH=str(checkout),
        PATH=f"{BIN}:{os.environ['PATH']}",
        JUPYTER_PREFER_ENV_PATH="1",
    )
    words = [
        "--no-browser",
        "--ip=127.0.0.1",
        "--port=0",
        "--ServerApp.token=letmein",
        "--expose-app-in-browser",
    ]
    words += [f"--LabApp.app_settings_dir={settings}", "--allow-root"]
    process = subprocess.Popen(
        [str(BIN / "jupyter"), "lab", *words],
        cwd=checkout,
        env=env,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stderr
    for line in process.stderr:
        if found := re.search(r"http://127\.0\.0\.1:\d+/", line):
            break
    else:
        pytest.fail("JupyterLab did not start")
    # Nobody reads on, and a full pipe would stop the server.
    threading.Thread(target=process.stderr.read, daemon=True).start()
    yield found[0]
    process.terminate()
    process.wait()


def open_notebook(browser: Any, lab: str, name: str) -> Any:
    tab = browser.new_page(viewport={"width": 1300, "height": 1000})
    workspace = Path(name).stem  # of its own: else the last page's notebook opens, too
    tab.goto(f"{lab}lab/workspaces/{workspace}/tree/nbs/{name}?token=letmein")
    opened = "window.jupyterapp?.shell.currentWidget?.context?.path?.endsWith('.ipynb')"
    tab.wait_for_function(opened, timeout=120_000)
    return tab


def run_all_and_save(tab: Any) -> None:
    "Run All from a clean kernel, to its end, and save: the commands behind the menu's items."
    tab.evaluate(
        """() => {
          const run = async () => {
            const app = window.jupyterapp, panel = app.shell.currentWidget;
            await panel.context.ready;
            await panel.sessionContext.ready;
            await app.commands.execute('notebook:run-all-cells');
            await panel.context.save();
          };
          run().then(() => { window.ended = 'saved'; }, error => { window.ended = String(error); });
        }"""
    )
    tab.wait_for_function("window.ended", timeout=240_000)
    assert tab.evaluate("window.ended") == "saved"


@pytest.mark.parametrize(
    "name",
    ["data/12_augmentation.ipynb", "base/02_statistics.ipynb", "pipeline/1_data.ipynb"],
)
def test_run_all_passes_and_leaves_the_sources_as_they_were(browser, lab, checkout, name):
    path = checkout / "nbs" / name
    before = [cell.source for cell in nbformat.read(path, as_version=4).cells]
    tab = open_notebook(browser, lab, name)
    run_all_and_save(tab)
    tab.close()
    notebook = nbformat.read(path, as_version=4)
    code = [cell for cell in notebook.cells if cell.cell_type == "code"]
    errors = [o for cell in code for o in cell.outputs if o.output_type == "error"]
    assert errors == []
    assert all(cell.execution_count for cell in code), "not every cell was run"
    subprocess.run([BIN / "nbdev_clean", "--fname", path], cwd=checkout, check=True)
    assert [cell.source for cell in nbformat.read(path, as_version=4).cells] == before


def test_the_sliders_of_the_explore_page_transform_the_digit(browser, lab):
    tab = open_notebook(browser, lab, "explore.ipynb")
    run_all_and_save(tab)
    said = tab.locator(".jp-OutputArea-output:has-text('; it is a') pre").last
    first = said.inner_text()
    slider = tab.locator(".widget-slider:has-text('rotation') .noUi-handle")
    slider.first.focus()
    for _ in range(40):
        tab.keyboard.press("ArrowRight")
    tab.wait_for_function(
        "first => [...document.querySelectorAll('.jp-OutputArea-output pre')]"
        ".map(pre => pre.innerText.trim())"
        ".some(text => text.includes('; it is a') && text !== first.trim())",
        arg=first,
        timeout=30_000,
    )
    tab.close()


# What is not exported yet


def test_a_stage_says_which_notebook_was_edited_and_not_exported(checkout, tmp_path):
    folder = tmp_path / "edited"
    shutil.copytree(checkout, folder, symlinks=True, ignore=shutil.ignore_patterns(".git"))
    path = folder / "nbs/model/01_network.ipynb"
    notebook = nbformat.read(path, as_version=4)
    exported = next(c for c in notebook.cells if c.source.startswith("#| export"))
    exported.source += "\nANSWER = 42"
    nbformat.write(notebook, path)
    ended = subprocess.run(
        [BIN / "papermill", "nbs/pipeline/1_data.ipynb", "out.ipynb"],
        cwd=folder,
        env=environment(PYTHONPATH=str(folder)),
        capture_output=True,
        text=True,
        check=False,
    )
    assert ended.returncode == 0, ended.stderr[-2000:]
    said = json.dumps(nbformat.read(folder / "out.ipynb", as_version=4))
    assert "nbs/model/01_network.ipynb was edited but not exported" in said
