"""Whether each package that a run needs has a licence that lets the project ship as Apache-2.0.

`--list` prints them. The packages are those of settings.ini's `requirements`, and what they need.
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
# NVIDIA's libraries come with PyPI's torch for Linux, are free to use, and are never shipped by us.
VENDOR = re.compile(r"^(nvidia-|cuda-|triton$)")


def needed(names: list[str]) -> dict[str, str]:  # name -> licence
    found: dict[str, str] = {}
    while names:
        name = names.pop().lower().replace("_", "-")
        if name in found:
            continue
        try:
            package = distribution(name)
        except PackageNotFoundError:
            continue  # of another platform or Python
        about = package.metadata
        classifiers = [
            c.split(" :: ")[-1] for c in about.get_all("Classifier", []) if "License" in c
        ]
        text = about.get("License-Expression") or "; ".join(classifiers) or about.get("License", "")
        found[name] = text.strip().splitlines()[0][:80] if text.strip() else "unknown"
        for line in package.requires or []:
            requirement = Requirement(line)
            if requirement.marker is None or requirement.marker.evaluate({"extra": ""}):
                names.append(requirement.name)
    return found


def main() -> int:
    settings = configparser.ConfigParser(delimiters=["="])
    settings.read(Path(__file__).parent.parent / "settings.ini", encoding="utf-8")
    lines = settings["DEFAULT"]["requirements"].split("\n")
    found = needed([Requirement(line).name for line in lines if line.strip()])
    if "--list" in sys.argv:
        print("\n".join(f"{name:32} {licence}" for name, licence in sorted(found.items())))
    odd = {n: text for n, text in found.items() if not FREE.search(text) and not VENDOR.match(n)}
    for name, licence in sorted(odd.items()):
        print(f"{name}: {licence!r} is not on the list of .ci/licences.py", file=sys.stderr)
    return 1 if odd else 0


if __name__ == "__main__":
    sys.exit(main())
