"A run is verified, and every change in it is detected."

import os
import random
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from commands import call, environment

from mnist_nbdev.base.arrays import read_arrays
from mnist_nbdev.base.files import (
    read_json,
    read_sealed_json,
    sha256_file,
    write_json,
    write_sealed_json,
)
from mnist_nbdev.data.spec import MNIST_SPEC
from mnist_nbdev.gate.evaluation import evaluate, load_predictions, save_predictions
from mnist_nbdev.gate.release import decide, decision_json
from mnist_nbdev.gate.robustness import ROBUSTNESS_TYPES, robustness_figures
from mnist_nbdev.registry.verification import changed_files, verify_run
from mnist_nbdev.runs.collector import collect_evidence
from mnist_nbdev.runs.run import Run, main_metrics, write_manifest
from mnist_nbdev.runs.stages import STAGES, Stage

pytestmark = pytest.mark.integration


@pytest.fixture
def run(quick_project, tmp_path):
    "A copy of the run to damage."
    return Path(shutil.copytree(quick_project / "artifacts/runs/first", tmp_path / "first"))


def test_a_finished_run_is_verified(quick_project):
    ended = call("runs", "verify", "first", folder=quick_project)
    assert ended.code == 0, ended.err
    assert "first is verified" in ended.out
    assert "rejected" in ended.out
    assert call("runs", "verify", "first", "--json", folder=quick_project).json == {
        "run": "first",
        "differences": [],
    }


def test_a_stage_that_the_project_gets_later_leaves_earlier_runs_as_they_are(run, monkeypatch):
    later = Stage("4_noise", (), (), ("noise/",), ())
    monkeypatch.setitem(STAGES, later.name, later)
    assert verify_run(Run(run)) == []


def test_a_stage_s_record_that_is_missing_is_named(run):
    (run / "stages/2_train.json").unlink()
    write_manifest(Run(run))
    differences = verify_run(Run(run))
    assert "stages/2_train.json is missing or was changed after its stage wrote it." in differences


def test_it_is_verified_without_torch_and_without_a_network(quick_project):
    program = (
        "import importlib.abc, socket, sys\n"
        "class NoTorch(importlib.abc.MetaPathFinder):\n"
        "    def find_spec(self, name, path, target=None):\n"
        "        if name.split('.')[0] == 'torch': raise ImportError(name)\n"
        "sys.meta_path.insert(0, NoTorch()); socket.socket.connect = None\n"
        "from mnist_nbdev.cli.cli import main\n"
        "sys.argv = ['mnist-nbdev', 'runs', 'verify', 'first']\n"
        "sys.exit(main())"
    )
    ended = subprocess.run(
        [sys.executable, "-c", program],
        cwd=quick_project,
        env=environment(),
        capture_output=True,
        text=True,
        check=False,
    )
    assert ended.returncode == 0, ended.stderr
    assert "is verified" in ended.stdout


def test_each_flipped_bit_and_each_truncation_is_found(run):
    draws = random.Random(0)
    files = sorted(path for path in run.rglob("*") if path.is_file())
    for number in range(1200):
        path = draws.choice(files)
        whole = path.read_bytes()
        if not whole:
            continue
        if number < 1000:
            place, bit = draws.randrange(len(whole)), draws.randrange(8)
            flipped = whole[place] ^ 1 << bit
            spoilt = whole[:place] + bytes([flipped]) + whole[place + 1 :]
        else:
            spoilt = whole[: draws.randrange(len(whole))]
        path.write_bytes(spoilt)
        found = list(changed_files(Run(run)))
        path.write_bytes(whole)
        assert any(path.name in line for line in found), (path, found)
    assert verify_run(Run(run)) == []


@pytest.mark.parametrize(
    ("damage", "words"),
    [
        (lambda run: (run / "decision.json").unlink(), "decision.json is missing"),
        (lambda run: (run / "models/extra.onnx").write_text(""), "models/extra.onnx is not in"),
        (lambda run: (run / "notebooks/again").symlink_to("1_data.ipynb"), "is a link"),
        (lambda run: (run / "manifest.json").unlink(), "manifest.json is missing"),
        (lambda run: os.truncate(run / "manifest.json", 0), "manifest.json is damaged"),
    ],
)
def test_what_is_missing_or_came_later_is_named(run, damage, words):
    damage(run)
    assert any(words in line for line in verify_run(Run(run)))


@pytest.mark.parametrize(
    ("name", "change", "words"),
    [
        ("summary.json", {"status": "approved"}, "summary.json says approved"),
        ("decision.json", {"status": "approved"}, "decision.json: status is 'approved'"),
        ("evaluation/robustness.json", {"slices": {}}, "evaluation/robustness.json: slices"),
        ("evaluation/metrics.json", {"log_loss": 0.0}, "evaluation/metrics.json: log_loss is 0.0"),
        ("timing.json", {}, "timing.json was changed"),
    ],
)
def test_an_edited_figure_is_found_although_the_manifest_is_new(run, name, change, words):
    write_json(run / name, read_json(run / name) | change if change else {})
    if change:
        write_manifest(Run(run))
    assert any(words in line for line in verify_run(Run(run)))


def forge(run: Path) -> None:
    "Make all predictions correct, and recompute everything that follows from them."
    settings = Run(run).settings
    labels, probabilities = load_predictions(run / "evaluation/predictions.npz")
    probabilities = np.full_like(probabilities, 0.001)
    probabilities[np.arange(len(labels)), labels] = 0.991
    save_predictions(run / "evaluation/predictions.npz", labels, probabilities)
    write_json(
        run / "evaluation/metrics.json", evaluate(labels, probabilities, settings.evaluation)
    )
    found = read_arrays(run / "evaluation/robustness.npz", ROBUSTNESS_TYPES)
    write_json(
        run / "evaluation/robustness.json", robustness_figures(found, labels, labels, MNIST_SPEC)
    )
    for path in (run / "stages").glob("*.json"):
        record = read_sealed_json(path)
        outputs = {name: sha256_file(run / name) for name in record["outputs"]}
        write_sealed_json(path, record | {"outputs": outputs})
    decision = decide(collect_evidence(Run(run)), settings.release_thresholds)
    write_json(run / "decision.json", decision_json(decision))
    record = read_sealed_json(run / "stages/5_release.json")
    outputs = {name: sha256_file(run / name) for name in record["outputs"]}
    write_sealed_json(run / "stages/5_release.json", record | {"outputs": outputs})
    summary = read_json(run / "summary.json")
    write_json(run / "summary.json", summary | {"metrics": main_metrics(Run(run))})
    write_manifest(Run(run))


def test_predictions_that_the_model_did_not_make_are_found_where_the_images_are(quick_project):
    run = quick_project / "artifacts/runs/forged"
    shutil.copytree(quick_project / "artifacts/runs/first", run)
    assert call("runs", "verify", "forged", "--deep", folder=quick_project).code == 0
    forge(run)
    assert call("runs", "verify", "forged", folder=quick_project).code == 0  # it agrees with itself
    ended = call("runs", "verify", "forged", "--deep", folder=quick_project)
    assert ended.code == 1
    assert "model.onnx predicts differently" in ended.out


def test_a_replay_gives_the_same_bits(quick_project):
    ended = call("runs", "replay", "first", "--json", folder=quick_project, afresh=True)
    assert ended.code == 0, ended.err
    outcomes = {row["what"]: row["outcome"] for row in ended.json}
    assert set(outcomes.values()) == {"same"}, ended.json
    assert {"models/model.safetensors", "models/model.onnx", "decision"} < outcomes.keys()
    runs = call("runs", "list", "--json", folder=quick_project).json
    assert "first" in [row["run_id"] for row in runs]
    assert len([row for row in runs if "debug" in row["run_id"]]) == 0  # it stands elsewhere
