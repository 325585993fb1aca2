"""The notebooks as a site: `make docs` writes it to _docs/html.

Every page is a notebook with the outputs that were committed; nothing is executed. Directive lines
and hidden cells are left out. Reading the site needs no network.
"""

import re
import shutil
import subprocess
import sys
from pathlib import Path

import nbformat
from draw_page import install_draw_page
from sphinx.cmd.build import main as sphinx

ROOT = Path(__file__).parent.parent
SOURCE, SITE = ROOT / "_docs" / "source", ROOT / "_docs" / "html"
CONF = """
project = "mnist-nbdev"
extensions = ["myst_nb"]
html_theme = "pydata_sphinx_theme"
html_title = "mnist-nbdev"
html_show_copyright = False
html_static_path = ["_static"]
html_context = {"default_mode": "auto"}  # empty, it is an error on each page's console
html_theme_options = {"show_prev_next": True, "secondary_sidebar_items": ["page-toc"]}
nb_execution_mode = "off"
nb_merge_streams = True
myst_enable_extensions = ["colon_fence"]
myst_heading_anchors = 4
mathjax_path = "none"  # no page has formulas; nothing is fetched from elsewhere
suppress_warnings = ["myst.header", "mystnb.unknown_mime_type", "myst.xref_missing"]
"""
TOC = """# mnist-nbdev

An MLOps pipeline for MNIST digits whose notebooks are source, report and evidence at once.

```{{toctree}}
:caption: Start here
:maxdepth: 1

index
draw
```

```{{toctree}}
:caption: The library
:maxdepth: 1

{library}
```

```{{toctree}}
:caption: The pipeline
:maxdepth: 1

{stages}
```

```{{toctree}}
:caption: What it reaches
:maxdepth: 1

ladder
gate_error
```
"""


def page(source: Path, target: Path) -> None:
    notebook = nbformat.read(source, as_version=4)
    shown = []
    for cell in notebook.cells:
        hidden = re.search(r"^#\s*\|\s*(hide|default_exp)", cell.source, re.M)
        if cell.cell_type == "code":
            if hidden:
                continue
            cell.source = re.sub(r"^#\s*\|.*\n", "", cell.source, flags=re.M)
        else:
            cell.source = cell.source.replace("../docs/images/", "images/")
            cell.source = cell.source.replace("../benchmarks/results/", "images/")
            # The README's links into the checkout are pages here, or stay words.
            cell.source = re.sub(r"\]\(nbs/([\w/]+\.ipynb)\)", r"](\1)", cell.source)
            cell.source = re.sub(
                r"\[([^\]]+)\]\((?!https?:|[\w/]+\.ipynb|images/)[^)]*\)", r"\1", cell.source
            )
        shown.append(cell)
    notebook.cells = shown
    target.parent.mkdir(parents=True, exist_ok=True)
    nbformat.write(notebook, target)


def released_model() -> Path:
    "The model of the run that the site shows; where there is no run, one of a few seconds."
    model = ROOT / "artifacts" / "latest" / "models" / "model.onnx"
    if not model.exists():
        command = [sys.executable, "-m", "mnist_nbdev", "run", "--preset", "fast", "--exit-zero"]
        subprocess.run(command, cwd=ROOT, check=True)
    return model


def main() -> int:
    shutil.rmtree(ROOT / "_docs", ignore_errors=True)
    notebooks = sorted((ROOT / "nbs").glob("[0-9]*.ipynb"))
    stages = sorted((ROOT / "nbs" / "pipeline").glob("*.ipynb"))
    others = [ROOT / "nbs" / f"{name}.ipynb" for name in ("index", "ladder", "gate_error")]
    for path in [*others, *notebooks, *stages]:
        page(path, SOURCE / path.relative_to(ROOT / "nbs"))
    install_draw_page(released_model(), SOURCE)
    shutil.copytree(ROOT / "docs" / "images", SOURCE / "images")
    shutil.copy(ROOT / "benchmarks" / "results" / "bench-full.png", SOURCE / "images")
    toc = TOC.format(
        library="\n".join(path.stem for path in notebooks),
        stages="\n".join(f"pipeline/{path.stem}" for path in stages),
    )
    (SOURCE / "contents.md").write_text(toc, encoding="utf-8")
    (SOURCE / "conf.py").write_text(CONF + 'root_doc = "contents"\n', encoding="utf-8")
    code = sphinx(["-W", "--keep-going", "-q", "-b", "html", str(SOURCE), str(SITE)])
    if code == 0:
        print(f"The site is in {SITE.relative_to(ROOT)}: open contents.html.")
    return int(code)


if __name__ == "__main__":
    sys.exit(main())
