"""A network of one's own goes the whole way, from a function in the project to a decision."""

from pathlib import Path

import numpy as np
import pytest
from commands import QUICK, call
from PIL import Image
from test_own_data import COLOURS, colours, settings

from mnist_nbdev.base.files import read_json, sha256_file
from mnist_nbdev.runs.run import Run

pytestmark = pytest.mark.integration

NETWORKS = """
from torch import nn

from parts import head


def small(spec, options):
    width = options["width"]
    return nn.Sequential(
        nn.Conv2d(spec.channels, width, 3, padding=1, bias=False),
        nn.BatchNorm2d(width),
        nn.ReLU(),
        nn.AdaptiveMaxPool2d(2),
        nn.Flatten(),
        head(4 * width, spec.n_classes),
    )
"""
PARTS = """
from torch import nn


def head(width, n_classes):
    return nn.Linear(width, n_classes)
"""
NETWORK = settings(["model.architecture=networks:small", "model.options={width: 16}"])
DATA = settings(
    [
        *("data.source=npz", "data.path=colours.npz", "training.epochs=5"),
        f"data.class_names=[{', '.join(COLOURS)}]",
    ]
)


@pytest.fixture(scope="module")
def project(tmp_path_factory) -> Path:
    "A run of a network of the project's own."
    folder: Path = tmp_path_factory.mktemp("network")
    (x_train, y_train), (x_test, y_test) = colours(700, 0), colours(140, 1)
    np.savez(folder / "colours.npz", x_train=x_train, y_train=y_train, x_test=x_test, y_test=y_test)
    (folder / "networks.py").write_text(NETWORKS)
    (folder / "parts.py").write_text(PARTS)
    ended = call("run", *QUICK, "--run-id", "first", *DATA, *NETWORK, folder=folder)
    assert ended.code == 3, ended.err
    return folder


def test_it_is_decided_on_verified_and_predicts(project):
    run = Run(project / "artifacts/runs/first")
    assert run.summary["metrics"]["accuracy"] > 0.9
    assert read_json(run.path("models/export.json"))["labels_equal"] == 70
    description = run.record("models/model.json")
    code = {name: sha256_file(project / name) for name in ("networks.py", "parts.py")}
    assert description["code"] == code
    assert "Network: networks:small, options width 16." in run.path("model_card.md").read_text()
    content = run.path("models/model.onnx").read_bytes()
    for trace in (b".py", b"networks", b"torch", str(project).encode()):
        assert trace not in content
    ended = call("runs", "verify", "first", "--deep", folder=project)
    assert ended.code == 0, ended.out + ended.err
    images, labels = colours(7, 2)
    for image, label in zip(images, labels, strict=True):
        Image.fromarray(image).save(project / f"{COLOURS[label]}.png")
    files = [f"{name}.png" for name in COLOURS]
    ended = call("predict", *files, "--model", "first", "--json", folder=project)
    assert ended.code == 0, ended.err
    predicted = [row["label"] for row in ended.json]
    assert sum(name == answer for name, answer in zip(COLOURS, predicted, strict=True)) >= 6


def test_another_process_trains_and_exports_the_same_bytes(project):
    ended = call("runs", "replay", "first", folder=project)
    assert ended.code == 0, ended.out + ended.err
    lines = {line.split()[1]: line.split()[0] for line in ended.out.splitlines()}
    assert lines["models/model.safetensors"] == lines["models/model.onnx"] == "same"


def test_an_edit_of_its_code_trains_again_and_no_old_model_is_taken_for_the_new_one(project):
    train = ("run", *QUICK, "--mode", "train", *DATA, *NETWORK)
    ended = call(*train, "--run-id", "same", folder=project)
    assert "2_train is reused from run first" in ended.err
    (project / "parts.py").write_text(PARTS + "\n# a note\n")
    ended = call(*train, "--run-id", "edited", folder=project)
    assert ended.code == 0, ended.err
    assert "parts.py changed" in ended.err
    words = ("run", *QUICK, "--mode", "evaluate", "--model", "first", "--fresh", *DATA[:4])
    ended = call(*words, "--run-id", "stale", folder=project)
    assert ended.code == 1
    assert "code that built it has changed since: parts.py" in ended.err
    (project / "parts.py").write_text(PARTS)


def test_a_network_that_does_not_fit_stops_before_the_training(project):
    flags = settings(["model.architecture=networks:smal"])
    ended = call("run", *QUICK, "--run-id", "wrong", *DATA, *flags, folder=project)
    assert ended.code == 2
    assert "networks.py has no function smal" in ended.err
