"""Too little memory: a clear message instead of a silent death; and a long training takes no more
than a short one.
"""

import json
import subprocess
import sys

import pytest
from commands import QUICK, Ended, call, environment
from levels import LEVEL, NOT_SHORT

pytestmark = pytest.mark.integration


def limited(folder, megabytes: int) -> Ended:
    "A quick run by a shell that allows each process so much memory."
    words = [sys.executable, "-m", "mnist_nbdev", "run", *QUICK, "--mode", "train"]
    script = f'ulimit -v {megabytes * 1000}; exec "$@"'
    ended = subprocess.run(
        ["bash", "-c", script, "bash", *words],
        cwd=folder,
        env=environment(OPENBLAS_NUM_THREADS="1"),
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
    )
    return Ended(ended.returncode, ended.stdout, ended.stderr)


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere ulimit -v holds nobody back")
@pytest.mark.parametrize(
    ("megabytes", "words"),
    [
        (200, "The memory limit of a process (ulimit -v) is"),
        (1400, "The memory limit of a process (ulimit -v) is"),
        pytest.param(1600, "died, most often for lack of memory", marks=NOT_SHORT),
    ],
)
def test_with_too_little_memory_a_run_says_so(megabytes, words, tmp_path, tally):
    ended = limited(tmp_path, megabytes)
    lost = "" if ended.code == 1 and words in ended.err else f"{ended.code}: {ended.err[-1500:]}"
    if "This is a bug" in ended.err:
        lost = f"taken for a bug: {ended.err[-1500:]}"
    tally.add("too little memory", lost)


@pytest.mark.skipif(LEVEL != "long", reason="takes minutes: FAULTS=long")
def test_a_long_training_takes_no_more_memory_than_a_short_one(tmp_path, tally):
    peaks = []
    for epochs in (10, 200):
        name = f"epochs-{epochs}"
        words = ("--mode", "train", "--run-id", name, "--set", f"training.epochs={epochs}")
        assert call("run", *QUICK, *words, folder=tmp_path).code == 0
        timing = json.loads((tmp_path / "artifacts/runs" / name / "timing.json").read_text())
        assert len(timing["epochs"]) == epochs
        peaks.append(timing["memory"]["2_train"])
    # Two equal runs differ by up to 20 MB; a copy of the network kept each epoch would be 60.
    lost = "" if peaks[1] < peaks[0] + 50 else f"MB after 10 epochs and at the end: {peaks}"
    tally.add("a long training", lost)
