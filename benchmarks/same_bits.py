"""Does this checkout make the same bits as another commit? Both run, on the same machine.

    make same-bits BASE=main

Weights, exported model and predictions must be the same bytes for the presets `debug` and `fast`,
seed 0; every metric must agree to 1e-12. `--source mnist` takes the full set instead of the sample.
The exit code is 1 where something differs.
"""

import argparse
import json
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from compare import NEW_RUN, ROOT, call, checkout

from mnist_nbdev.base.files import sha256_file

PRESETS = ("debug", "fast")
SAME_BYTES = ("models/model.safetensors", "models/model.onnx", "evaluation/predictions.npz")
METRICS = "evaluation/metrics.json"
TOLERANCE = 1e-12


def run(tree: Path, folder: Path, preset: str, source: str) -> Path:
    "A checkout's run, in a folder of its own: the run's folder."
    chosen = ("--preset", preset, "--set", f"data.source={source}", "--run-id", preset)
    call((*NEW_RUN, *chosen), tree, folder)
    return folder / "artifacts/runs" / preset


def leaves(value: Any, name: str = "") -> Iterator[tuple[str, Any]]:
    "Every value in nested JSON, by its path."
    items = value.items() if isinstance(value, dict) else enumerate(value)
    for key, item in items:
        path = f"{name}.{key}" if name else str(key)
        if isinstance(item, dict | list):
            yield from leaves(item, path)
        else:
            yield path, item


def same(first: Any, second: Any) -> bool:
    numbers = all(isinstance(value, int | float) for value in (first, second))
    return abs(first - second) <= TOLERANCE if numbers else first == second


def differences(base: Path, head: Path) -> list[str]:
    "What two runs differ in, a line each."
    lines = [name for name in SAME_BYTES if sha256_file(base / name) != sha256_file(head / name)]
    old, new = (dict(leaves(json.loads((run / METRICS).read_text()))) for run in (base, head))
    for name in sorted(old.keys() | new.keys()):
        if name not in old or name not in new or not same(old[name], new[name]):
            lines.append(f"{METRICS}: {name}: {old.get(name)} → {new.get(name)}")
    return lines


def main() -> int:
    parser = argparse.ArgumentParser(description="Compare this checkout's bits with a commit's.")
    parser.add_argument("base", help="a commit, a branch or a tag")
    parser.add_argument("--source", choices=["sample", "mnist"], default="sample")
    given = parser.parse_args()
    lines = []
    with checkout(given.base) as tree, tempfile.TemporaryDirectory() as place:
        for preset in PRESETS:
            folders = [Path(place) / side / preset for side in ("base", "head")]
            for folder in folders:
                folder.mkdir(parents=True)
            base, head = (
                run(tree, folder, preset, given.source)
                for tree, folder in zip((tree, ROOT), folders, strict=True)
            )
            lines += [f"{preset}: {line}" for line in differences(base, head)]
    print("\n".join(lines) or f"The same bits as {given.base[:12]}.")
    return int(bool(lines))


if __name__ == "__main__":
    sys.exit(main())
