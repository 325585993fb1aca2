"""Runs, registries and journals of version 0.1.0 as it was before the library became sub-packages:
they still verify, predict, compare, are promoted and rolled back.

earlier.tar.xz holds one small run of each kind, in the folder `artifacts` of a project: `sample`, a
whole run on the sample; `trained`, a training alone; `evaluated`, its model evaluated; `first` and
`second`, approved on the full MNIST by low thresholds and promoted one after the other. It was
written by commit a52d4ea on Python 3.13, with pictures of 16 dots an inch.
"""

import os
import shutil
import tarfile
from pathlib import Path

import numpy as np
import pytest
from commands import call
from PIL import Image

from mnist_nbdev.base.files import read_json
from mnist_nbdev.registry.verification import comparable_checks, verify_run
from mnist_nbdev.runs.run import Run

pytestmark = pytest.mark.integration
RUNS = ("sample", "trained", "evaluated", "first", "second")


@pytest.fixture(scope="module")
def earlier(tmp_path_factory) -> Path:
    "A project of the earlier version, which no test changes."
    folder: Path = tmp_path_factory.mktemp("earlier")
    with tarfile.open(Path(__file__).parent / "earlier.tar.xz") as archive:
        archive.extractall(folder, filter="data")
    return folder


@pytest.fixture
def project(earlier, tmp_path) -> Path:
    "A copy of the earlier project, for tests that change it."
    return Path(shutil.copytree(earlier, tmp_path / "project", symlinks=True))


@pytest.mark.parametrize("run", RUNS)
def test_a_run_is_verified(earlier, run):
    assert verify_run(Run(earlier / "artifacts/runs" / run)) == []


def test_all_runs_are_listed_shown_and_compared(earlier):
    listed = call("runs", "list", "--json", folder=earlier).json
    statuses = {row["run_id"]: row["status"] for row in listed}
    assert statuses == {
        "sample": "rejected",
        "trained": "trained",
        "evaluated": "rejected",
        "first": "approved",
        "second": "approved",
    }
    shown = call("runs", "show", "first", "--json", folder=earlier).json
    assert shown == read_json(earlier / "artifacts/runs/first/summary.json")
    rows = call("runs", "compare", "first", "second", "--json", folder=earlier).json
    assert rows["seed"] == [0, 1]
    assert rows["accuracy"] == [0.9805, 0.9807]


def test_the_champion_and_each_run_predict(earlier, tmp_path):
    stroke = np.zeros((28, 28), np.uint8)
    stroke[5:23, 13:15] = 255
    Image.fromarray(stroke).save(tmp_path / "one.png")
    picture = str(tmp_path / "one.png")
    for words in ((), ("--model", "first"), ("--model", "sample"), ("--model", "evaluated")):
        ended = call("predict", picture, *words, "--json", folder=earlier)
        assert (ended.code, len(ended.json)) == (0, 1), ended.err
        assert sum(ended.json[0]["probabilities"]) == pytest.approx(1, abs=1e-6)


def test_the_journal_is_whole_and_releases_go_back_and_forth(project):
    def champion() -> str:
        return call("registry", "list", "--json", folder=project).json[0]["run"]

    history = call("registry", "history", "--json", folder=project).json
    assert [(row["run"], row["evidence"]) for row in history] == [
        ("first", "unchanged"),
        ("second", "unchanged"),
    ]
    assert champion() == "second"
    assert call("registry", "rollback", folder=project).code == 0
    assert champion() == "first"
    assert call("registry", "promote", "second", folder=project).code == 0
    assert champion() == "second"
    history = call("registry", "history", "--json", folder=project).json
    assert [row["action"] for row in history] == ["promote", "promote", "rollback", "promote"]
    refused = call("registry", "promote", "sample", folder=project)
    assert refused.code == 1
    assert "sample was not approved" in refused.err


def test_an_earlier_training_is_evaluated_and_decided_on_now(project):
    words = ("--mode", "evaluate", "--model", "trained", "--run-id", "now", "--json")
    ended = call("run", "--preset", "debug", *words, folder=project)
    assert ended.code == 3, ended.err
    then = read_json(project / "artifacts/runs/evaluated/summary.json")["metrics"]
    assert ended.json["metrics"]["accuracy"] == pytest.approx(then["accuracy"], abs=0.004)
    assert call("runs", "verify", "now", folder=project).code == 0


@pytest.mark.skipif("MLOPS_DATA_ROOT" not in os.environ, reason="the full MNIST is not here")
def test_an_earlier_champion_is_compared_with_a_model_that_is_evaluated_now(project):
    root = os.path.abspath(os.environ["MLOPS_DATA_ROOT"])
    words = ("--mode", "evaluate", "--model", "first", "--run-id", "now")
    ended = call("run", "--preset", "debug", *words, folder=project, MLOPS_DATA_ROOT=root)
    assert ended.code in (0, 3), ended.err
    checks = read_json(project / "artifacts/runs/now/decision.json")["checks"]
    (champion,) = (check for check in checks if check["name"] == "champion")
    assert "champion 'second'" in champion["why"]
    assert call("runs", "verify", "now", folder=project).code == 0


def test_reasons_that_another_version_worded_are_not_compared(earlier):
    checks = [{"name": "data", "outcome": "passed", "why": "in other words"}]
    assert comparable_checks(Run(earlier / "artifacts/runs/first"), checks)[0]["why"] == ""
