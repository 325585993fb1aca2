"The evidence of a run, part by part: what is read, and what an unusable file costs."

import shutil
from pathlib import Path

import pytest

from mnist_nbdev.base.arrays import read_arrays, write_arrays
from mnist_nbdev.base.files import write_text
from mnist_nbdev.gate.evaluation import load_predictions
from mnist_nbdev.gate.robustness import ROBUSTNESS_TYPES
from mnist_nbdev.runs import collector
from mnist_nbdev.runs.collector import collect_evidence, example_run
from mnist_nbdev.runs.run import Run

pytestmark = pytest.mark.unit

PREDICTIONS, ROBUSTNESS = "evaluation/predictions.npz", "evaluation/robustness.npz"


@pytest.fixture(scope="module")
def compared(tmp_path_factory):
    "An example run that was compared with a champion on the same images."
    run = example_run(tmp_path_factory.mktemp("artifacts") / "runs" / "compared")
    labels, _ = load_predictions(run.path(PREDICTIONS))
    arrays = read_arrays(run.path(ROBUSTNESS), ROBUSTNESS_TYPES)
    champion = {"run": "the-champion", "model_sha256": "0" * 64, "same_images": True}
    run.save_record("release/champion.json", champion)
    predictions = {"answers": labels, "spoiled": arrays["answers"]}
    write_arrays(run.path("release/champion.npz"), predictions)
    return run


@pytest.fixture
def run(compared, tmp_path):
    "A copy of it, to be damaged."
    return Run(Path(shutil.copytree(compared.folder, tmp_path / "runs" / "compared")))


@pytest.mark.parametrize(
    ("broken", "missing"),
    [
        (ROBUSTNESS, {"slices", "corruptions", "champion"}),
        (PREDICTIONS, {"classes", "calibration", "slices", "corruptions", "champion"}),
        ("release/champion.npz", {"champion"}),
        ("release/looks.json", set()),  # the facts about the data are known without the count
        ("data/dataset.json", {"data"}),
        ("timing.json", {"batch_times_ms"}),
    ],
)
def test_an_unusable_file_costs_the_parts_that_need_it_and_no_other(run, broken, missing):
    before = collect_evidence(run)
    assert all(part is not None for _, part in before)
    write_text(run.path(broken), "truncated")
    after = collect_evidence(run)
    assert {name for name, part in after if part is None} == missing
    same = set(type(before).model_fields) - missing - {"files", "data", "corruptions"}
    assert all(getattr(after, name) == getattr(before, name) for name in same)


def test_without_the_champion_s_predictions_the_corruptions_are_those_of_the_candidate(run):
    before = collect_evidence(run)
    write_text(run.path("release/champion.npz"), "truncated")
    after = collect_evidence(run)
    assert after.corruptions.champion is None
    assert after.corruptions.candidate == before.corruptions.candidate
    assert before.corruptions.champion is not None


def test_each_file_of_predictions_is_read_once(run, monkeypatch):
    files = []

    def counted(read):
        def reads(path, *arguments):
            files.append(path.relative_to(run.folder).as_posix())
            return read(path, *arguments)

        return reads

    for name in ("load_predictions", "read_arrays"):
        monkeypatch.setattr(collector, name, counted(getattr(collector, name)))
    collect_evidence(run)
    assert sorted(files) == [PREDICTIONS, ROBUSTNESS, "release/champion.npz"]
