"""Whole runs, ended at moments drawn by chance: by kill -9 of the run or of a kernel, by Ctrl-C, by
the system's shutdown. What they leave is whole, and resumed they end as if nothing had been.
"""

import json
import random
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from commands import QUICK, call
from injection import Plan

from mnist_nbdev.base.files import PipelineError, read_json, sha256_file
from mnist_nbdev.gate.evaluation import load_predictions
from mnist_nbdev.model.network import load_model
from mnist_nbdev.registry.verification import verify_run
from mnist_nbdev.runs.run import Run

pytestmark = pytest.mark.integration
HOOK = Path(__file__).parent / "hook"
# Two epochs, each with a checkpoint, and no time for anything that is not written.
RUN = (*QUICK, "--set", "training.epochs=2", "--set", "training.checkpoint_interval_s=0.01")
EXIT_CODES = {"kill": (-9, 1), "SIGINT": (130,), "SIGTERM": (143,)}
IGNORED = "inference_time"  # the only check that a clock decides


def run(folder: Path, plan: Plan):
    return call("run", *RUN, "--run-id", "a", folder=folder, FAULT=plan.words, PYTHONPATH=str(HOOK))


def result(folder: Path):
    "What a run came to: its weights, what it predicts, and its decision."
    found = folder / "artifacts/runs/a"
    checks = read_json(found / "decision.json")["checks"]
    return (
        sha256_file(found / "models/model.safetensors"),
        sha256_file(found / "evaluation/predictions.npz"),
        [(check["name"], check["outcome"]) for check in checks if check["name"] != IGNORED],
    )


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    "A run that nobody disturbed, and how many operations it had."
    folder = tmp_path_factory.mktemp("whole")
    plan = Plan("count", 0, str(folder), str(folder.with_suffix(".count")))
    ended = run(folder, plan)
    assert ended.code == 3, ended.err
    assert plan.count > 100
    return result(folder), plan.count


def half_written(folder: Path) -> str:
    "The first file that a reader would take for whole and that is not."
    found = folder / "artifacts/runs/a"
    for path in found.rglob("*.json"):
        if ".tmp-" not in path.name:
            json.loads(path.read_text())
    for line in (folder / "artifacts").glob("*.jsonl"):
        [json.loads(text) for text in line.read_text().splitlines()]
    if (found / "evaluation/predictions.npz").is_file():
        load_predictions(found / "evaluation/predictions.npz")
    if (found / "models/model.json").is_file():
        load_model(found / "models")
    if (found / "manifest.json").is_file():
        return "; ".join(verify_run(Run(found)))
    return ""


def loss(folder: Path, what: str, moment: int, whole) -> str:
    "What an interruption cost; empty: nothing."
    plan = Plan(what, moment, str(folder), str(folder.with_suffix(".count")))
    ended = run(folder, plan)
    if ended.code not in EXIT_CODES[what] and plan.count >= moment:
        return f"exit code {ended.code}: {ended.err[-2000:]}"
    try:
        broken = half_written(folder)
    except (ValueError, PipelineError) as error:
        broken = f"half written: {error}"
    return broken or resumed(folder, whole)


def resumed(folder: Path, whole) -> str:
    "What is wrong after the run was gone on with."
    again = call("run", "--resume", "a", folder=folder)
    if again.code == 2 and "There is no run a" in again.err:  # it had not begun
        again = call("run", *RUN, "--run-id", "a", folder=folder)
    finished = again.code == 2 and "is finished" in again.err  # before it was ended
    if again.code != 3 and not finished:
        return f"not resumed, exit code {again.code}: {again.err[-2000:]}"
    left = [str(path) for path in (folder / "artifacts/runs").rglob(".tmp-*")]
    if left or result(folder) != whole:
        return f"left behind: {left}" if left else f"another result: {result(folder)} for {whole}"
    return "; ".join(verify_run(Run(folder / "artifacts/runs/a")))


@pytest.mark.parametrize("what", EXIT_CODES)
def test_ended_at_any_moment_and_resumed_a_run_ends_the_same(what, whole, tmp_path, tally, many):
    expected, operations = whole
    chance = random.Random(what)
    edges = [3, operations - 20]  # before the first stage, and after the last
    moments = edges[: many(0, 2, ci=2)]
    moments += [chance.randint(1, operations) for _ in range(many(1, 68, ci=5))]
    folders = [tmp_path / f"{number}-{moment}" for number, moment in enumerate(moments)]
    for folder in folders:
        folder.mkdir()
    with ThreadPoolExecutor(2) as pool:
        losses = list(
            pool.map(lambda f, m: loss(f, what, m, expected), folders, moments, timeout=3000)
        )
    for moment, lost in zip(moments, losses, strict=True):
        tally.add(f"a run ended by {what}", lost and f"at {moment} of {operations}: {lost}")
