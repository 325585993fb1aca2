"""Write notebooks as pages of the site: with outputs, without directives and hidden cells.

nbdev's own `proc_nbs` prepares notebooks for Quarto: absolute links, a YAML head, raw HTML for
`show_doc`. Sphinx can use none of that, so this module implements the few steps it needs.
"""

import ast
import os
import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import nbformat

DIRECTIVE = re.compile(r"^#\s*\|.*\n?", re.M)
HIDDEN = re.compile(r"^#\s*\|\s*(hide\b|default_exp)", re.M)
EXPORTED = re.compile(r"^#\s*\|\s*export\b", re.M)
LINK = re.compile(r"(!?)\[((?:[^\[\]]|\[[^\]]*\])*)\]\((?!https?:|mailto:|#)([^)\s]+)\)")
CODE = re.compile(r"(?<![\[`{}\w])`([A-Za-z_][\w.]*)(?:\(\))?`(?![`\]])")


@dataclass
class Book:
    "The pages, names and settings that links can lead to."

    root: Path  # the checkout
    source: Path  # Sphinx's source folder
    pages: dict[str, str] = field(default_factory=dict)  # "nbs/model/01_network.ipynb" -> its page
    names: dict[str, str] = field(default_factory=dict)  # "DigitNet" -> "mnist_nbdev.model.network"
    docs: dict[str, str] = field(default_factory=dict)  # "plot_curves" -> its docstring
    settings: set[str] = field(default_factory=set)  # "training.epochs"

    def with_links(self, text: str, place: str, folder: str, module: str = "") -> str:
        "Adapt the links of Markdown from a file in `folder` to a page at `place`."
        parts, fenced = [], False
        for line in text.split("\n"):
            fence = line.lstrip().startswith(("```", "~~~"))
            fenced ^= fence
            if fence or fenced or line.startswith(("    ", "#")):
                parts.append(line)
                continue
            linked = LINK.sub(lambda match: self._link(match, place, folder), line)
            parts.append(CODE.sub(lambda match: self._name(match, module), linked))
        return "\n".join(parts)

    def _link(self, match: re.Match[str], place: str, folder: str) -> str:
        "Link to the page of a file, or to a copy of an image; without either, return plain text."
        image, words, target = match.groups()
        path, _, anchor = target.partition("#")
        # index.ipynb is also the README, so its links are relative to the root.
        for start in (folder, "."):
            linked = os.path.normpath(os.path.join(start, path))
            if linked in self.pages:
                link = os.path.relpath(self.pages[linked], Path(place).parent)
                return f"[{words}]({link}{'#' + anchor if anchor else ''})"
            if image and (self.root / linked).is_file():
                copy = self.source / "images" / Path(linked).name
                copy.parent.mkdir(parents=True, exist_ok=True)
                copy.write_bytes((self.root / linked).read_bytes())
                return f"![{words}]({os.path.relpath(copy, (self.source / place).parent)})"
        return words

    def _name(self, match: re.Match[str], module: str) -> str:
        "Link a name of the library or of a setting to its reference."
        name = match[1]
        if name in self.settings and "." in name:
            return f"{{confval}}`{name}`"
        home = self.names.get(name)
        # `train` may be a mode, a folder or a function: link a plain word in its own module only.
        plain = re.fullmatch(r"[a-z]+", name) and not match[0].endswith("()`")
        if home is None or (plain and home != f"mnist_nbdev.{module}"):
            return match[0]
        return f"{{py:obj}}`~{home}.{name}`"


def write_page(
    book: Book,
    notebook: Path,  # the notebook, with its outputs
    place: str,  # path of the page: "tutorial/model/01_network.ipynb"
    folder: str,  # base of its relative links: "nbs/model"
    title: str = "",  # replaces the notebook's title
    note: str = "",  # Markdown below the title
) -> None:
    "Write a notebook to the site's sources."
    content = nbformat.read(notebook, as_version=4)
    module = f"{notebook.parent.name}.{notebook.stem.partition('_')[2]}"
    shown: list[Any] = []
    words = ""
    for cell in content.cells:
        if HIDDEN.search(cell.source):
            continue
        if cell.cell_type == "code":
            anchors = _anchors(cell.source, module) if EXPORTED.search(cell.source) else ""
            cell.source = DIRECTIVE.sub("", cell.source).strip("\n")
            if not cell.source:
                continue
            if anchors:
                shown.append(nbformat.v4.new_markdown_cell(anchors))
            _prepare_outputs(cell, _alt_text(cell, words, book))
        else:
            words = cell.source
            cell.source = book.with_links(cell.source, place, folder, module)
        shown.append(cell)
    head = shown[0]
    if title:
        head.source = re.sub(r"^# .*", f"# {title}", head.source)
    if note:
        heading, _, rest = head.source.partition("\n")
        head.source = f"{heading}\n\n{note}\n{rest}"
    content.cells = shown
    content.metadata.pop("widgets", None)
    target = book.source / place
    target.parent.mkdir(parents=True, exist_ok=True)
    nbformat.write(content, target)


def _anchors(source: str, module: str) -> str:
    "Return link targets for the names that a cell defines, for links from the reference."
    defined = [
        node.name
        for node in ast.parse(source).body
        if isinstance(node, ast.FunctionDef | ast.ClassDef) and not node.name.startswith("_")
    ]
    return "\n".join(f"(cell-{module}-{name})=" for name in defined)


def _alt_text(cell: Any, words: str, book: Book) -> str:
    "Describe a figure: by its output's alt text, its function's docstring, or the text above it."
    for output in cell.get("outputs", []):
        alt = output.get("metadata", {}).get("image/png", {}).get("alt")
        if alt:
            return str(alt)
    for name in reversed(re.findall(r"\b(plot_\w+)\(", cell.source)):
        if name in book.docs:
            return book.docs[name].split(". ")[0].rstrip(".").replace("`", "")
    prose = [line for line in words.splitlines() if line and not line.startswith(("#", "|", ">"))]
    sentence = re.split(r"(?<=[.:?]) ", prose[-1])[-1] if prose else words.lstrip("# ")
    plain = re.sub(r"[`*_\[\]]|\(\S+\)", "", sentence).rstrip(".:")
    return f"Figure: {plain}"


def _prepare_outputs(cell: Any, alt: str) -> None:
    "Keep the outputs that a page can show: no widgets; images with width and alt text."
    options = {"alt": alt}
    for output in cell.outputs:
        data = output.get("data", {})
        for kind in [name for name in data if "widget" in name]:
            del data[kind]
        width = output.get("metadata", {}).get("image/png", {}).get("width")
        if width:
            options["width"] = f"{width}px"
    cell.outputs = [
        output
        for output in cell.outputs
        if output.get("data") or output.get("text") or "ename" in output
    ]
    cell.metadata["mystnb"] = {"image": options}
