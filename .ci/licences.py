"""Check that the licence of each package that a run needs is compatible with Apache-2.0.

The packages are settings.ini's `requirements` and their dependencies. `--list` prints them.
"""

import configparser
import re
import sys
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path

from packaging.requirements import Requirement

FREE = re.compile(
    r"MIT|BSD|Apache|ISC|PSF|Python Software Foundation|MPL|Mozilla|HPND|Unlicense|Zlib|CC0|0BSD",
    re.I,
)
# NVIDIA's libraries come with PyPI's torch for Linux, are free to use, and are never redistributed.
VENDOR = re.compile(r"^(nvidia-|cuda-|triton$)")


def needed(names: list[str]) -> dict[str, str]:  # name -> licence
    "Collect the licences of these packages and of their dependencies."
    licences: dict[str, str] = {}
    while names:
        name = names.pop().lower().replace("_", "-")
        if name in licences:
            continue
        try:
            package = distribution(name)
        except PackageNotFoundError:
            continue  # for another platform or Python
        metadata = package.metadata
        classifiers = [
            c.split(" :: ")[-1] for c in metadata.get_all("Classifier", []) if "License" in c
        ]
        text = metadata.get("License-Expression") or "; ".join(classifiers)
        text = text or metadata.get("License", "")
        licences[name] = text.strip().splitlines()[0][:80] if text.strip() else "unknown"
        for line in package.requires or []:
            requirement = Requirement(line)
            if requirement.marker is None or requirement.marker.evaluate({"extra": ""}):
                names.append(requirement.name)
    return licences


def main() -> int:
    settings = configparser.ConfigParser(delimiters=["="])
    settings.read(Path(__file__).parent.parent / "settings.ini", encoding="utf-8")
    lines = settings["DEFAULT"]["requirements"].split("\n")
    licences = needed([Requirement(line).name for line in lines if line.strip()])
    if "--list" in sys.argv:
        print("\n".join(f"{name:32} {licence}" for name, licence in sorted(licences.items())))
    refused = {
        name: licence
        for name, licence in licences.items()
        if not FREE.search(licence) and not VENDOR.match(name)
    }
    for name, licence in sorted(refused.items()):
        print(f"{name}: {licence!r} is not on the list of .ci/licences.py", file=sys.stderr)
    return 1 if refused else 0


if __name__ == "__main__":
    sys.exit(main())
