"A run's course without kernels: what is executed, reused, closed, released and refused."

from pathlib import Path

import pytest

from mnist_nbdev.base.files import PipelineError, write_bytes, write_text
from mnist_nbdev.base.loading import resolve_settings
from mnist_nbdev.execution import pipeline
from mnist_nbdev.execution.pipeline import (
    execute_run,
    find_model,
    register_run,
    require_releasable,
    run_stages,
)
from mnist_nbdev.registry.journal import append_release, champion, next_release
from mnist_nbdev.runs.reuse import read_stage_record
from mnist_nbdev.runs.run import Run, create_run, write_manifest
from mnist_nbdev.runs.stages import STAGES, Stage

pytestmark = pytest.mark.unit


class StandIn:
    "Instead of executing a stage, writes the files that later stages need."

    def __init__(self, *fails: str) -> None:
        self.fails, self.executed, self.prepared = fails, [], []

    def execute(self, stage: Stage, run: Run, next_stages: list[Stage]) -> None:
        if stage.name in self.fails:
            raise PipelineError(f"Stage {stage.name} failed.")
        self.executed.append(stage.name)
        self.prepared.append([other.name for other in next_stages])
        for name in {name for other in STAGES.values() for name in other.inputs}:
            if name.startswith(stage.outputs):
                write_text(run.path(name), f"by {stage.name}")
        run.add_timing(memory={stage.name: 100.0})

    def raise_if_interrupted(self) -> None:
        "Never interrupted."


@pytest.fixture
def new_run(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)

    def create(name: str, mode: str = "pipeline") -> Run:
        resolved = resolve_settings("debug", environment={})
        return create_run(tmp_path / "artifacts" / "runs" / name, resolved, {"mode": mode})

    return create


def test_kernels_are_told_which_stages_come_next(new_run):
    kernels = StandIn()
    run_stages(new_run("first"), False, kernels)
    assert kernels.executed == list(STAGES)
    assert kernels.prepared == [kernels.executed[number:] for number in range(1, 6)]


def test_the_same_run_again_executes_the_release_alone_and_keeps_the_times(new_run):
    run_stages(new_run("first"), False, StandIn())
    kernels, again = StandIn(), new_run("again")
    run_stages(again, False, kernels)
    assert kernels.executed == ["5_release"]
    assert read_stage_record(again, "4_evaluate")["reused_from"] == "first"
    assert read_stage_record(again, "5_release")["reused_from"] is None
    assert again.read_json("timing.json")["memory"].keys() == set(STAGES)


def test_a_fresh_run_reuses_nothing(new_run):
    run_stages(new_run("first"), False, StandIn())
    kernels, fresh = StandIn(), new_run("fresh")
    run_stages(fresh, True, kernels)
    assert kernels.executed == list(STAGES)
    assert {read_stage_record(fresh, name)["why"] for name in STAGES} == {"--fresh"}


def test_a_resumed_run_goes_on_where_it_failed(new_run):
    run = new_run("first")
    with pytest.raises(PipelineError, match="Stage 3_export failed"):
        run_stages(run, False, StandIn("3_export"))
    kernels = StandIn()
    run_stages(run, False, kernels)
    assert kernels.executed == ["3_export", "4_evaluate", "5_release"]


def test_a_run_that_fails_says_so_in_its_summary_and_is_not_closed(new_run, monkeypatch):
    run = new_run("first", "train")

    def fail(*_: object) -> None:
        raise PipelineError("Stage 2_train failed.")

    monkeypatch.setattr(pipeline, "run_stages", fail)
    monkeypatch.setattr(pipeline, "start_logging", lambda *_, **__: None)
    with pytest.raises(PipelineError, match="Stage 2_train failed"):
        execute_run(run)
    assert run.summary["status"] == "failed"
    assert not run.is_finished


# --- Release


@pytest.fixture
def approved(new_run) -> Run:
    run = new_run("approved")
    write_bytes(run.path("models/model.onnx"), b"weights")
    run.save_record("release/champion.json", {"run": None, "model_sha256": "a" * 64})
    run.save_json("decision.json", {"status": "approved"})
    run.save_json("summary.json", {"status": "approved", "metrics": {}})
    write_manifest(run)
    return run


def release(run: Run, model_sha256: str) -> None:
    digests = "0" * 64, model_sha256
    append_release(run.artifacts, next_release([], "promote", "other", digests, "mia"))


@pytest.fixture
def verified(monkeypatch):
    monkeypatch.setattr(pipeline, "require_verified", lambda run: None)


@pytest.mark.usefixtures("verified")
@pytest.mark.parametrize("released", ["the one that it was compared with", "its own model"])
def test_a_run_may_be_released_over_a_champion_it_knows(released, approved):
    own = pipeline.sha256_file(approved.path("models/model.onnx"))
    release(approved, own if released == "its own model" else "a" * 64)
    require_releasable(approved)


@pytest.mark.usefixtures("verified")
def test_a_run_that_was_compared_with_another_champion_is_not_released(approved):
    with pytest.raises(PipelineError, match=r"the current champion \(none\)"):
        require_releasable(approved)
    release(approved, "b" * 64)
    with pytest.raises(PipelineError, match=r"the current champion \(other\)"):
        register_run(approved)
    assert champion(approved.artifacts).run == "other"


@pytest.mark.usefixtures("verified")
def test_the_first_release_was_compared_with_none(approved):
    approved.save_record("release/champion.json", {"run": None, "model_sha256": None})
    require_releasable(approved)


def test_an_approved_run_is_promoted_if_it_is_verified(approved, monkeypatch):
    with pytest.raises(PipelineError, match="approved failed verification"):
        register_run(approved)
    assert champion(approved.artifacts) is None
    monkeypatch.setattr(pipeline, "require_releasable", lambda run: None)
    register_run(approved)
    assert champion(approved.artifacts).run == "approved"
    assert champion(approved.artifacts).why == "approved by its own run"


def test_a_run_that_may_not_be_released_is_tracked_all_the_same(approved, monkeypatch):
    tracked = []
    monkeypatch.setattr(pipeline, "sync_registry", lambda artifacts, runs: tracked.extend(runs))
    run = Run(approved.folder, resolve_settings(environment={}).settings)  # with registry.track
    with pytest.raises(PipelineError, match="approved failed verification"):
        register_run(run)
    assert tracked == [run]


# --- A model to evaluate


def test_a_model_that_was_edited_after_its_run_is_not_evaluated(new_run):
    run = new_run("trained", "train")
    for name in ("models/model.json", "models/model.safetensors"):
        write_text(run.path(name), "{}")
    write_manifest(run)
    assert find_model(run.folder.parent, "trained") == run.path("models")
    write_text(run.path("models/model.safetensors"), "other weights")
    with pytest.raises(PipelineError, match="is not the file that run trained wrote"):
        find_model(run.folder.parent, "trained")


def test_a_folder_with_a_model_needs_no_run(tmp_path):
    write_text(tmp_path / "mine" / "model.json", "{}")
    for name in ("mine", "mine/model.json"):
        assert find_model(tmp_path / "runs", str(tmp_path / name)) == Path(tmp_path / "mine")
