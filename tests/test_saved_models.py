"A saved model that is damaged, forged or of another kind is refused, and the message says why."

import pickle
import shutil
from pathlib import Path

import numpy as np
import onnx
import onnx.helper
import pytest
from safetensors.torch import load, save

from mnist_nbdev.base.files import (
    PipelineError,
    UsageError,
    read_sealed_json,
    sha256_bytes,
    write_bytes,
    write_sealed_json,
)
from mnist_nbdev.base.training_settings import ModelSettings
from mnist_nbdev.data.spec import MNIST_SPEC, DatasetSpec, Split, measure_spec
from mnist_nbdev.model.export import export_onnx
from mnist_nbdev.model.inference import OnnxClassifier, score_images
from mnist_nbdev.model.network import build_model, check_architecture, load_model, save_model

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


# Data of other shapes
PIXELS = np.random.default_rng(0).integers(0, 256, (14, 20, 12, 3), dtype=np.uint8)
NAMES = ("ant", "bee", "cat", "dog", "elk", "fox", "gnu")
ANIMALS = measure_spec("animals", Split(PIXELS, np.arange(14, dtype=np.uint8) % 7), NAMES)


@pytest.fixture(scope="module")
def animals(tmp_path_factory):
    "A saved model of colour images, not square, with its export."
    folder = tmp_path_factory.mktemp("animals")
    model = build_model(SETTINGS, seed=0, spec=ANIMALS).eval()
    save_model(model, SETTINGS, folder)
    export_onnx(model, folder / "model.onnx")
    return folder


def test_a_saved_model_remembers_its_data(animals):
    model = load_model(animals)
    assert model.spec == ANIMALS
    assert OnnxClassifier(animals / "model.onnx", 1).spec == ANIMALS
    description = read_sealed_json(animals / "model.json")
    assert description["input"] == "uint8 (N, 3, 20, 12), raw pixels 0 to 255, RGB"
    assert description["normalisation"]["pixel_mean"] == list(ANIMALS.pixel_mean)


@pytest.mark.parametrize("value", [None, 0.25])
@pytest.mark.parametrize("spec", [MNIST_SPEC, ANIMALS])
def test_the_normalisation_survives_saving(tmp_path, value, spec):
    settings = SETTINGS.model_copy(update={"pixel_mean": value})
    model = build_model(settings, seed=0, spec=spec)
    save_model(model, settings, tmp_path)
    loaded = load_model(tmp_path)
    assert (loaded.pixel_mean, loaded.pixel_std) == (model.pixel_mean, model.pixel_std)
    save_model(loaded, loaded.settings, tmp_path / "again")
    for name in ("model.json", "model.safetensors"):
        assert (tmp_path / "again" / name).read_bytes() == (tmp_path / name).read_bytes()


@pytest.mark.parametrize(
    "changes",
    [
        {"spec": {}},
        {"spec": ANIMALS.model_dump(mode="json") | {"image_shape": [2, 20, 12]}},
        {"spec": ANIMALS.model_dump(mode="json") | {"pixel_mean": [0.1, 0.2, 0.3]}},
        {"spec": ANIMALS.model_dump(mode="json") | {"image_shape": [3, 1, 12]}},
    ],
)
def test_a_spec_that_does_not_fit_is_refused(animals, tmp_path, changes):
    shutil.copytree(animals, tmp_path / "forged")
    description = read_sealed_json(animals / "model.json") | changes
    write_sealed_json(tmp_path / "forged" / "model.json", description)
    with pytest.raises(PipelineError, match="does not describe a model that can be built"):
        load_model(tmp_path / "forged")


@pytest.mark.parametrize("spec", [None, MNIST_SPEC.model_dump_json(), "{}", "["])
def test_an_export_with_the_spec_of_other_data_is_refused(animals, tmp_path, spec):
    proto = onnx.load(animals / "model.onnx")
    del proto.metadata_props[:]
    if spec is not None:
        onnx.helper.set_model_props(proto, {"spec": spec})
    onnx.save(proto, tmp_path / "forged.onnx")
    with pytest.raises(PipelineError, match=r"takes images of 3 × 20 × 12|has a damaged spec"):
        OnnxClassifier(tmp_path / "forged.onnx", 1)


@pytest.mark.parametrize(
    ("shape", "stem", "n_blocks", "fits"),
    [
        ((1, 1, 9), "pool", 1, "No block fits images of 1 × 9 pixels"),
        ((3, 20, 3), "pool", 2, "At most 1 block fits images of 20 × 3 pixels"),
        ((3, 20, 12), "pool", 4, "At most 3 blocks fit images of 20 × 12 pixels"),
        ((3, 12, 20), "stride", 4, "At most 3 blocks fit images of 12 × 20 pixels"),
        ((1, 32, 32), "stride", 6, "At most 5 blocks fit images of 32 × 32 pixels"),
    ],
)
def test_more_blocks_than_fit_the_image_are_refused(shape, stem, n_blocks, fits):
    one = ANIMALS.model_dump() | {"image_shape": shape}
    one |= {"pixel_mean": (0.5,) * shape[0], "pixel_std": (0.5,) * shape[0]}
    settings = ModelSettings(conv_channels=[2] * n_blocks, stem=stem)
    with pytest.raises(UsageError, match=fits):
        check_architecture(settings, DatasetSpec(**one))
    if n_blocks > 1:
        fewer = ModelSettings(conv_channels=[2] * (n_blocks - 1), stem=stem)
        assert check_architecture(fewer, DatasetSpec(**one)) > 0


def test_many_classes_have_labels_of_sixteen_bits(tmp_path):
    spec = DatasetSpec(
        **ANIMALS.model_dump() | {"class_names": tuple(f"c{i}" for i in range(1000))}
    )
    model = build_model(SETTINGS, seed=0, spec=spec)
    export_onnx(model, tmp_path / "model.onnx")
    classifier = OnnxClassifier(tmp_path / "model.onnx", 1)
    labels = classifier.labels(PIXELS)
    assert labels.dtype == np.uint16
    assert np.array_equal(labels, score_images(model, PIXELS).argmax(1))
