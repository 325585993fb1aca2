"A replay without a run: which settings it takes, and how it compares."

import pytest

from mnist_nbdev.base.files import write_text
from mnist_nbdev.base.loading import resolve_settings
from mnist_nbdev.execution import replay
from mnist_nbdev.execution.replay import _compare_files, replay_run
from mnist_nbdev.runs.collector import example_run
from mnist_nbdev.runs.run import Run, create_run

pytestmark = pytest.mark.unit


@pytest.mark.parametrize(
    ("first", "second", "row"),
    [
        ("a\nb\n", "a\nb\n", {"outcome": "same", "detail": "4 bytes"}),
        ("a\nb\nc\n", "a\nx\nc\n", {"outcome": "differs", "detail": "from byte 2 of 6, in line 2"}),
        ("a\nb\n", "a\nb\nc\n", {"outcome": "differs", "detail": "from byte 4 of 4, in line 3"}),
        ("a\n", None, {"outcome": "differs", "detail": "only one of the runs has it"}),
        (None, "a\n", {"outcome": "differs", "detail": "only one of the runs has it"}),
        (None, None, {"outcome": "missing", "detail": "neither run has it"}),
    ],
)
def test_two_files_are_compared_byte_by_byte(first, second, row, tmp_path):
    for name, content in [("first", first), ("second", second)]:
        if content is not None:
            write_text(tmp_path / name, content)
    name = "training/history.jsonl"
    compared = _compare_files(name, tmp_path / "first", tmp_path / "second")
    assert compared == {"what": name, **row}


def test_only_lines_of_json_are_numbered(tmp_path):
    write_text(tmp_path / "first", "a\nb\n")
    write_text(tmp_path / "second", "a\nc\n")
    row = _compare_files("models/model.onnx", tmp_path / "first", tmp_path / "second")
    assert row["detail"] == "from byte 2 of 4"


class Stop(Exception):
    "Nothing is to be replayed."


def recorded_call(run: Run, monkeypatch) -> tuple:
    "With which arguments a replay starts its run."
    calls = []

    def start(*words, **options):
        calls.append((words, options))
        raise Stop

    monkeypatch.setattr(replay, "start_run", start)
    with pytest.raises(Stop):
        replay_run(run)
    return calls[0]


@pytest.mark.parametrize(("precision", "mixed"), [("fp32", False), ("bf16", True)])
def test_a_replay_takes_its_settings_from_the_record(precision, mixed, tmp_path, monkeypatch):
    resolved = resolve_settings("debug", environment={}, flags=["seed=7", "registry.track=true"])
    run = create_run(tmp_path / "artifacts" / "runs" / "first", resolved, {"mode": "train"})
    run.save_record("models/model.json", {"facts": {"threads": 3, "precision": precision}})
    run.save_record("data/dataset.json", {"source": "sample"})
    (replayed, mode), options = recorded_call(run, monkeypatch)
    settings = replayed.settings
    assert (mode, options) == ("train", {"model": None, "fresh": True})
    assert settings.seed == 7
    assert settings.paths.artifacts == str(tmp_path / "artifacts" / "replays")
    assert settings.data.source == "sample"
    assert (settings.training.threads, settings.training.mixed_precision) == (3, mixed)
    assert (settings.registry.promote, settings.registry.track) == (False, False)
    assert replayed.origins["seed"] == "run first"


def test_an_evaluation_is_replayed_with_its_own_model(tmp_path, monkeypatch):
    run = example_run(tmp_path / "artifacts" / "runs" / "first")
    run.save_record("models/model.json", {"facts": {"threads": 3, "precision": "fp32"}})
    (_, mode), options = recorded_call(run, monkeypatch)
    assert (mode, options["model"]) == ("evaluate", str(run.path("models")))
