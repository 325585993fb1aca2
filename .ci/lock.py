"""Write the lock files from settings.ini: the exact packages, with hashes, that `make setup` and
the images install.

`--upgrade` upgrades the packages. Without the network, `--check` compares the lock files with
settings.ini, and `--installed` lists the packages that this environment has in other versions.
"""

import configparser
import json
import re
import subprocess
import sys
from contextlib import suppress
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).parent.parent
# The lists of settings.ini in each lock; each also has the packages that build this one.
LOCKS = {
    "requirements-development.lock": ["requirements", "dev_requirements"],
    "requirements.lock": ["requirements"],
    "requirements-production.lock": ["serve_requirements"],
    "requirements-ci.lock": ["ci_requirements"],
    "requirements-ui.lock": ["ui_requirements"],
}


def wanted(root: Path, lists: list[str]) -> list[str]:
    settings = configparser.ConfigParser(delimiters=["="])
    settings.read(root / "settings.ini", encoding="utf-8")
    lines = [line for name in lists for line in settings["DEFAULT"][name].split("\n") if line]
    build = re.search(r"^requires = (.*)", (root / "pyproject.toml").read_text("utf-8"), re.M)
    assert build
    return [*lines, *json.loads(build[1])]


def make(lock: str, lists: list[str], options: list[str]) -> None:
    # The first lock constrains the others, so that a package has one version in all of them.
    first = next(iter(LOCKS))
    command = ["pip", "compile", "--quiet", "--no-config", "--universal", "--generate-hashes"]
    command += ["--only-binary", ":all:"]  # wheels only: nothing is built at installation
    command += ["--no-strip-extras"]  # pip looks up hashes with the extras: coverage[toml]
    command += ["--python-version", "3.10", "--custom-compile-command", "make lock"]
    command += [*options, *([] if lock == first else ["--constraint", first])]
    subprocess.run(  # noqa: S603 -- arguments from this file
        [Path(sys.executable).parent / "uv", *command, "--output-file", lock, "-"],
        cwd=ROOT,
        input="\n".join(wanted(ROOT, lists)),
        text=True,
        check=True,
    )


def locked(text: str) -> dict[str, tuple[list[str], bool]]:  # name -> versions, whether direct
    packages: dict[str, tuple[list[str], bool]] = {}
    for block in re.split(r"^(?=[a-z0-9])", text, flags=re.M)[1:]:
        package = re.match(r"([\w.-]+)(?:\[.*?\])?==([^ ;]+)", block)
        assert package, block
        assert "--hash=sha256:" in block, f"{package[0]} has no hash"
        versions, named = packages.get(package[1], ([], False))
        direct = re.search(r"^ +#.* -r -$", block, re.M) is not None
        packages[package[1]] = ([*versions, package[2]], named or direct)
    return packages


def stale(root: Path) -> list[str]:  # one message per difference from settings.ini
    problems = []
    for lock, lists in LOCKS.items():
        packages = locked((root / lock).read_text("utf-8"))
        requirements = {canonicalize_name(r.name): r for r in map(Requirement, wanted(root, lists))}
        for name, requirement in requirements.items():
            versions, _ = packages.get(name, ([], False))
            if not versions or not all(requirement.specifier.contains(v) for v in versions):
                problems.append(f"{lock}: settings.ini requires {requirement}, locked: {versions}")
        for name in {name for name, (_, named) in packages.items() if named} - set(requirements):
            problems.append(f"{lock}: {name} is locked, but settings.ini no longer requires it")
    return problems


def differing(root: Path) -> list[str]:  # rows of a Markdown table
    rows = set()
    for lock in LOCKS:
        for line in re.findall(r"^[a-z0-9][^\\\n]*", (root / lock).read_text("utf-8"), re.M):
            requirement = Requirement(line)
            if requirement.marker is None or requirement.marker.evaluate():
                with suppress(PackageNotFoundError):
                    installed = version(requirement.name)
                    if not requirement.specifier.contains(installed, prereleases=True):
                        tested = str(requirement.specifier).removeprefix("==")
                        rows.add(f"| {requirement.name} | {tested} | {installed} |")
    return sorted(rows)


def main() -> int:
    if "--installed" in sys.argv:
        rows = differing(ROOT) or ["| none | | |"]
        print("| package | tested | installed |", "| --- | --- | --- |", *rows, sep="\n")
        return 0
    if "--check" in sys.argv:
        problems = stale(ROOT)
        for problem in problems:
            print(f"{problem}: run `make lock`", file=sys.stderr)
        return 1 if problems else 0
    for lock, lists in LOCKS.items():
        make(lock, lists, sys.argv[1:])
    return 0


if __name__ == "__main__":
    sys.exit(main())
