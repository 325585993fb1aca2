"Images of one's own that are pinned can be released; those that are not, or that changed, cannot."

import json
from pathlib import Path

import numpy as np
import pytest
from commands import QUICK, call
from PIL import Image

from mnist_nbdev.base.files import read_json
from mnist_nbdev.runs.run import Run

pytestmark = pytest.mark.integration
# What such small data can show, on any machine.
EASY = {
    "release_thresholds.min_accuracy": 0.5,
    "release_thresholds.min_class_recall": 0.3,
    "release_thresholds.min_slice_accuracy": 0.3,
    "release_thresholds.max_calibration_error": 0.9,
    "release_thresholds.max_inference_time_ms": 10_000,
    "release_thresholds.max_corruption_regression": 100,
    "inference.timed_runs": 100,
    "training.epochs": 4,
}


def save_arrays(path: Path, n_classes: int, seed: int) -> None:
    "Noise with a bright square, which says the class by its column."
    draws, arrays = np.random.default_rng(seed), {}
    for part, count in (("train", 900), ("test", 700)):
        labels = np.arange(count) % n_classes
        images = draws.integers(0, 90, (count, 12, 16), np.uint8)
        for image, label in zip(images, labels, strict=True):
            image[3:9, 4 * label : 4 * label + 4] += 120
        arrays |= {f"x_{part}": images, f"y_{part}": labels}
    np.savez(path, **arrays)


def run(folder: Path, name: str, path: str = "bars.npz", **changes: object):
    values = EASY | {"data.source": "npz", "data.path": path} | changes
    flags = [word for key, value in values.items() for word in ("--set", f"{key}={value}")]
    return call("run", *QUICK, "--run-id", name, *flags, folder=folder)


def checks_of(folder: Path, name: str) -> dict[str, dict[str, object]]:
    checks = read_json(folder / f"artifacts/runs/{name}/decision.json")["checks"]
    return {check["name"]: check for check in checks}


def data(folder: Path, command: str, *flags: str, path: str = "bars.npz"):
    source = ("--set", "data.source=npz", "--set", f"data.path={path}")
    return call("data", command, *source, *flags, folder=folder)


@pytest.fixture(scope="module")
def project(tmp_path_factory) -> Path:
    "A run on images that are not pinned, and one on the same images, pinned."
    folder: Path = tmp_path_factory.mktemp("pins")
    save_arrays(folder / "bars.npz", 4, seed=0)
    unpinned = run(folder, "unpinned")
    assert unpinned.code == 3, unpinned.err
    assert "data pin" in unpinned.err
    pinned = data(folder, "pin")
    assert pinned.code == 0, pinned.err
    approved = run(folder, "pinned")
    assert approved.code == 0, approved.out + approved.err
    return folder


def test_a_model_of_pinned_images_is_approved_and_verified(project):
    checks = {
        c["name"]: c for c in read_json(project / "artifacts/runs/pinned/decision.json")["checks"]
    }
    assert "pinned in data.lock" in checks["data"]["why"]
    for words in (("runs", "verify", "pinned", "--deep"), ("runs", "replay", "pinned")):
        ended = call(*words, folder=project)
        assert ended.code == 0, ended.out + ended.err
    assert "pinned" in call("registry", "list", folder=project).out


def test_one_of_unpinned_images_fails_that_check_alone(project):
    checks = checks_of(project, "unpinned")
    assert [name for name, check in checks.items() if check["outcome"] != "passed"] == ["data"]


def test_pinning_makes_the_data_stage_run_again_and_nothing_else(project):
    stages = {
        path.stem: read_json(path) for path in (project / "artifacts/runs/pinned/stages").iterdir()
    }
    assert stages["1_data"]["reused_from"] is None
    assert stages["2_train"]["reused_from"] == "unpinned"


def test_the_next_model_is_compared_with_the_champion(project):
    ended = run(project, "second", **{"seed": 1})
    assert ended.code in (0, 3), ended.err
    assert Run(project / "artifacts/runs/second").record("release/champion.json")["same_images"]


def test_changed_images_end_the_run_and_the_difference_is_named(project, tmp_path):
    original = (project / "bars.npz").read_bytes()
    save_arrays(project / "bars.npz", 4, seed=5)
    try:
        assert data(project, "diff").code == 1
        assert "bars.npz has changed" in data(project, "diff").out
        ended = run(project, "changed")
        assert ended.code == 1
        assert "The data are not those of data.lock" in ended.err
        assert "bars.npz has changed" in ended.err
    finally:
        (project / "bars.npz").write_bytes(original)
    assert data(project, "diff").code == 0
    assert json.loads(data(project, "diff", "--json").out) == {"differences": []}


def test_a_model_of_other_data_is_not_compared(project):
    save_arrays(project / "three.npz", 3, seed=2)
    ended = run(project, "three", "three.npz", **{"training.epochs": 1})
    assert ended.code == 3, ended.err
    why = {
        c["name"]: c["why"]
        for c in read_json(project / "artifacts/runs/three/decision.json")["checks"]
    }
    assert "not pinned" in why["data"]  # data.lock has other images
    (project / "data.lock").rename(project / "bars.lock")
    try:
        assert data(project, "pin", path="three.npz").code == 0
        ended = run(project, "again", "three.npz", **{"training.epochs": 1})
        assert ended.code == 3, ended.err
    finally:
        (project / "bars.lock").rename(project / "data.lock")
    checks = {
        c["name"]: c for c in read_json(project / "artifacts/runs/again/decision.json")["checks"]
    }
    assert checks["champion"]["outcome"] == "insufficient"
    assert "other classes" in checks["champion"]["why"]


@pytest.mark.parametrize("content", [b"", b"[]", b"{", b'{"schema_version": 2}'])
def test_a_damaged_lock_is_named(tmp_path, content):
    save_arrays(tmp_path / "bars.npz", 4, seed=0)
    (tmp_path / "data.lock").write_bytes(content)
    ended = data(tmp_path, "diff")
    assert ended.code == 1
    assert "data.lock" in ended.err


def test_there_is_no_lock_of_mnist(tmp_path):
    ended = call("data", "pin", "--set", "data.source=sample", folder=tmp_path)
    assert ended.code == 1
    assert "nothing to pin" in ended.err
    assert not (tmp_path / "data.lock").exists()
    ended = data(tmp_path, "diff", path="nowhere.npz")
    assert ended.code == 1
    assert "There is no data.lock" in ended.err


def test_a_folder_of_files_is_compared_file_by_file(tmp_path):
    for number in range(80):
        (tmp_path / "pictures" / "ab"[number % 2]).mkdir(parents=True, exist_ok=True)
        pixels = np.random.default_rng(number).integers(0, 256, (6, 5), np.uint8)
        Image.fromarray(pixels).save(tmp_path / "pictures" / "ab"[number % 2] / f"{number}.png")
    source = ("--set", "data.source=folder", "--set", "data.path=pictures")
    assert call("data", "pin", *source, folder=tmp_path).code == 0
    (tmp_path / "pictures/a/0.png").unlink()
    (tmp_path / "pictures/b/1.png").rename(tmp_path / "pictures/a/1.png")
    ended = call("data", "diff", *source, folder=tmp_path)
    assert ended.code == 1
    for words in ("a/0.png is missing", "b/1.png is missing", "a/1.png is new"):
        assert words in ended.out
