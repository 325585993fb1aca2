"""Generate README.md from nbs/index.ipynb; with `--check`, only check that it is up to date."""

import sys
from pathlib import Path

import nbformat
from nbconvert import MarkdownExporter

ROOT = Path(__file__).parent.parent


def readme() -> str:
    notebook = nbformat.read(ROOT / "nbs" / "index.ipynb", as_version=4)
    notebook.cells = [cell for cell in notebook.cells if not cell.source.startswith("#| hide")]
    notebook.metadata["language_info"] = {"name": "python"}  # nbdev_clean removes it
    text, _ = MarkdownExporter().from_notebook_node(notebook)
    note = "<!-- Generated from nbs/index.ipynb by docs/make_readme.py: edit the notebook. -->\n\n"
    return note + text.replace("../docs/images/", "docs/images/").strip() + "\n"


def main() -> int:
    path, text = ROOT / "README.md", readme()
    if "--check" not in sys.argv:
        path.write_text(text, encoding="utf-8")
    elif not path.is_file() or path.read_text(encoding="utf-8") != text:
        print("README.md does not match nbs/index.ipynb: run python docs/make_readme.py")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
