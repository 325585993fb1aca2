"""Build the site: `make docs` writes it to _docs/html; `make docs-serve` serves it.

Tutorial and reference are generated from the notebooks and the modules, the pipeline's pages from a
run: `artifacts/latest`, or the one that `--run` names. Nothing is executed, except a run if there
is none. The pages in docs/*/*.md are written by hand.
"""

import argparse
import ast
import shutil
import subprocess  # nosec B404
import sys
from pathlib import Path
from typing import Any

import rooms
from dead_links import dead_links
from draw_page import install_draw_page
from notebook_pages import Book, write_page
from reference_pages import Module, command_page, module_page, settings_page
from sphinx.cmd.build import main as sphinx

from mnist_nbdev.base.files import read_json
from mnist_nbdev.base.loading import environment_variables
from mnist_nbdev.base.settings import Settings, setting_fields
from mnist_nbdev.cli.cli import app
from mnist_nbdev.data.sources import find_source

ROOT = Path(__file__).parents[2]
WRITTEN = ["index.md", "start", "tutorial", "howto", "reference", "explanation", "_static"]
# Notebooks without a number are pages about the project, not parts of the library.
PLACES = {
    "index": ("start/overview.ipynb", "The project on one page"),
    "ladder": ("explanation/ladder.ipynb", ""),
    "gate_error": ("explanation/gate_error.ipynb", ""),
}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--run", type=Path, help="folder of the run to show")
    parser.add_argument("--site", type=Path, default=ROOT / "_docs", help="output folder")
    arguments = parser.parse_args()
    run = arguments.run or latest_run()
    source, html = arguments.site / "source", arguments.site / "html"
    shutil.rmtree(arguments.site, ignore_errors=True)
    collect(source, run)
    code = int(sphinx(["-W", "--keep-going", "-q", "-j", "2", str(source), str(html)]))
    (html / "_static" / "webpack-macros.html").unlink(missing_ok=True)  # the theme's, not a page
    dead = dead_links(html) if code == 0 else []
    for link in dead:
        print(f"dead link in {link}", file=sys.stderr)
    if code or dead:
        return 1
    print(f"The site is in {html}, with the run {run.name}. `make docs-serve` shows it.")
    return 0


def latest_run() -> Path:
    "Return the run that artifacts/latest links to; without one, make a quick run."
    latest = ROOT / "artifacts" / "latest"
    if not latest.exists():
        command = [sys.executable, "-m", "mnist_nbdev", "run", "--preset", "fast", "--exit-zero"]
        subprocess.run(command, cwd=ROOT, check=True)  # nosec B603
    return latest.resolve()


def collect(source: Path, run: Path) -> None:
    "Write all pages to Sphinx's source folder."
    source.mkdir(parents=True)
    for name in WRITTEN:
        path = ROOT / "docs" / name
        copy = shutil.copytree if path.is_dir() else shutil.copy
        copy(path, source / name)
    shutil.copy(Path(__file__).parent / "conf.py", source)
    book = Book(ROOT, source)
    modules = [Module(path) for path in rooms.modules()]
    know_names(book, modules)
    write_rooms(source)
    write_notebooks(book)
    write_run(book, run)
    write_reference(book, modules)
    for name in ("CHANGELOG.md", "SECURITY.md"):
        text = (ROOT / name).read_text(encoding="utf-8")
        place = book.pages[name]
        (source / place).write_text(book.with_links(text, place, "."), encoding="utf-8")
    install_draw_page(run / "models" / "model.onnx", source)


def know_names(book: Book, modules: list[Module]) -> None:
    "Register the targets of links: pages, names of the library, settings."
    book.settings = set(setting_fields())
    for notebook in rooms.notebooks():
        name = f"{notebook.parent.name}/{notebook.name}"
        book.pages[f"nbs/{name}"] = f"tutorial/{name}"
    for notebook in sorted((ROOT / "nbs").glob("*.ipynb")):
        place, _ = PLACES.get(notebook.stem, (f"tutorial/{notebook.name}", ""))
        book.pages[f"nbs/{notebook.name}"] = place
    for notebook in sorted((ROOT / "nbs" / "pipeline").glob("*.ipynb")):
        book.pages[f"nbs/pipeline/{notebook.name}"] = f"pipeline/{notebook.name}"
    book.pages |= {
        "CHANGELOG.md": "changelog.md",
        "SECURITY.md": "explanation/security.md",
        "nbs": "tutorial/index.md",
        "nbs/pipeline": "pipeline/index.md",
        "mnist_nbdev": "reference/index.md",
    }
    for module in modules:
        for name, node in module.public():
            book.names[name] = f"mnist_nbdev.{module.name}"
            if isinstance(node, ast.FunctionDef):
                book.docs[name] = ast.get_docstring(node) or ""


def write_rooms(source: Path) -> None:
    "Write the tutorial's table of contents, by room, and the diagram of the rooms."
    parts = [
        f"## {room.capitalize()}\n\n{rooms.purpose(room)}\n\n"
        f"```{{toctree}}\n:maxdepth: 1\n:glob:\n\n{room}/*\n```\n"
        for room in rooms.ROOMS
    ]
    index = source / "tutorial" / "index.md"
    text = index.read_text(encoding="utf-8").replace("ROOMS", "\n".join(parts))
    index.write_text(text, encoding="utf-8")
    (source / "_static" / "rooms.svg").write_text(rooms.picture(), encoding="utf-8")


def write_notebooks(book: Book) -> None:
    "Write the pages of the library's notebooks and of those about the project."
    for name, place in list(book.pages.items()):
        path = Path(name)
        if path.suffix == ".ipynb" and path.parent != Path("nbs/pipeline"):
            title = PLACES.get(path.stem, ("", ""))[1]
            write_page(book, ROOT / name, place, path.parent.as_posix(), title=title)


def write_run(book: Book, run: Path) -> None:
    "Write the pages of a run: its executed stage notebooks, its report, its decision."
    summary = read_json(run / "summary.json")
    description = describe_run(summary)
    for notebook in sorted((run / "notebooks").glob("*.ipynb")):
        note = f":::{{note}}\n{description} [The decision](index.md).\n:::\n"
        write_page(book, notebook, f"pipeline/{notebook.name}", "nbs/pipeline", note=note)
    extra = book.source / "extra" / "pipeline"
    extra.mkdir(parents=True)
    shutil.copy(run / "report.html", extra)
    decision = read_json(run / "decision.json")
    page = (ROOT / "docs" / "pipeline.md").read_text(encoding="utf-8")
    page = page.replace("RUN_DESCRIPTION", description).replace("CHECKS", checks_list(decision))
    (book.source / "pipeline" / "index.md").write_text(page, encoding="utf-8")


def describe_run(summary: dict[str, Any]) -> str:
    "Describe a run in one sentence: its id, data, decision and accuracy."
    data, images = summary["data"], summary["metrics"]["n_test_images"]
    name = find_source(data["source"]).title
    verified = ", verified by SHA-256" if data["verified"] else ""
    return (
        f"The run `{summary['run_id']}`, made on {name}{verified}: **{summary['status']}**, with "
        f"{summary['metrics']['accuracy']:.2%} of {images:,} test images classified correctly."
    )


def checks_list(decision: dict[str, Any]) -> str:
    "Return the checks as a definition list, which fits a narrow page."
    rows = [(c["name"].replace("_", " "), c["outcome"], c["why"]) for c in decision["checks"]]
    return "\n".join(f"{name}: {outcome}\n: {why}\n" for name, outcome, why in rows)


def write_reference(book: Book, modules: list[Module]) -> None:
    "Write the reference: a page per module, the settings, the command line."
    folder = book.source / "reference"
    (folder / "api").mkdir()
    for module in modules:
        place = f"reference/api/{module.name}.md"
        (book.source / place).write_text(module_page(module, book, place), encoding="utf-8")
    index = folder / "index.md"
    listed = "\n".join(f"api/{module.name}" for module in modules)
    text = index.read_text(encoding="utf-8").replace("MODULES", listed)
    index.write_text(text, encoding="utf-8")
    settings = settings_page(Settings, environment_variables())
    (folder / "settings.md").write_text(settings, encoding="utf-8")
    (folder / "command-line.md").write_text(command_page(app), encoding="utf-8")


if __name__ == "__main__":
    sys.exit(main())
