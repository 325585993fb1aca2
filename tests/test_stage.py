"What stage notebooks call: runs that cannot be opened, evaluations counted, a champion compared."

from types import SimpleNamespace

import numpy as np
import pytest
from commands import close_logs

from mnist_nbdev.base.arrays import read_arrays
from mnist_nbdev.base.files import PipelineError, UsageError, sha256_file, write_json, write_text
from mnist_nbdev.base.loading import resolve_settings
from mnist_nbdev.data.spec import MNIST_SPEC
from mnist_nbdev.execution import stage
from mnist_nbdev.execution.stage import (
    compare_with_champion,
    count_evaluation,
    open_stage,
    stale_modules,
    stale_warnings,
)
from mnist_nbdev.model import inference
from mnist_nbdev.registry.journal import append_release, next_release
from mnist_nbdev.runs.collector import CHAMPION_TYPES, example_run
from mnist_nbdev.runs.run import Run, create_run

pytestmark = pytest.mark.unit


@pytest.fixture
def run(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    resolved = resolve_settings("debug", environment={})
    yield create_run(tmp_path / "artifacts" / "runs" / "first", resolved, {"mode": "pipeline"})
    close_logs()


# --- Edited but not exported


@pytest.mark.parametrize(
    ("code", "stale"),
    [
        ("answer = 42\n", []),
        ("from .files import x\n\nanswer = 42\n", []),
        ("answer = 41\n", ["nbs/base/00_files.ipynb"]),
        (None, ["nbs/base/00_files.ipynb"]),
    ],
)
def test_a_notebook_is_stale_unless_its_module_has_its_code(code, stale, tmp_path):
    write_text(tmp_path / "settings.ini", "")
    cells = ["#| default_exp base.files\n", "#| export\nanswer = 42\n", "not_exported = 1"]
    notebook = {"cells": [{"source": [cell]} for cell in cells]}
    write_json(tmp_path / "nbs" / "base" / "00_files.ipynb", notebook)
    if code is not None:
        write_text(tmp_path / "mnist_nbdev" / "base" / "files.py", code)
    assert stale_modules(tmp_path) == stale


def test_outside_a_checkout_nothing_is_stale(tmp_path):
    write_json(tmp_path / "nbs" / "base" / "00_files.ipynb", {"cells": []})
    assert stale_modules(tmp_path) == []


def test_a_stale_notebook_is_named_with_the_remedy(monkeypatch):
    monkeypatch.setattr(stage, "stale_modules", lambda: ["nbs/base/00_files.ipynb"])
    (warning,) = stale_warnings()
    assert warning.startswith("Note: nbs/base/00_files.ipynb was edited but not exported")
    assert "nbdev_export" in warning


# --- Opening a run


def test_a_folder_without_a_run_is_refused(run):
    with pytest.raises(PipelineError, match=r"it has no config\.yaml"):
        open_stage("2_train", run_dir=str(run.artifacts))


def test_a_stage_whose_inputs_are_missing_is_refused(run):
    with pytest.raises(
        PipelineError, match=r"has no data/dataset\.json, data/split\.npz: run the earl"
    ):
        open_stage("2_train", run_dir=str(run.folder))


def test_an_override_that_is_not_valid_is_named(run):
    with pytest.raises(UsageError, match=r"training\.epochs = 0 \(overrides training\.epochs\)"):
        open_stage("1_data", str(run.folder), {"training.epochs": 0})


def test_the_training_has_a_log_of_its_own(run):
    for name in ("data/dataset.json", "data/split.npz"):
        write_text(run.path(name), "")
    open_stage("2_train", str(run.folder))
    assert len(list((run.artifacts.parent / "logs").glob("training_*.log"))) == 1
    assert run.has("logs/run.log")


# --- Counting evaluations


def test_other_training_images_leave_the_count_and_other_test_images_begin_another(run):
    facts = {"source": "mnist", "files": {"train": "a", "t10k": "b"}}
    run.save_record("data/dataset.json", facts)
    counts = []
    for weights in ("weights", "weights", "other weights"):
        write_text(run.path("models/model.onnx"), weights)
        counts.append(count_evaluation(run))
    for files in ({"train": "c", "t10k": "b"}, {"train": "a", "t10k": "d"}):
        run.save_record("data/dataset.json", facts | {"files": files})
        counts.append(count_evaluation(run))
    run.save_record("data/dataset.json", facts | {"split_sha256": "other"})
    counts.append(count_evaluation(run))  # a split of the training images alone
    assert counts == [1, 1, 2, 2, 1, 2]
    assert run.record("release/looks.json") == {"models": 2}


def test_on_the_sample_another_split_has_other_test_images(run):
    sample = {"source": "sample", "files": {"sample": "b"}, "split_sha256": "d"}
    counts = []
    for split, weights in [("d", "weights"), ("d", "other weights"), ("e", "other weights")]:
        write_text(run.path("models/model.onnx"), weights)
        run.save_record("data/dataset.json", sample | {"split_sha256": split})
        counts.append(count_evaluation(run))
    assert counts == [1, 2, 1]


# --- Comparing with the champion


@pytest.fixture
def released(tmp_path) -> Run:
    "An example run; its champion is another run's model."
    run = example_run(tmp_path / "artifacts" / "runs" / "example")
    other = Run(run.folder.parent / "other")
    write_text(other.path("models/model.onnx"), "other weights")
    digests = "0" * 64, sha256_file(other.path("models/model.onnx"))
    append_release(run.artifacts, next_release([], "promote", "other", digests, "mia"))
    return run


def test_another_champion_predicts_the_run_s_own_images(released, monkeypatch):
    images = np.random.default_rng(1).integers(0, 256, (1000, 28, 28), dtype=np.uint8)
    loaded = []

    class Classifier:
        spec = MNIST_SPEC

        def __init__(self, path, threads, device, sha256):
            loaded.append((path, sha256))

        def labels(self, images):
            return (images[:, 0, 0] % 10).astype(np.uint8)

    monkeypatch.setattr(inference, "OnnxClassifier", Classifier)
    test_images = SimpleNamespace(test=SimpleNamespace(images=images))
    monkeypatch.setattr(stage, "open_dataset", lambda folder: test_images)
    record = compare_with_champion(released)
    champion_file = released.folder.parent / "other" / "models" / "model.onnx"
    assert loaded == [(champion_file, sha256_file(champion_file))]
    assert record == {"run": "other", "model_sha256": loaded[0][1], "same_images": True}
    assert released.record("release/champion.json") == record
    stored = read_arrays(released.path("release/champion.npz"), CHAMPION_TYPES)
    assert np.array_equal(stored["answers"], images[:, 0, 0] % 10)


@pytest.mark.parametrize(
    "facts", [{"source": "sample", "verified": True}, {"source": "mnist", "verified": False}]
)
def test_on_images_that_are_not_the_full_mnist_nothing_is_compared(facts, released):
    released.save_record("data/dataset.json", facts)
    assert compare_with_champion(released)["same_images"] is False
    assert not released.has("release/champion.npz")


def test_a_champion_that_was_changed_is_not_compared(released, monkeypatch):
    monkeypatch.setattr(
        stage, "open_dataset", lambda _: SimpleNamespace(test=SimpleNamespace(images=None))
    )
    write_text(released.folder.parent / "other" / "models" / "model.onnx", "better weights")
    with pytest.raises(PipelineError, match="is not the model that was released"):
        compare_with_champion(released)
