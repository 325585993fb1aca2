"""The rooms of the library: its sub-packages, in the order in which they may import."""

import ast
from pathlib import Path

ROOT = Path(__file__).parent.parent
ROOMS = ("base", "data", "model", "gate", "runs", "registry", "execution", "cli")


def notebooks() -> list[Path]:
    "The library's notebooks in reading order: none imports from a later one."
    return [path for room in ROOMS for path in sorted((ROOT / "nbs" / room).glob("*.ipynb"))]


def modules() -> list[Path]:
    "The modules that they export, in the same order."
    names = [(path.parent.name, path.stem.partition("_")[2]) for path in notebooks()]
    return [ROOT / "mnist_nbdev" / room / f"{name}.py" for room, name in names]


def dotted(path: Path) -> str:  # "base.files"
    "A module's name within the package."
    return f"{path.parent.name}.{path.stem}"


def purpose(room: str) -> str:
    "What belongs into a room, and what does not, as its package says it."
    source = (ROOT / "mnist_nbdev" / room / "__init__.py").read_text(encoding="utf-8")
    return ast.get_docstring(ast.parse(source)) or ""


def imported_modules(path: Path) -> set[str]:  # {"base.files", …}
    "The modules of the library that a module imports, whether it names them in full or not."
    found = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        names = []
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            above = ["mnist_nbdev", path.parent.name][: 3 - node.level] if node.level else []
            home = ".".join([*above, *([node.module] if node.module else [])])
            names = [f"{home}.{alias.name}" for alias in node.names]
        found |= {
            ".".join(name.split(".")[1:3]) for name in names if name.startswith("mnist_nbdev.")
        }
    return found & {dotted(module) for module in modules()}


def picture() -> str:
    "Rooms as rows, the first at the bottom, with their modules; a dot for each room imported from."
    parts, told = [], []
    for place, name in enumerate(ROOMS[:-1]):
        turned = f'transform="rotate(-45 {520 + 26 * place} 66)"'
        parts.append(f'<text class="l" x="{520 + 26 * place}" y="66" {turned}>{name}</text>')
    for number, room in enumerate(reversed(ROOMS)):
        y = 78 + 46 * number
        here = [path for path in modules() if path.parent.name == room]
        used = {name.split(".")[0] for path in here for name in imported_modules(path)} - {room}
        below = ", ".join(name for name in ROOMS if name in used) or "nothing"
        told.append(f"{room} ({', '.join(path.stem for path in here)}) imports from {below}")
        parts.append(f'<text class="l" x="10" y="{y + 23}">{room}</text>')
        width = (410 - 8 * (len(here) - 1)) / len(here)
        for place, path in enumerate(here):
            x = 90 + place * (width + 8)
            parts += [
                f'<rect class="b" x="{x:.0f}" y="{y}" width="{width:.0f}" height="36" rx="6"/>',
                f'<text class="t" x="{x + width / 2:.0f}" y="{y + 23}">{path.stem}</text>',
            ]
        dots = (520 + 26 * place for place, name in enumerate(ROOMS) if name in used)
        parts += [f'<circle class="tip" cx="{x}" cy="{y + 18}" r="5"/>' for x in dots]
    label = f"The library in eight rooms: {'; '.join(reversed(told))}"
    return "\n".join(
        [
            f'<div class="diagram" tabindex="0" role="region" aria-label="Diagram: {label}">',
            f'<svg viewBox="0 0 760 {84 + 46 * len(ROOMS)}" role="img" aria-label="{label}">',
            *parts,
            "</svg>\n</div>\n",
        ]
    )
