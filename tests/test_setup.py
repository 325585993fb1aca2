"""`make setup` installs the tested packages of the lock files, or reports that it does not.

A stand-in plays Python, pip and uv, so that nothing is installed and no network is asked.
"""

import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import NamedTuple

import pytest
from commands import ROOT, environment, git

pytestmark = [
    pytest.mark.unit,
    pytest.mark.skipif(os.name == "nt", reason="needs a shell"),
]
PYTHON = """#!/bin/sh
here={folder}
case "$1 $2" in
  "-m venv")
    mkdir -p "$4/bin"; cp "$0" "$4/bin/python"; echo "$PWD/$4" >"$4/bin/activate"
    echo "version = {version}" >"$4/pyvenv.cfg"; echo "venv" >>$here/said ;;
  "-m pip")
    case "$*" in *"config get"*) exec cat $here/mirror ;; esac
    shift 2; echo "$@" >>$here/said
    case "$*" in *--target*)
      while [ "$1" != --target ]; do shift; done
      mkdir -p "$2/bin"; cp $here/uv "$2/bin/uv"
      cat $here/no-uv >&2; [ ! -s $here/no-uv ] ;;
    esac ;;
  "-c import platform"*) echo "{version}" ;;
  *) exec {real} "$@" ;;
esac
"""
UV = """#!/bin/sh
here={folder}
{before}
echo "uv $@ from $UV_DEFAULT_INDEX" >>$here/said
case "$*" in *--require-hashes*) cat $here/refusal >&2; [ ! -s $here/refusal ] ;; esac
"""
NO_FILE = "error: No solution found when resolving dependencies\n"
OTHER_HASH = (
    "error: Failed to download `torch==2.15.0`\n  cause: Hash mismatch for `torch==2.15.0`\n"
)
NO_NETWORK = "error: Request failed after 3 retries in 9.1s\n"
PIP_NO_FILE = "ERROR: No matching distribution found for uv==0.13.9\n"
PIP_OTHER_HASH = "ERROR: THESE PACKAGES DO NOT MATCH THE HASHES FROM THE REQUIREMENTS FILE.\n"
PIP_RETRIES = "WARNING: Retrying (Retry(total=0)) after connection broken by 'NewConnectionError'\n"


class Project(NamedTuple):
    "A checkout with a stand-in for Python beside it."

    folder: Path

    def python(self, version: str = "3.12.1") -> str:
        path = self.folder / f"python-{version}"
        path.write_text(PYTHON.format(folder=self.folder, version=version, real=sys.executable))
        path.chmod(0o755)
        return str(path)

    def set_up(
        self,
        what: str = "dev",
        refusal: str = "",
        no_uv: str = "",
        version: str = "3.12.1",
        mirror: str = "",
        before_uv: str = "",
        **variables: str,
    ) -> tuple[
        int, str, list[str]
    ]:  # exit code, what it said, what venv, pip and uv were asked for
        for name, text in {
            "refusal": refusal,
            "no-uv": no_uv,
            "mirror": mirror,
            "said": "",
        }.items():
            (self.folder / name).write_text(text)
        (self.folder / "uv").write_text(UV.format(folder=self.folder, before=before_uv))
        (self.folder / "uv").chmod(0o755)
        empty = ("LATEST", "TORCH_INDEX", "PIP_INDEX_URL", "UV_DEFAULT_INDEX", "UV_CACHE_DIR")
        variables = {"PYTHON": self.python(version), **dict.fromkeys(empty, ""), **variables}
        ended = subprocess.run(
            [self.folder / ".ci/setup", what],
            env=environment(**variables),
            capture_output=True,
            text=True,
            check=False,
        )
        return ended.returncode, ended.stderr, (self.folder / "said").read_text().splitlines()


def hashed(asked: list[str]) -> list[str]:  # what was installed from a lock
    return [words for words in asked if words.startswith("uv") and "--require-hashes" in words]


@pytest.fixture
def project(tmp_path):
    (tmp_path / ".ci").mkdir()
    for name in (".ci/setup", ".ci/install", ".ci/lock.py", "Makefile", "settings.ini"):
        shutil.copy(ROOT / name, tmp_path / name)
    for name in ("setup.py", "pyproject.toml", *(path.name for path in ROOT.glob("*.lock"))):
        (tmp_path / name).write_text("")
    return Project(tmp_path)


@pytest.mark.parametrize(
    ("what", "lock", "package"),
    [
        ("run", "requirements.lock", "."),
        ("dev", "requirements-development.lock", ".[dev]"),
        ("ci", "requirements-ci.lock", ".[ci]"),
        ("ui", "requirements-ui.lock", ".[ui]"),
    ],
)
def test_the_packages_of_the_lock_are_installed_by_their_hashes_and_once(
    project, what, lock, package
):
    code, _, asked = project.set_up(what)
    assert code == 0
    assert asked[0] == "venv"
    (locked,) = hashed(asked)
    assert f"-r {lock}" in locked
    assert asked[-1].endswith(f"--editable {package}")
    assert not any("--upgrade" in words for words in asked)
    assert project.set_up(what) == (0, "", [])


def test_a_lock_that_changed_is_installed_again(project):
    project.set_up()
    (project.folder / "requirements-ci.lock").write_text("# newer\n")
    assert hashed(project.set_up()[2])


def test_development_packages_hold_all_that_a_run_needs(project):
    project.set_up("dev")
    assert project.set_up("run") == (0, "", [])


@pytest.mark.parametrize(
    "refusals", [{"refusal": NO_FILE}, {"no_uv": PIP_NO_FILE}], ids=["a package", "uv"]
)
def test_where_the_lock_does_not_fit_settings_ini_is_used_with_a_message(project, refusals):
    code, said, asked = project.set_up(**refusals)
    assert code == 0
    assert all(refusal in said for refusal in refusals.values())
    assert "requirements-development.lock does not fit this Python and platform" in said
    assert asked[-1].endswith("--editable .[dev]")
    assert "--upgrade" in asked[-1]
    assert "| package | tested | installed |" in said
    assert project.set_up(**refusals) == (0, "", [])


@pytest.mark.parametrize(
    "refusals",
    [
        {"refusal": OTHER_HASH},
        {"refusal": NO_NETWORK},
        {"no_uv": PIP_OTHER_HASH},
        {"no_uv": PIP_RETRIES + PIP_NO_FILE},
    ],
    ids=["hash", "no network", "uv's hash", "no network for uv"],
)
def test_an_error_that_is_not_the_lock_s_ends_the_set_up(project, refusals):
    code, said, asked = project.set_up(**refusals)
    assert code == 1
    assert all(refusal in said for refusal in refusals.values())
    assert "does not fit" not in said
    assert not any("--editable" in words for words in asked)
    # Nothing is remembered: the next try installs.
    assert hashed(project.set_up()[2])


def test_the_mirror_that_pip_knows_is_asked(project):
    (asked,) = hashed(project.set_up(mirror="https://mirror/simple")[2])
    assert asked.endswith("from https://mirror/simple")
    (asked,) = hashed(
        project.set_up("ci", mirror="https://pip", PIP_INDEX_URL="https://variable")[2]
    )
    assert asked.endswith("from https://variable")


def test_without_a_home_to_write_to_packages_are_installed_all_the_same(project):
    # uv ends where it cannot make its cache.
    (project.folder / "file").write_text("")
    cannot = 'test -n "$UV_NO_CACHE" || { echo "error: Failed to initialize cache" >&2; exit 2; }\n'
    nowhere = {"HOME": str(project.folder / "file"), "XDG_CACHE_HOME": ""}
    assert project.set_up(before_uv=cannot, **nowhere)[0] == 0


def test_the_newest_packages_are_installed_on_request_only(project):
    project.set_up()
    code, said, asked = project.set_up(LATEST="1")
    assert code == 0
    assert "LATEST: installing the newest packages" in said
    assert "| package | tested | installed |" in said
    assert not hashed(asked)
    assert "--upgrade" in asked[-1]
    assert project.set_up(LATEST="1") == (0, "", [])
    assert hashed(project.set_up("run")[2])


def test_an_index_for_torch_holds_for_later_installations_too(project):
    # Else PyPI's torch, or the gigabytes that come with it, would join what was chosen small.
    for lock in project.folder.glob("*.lock"):
        lock.write_text("torch==2.15.0 \\\n    --hash=sha256:0\n")
    project.set_up("run", TORCH_INDEX="https://index")
    asked = project.set_up("dev")[2]
    assert any("--default-index https://index" in words for words in asked)


def test_another_python_that_is_named_gets_an_environment_of_its_own(project):
    project.set_up(version="3.12.1")
    assert project.set_up(version="3.13.0")[2][0] == "venv"
    assert project.set_up(version="3.13.0") == (0, "", [])


def test_pythons_are_listed_by_the_version_they_report_newest_first(tmp_path):
    bin_folder, pyenv = tmp_path / "bin", tmp_path / "pyenv/versions/3.10.4/bin"
    answers = {
        bin_folder / "python3.13": "3.11 /wrong",  # a stand-in for a version that is not there
        bin_folder / "python3.12": "3.12 /usr/bin/python3.12",
        bin_folder / "python3.11": None,
        bin_folder / "python3.10": None,
        bin_folder / "python3": "3.11 /usr/bin/python3.11",
        pyenv / "python": "3.10 /pyenv/3.10.4",
    }
    for path, answer in answers.items():
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f"#!/bin/sh\necho {answer}\n" if answer else "#!/bin/sh\nexit 127\n")
        path.chmod(0o755)
    listed = subprocess.run(
        [ROOT / ".ci/pythons"],
        env=environment(
            PATH=f"{bin_folder}:{os.environ['PATH']}", PYENV_ROOT=str(tmp_path / "pyenv")
        ),
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    assert listed.splitlines() == [
        "3.12 /usr/bin/python3.12",
        "3.11 /usr/bin/python3.11",
        "3.10 /pyenv/3.10.4",
    ]


def test_in_a_fresh_clone_git_status_cleans_no_notebook(project):
    folder = project.folder
    (folder / ".gitattributes").write_text("*.ipynb filter=notebook\n")
    (folder / "docs" / "tools").mkdir(parents=True)
    called = "import sys; open('called', 'w'); sys.stdout.write(sys.stdin.read())"
    (folder / "docs" / "tools" / "clean_filter.py").write_text(called)
    (folder / "a.ipynb").write_text("{}\n")
    cloned = 1_700_000_000
    os.utime(folder / "a.ipynb", (cloned, cloned))
    for words in (["init", "-q"], ["add", "a.ipynb"], ["commit", "-qm", "a"]):
        git(folder, *words)
    os.utime(folder / ".git" / "index", (cloned, cloned))  # written with the files
    assert project.set_up()[0] == 0
    shutil.copy(folder / ".venv/bin/python", folder / ".venv/bin/nbdev_clean")
    status = ("status", "--porcelain", "--untracked-files=no")
    git(folder, *status, GIT_OPTIONAL_LOCKS="0")
    assert not (folder / "called").exists()
    (folder / "a.ipynb").touch()
    git(folder, *status, GIT_OPTIONAL_LOCKS="0")
    assert (folder / "called").exists()  # what was changed since is
