"""Collects the library notebooks: each one's tests run against the module that it exports.

`nbdev_test` executes all cells of a notebook, the exported ones too, and so says nothing about the
module. Here the other cells run in order, in a copy of the module's own namespace. Functions are
the module's own and keep its globals: a name that a cell binds anew changes nothing inside of it.

Coverage counts while test cells run, those with an `assert` or `pytest.raises`; what only a
demonstration or a set-up cell reaches is not tested.
"""

import ast
import importlib
import json
import linecache
import logging
import os
import random
import re
import signal
import sys
import traceback
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from types import CodeType
from typing import Any, NamedTuple

import numpy as np
import pytest

ROOT = Path(__file__).parent
PACKAGE = "mnist_nbdev"


class Cell(NamedTuple):
    "A code cell that is not exported."

    number: int  # among all cells of the notebook, from 1
    source: str

    @property
    def tree(self) -> ast.Module:
        return ast.parse(self.source)

    @property
    def tests(self) -> bool:
        "Whether the cell checks anything."
        return any(
            isinstance(node, ast.Assert)
            or (isinstance(node, ast.Attribute) and ast.unparse(node) == "pytest.raises")
            for node in ast.walk(self.tree)
        )

    @property
    def imports(self) -> list[str]:
        "The modules of this package that the cell names."
        found = []
        for node in ast.walk(self.tree):
            if isinstance(node, ast.ImportFrom) and not node.level:
                found.append(node.module or "")
            elif isinstance(node, ast.Import):
                found.extend(alias.name for alias in node.names)
        return [name for name in found if name.split(".")[0] == PACKAGE]

    def code(self, notebook: Path) -> CodeType:
        "The cell compiled, with its source where tracebacks look for it."
        name = f"{notebook.relative_to(ROOT).as_posix()}[{self.number}]"
        lines = self.source.splitlines(keepends=True)
        linecache.cache[name] = (len(self.source), None, lines, name)
        return compile(self.source, name, "exec")


class CellFailed(Exception):
    "An error in a cell; its cause is what was raised there."

    def __init__(self, cell: Cell) -> None:
        super().__init__(f"cell {cell.number}")
        self.cell = cell


def directives(source: str) -> dict[str, str]:
    "A cell's nbdev directives: name -> what follows it."
    found = re.findall(r"^#\s*\|\s*(\w+):?[ \t]*(.*)$", source, re.MULTILINE)
    return {name: rest.strip() for name, rest in found}


def without_magics(source: str) -> str:
    "Code without the lines that only IPython understands."
    try:
        ast.parse(source)
    except SyntaxError:
        if source.lstrip().startswith("%%"):
            return ""
        return re.sub(r"^(\s*)[%!].*$", r"\1pass", source, flags=re.MULTILINE)
    return source


def read_cells(notebook: Path) -> tuple[str, list[Cell]]:
    "The module that a notebook exports, and the cells to run against it."
    module, cells = "", []
    for number, cell in enumerate(json.loads(notebook.read_text(encoding="utf-8"))["cells"], 1):
        source = "".join(cell["source"])
        told = directives(source) if cell["cell_type"] == "code" else {}
        module = told.get("default_exp", module)
        skipped = {"default_exp", "export", "exports", "exporti", "notest"} & told.keys()
        if cell["cell_type"] == "code" and not skipped and told.get("eval", "true") != "false":
            cells.append(Cell(number, without_magics(source)))
    return module, cells


@contextmanager
def coverage_paused() -> Iterator[None]:
    "Count no line, in this process and in those that it starts."
    coverage = sys.modules.get("coverage")
    current = coverage.Coverage.current() if coverage else None
    if current is None:
        yield
        return
    passed_on = os.environ.pop("COVERAGE_PROCESS_CONFIG", None)
    current.stop()
    try:
        yield
    finally:
        current.start()
        if passed_on is not None:
            os.environ["COVERAGE_PROCESS_CONFIG"] = passed_on


@contextmanager
def process_restored() -> Iterator[None]:
    "Leave folder, environment, import path and signal handlers as they were."
    folder, environment, path = Path.cwd(), dict(os.environ), list(sys.path)
    handlers = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        os.chdir(folder)
        sys.path[:] = path
        for name in os.environ.keys() - environment.keys():
            del os.environ[name]
        os.environ.update(environment)
        for number, handler in handlers.items():
            signal.signal(number, handler)


@contextmanager
def logging_restored() -> Iterator[None]:
    "Take away handlers that were added, and give each logger back what it had."

    def loggers() -> list[logging.Logger]:
        known = logging.root.manager.loggerDict.values()
        return [logging.root, *(one for one in known if isinstance(one, logging.Logger))]

    fresh = ([], [], logging.NOTSET, True, False)
    before = {
        one: (one.handlers[:], one.filters[:], one.level, one.propagate, one.disabled)
        for one in loggers()
    }
    disabled = logging.root.manager.disable
    try:
        yield
    finally:
        logging.disable(disabled)
        for one in loggers():
            handlers, filters, level, one.propagate, one.disabled = before.get(one, fresh)
            for handler in set(one.handlers) - set(handlers):
                handler.close()
            one.handlers[:], one.filters[:] = handlers, filters
            one.setLevel(level)


@contextmanager
def random_restored() -> Iterator[None]:
    "Give the global random generators their states back."
    state, array_state = random.getstate(), np.random.get_state()  # noqa: NPY002
    torch = sys.modules.get("torch")
    torch_state = torch and (torch.get_rng_state(), torch.get_num_threads())
    try:
        yield
    finally:
        random.setstate(state)
        np.random.set_state(array_state)  # noqa: NPY002
        if torch and torch_state:
            torch.set_rng_state(torch_state[0])
            torch.set_num_threads(torch_state[1])


@contextmanager
def matplotlib_restored() -> Iterator[None]:
    "Draw without a screen, and forget figures and styles afterwards."
    os.environ["MPLBACKEND"] = "Agg"
    before = dict(sys.modules["matplotlib"].rcParams) if "matplotlib" in sys.modules else None
    try:
        yield
    finally:
        if "matplotlib.pyplot" in sys.modules:
            sys.modules["matplotlib.pyplot"].close("all")
        if "matplotlib" in sys.modules:
            matplotlib = sys.modules["matplotlib"]
            kept = matplotlib.rcParamsOrig if before is None else before
            dict.update(matplotlib.rcParams, {k: v for k, v in kept.items() if k != "backend"})


class Notebook(pytest.File):
    "A library notebook."

    def collect(self) -> Iterator["NotebookTests"]:
        yield NotebookTests.from_parent(self, name=self.path.stem)


class NotebookTests(pytest.Item):
    "The cells of one notebook, from the first to the last: later ones build on earlier ones."

    def __init__(self, **arguments: Any) -> None:
        super().__init__(**arguments)
        self.add_marker("unit")

    def runtest(self) -> None:
        name, cells = read_cells(self.path)
        # A module's own lines run when it is imported: now, not in some demonstration.
        module = importlib.import_module(f"{PACKAGE}.{name}")
        for imported in {name for cell in cells for name in cell.imports}:
            importlib.import_module(imported)
        with ExitStack() as stack:
            for restored in (
                process_restored,
                logging_restored,
                random_restored,
                matplotlib_restored,
            ):
                stack.enter_context(restored())
            os.chdir(self.path.parent)  # as nbdev_test does, and Jupyter
            os.environ["IN_TEST"] = "1"
            namespace = dict(vars(module), display=print)
            for cell in cells:
                with ExitStack() as counting:
                    if not cell.tests:
                        counting.enter_context(coverage_paused())
                    self.run_cell(cell, namespace)

    def run_cell(self, cell: Cell, namespace: dict[str, Any]) -> None:
        try:
            exec(cell.code(self.path), namespace)  # noqa: S102
        except Exception as error:
            raise CellFailed(cell) from error

    def repr_failure(self, excinfo: pytest.ExceptionInfo[BaseException], style: Any = None) -> Any:
        "The cell, and the traceback from there on."
        if not isinstance(excinfo.value, CellFailed) or excinfo.value.__cause__ is None:
            return super().repr_failure(excinfo, style)
        cell, error = excinfo.value.cell, excinfo.value.__cause__
        frames = error.__traceback__
        while frames is not None and frames.tb_frame.f_code.co_filename == __file__:
            frames = frames.tb_next
        told = traceback.format_exception(type(error), error, frames)
        numbered = (f"{n:4} {line}" for n, line in enumerate(cell.source.splitlines(), 1))
        where = f"{self.path.relative_to(ROOT).as_posix()}, cell {cell.number}"
        return "\n".join([where, "", *numbered, "", "".join(told)])

    def reportinfo(self) -> tuple[Path, int | None, str]:
        return self.path, None, f"notebook {self.name}"


def pytest_collect_file(file_path: Path, parent: pytest.Collector) -> Notebook | None:
    "Library notebooks; the stages in nbs/pipeline are run as a pipeline."
    with suppress(ValueError):
        inside = file_path.relative_to(ROOT / "nbs")
        if re.fullmatch(r"[a-z]+/\d\d_\w+\.ipynb", inside.as_posix()):
            return Notebook.from_parent(parent, path=file_path)
    return None
