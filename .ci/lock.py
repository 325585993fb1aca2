"""Makes the lock files from settings.ini: the exact packages, with hashes, that `make setup` and
the images install.

`--upgrade` takes newer packages into the locks. Without the network: `--check` compares them with
settings.ini, `--installed` lists what this environment has in other versions.
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
# Each lock holds these lists of settings.ini, and what builds the package.
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
    # One version of a package in all of them: the others follow the first, which has every package.
    first = next(iter(LOCKS))
    command = ["pip", "compile", "--quiet", "--no-config", "--universal", "--generate-hashes"]
    command += ["--only-binary", ":all:"]  # no package is built where it is installed
    command += ["--no-strip-extras"]  # pip wants the hash of what is asked for: coverage[toml]
    command += ["--python-version", "3.10", "--custom-compile-command", "make lock"]
    command += [*options, *([] if lock == first else ["--constraint", first])]
    subprocess.run(  # noqa: S603 -- words of this file
        [Path(sys.executable).parent / "uv", *command, "--output-file", lock, "-"],
        cwd=ROOT,
        input="\n".join(wanted(ROOT, lists)),
        text=True,
        check=True,
    )


def locked(text: str) -> dict[str, tuple[list[str], bool]]:  # name -> versions, asked for by name?
    found: dict[str, tuple[list[str], bool]] = {}
    for block in re.split(r"^(?=[a-z0-9])", text, flags=re.M)[1:]:
        package = re.match(r"([\w.-]+)(?:\[.*?\])?==([^ ;]+)", block)
        assert package, block
        assert "--hash=sha256:" in block, f"{package[0]} has no hash"
        versions, named = found.get(package[1], ([], False))
        direct = re.search(r"^ +#.* -r -$", block, re.M) is not None
        found[package[1]] = ([*versions, package[2]], named or direct)
    return found


def stale(root: Path) -> list[str]:  # what a person would have to know
    said = []
    for lock, lists in LOCKS.items():
        packages = locked((root / lock).read_text("utf-8"))
        requirements = {canonicalize_name(r.name): r for r in map(Requirement, wanted(root, lists))}
        for name, requirement in requirements.items():
            versions, _ = packages.get(name, ([], False))
            if not versions or not all(requirement.specifier.contains(v) for v in versions):
                said.append(f"{lock}: {requirement} is asked for, {name} {versions} is locked")
        for name in {name for name, (_, named) in packages.items() if named} - set(requirements):
            said.append(f"{lock}: {name} is locked, and settings.ini does not ask for it any more")
    return said


def differing(root: Path) -> list[str]:  # a table's rows
    rows = set()
    for lock in LOCKS:
        for line in re.findall(r"^[a-z0-9][^\\\n]*", (root / lock).read_text("utf-8"), re.M):
            requirement = Requirement(line)
            if requirement.marker is None or requirement.marker.evaluate():
                with suppress(PackageNotFoundError):
                    there = version(requirement.name)
                    if not requirement.specifier.contains(there, prereleases=True):
                        tested = str(requirement.specifier).removeprefix("==")
                        rows.add(f"| {requirement.name} | {tested} | {there} |")
    return sorted(rows)


def main() -> int:
    if "--installed" in sys.argv:
        rows = differing(ROOT) or ["| none | | |"]
        print("| package | tested | installed |", "| --- | --- | --- |", *rows, sep="\n")
        return 0
    if "--check" in sys.argv:
        said = stale(ROOT)
        for line in said:
            print(f"{line}: run `make lock`", file=sys.stderr)
        return 1 if said else 0
    for lock, lists in LOCKS.items():
        make(lock, lists, sys.argv[1:])
    return 0


if __name__ == "__main__":
    sys.exit(main())
