"""Every kind of file that is read, with a bit flipped or its end truncated: it is refused by name,
or what is read is what was written, and never silently a wrong model or figure.
"""

import os
import random
import shutil
from pathlib import Path

import numpy as np
import pytest
from commands import QUICK, call

from mnist_nbdev.base.arrays import read_arrays
from mnist_nbdev.base.files import PipelineError, read_sealed_json, sha256_file
from mnist_nbdev.base.training_settings import DataSettings
from mnist_nbdev.data.mnist import MNIST_FILES, check_idx
from mnist_nbdev.data.sources import open_dataset
from mnist_nbdev.gate.evaluation import load_predictions
from mnist_nbdev.gate.robustness import ROBUSTNESS_TYPES
from mnist_nbdev.model.checkpoints import read_checkpoint
from mnist_nbdev.model.inference import OnnxClassifier
from mnist_nbdev.model.network import load_model
from mnist_nbdev.registry.journal import read_journal
from mnist_nbdev.registry.promotion import champion_model, promote
from mnist_nbdev.runs.ledger import record_evaluation
from mnist_nbdev.runs.reuse import read_stage_record
from mnist_nbdev.runs.run import Run, check_against_manifest

pytestmark = pytest.mark.integration


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    "A run with its checkpoints, beside a registry and a ledger."
    folder = tmp_path_factory.mktemp("corruption")
    often = ("--set", "training.checkpoint_interval_s=0.01", "--set", "registry.track=false")
    ended = call("run", *QUICK, *often, "--run-id", "a", folder=folder)
    assert ended.code == 3, ended.err
    artifacts = folder / "artifacts"
    record_evaluation(artifacts, "images", "model", "a")
    other = artifacts / "runs" / "b"
    (other / "models").mkdir(parents=True)
    (other / "models/model.onnx").write_bytes(b"weights")
    (other / "decision.json").write_text('{"status": "approved"}')
    from mnist_nbdev.runs.run import write_manifest

    write_manifest(Run(other))
    promote(artifacts, Run(other), lambda folder: None)
    return artifacts / "runs" / "a"


def arrays(found) -> list[bytes]:
    return [np.asarray(value).tobytes() for value in found]


def weights(run):
    return [value.numpy().tobytes() for value in load_model(run / "models").state_dict().values()]


def checkpoint(run):
    (path,) = sorted((run / "models/checkpoints").glob("*.safetensors"))[-1:]
    tensors, numbers = read_checkpoint(path)
    return {name: value.numpy().tobytes() for name, value in tensors.items()}, numbers


def answers(run):
    digest = read_sealed_json(run / "stages/3_export.json")["outputs"]["models/model.onnx"]
    classifier = OnnxClassifier(run / "models/model.onnx", 1, "cpu", digest)
    return classifier.predict(np.zeros((1, 28, 28), np.uint8))[0].tobytes()


READERS = {
    "config.yaml": lambda run: Run(run).settings,
    "request.json": lambda run: read_sealed_json(run / "request.json"),
    "data/dataset.json": lambda run: open_dataset(run / "data").train.labels.tobytes(),
    "data/split.npz": lambda run: open_dataset(run / "data").train.labels.tobytes(),
    "models/model.safetensors": weights,
    "models/model.json": weights,
    "models/checkpoints/*.safetensors": checkpoint,
    "models/checkpoints/*.json": checkpoint,
    "models/model.onnx": answers,
    "evaluation/predictions.npz": lambda run: arrays(
        load_predictions(run / "evaluation/predictions.npz")
    ),
    "evaluation/robustness.npz": lambda run: arrays(
        read_arrays(run / "evaluation/robustness.npz", ROBUSTNESS_TYPES).values()
    ),
    "training/history.jsonl": lambda run: stage(run, "2_train"),
    "evaluation/metrics.json": lambda run: stage(run, "4_evaluate"),
    "stages/4_evaluate.json": lambda run: stage(run, "4_evaluate"),
    "decision.json": lambda run: check_against_manifest(Run(run), "decision.json").read_bytes(),
    "manifest.json": lambda run: check_against_manifest(Run(run), "decision.json").read_bytes(),
    "../../registry/journal.jsonl": lambda run: read_journal(run.parent.parent),
    "../../registry/head.json": lambda run: read_journal(run.parent.parent),
    "../../runs/b/models/model.onnx": lambda run: sha256_file(champion_model(run.parent.parent)),
    "../../looks.jsonl": lambda run: record_evaluation(run.parent.parent, "images", "model", "a"),
}


def stage(run, name):
    "The stage that a later run would reuse; None where it would run the stage again."
    return read_stage_record(Run(run), name)


def damaged(content: bytes, chance: random.Random, cut: bool) -> bytes:
    if cut:
        return content[: chance.randrange(len(content))]
    place = chance.randrange(8 * len(content))
    return (
        content[: place // 8]
        + bytes([content[place // 8] ^ (1 << place % 8)])
        + content[place // 8 + 1 :]
    )


@pytest.mark.parametrize("name", READERS)
def test_a_damaged_file_is_refused_or_harmless(name, run, tally, many):
    (path,) = sorted(run.glob(name))[-1:] if ".." not in name else [run / name]
    read, content = READERS[name], path.read_bytes()
    whole, chance = read(run), random.Random(name)
    assert whole is not None
    tries = [False] * many(20, 1000) + [True] * many(5, 200)
    try:
        for cut in tries:
            path.write_bytes(damaged(content, chance, cut))
            lost = ""
            try:
                found = read(run)
                if found != whole and not (name in STAGED and found is None):
                    lost = f"{name} was read as something else"
            except PipelineError as error:
                if not names(str(error), path, name):
                    lost = f"the message names another file than {name}: {error}"
            tally.add("a truncated file" if cut else "a flipped bit in a file", lost)
    finally:
        path.write_bytes(content)


STAGED = ("training/history.jsonl", "evaluation/metrics.json", "stages/4_evaluate.json")


def names(message: str, path: Path, name: str) -> bool:
    "Whether a message tells where to look: at the file, or at the one that belongs to it."
    pairs = {"model.json": "model.safetensors", "dataset.json": "split.npz"}
    belongs = pairs.get(path.name, path.with_suffix(".safetensors").name)
    return path.name in message or belongs in message or "registry/" in message


@pytest.mark.skipif("MLOPS_DATA_ROOT" not in os.environ, reason="the full MNIST is not here")
def test_a_damaged_file_of_mnist_is_refused(tmp_path, tally, many):
    chance = random.Random("mnist")
    folder = Path(os.environ["MLOPS_DATA_ROOT"]) / "MNIST/raw"
    (file,) = (file for file in MNIST_FILES if "t10k-labels" in file.name)
    shutil.copy(folder / file.name, tmp_path)
    path = tmp_path / file.name
    content = path.read_bytes()
    check_idx(path, file)
    for cut in [False] * many(20, 1000) + [True] * many(5, 200):
        path.write_bytes(damaged(content, chance, cut))
        with pytest.raises(PipelineError, match=file.name):
            check_idx(path, file)
        tally.add("a truncated file" if cut else "a flipped bit in a file")
    assert DataSettings().source == "auto"  # which takes no wrong file for a missing one
