"""Releases on the full MNIST, as in a team: a first model, one that must not replace it, one
that was evaluated before the champion changed, and a rollback that has no target.
"""

import os

import pytest
from commands import call

from mnist_nbdev.base.files import read_json

pytestmark = [
    pytest.mark.integration,
    pytest.mark.skipif("MLOPS_DATA_ROOT" not in os.environ, reason="the full MNIST is not here"),
]
# Other tests run in parallel, so times are not checked here.
FAST = ("--preset", "fast", "--set", "release_thresholds.max_inference_time_ms=10000")
HASTY = ("--set", "training.learning_rate=0.0004", "--set", "registry.track=false")


def command(*words, folder):
    root = os.path.abspath(os.environ["MLOPS_DATA_ROOT"])
    return call(*words, folder=folder, MLOPS_DATA_ROOT=root)


@pytest.fixture(scope="module")
def project(tmp_path_factory):
    "A folder with an approved run that nobody promoted, and one that promoted itself."
    folder = tmp_path_factory.mktemp("project")
    later = ("--set", "registry.promote=false", "--set", "registry.track=false", "--set", "seed=1")
    waiting = command("run", *FAST, *later, "--run-id", "waiting", "--json", folder=folder)
    assert waiting.code == 0, waiting.err
    first = command("run", *FAST, "--run-id", "first", "--json", folder=folder)
    assert first.code == 0, first.err
    return folder, first


def test_an_approved_run_becomes_the_champion_and_is_verified(project):
    folder, ended = project
    assert ended.json["status"] == "approved"
    assert ended.json["metrics"]["accuracy"] >= 0.99
    assert "Champion: first" in ended.err
    (release,) = command("registry", "history", "--json", folder=folder).json
    assert (release["run"], release["action"], release["evidence"]) == (
        "first",
        "promote",
        "unchanged",
    )
    assert command("runs", "verify", "first", "--deep", folder=folder).code == 0
    checks = read_json(folder / "artifacts/runs/first/decision.json")["checks"]
    why = {check["name"]: check["why"] for check in checks}
    assert "No model is released yet" in why["champion"]
    assert "2 different models, including this one, were evaluated" in why["data"]


def test_a_worse_run_is_rejected_against_the_champion_and_says_why(project):
    folder, _ = project
    ended = command("run", *FAST, *HASTY, "--run-id", "worse", "--json", folder=folder)
    assert ended.code == 3, ended.err
    checks = read_json(folder / "artifacts/runs/worse/decision.json")["checks"]
    (champion,) = (check for check in checks if check["name"] == "champion")
    assert champion["outcome"] == "failed"
    assert "classified correctly only by the champion 'first'" in champion["why"]
    refused = command("registry", "promote", "worse", folder=folder)
    assert refused.code == 1
    assert "worse was not approved" in refused.err
    (release,) = command("registry", "list", "--json", folder=folder).json
    assert release["run"] == "first"
    assert command("runs", "verify", "worse", folder=folder).code == 0  # a rejection holds as well


def test_a_run_that_was_compared_with_another_champion_is_not_promoted(project):
    folder, _ = project
    ended = command("registry", "promote", "waiting", folder=folder)
    assert ended.code == 1
    assert "was not compared with the current champion (first)" in ended.err
    assert "run --mode evaluate --model waiting" in ended.err


def test_evaluating_the_champion_again_changes_nothing(project):
    folder, _ = project
    words = ("--mode", "evaluate", "--model", "first", "--run-id", "again")
    ended = command("run", *FAST, *words, folder=folder)
    assert ended.code == 0, ended.err
    assert len(command("registry", "history", "--json", folder=folder).json) == 1
    back = command("registry", "rollback", folder=folder)
    assert back.code == 1
    assert "no release to go back to" in back.err
