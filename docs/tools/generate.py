"""Generate the modules, README.md and config/default.yaml from the notebooks.

With `--check`, do so in a copy, compare, and change nothing.
"""

import os
import shutil
import subprocess  # nosec B404
import sys
import tempfile
from pathlib import Path

import nbformat
from nbconvert import MarkdownExporter

ROOT = Path(__file__).parents[2]
BIN = Path(sys.executable).parent
SOURCES = ("settings.ini", "nbs", "mnist_nbdev", "config", "README.md")
README_NOTE = "<!-- Generated from nbs/index.ipynb: edit the notebook. -->\n\n"
DEFAULT_SETTINGS = """
from mnist_nbdev.base.loading import settings_yaml
from mnist_nbdev.base.settings import Settings

print(settings_yaml(Settings.model_construct(), comments=True), end="")
"""
SETTINGS_NOTE = (
    "# Every setting with its default. Copy the lines you want to change into a file of your own.\n"
)


def generate(root: Path) -> None:
    for command in ("nbdev_clean", "nbdev_export"):
        run([str(BIN / command)], root, "")
    (root / "README.md").write_text(README_NOTE + readme(root), encoding="utf-8")
    settings = run([sys.executable, "-c", DEFAULT_SETTINGS], root, str(root))
    (root / "config" / "default.yaml").write_text(SETTINGS_NOTE + settings, encoding="utf-8")


def run(command: list[str], folder: Path, python_path: str) -> str:
    environment = {**os.environ, "PYTHONPATH": python_path, "PYTHONUTF8": "1"}
    ended = subprocess.run(  # nosec B603
        command, cwd=folder, env=environment, stdout=subprocess.PIPE, check=True, encoding="utf-8"
    )
    return ended.stdout


def readme(root: Path) -> str:
    notebook = nbformat.read(root / "nbs" / "index.ipynb", as_version=4)
    notebook.cells = [cell for cell in notebook.cells if not cell.source.startswith("#| hide")]
    notebook.metadata["language_info"] = {"name": "python"}  # nbdev_clean removes it
    text, _ = MarkdownExporter().from_notebook_node(notebook)
    return text.replace("../docs/images/", "docs/images/").strip() + "\n"


def contents(root: Path) -> dict[str, bytes]:
    paths = [*root.glob("mnist_nbdev/**/*.py"), *root.glob("nbs/**/*.ipynb")]
    paths += [root / "README.md", root / "config" / "default.yaml"]
    return {
        path.relative_to(root).as_posix(): path.read_bytes()
        for path in paths
        if path.is_file() and ".ipynb_checkpoints" not in path.parts
    }


def stale_files() -> list[str]:
    with tempfile.TemporaryDirectory() as folder:
        ignored = shutil.ignore_patterns("__pycache__", ".ipynb_checkpoints")
        for path in map(Path, SOURCES):
            if (ROOT / path).is_dir():
                shutil.copytree(ROOT / path, folder / path, ignore=ignored)
            elif (ROOT / path).is_file():
                shutil.copy(ROOT / path, folder)
        generate(Path(folder))
        before, after = contents(ROOT), contents(Path(folder))
    return sorted(name for name in before | after if before.get(name) != after.get(name))


def main() -> int:
    if "--check" not in sys.argv:
        generate(ROOT)
        return 0
    for name in (stale := stale_files()):
        print(f"{name} does not match its source: run python docs/tools/generate.py")
    return 1 if stale else 0


if __name__ == "__main__":
    sys.exit(main())
