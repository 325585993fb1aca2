"A saved model that is damaged, forged or of another kind is refused, and the message says why."

import pickle
import shutil
from pathlib import Path

import pytest
from safetensors.torch import load, save

from mnist_nbdev.base.files import (
    PipelineError,
    read_sealed_json,
    sha256_bytes,
    write_bytes,
    write_sealed_json,
)
from mnist_nbdev.base.settings import ModelSettings
from mnist_nbdev.model.network import build_model, load_model, save_model

pytestmark = [pytest.mark.unit, pytest.mark.security]

SETTINGS = ModelSettings(conv_channels=[4, 8], fc_hidden_dims=[16])
PROGRAM = pickle.dumps({"weights": [0.1, 0.2]})


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    folder = tmp_path_factory.mktemp("models") / "saved"
    save_model(build_model(SETTINGS, seed=0), SETTINGS, folder)
    return folder


@pytest.fixture
def copy(saved, tmp_path):
    return Path(shutil.copytree(saved, tmp_path / "copy"))


def forge(folder: Path, content: bytes | None = None, **changes) -> Path:
    "Replace parts of a saved model, and seal it again, as a skilled forger would."
    content = (folder / "model.safetensors").read_bytes() if content is None else content
    described = {"file": "model.safetensors", "sha256": sha256_bytes(content), "size": len(content)}
    write_bytes(folder / "model.safetensors", content)
    description = read_sealed_json(folder / "model.json")
    write_sealed_json(folder / "model.json", description | {"weights": described} | changes)
    return folder


@pytest.mark.parametrize("place", [0, 9, 3000, -3000, -1])
def test_a_flipped_bit_is_detected_wherever_it_is(copy, place):
    weights = bytearray((copy / "model.safetensors").read_bytes())
    weights[place] ^= 1
    (copy / "model.safetensors").write_bytes(weights)
    with pytest.raises(PipelineError, match=r"not the file that model\.json describes"):
        load_model(copy)


def test_a_truncated_and_a_missing_weights_file_are_named(copy):
    weights = (copy / "model.safetensors").read_bytes()
    (copy / "model.safetensors").write_bytes(weights[:-1])
    sizes = rf"size {len(weights) - 1} instead of {len(weights)}"
    with pytest.raises(PipelineError, match=sizes):
        load_model(copy)
    (copy / "model.safetensors").unlink()
    with pytest.raises(PipelineError, match=r"Cannot read .*model\.safetensors: No such file"):
        load_model(copy)


@pytest.mark.parametrize(
    ("changes", "mismatches"),
    [
        (
            {"conv_channels": [4, 6]},
            ["dense.linear1.weight: [16, 392] float32 instead of [16, 294] float32"],
        ),
        (
            {"batch_norm": False},
            ["block1.convolution.bias: missing", "block2.norm.running_var: unknown to this arch"],
        ),
        (
            {"fc_hidden_dims": []},
            ["dense.linear1.bias: unknown", "output.weight: [10, 16] float32"],
        ),
    ],
)
def test_all_mismatches_with_another_architecture_are_listed(copy, changes, mismatches):
    architecture = read_sealed_json(copy / "model.json")["architecture"] | changes
    with pytest.raises(PipelineError, match="does not match the architecture") as refused:
        load_model(forge(copy, architecture=architecture))
    assert all(text in str(refused.value) for text in mismatches)


@pytest.mark.parametrize(
    ("content", "changes", "message"),
    [
        (PROGRAM, {}, r"is a pickle, .* It was not opened"),
        (b"not tensors at all", {}, "is not a safetensors file"),
        (None, {"schema_version": 2}, "has schema version 2"),
        (None, {"architecture": {"conv_channels": [8] * 9}}, "does not describe a model"),
        (None, {"weights": {}}, "lacks 'size'"),
    ],
)
def test_what_is_no_model_of_this_project_is_refused_even_with_fitting_hashes(
    copy, content, changes, message
):
    with pytest.raises(PipelineError, match=message):
        load_model(forge(copy, content, **changes))


def test_a_pickle_is_refused_by_its_name(saved):
    with pytest.raises(PipelineError, match=r"model\.pt is a pickle"):
        load_model(saved / "model.pt")


def test_a_folder_without_a_description_holds_no_model(saved):
    with pytest.raises(PipelineError, match=r"has no model\.json, so it holds no model"):
        load_model(saved / "nowhere")


def test_a_weight_that_is_no_number_is_named(copy):
    tensors = load((copy / "model.safetensors").read_bytes())
    tensors["output.bias"][3] = float("nan")
    with pytest.raises(PipelineError, match=r"output\.bias: holds values that are not finite"):
        load_model(forge(copy, save(tensors)))
