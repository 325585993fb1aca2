"""Stages that misbehave, runs that crowd each other, disks that fill up, places that are odd: the
run ends with a clear word, and nothing of it stays behind.
"""

import json
import os
import shlex
import shutil
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import nbformat
import pytest
from commands import QUICK, call, copy_project, environment, start
from levels import NOT_SHORT

from mnist_nbdev.base.files import read_json, sha256_file
from mnist_nbdev.registry.verification import verify_run
from mnist_nbdev.runs.run import Run

pytestmark = pytest.mark.integration
ROOT = Path(__file__).parent.parent.parent
MISBEHAVIOUR = {  # a cell of the second stage -> what is said of it; "": the run goes on
    "import os, signal; os.kill(os.getpid(), signal.SIGSEGV)": "The kernel of stage 2_train died",
    "print('x' * 100_000_000)": "",
    "import subprocess; subprocess.Popen(['sleep', '631']); import threading, time\n"
    "threading.Thread(target=time.sleep, args=(631,)).start()": "",
    "import os; os._exit(7)": "The kernel of stage 2_train died",
    "import time; time.sleep(600)": "pipeline.stage_timeout_s",
    "raise RuntimeError('what a pity')": "what a pity",
    "import ipywidgets\nbutton = ipywidgets.Button()\n"
    "button.on_click(lambda b: 1 / 0)\nbutton.click()": "ZeroDivisionError",
}
CELLS = [
    pytest.param(cell, id=cell.split("\n")[0][:40], marks=NOT_SHORT if number > 2 else [])
    for number, cell in enumerate(MISBEHAVIOUR)
]


@pytest.fixture
def package(tmp_path):
    "A copy of the package, whose second stage can be changed."
    copy_project(["mnist_nbdev", "config", "nbs", "settings.ini"], tmp_path)
    return tmp_path


def processes(word: str) -> list[str]:
    listed = subprocess.run(["ps", "-eo", "args"], capture_output=True, text=True, check=True)
    return [line for line in listed.stdout.splitlines() if line.strip() == word]


@pytest.mark.skipif(not shutil.which("ps"), reason="needs ps (Debian: procps)")
@pytest.mark.parametrize("cell", CELLS)
def test_a_stage_that_misbehaves_is_ended_and_cleaned_up(cell, package, tally):
    path = package / "nbs/pipeline/2_train.ipynb"
    notebook = nbformat.read(path, as_version=4)
    notebook.cells.append(nbformat.v4.new_code_cell(cell))
    nbformat.write(notebook, path)
    limit = f"pipeline.stage_timeout_s={25 if 'sleep(600)' in cell else 120}"
    words = ("--set", limit, "--mode", "train", "--run-id", "a")
    copy = {"PYTHONPATH": str(package)}
    ended = call("run", *QUICK, *words, folder=package, afresh=True, **copy)
    expected = MISBEHAVIOUR[cell]
    saved = package / "artifacts/runs/a/notebooks/2_train.ipynb"
    lost = ""
    if ended.code != (1 if expected else 0) or expected not in ended.err:
        lost = f"exit code {ended.code}: {ended.err[-1500:]}"
    elif "Traceback" in ended.err:
        lost = f"a traceback: {ended.err[-1500:]}"
    elif not saved.is_file() or saved.stat().st_size > 20_000_000:
        lost = f"the notebook has {saved.stat().st_size if saved.exists() else 'no'} bytes"
    elif processes("sleep 631"):
        lost = "a child of the stage goes on"
    tally.add("a stage that misbehaves", lost)


def test_eight_runs_at_once_are_eight_whole_runs(tmp_path, tally, many):
    names = [f"run-{number}" for number in range(many(2, 8, ci=4))]
    names[1] = "registry"  # a run may be named as a part of the project is
    names += ["run-0"]  # the same id again: one of the two is refused
    with ThreadPoolExecutor(len(names)) as pool:
        found = list(pool.map(lambda n: call("run", *QUICK, "--run-id", n, folder=tmp_path), names))
    codes = sorted(ended.code for ended in found)
    assert codes == sorted([3] * (len(names) - 1) + [2]), [ended.err[-500:] for ended in found]
    (refused,) = (ended.err for ended in found if ended.code == 2)
    assert "The run run-0 already exists" in refused
    for name in names[:-1]:
        tally.add("concurrent runs", "; ".join(verify_run(Run(tmp_path / "artifacts/runs" / name))))
    models = {sha256_file(tmp_path / f"artifacts/runs/{n}/models/model.onnx") for n in names}
    assert len(models) == 1
    latest = (tmp_path / "artifacts/latest").resolve().name
    assert latest in names
    assert (tmp_path / "artifacts/models").resolve().parent.name == latest


def test_of_two_resumes_one_works_and_the_other_says_who_holds_the_run(tmp_path, tally):
    often = ("--set", "training.epochs=3", "--set", "training.checkpoint_interval_s=0.01")
    process = start("run", *QUICK, *often, "--run-id", "a", folder=tmp_path)
    for line in process.stderr:
        if "epoch 1" in line:
            break
    process.kill()
    process.wait()
    with ThreadPoolExecutor(2) as pool:
        both = [pool.submit(call, "run", "--resume", "a", folder=tmp_path) for _ in range(2)]
        ended = sorted((future.result() for future in both), key=lambda one: one.code)
    assert [one.code for one in ended] == [1, 3], [one.err for one in ended]
    assert "is in use by process" in ended[0].err
    tally.add("two resumes of a run", "; ".join(verify_run(Run(tmp_path / "artifacts/runs/a"))))


def mounted(folder: Path, size: str) -> bool:
    folder.mkdir()
    words = ["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", str(folder)]
    return subprocess.run(words, capture_output=True, check=False).returncode == 0


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() != 0, reason="only root may mount")
def test_a_disk_that_fills_up_costs_no_file_and_with_more_room_the_run_goes_on(
    tmp_path, tally, many
):
    for size in [800, 300, 500, 1200, 1600][: many(1, 5, ci=3)]:
        place = tmp_path / f"{size}k"
        if not mounted(place, f"{size}k"):
            pytest.skip("this system lets nobody mount")
        try:
            ended = call("run", *QUICK, "--run-id", "a", folder=place)
            lost = ""
            if ended.code != 1 or "No space left on device" not in ended.err:
                lost = f"{size} kB: exit code {ended.code}: {ended.err[-1500:]}"
            elif "Traceback" in ended.err:
                lost = f"{size} kB: a traceback: {ended.err[-1500:]}"
            for path in (place / "artifacts").rglob("*.json"):
                json.loads(path.read_text())
            subprocess.run(["mount", "-o", "remount,size=100m", str(place)], check=True)
            again = call("run", "--resume", "a", folder=place)
            if again.code == 2:  # it had not begun
                again = call("run", *QUICK, "--run-id", "a", folder=place)
            lost = lost or (again.err[-1500:] if again.code != 3 else "")
            tally.add(
                "a full disk",
                lost or "; ".join(verify_run(Run(place / "artifacts/runs/a"))),
            )
        finally:
            subprocess.run(["umount", str(place)], check=True)


PLACES = {  # several at once: what each does to a run does not depend on the others
    "a locale that is not UTF-8, another time zone, umask 077": {
        **{"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"},
        "TZ": "Pacific/Kiritimati",
    },
    "a path with spaces, quotes and umlauts, behind a link, and no HOME": {"HOME": "/nonexistent"},
    "a HOME that cannot be written, a relative folder of the artifacts": {
        **{"HOME": "/proc", "MLOPS_PATHS_ARTIFACTS": "../elsewhere/artifacts"},
    },
    "a terminal": {},  # the other places have none
}


@pytest.fixture
def startup(tmp_path) -> Path:
    "What somebody's IPython would run at each start."
    profile = tmp_path / "ipython" / "profile_default" / "startup"
    profile.mkdir(parents=True)
    (profile / "00.py").write_text(f"open({str(tmp_path / 'began')!r}, 'w')")
    return tmp_path / "began"


def test_a_run_is_the_same_whatever_ipython_does_for_its_user(startup, tmp_path, tally):
    there = {"IPYTHONDIR": str(tmp_path / "ipython"), "HOME": str(tmp_path)}
    ended = call("run", *QUICK, "--mode", "train", folder=tmp_path, afresh=True, **there)
    assert ended.code == 0, ended.err
    tally.add("unusual environments", "the profile's code was run" if startup.exists() else "")


@pytest.mark.parametrize(
    "place",
    [pytest.param(place, marks=NOT_SHORT if n > 1 else []) for n, place in enumerate(PLACES)],
)
def test_a_run_works_in_unusual_environments(place, tmp_path, tally):
    folder = tmp_path / ('it\'s "a" ständige Übung' if "umlauts" in place else "there")
    folder.mkdir()
    if "link" in place:
        (tmp_path / "link").symlink_to(folder)
        folder = tmp_path / "link"
    words = [sys.executable, "-m", "mnist_nbdev", "run", *QUICK, "--run-id", "a"]
    if "terminal" in place:
        if not shutil.which("script"):
            pytest.skip("needs script (Debian: bsdutils)")
        words = ["script", "--quiet", "--return", "--command", shlex.join(words), "/dev/null"]
    mask = 0o077 if "umask" in place else -1
    ended = subprocess.run(
        words,
        cwd=folder,
        env=environment(**PLACES[place]),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        check=False,
        umask=mask,
    )
    said = (ended.stdout + ended.stderr).decode(errors="replace")
    artifacts = PLACES[place].get("MLOPS_PATHS_ARTIFACTS", "artifacts")
    run = (folder / artifacts / "runs/a").resolve()
    lost = "" if ended.returncode == 3 else f"exit code {ended.returncode}: {said[-1500:]}"
    lost = lost or "; ".join(verify_run(Run(run)))
    if "umask" in place and not lost:
        public = [path for path in run.rglob("*") if path.stat().st_mode & 0o077]
        lost = f"others may read {public}" if public else ""
    assert lost or read_json(run / "summary.json")["status"] == "rejected"
    tally.add("unusual environments", lost)
