"""Package metadata, read from settings.ini, the one place where it is written down."""

import configparser
from pathlib import Path

from setuptools import find_packages, setup

ROOT = Path(__file__).parent
settings = configparser.ConfigParser(delimiters=["="])
settings.read(ROOT / "settings.ini", encoding="utf-8")
project = settings["DEFAULT"]


def lines(key: str) -> list[str]:
    return [line.strip() for line in project[key].splitlines() if line.strip()]


setup(
    name=project["dist_name"],
    version=project["version"],
    description=project["description"],
    long_description=(ROOT / "README.md").read_text(encoding="utf-8"),
    long_description_content_type="text/markdown",
    author=project["author"],
    url=project["git_url"],
    license="Apache-2.0",
    keywords=project["keywords"].split(),
    classifiers=[
        f"Programming Language :: Python :: {python}" for python in project["pythons"].split()
    ],
    python_requires=f">={project['min_python']}",
    install_requires=lines("requirements"),
    extras_require={name: lines(f"{name}_requirements") for name in ("dev", "ci", "ui", "export")},
    entry_points={"console_scripts": lines("console_scripts")},
    # The presets and the stage notebooks live at the top of the checkout, where people look for
    # them; in the wheel they are data packages, so that an installed `run` needs no checkout.
    packages=[
        *find_packages(ROOT, include=["mnist_nbdev", "mnist_nbdev.*"]),
        *("mnist_nbdev.presets", "mnist_nbdev.notebooks"),
    ],
    package_dir={
        "mnist_nbdev": "mnist_nbdev",
        "mnist_nbdev.presets": "config",
        "mnist_nbdev.notebooks": "nbs/pipeline",
    },
    package_data={
        "mnist_nbdev": ["py.typed", "figures.mplstyle"],
        "mnist_nbdev.presets": ["*.yaml"],
        "mnist_nbdev.notebooks": ["*.ipynb"],
    },
    include_package_data=False,
    zip_safe=False,
)
