"""Check that modules, notebooks and README match their sources.

The tree is exported and cleaned in a copy and compared with it; the tree itself is not changed.
"""

import os
import shutil
import subprocess  # nosec B404
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).parent.parent
BIN = Path(sys.executable).parent


def generated(root: Path) -> dict[str, bytes]:
    paths = [*root.glob("mnist_nbdev/**/*.py"), *root.glob("nbs/**/*.ipynb")]
    return {
        path.relative_to(root).as_posix(): path.read_bytes()
        for path in paths
        if ".ipynb_checkpoints" not in path.parts
    }


def main() -> int:
    before = generated(ROOT)
    with tempfile.TemporaryDirectory() as folder:
        copy = Path(folder)
        shutil.copy(ROOT / "settings.ini", copy)
        for name in ("nbs", "mnist_nbdev"):
            ignored = shutil.ignore_patterns("__pycache__", ".ipynb_checkpoints")
            shutil.copytree(ROOT / name, copy / name, ignore=ignored)
        environment = {**os.environ, "PYTHONPATH": ""}
        for command in ("nbdev_clean", "nbdev_export"):
            subprocess.run([BIN / command], cwd=copy, check=True, env=environment)  # nosec B603
        after = generated(copy)
    stale = sorted(name for name in before | after if before.get(name) != after.get(name))
    for name in stale:
        print(f"{name} does not match its source: run nbdev_clean and nbdev_export")
    readme = subprocess.run(  # nosec B603
        [sys.executable, ROOT / "docs" / "make_readme.py", "--check"], check=False
    )
    return 1 if stale or readme.returncode else 0


if __name__ == "__main__":
    sys.exit(main())
