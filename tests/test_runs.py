"""Whole runs: what a user sees of them, from the first command to the second."""

import json
import os
import shutil
import signal
from pathlib import Path

import pytest
from commands import QUICK, call, descendants, read_until, start, wait_for_end
from safetensors.numpy import load_file

from mnist_nbdev.base.files import read_json, read_sealed_json, sha256_file, write_sealed_json
from mnist_nbdev.runs.report import safe_html

pytestmark = pytest.mark.integration
STAGES = ["1_data", "2_train", "3_export", "4_evaluate", "5_release"]
# Ten epochs of a network small enough to be quick, long enough to be interrupted.
LONG = (*QUICK, "--set", "training.epochs=10", "--set", "model.conv_channels=[16,16]")


@pytest.fixture(scope="module")
def project(tmp_path_factory):
    "A folder in which one quick run was made."
    folder = tmp_path_factory.mktemp("project")
    ended = call("run", *QUICK, "--run-id", "first", "--json", folder=folder)
    assert ended.code == 3, ended.err
    return folder, ended


def run_folder(project: Path, run_id: str) -> Path:
    return project / "artifacts" / "runs" / run_id


def actions(rows) -> dict[str, str]:
    return {row["stage"]: row["action"] for row in rows}


def test_a_run_on_the_sample_is_complete_and_rejected_for_its_data(project):
    folder, ended = project
    summary = ended.json
    assert summary["status"] == "rejected"
    assert summary["data"]["source"] == "sample"
    assert summary["metrics"]["accuracy"] > 0.8
    decision = read_json(run_folder(folder, "first") / "decision.json")
    outcomes = {check["name"]: check["outcome"] for check in decision["checks"]}
    assert outcomes["data"] == "failed"
    assert outcomes["evidence"] == "passed"
    assert "Rejected: first" in ended.err
    assert "report.html" in ended.err
    assert "Traceback" not in ended.err
    said, _, _ = ended.err.partition("\nRejected")
    assert [line for line in said.splitlines() if not line.startswith(tuple(STAGES))] == []


def test_a_run_writes_every_file_of_the_contract(project):
    run = run_folder(project[0], "first")
    for name in [
        *("config.yaml", "environment.json", "report.html", "decision.json", "timing.json"),
        *("summary.json", "manifest.json", "training/history.jsonl", "logs/run.log"),
        *("models/model.safetensors", "models/model.json", "models/model.onnx"),
        *("evaluation/metrics.json", "evaluation/predictions.npz"),
        "evaluation/confusion_matrix.png",
        *(f"notebooks/{stage}.ipynb" for stage in STAGES),
    ]:
        assert (run / name).is_file(), name
    timing = read_json(run / "timing.json")
    assert list(timing["stages"]) == STAGES
    assert timing["epochs"]
    assert timing["inference"]["batch"]["p95_ms"] > 0
    assert all(megabytes > 10 for megabytes in timing["memory"].values())


def test_the_manifest_names_every_other_file_with_its_hash(project):
    run = run_folder(project[0], "first")
    files = read_json(run / "manifest.json")["files"]
    there = {p.relative_to(run).as_posix() for p in run.rglob("*") if p.is_file()}
    assert there - {"manifest.json"} == set(files)
    for name, entry in files.items():
        assert sha256_file(run / name) == entry["sha256"], name


def test_the_links_lead_to_the_newest_decision(project):
    artifacts = project[0] / "artifacts"
    assert (artifacts / "latest").resolve().name == "first"
    assert (artifacts / "models" / "model.onnx").is_file()
    assert (artifacts / "evaluation" / "metrics.json").is_file()


def test_the_executed_notebooks_hold_their_outputs_and_no_path_of_this_machine(project):
    folder, _ = project
    for stage in STAGES:
        text = (run_folder(folder, "first") / "notebooks" / f"{stage}.ipynb").read_text()
        notebook = json.loads(text)
        codes = [cell for cell in notebook["cells"] if cell["cell_type"] == "code"]
        assert all(cell["execution_count"] for cell in codes), stage
        assert "error" not in {o["output_type"] for cell in codes for o in cell["outputs"]}
        assert str(folder) not in text, stage


@pytest.mark.security
def test_the_report_shows_the_decision_and_can_do_nothing_else(project):
    report = (run_folder(project[0], "first") / "report.html").read_text()
    assert "Rejected" in report
    assert "confusion" in report.lower()
    assert "data:image/png;base64," in report
    for harmful in ["<script", "<iframe", "<object", "javascript:", "onerror", 'src="http']:
        assert harmful not in report
    assert safe_html("<script>x</script>") == "x"


def test_the_same_run_again_reuses_all_but_the_decision(project):
    folder, _ = project
    ended = call("run", *QUICK, "--run-id", "again", "--json", folder=folder)
    assert ended.code == 3, ended.err
    assert ended.err.count("is reused from run first") == 4
    first, again = run_folder(folder, "first"), run_folder(folder, "again")
    for name in ["models/model.onnx", "evaluation/predictions.npz", "decision.json"]:
        assert sha256_file(first / name) == sha256_file(again / name), name


def test_other_thresholds_cost_no_stage_and_another_seed_costs_all(project):
    folder, _ = project
    rows = call(
        *("runs", "explain", *QUICK, "--set", "release_thresholds.min_accuracy=0.5", "--json"),
        folder=folder,
    ).json
    assert [row["action"] for row in rows] == ["reuse"] * 4 + ["run"]
    rows = call("runs", "explain", *QUICK, "--set", "seed=1", "--json", folder=folder).json
    assert [row["action"] for row in rows] == ["run"] * 5
    assert "seed 0 → 1" in rows[0]["why"]


def test_another_training_setting_keeps_the_data_and_runs_the_rest(project):
    folder, _ = project
    changed = (*QUICK, "--set", "training.learning_rate=0.02")
    rows = call("runs", "explain", *changed, "--json", folder=folder).json
    assert actions(rows)["1_data"] == "reuse"
    assert "training.learning_rate 0.01 → 0.02" in rows[1]["why"]
    ended = call("run", *changed, "--run-id", "changed", folder=folder)
    assert "1_data is reused" in ended.err
    assert ended.err.count("is reused") == 1
    text = call("runs", "compare", "first", "changed", folder=folder).out
    assert "training.learning_rate" in text
    assert "accuracy" in text


def test_equal_runs_made_afresh_are_equal_to_the_bit(project):
    folder, _ = project
    ended = call("run", *QUICK, "--run-id", "fresh", "--fresh", folder=folder, afresh=True)
    assert "is reused" not in ended.err
    first, fresh = run_folder(folder, "first"), run_folder(folder, "fresh")
    for name in [
        *("data/dataset.json", "data/split.npz", "training/history.jsonl", "models/model.json"),
        *("models/model.safetensors", "models/model.onnx", "evaluation/predictions.npz"),
        *("evaluation/metrics.json", "evaluation/confusion_matrix.png"),
    ]:
        assert sha256_file(first / name) == sha256_file(fresh / name), name


def test_train_then_evaluate_is_the_same_model(project):
    folder, _ = project
    ended = call("run", *QUICK, "--mode", "train", "--run-id", "trained", "--json", folder=folder)
    assert (ended.code, ended.json["status"]) == (0, "trained")
    ended = call(
        *("run", "--mode", "evaluate", "--model", "trained", "--run-id", "evaluated", "--json"),
        folder=folder,
    )
    assert ended.code == 3, ended.err
    assert ended.json["metrics"]["accuracy"] > 0.8
    trained, evaluated = run_folder(folder, "trained"), run_folder(folder, "evaluated")
    for name in ["models/model.safetensors", "data/split.npz"]:
        assert sha256_file(trained / name) == sha256_file(evaluated / name), name
    late = ("--mode", "evaluate", "--model", "trained", "--set", "training.epochs=3")
    ended = call("run", *late, folder=folder)
    assert ended.code == 2
    assert "the model is already trained" in ended.err


@pytest.mark.security
def test_an_edited_model_is_not_evaluated(project):
    folder, _ = project
    copy = folder / "copied-model"
    shutil.copytree(run_folder(folder, "first") / "models", copy)
    weights = copy / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1] + b"\x01")
    ended = call("run", "--mode", "evaluate", "--model", str(copy), folder=folder)
    assert ended.code == 1
    assert "model.safetensors" in ended.err
    assert "Traceback" not in ended.err


def test_predict_reads_images_and_standard_input(project):
    from PIL import Image

    folder, _ = project
    digits = run_folder(folder, "first") / "data" / "digits.png"
    assert digits.is_file()
    blank = Image.new("L", (60, 60), 255)
    for x in range(25, 33):
        for y in range(8, 52):
            blank.putpixel((x, y), 0)  # a thick vertical stroke
    blank.save(folder / "one.png")
    ended = call("predict", "one.png", "--model", "first", "--json", folder=folder)
    assert ended.code == 0, ended.err
    (row,) = ended.json
    assert row["file"] == "one.png"
    assert row["label"] == 1
    assert len(row["probabilities"]) == 10
    assert call("predict", "one.png", folder=folder).code == 2  # nothing was approved
    ended = call("predict", "missing.png", "--model", "first", folder=folder)
    assert ended.code == 1
    assert "missing.png" in ended.err


def test_the_commands_on_runs_print_the_same_as_text_and_as_json(project):
    folder, _ = project
    shown = call("runs", "show", "first", folder=folder).out
    told = call("runs", "show", "first", "--json", folder=folder).json
    assert told["run_id"] == "first"
    assert f"{'status':<32} rejected" in shown
    assert f"{'metrics.accuracy':<32} {told['metrics']['accuracy']}" in shown
    assert "check.data" in shown
    (line,) = [x for x in call("runs", "list", folder=folder).out.splitlines() if "first " in x]
    assert "rejected" in line
    assert f"{told['metrics']['accuracy']:.2%}" in line
    explained = call("runs", "explain", "first", folder=folder).out.splitlines()
    assert [row.split()[0] for row in explained] == STAGES
    assert "1_data       would be reused: " in explained[0]
    ended = call("runs", "explain", "first", "--set", "seed=1", folder=folder)
    assert (ended.code, ended.out) == (2, "")
    pairs = call("runs", "compare", "first", "latest", "--json", folder=folder).json
    assert pairs["accuracy"][0] == told["metrics"]["accuracy"]


@pytest.mark.performance
def test_benchmark_times_one_image_and_a_batch(project):
    folder, _ = project
    few = ("--set", "inference.timed_runs=10", "--set", "evaluation.batch_size=32")
    told = call("benchmark", "--model", "first", *few, "--json", folder=folder).json
    assert [told[name]["batch_size"] for name in ("single", "batch")] == [1, 32]
    assert told["single"]["runs"] == 10
    assert 0 < told["single"]["p50_ms"] <= told["single"]["p99_ms"]
    model = str(run_folder(folder, "first") / "models")
    assert "32 images: p50 " in call("benchmark", "--model", model, *few, folder=folder).out


def test_two_runs_at_once_do_not_disturb_each_other(project):
    folder, _ = project
    ids = ["left", "right"]
    alone = ("--set", "training.threads=1", "--set", "inference.threads=1", "--fresh")
    both = [start("run", *QUICK, *alone, "--run-id", name, folder=folder) for name in ids]
    for process in both:
        _, err = process.communicate(timeout=300)
        assert process.returncode == 3, err
    left, right = (run_folder(folder, name) for name in ids)
    assert sha256_file(left / "models/model.onnx") == sha256_file(right / "models/model.onnx")
    assert (folder / "artifacts" / "latest").resolve().name in ids


def weights(run: Path) -> dict[str, bytes]:
    return {k: v.tobytes() for k, v in load_file(run / "models" / "model.safetensors").items()}


@pytest.fixture(scope="module")
def uninterrupted(project):
    folder, _ = project
    ended = call("run", *LONG, "--mode", "train", "--run-id", "whole", folder=folder)
    assert ended.code == 0, ended.err
    return weights(run_folder(folder, "whole"))


def test_killed_in_an_epoch_and_resumed_it_ends_with_the_same_weights(project, uninterrupted):
    folder, _ = project
    often = ("--set", "training.checkpoint_interval_s=0.05")
    process = start(
        "run", *LONG, *often, "--mode", "train", "--run-id", "killed", "--fresh", folder=folder
    )
    read_until(process, "epoch 3")
    started = descendants(process.pid)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert len(started) >= 2  # what kernels are forked from, and the training's own
    for one in started:
        assert wait_for_end(one), "a process outlived its run"
    listed = call("runs", "list", "--json", folder=folder).json
    assert {row["run_id"]: row["status"] for row in listed}["killed"] == "unfinished"
    ended = call("run", "--resume", "latest", folder=folder)
    assert ended.code == 0, ended.err
    assert "1_data is already done" in ended.err
    assert weights(run_folder(folder, "killed")) == uninterrupted
    assert not list(run_folder(folder, "killed").rglob(".tmp-*"))
    epochs = (run_folder(folder, "killed") / "training/history.jsonl").read_text().splitlines()
    assert [json.loads(line)["epoch"] for line in epochs] == list(range(1, 11))


@pytest.mark.parametrize(
    ("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)], ids=["SIGINT", "SIGTERM"]
)
def test_a_signal_ends_the_run_with_a_checkpoint(project, uninterrupted, number, code):
    folder, _ = project
    name = f"stopped-{code}"
    process = start("run", *LONG, "--mode", "train", "--run-id", name, "--fresh", folder=folder)
    said = read_until(process, "epoch 2")
    process.send_signal(number)
    _, err = process.communicate(timeout=120)
    assert process.returncode == code, said + err
    assert "--resume latest" in err
    assert "Traceback" not in err
    assert read_json(run_folder(folder, name) / "summary.json")["status"] == "interrupted"
    ended = call("run", "--resume", name, folder=folder)
    assert ended.code == 0, ended.err
    assert weights(run_folder(folder, name)) == uninterrupted


def test_a_second_process_on_a_run_is_told_who_has_it(project):
    folder, _ = project
    process = start("run", *LONG, "--mode", "train", "--run-id", "held", "--fresh", folder=folder)
    read_until(process, "epoch 1")
    ended = call("run", "--resume", "held", folder=folder)
    process.kill()
    process.wait()
    assert ended.code == 1
    assert f"in use by process {process.pid}" in ended.err


def test_a_finished_run_is_not_written_to_again(project):
    folder, _ = project
    ended = call("run", "--resume", "first", folder=folder)
    assert ended.code == 2
    assert "is finished" in ended.err
    ended = call("run", *QUICK, "--run-id", "first", folder=folder)
    assert ended.code == 2
    assert "The run first already exists" in ended.err


def test_a_run_with_a_stage_that_no_longer_exists_is_not_resumed(project):
    run = run_folder(project[0], "older")
    shutil.copytree(run_folder(project[0], "first"), run)
    (run / "manifest.json").unlink()
    request = read_sealed_json(run / "request.json")
    write_sealed_json(run / "request.json", {**request, "stages": ["1_data", "2_label"]})
    ended = call("run", "--resume", "older", folder=project[0])
    assert ended.code == 1
    assert "was started with a stage 2_label, which this version lacks" in ended.err
    shutil.rmtree(run)


def test_a_stage_that_fails_says_so_and_keeps_what_was_done(project):
    folder, _ = project
    ended = call(
        *("run", *QUICK, "--run-id", "failed", "--set", "pipeline.stage_timeout_s=0.01"),
        *("--fresh",),
        folder=folder,
    )
    assert ended.code == 1
    assert "pipeline.stage_timeout_s" in ended.err
    assert "Traceback" not in ended.err
    assert read_json(run_folder(folder, "failed") / "summary.json")["status"] == "failed"


@pytest.mark.security
def test_no_secret_of_the_environment_is_written_anywhere(project):
    folder, _ = project
    canary = "canary-7c1f4e"
    call("run", *QUICK, "--run-id", "canary", folder=folder, DEPLOY_TOKEN=canary)
    run = run_folder(folder, "canary")
    assert (run / "manifest.json").is_file()
    for path in [*run.rglob("*"), *(folder / "logs").rglob("*")]:
        if path.is_file():
            assert canary.encode() not in path.read_bytes(), path


def test_a_wheel_of_another_umask_is_readable(project):
    "Files are made with the user's umask, not with the private mode of temporary files."
    folder, _ = project
    mode = os.stat(run_folder(folder, "first") / "report.html").st_mode & 0o777
    mask = os.umask(0)
    os.umask(mask)
    assert mode == 0o666 & ~mask
