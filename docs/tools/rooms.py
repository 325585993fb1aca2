"""The rooms of the library: its sub-packages, each of which imports only from earlier ones."""

import ast
from pathlib import Path

ROOT = Path(__file__).parents[2]
ROOMS = ("base", "data", "model", "gate", "runs", "registry", "execution", "cli")


def notebooks() -> list[Path]:
    "Return the library's notebooks in reading order: none imports from a later one."
    return [path for room in ROOMS for path in sorted((ROOT / "nbs" / room).glob("*.ipynb"))]


def modules() -> list[Path]:
    "Return the modules that the notebooks export, in the same order."
    names = [(path.parent.name, path.stem.partition("_")[2]) for path in notebooks()]
    return [ROOT / "mnist_nbdev" / room / f"{name}.py" for room, name in names]


def dotted(path: Path) -> str:  # "base.files"
    "Return a module's name within the package."
    return f"{path.parent.name}.{path.stem}"


def purpose(room: str) -> str:
    "Return the docstring of a room's package: what belongs there and what does not."
    source = (ROOT / "mnist_nbdev" / room / "__init__.py").read_text(encoding="utf-8")
    return ast.get_docstring(ast.parse(source)) or ""


def imported_modules(path: Path) -> set[str]:  # {"base.files", …}
    "Return the modules of the library that a module imports, absolutely or relatively."
    imported = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        names = []
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            above = ["mnist_nbdev", path.parent.name][: 3 - node.level] if node.level else []
            home = ".".join([*above, *([node.module] if node.module else [])])
            names = [f"{home}.{alias.name}" for alias in node.names]
        imported |= {
            ".".join(name.split(".")[1:3]) for name in names if name.startswith("mnist_nbdev.")
        }
    return imported & {dotted(module) for module in modules()}


def picture() -> str:
    "Draw the rooms as rows, the first at the bottom; a dot marks each room imported from."
    parts, descriptions = [], []
    for place, name in enumerate(ROOMS[:-1]):
        turned = f'transform="rotate(-45 {520 + 26 * place} 66)"'
        parts.append(f'<text class="l" x="{520 + 26 * place}" y="66" {turned}>{name}</text>')
    for number, room in enumerate(reversed(ROOMS)):
        y = 78 + 46 * number
        own = [path for path in modules() if path.parent.name == room]
        used = {name.split(".")[0] for path in own for name in imported_modules(path)} - {room}
        below = ", ".join(name for name in ROOMS if name in used) or "nothing"
        stems = ", ".join(path.stem for path in own)
        descriptions.append(f"{room} ({stems}) imports from {below}")
        parts.append(f'<text class="l" x="10" y="{y + 23}">{room}</text>')
        width = (410 - 8 * (len(own) - 1)) / len(own)
        for place, path in enumerate(own):
            x = 90 + place * (width + 8)
            parts += [
                f'<rect class="b" x="{x:.0f}" y="{y}" width="{width:.0f}" height="36" rx="6"/>',
                f'<text class="t" x="{x + width / 2:.0f}" y="{y + 23}">{path.stem}</text>',
            ]
        dots = (520 + 26 * place for place, name in enumerate(ROOMS) if name in used)
        parts += [f'<circle class="tip" cx="{x}" cy="{y + 18}" r="5"/>' for x in dots]
    label = f"The library in eight rooms: {'; '.join(reversed(descriptions))}"
    return "\n".join(
        [
            f'<div class="diagram" tabindex="0" role="region" aria-label="Diagram: {label}">',
            f'<svg viewBox="0 0 760 {84 + 46 * len(ROOMS)}" role="img" aria-label="{label}">',
            *parts,
            "</svg>\n</div>\n",
        ]
    )
