"""Networks that are not this project's own: built, started, exported and refused."""

import hashlib

import numpy as np
import onnx
import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from mnist_nbdev.base.files import PipelineError, UsageError, sha256_file
from mnist_nbdev.base.loading import resolve_settings
from mnist_nbdev.base.project_code import architecture_code, project_modules
from mnist_nbdev.base.training_settings import ModelSettings
from mnist_nbdev.data.spec import MNIST_SPEC, Split, measure_spec
from mnist_nbdev.model import architectures, export
from mnist_nbdev.model.architectures import WrappedNetwork, build_network, check_network, start_text
from mnist_nbdev.model.export import IR_VERSION, OPSET, export_onnx, require_exporter
from mnist_nbdev.model.inference import OnnxClassifier, check_parity, score_images
from mnist_nbdev.model.network import build_model, layer_summary, load_model, save_model
from mnist_nbdev.runs.stages import STAGES, key_difference, stage_key

pytestmark = pytest.mark.unit

NETWORKS = """
from torch import nn

def small(spec, options):
    from parts import width
    return nn.Sequential(
        nn.Conv2d(spec.channels, width, 3, bias=False), nn.BatchNorm2d(width), nn.ReLU(),
        nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(width, spec.n_classes),
    )
"""


def colours(side: int = 32):
    "A spec of colour images, and five of them."
    images = np.random.default_rng(0).integers(0, 256, (5, side, side, 3), dtype=np.uint8)
    labels = np.arange(5, dtype=np.uint8) % 3
    return measure_spec("colours", Split(images, labels), ("a", "b", "c")), images


def model_of(network: nn.Module) -> WrappedNetwork:
    spec, _ = colours(16)
    return WrappedNetwork(ModelSettings(architecture="networks:own"), spec, network)


@pytest.fixture
def project(tmp_path, monkeypatch):
    (tmp_path / "networks.py").write_text(NETWORKS)
    (tmp_path / "parts.py").write_text("width = 4\n")
    monkeypatch.chdir(tmp_path)
    return tmp_path


# --- torchvision ----------------------------------------------------------------------------


@pytest.mark.parametrize("grey", [False, True])
def test_a_resnet_is_built_saved_and_exported_with_equal_logits(grey, tmp_path):
    spec, images = colours()
    if grey:
        spec, images = MNIST_SPEC, images[:, :28, :28, 0]
    settings = ModelSettings(architecture="torchvision:resnet18")
    model = build_model(settings, 0, spec)
    for part in model.modules():  # statistics as after a training, not 0 and 1
        if isinstance(part, nn.BatchNorm2d):
            part.running_mean.normal_(0, 0.1)
            part.running_var.uniform_(0.5, 2)
    save_model(model, settings, tmp_path)
    loaded = load_model(tmp_path)
    logits = score_images(loaded, images)
    assert logits.shape == (5, spec.n_classes)
    export_onnx(loaded, tmp_path / "model.onnx", temperature=1.7)
    classifier = OnnxClassifier(tmp_path / "model.onnx", threads=1, device="cpu")
    assert classifier.spec == spec
    for n_images in (1, 5):  # the batch dimension is free
        parity = check_parity(logits[:n_images] / 1.7, classifier, images[:n_images], 1e-3)
        assert parity["labels_equal"] == n_images
    proto = onnx.load(tmp_path / "model.onnx")
    assert [(x.domain, x.version) for x in proto.opset_import] == [("", OPSET)]
    assert (proto.ir_version, proto.producer_name, len(proto.functions)) == (
        IR_VERSION,
        "mnist-nbdev",
        0,
    )
    assert not any(node.doc_string or node.metadata_props for node in proto.graph.node)
    assert sum(layer.parameters for layer in layer_summary(loaded)) == sum(
        weight.numel() for weight in loaded.parameters()
    )


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("resnet19", "no classifier 'resnet19'"),
        ("resnet_18", "Did you mean torchvision:resnet18"),
        ("fasterrcnn_resnet50_fpn", "no classifier"),
        ("vit_b_16", "cannot take images of 3 × 32 × 32"),
    ],
)
def test_what_torchvision_lacks_or_cannot_fit_is_refused(name, message):
    with pytest.raises(UsageError, match=message):
        build_model(ModelSettings(architecture=f"torchvision:{name}"), 0, colours()[0])


# --- The project's own code -----------------------------------------------------------------


def test_an_edit_of_an_imported_file_trains_again(project):
    flags = ["model.architecture=networks:small"]
    settings = resolve_settings(environment={}, flags=flags).settings
    hashes = {"data/dataset.json": "a", "data/split.npz": "b"}
    before = stage_key(STAGES["2_train"], settings, hashes)
    (project / "parts.py").write_text("width = 5\n")
    (project / "unused.py").write_text("")
    after = stage_key(STAGES["2_train"], settings, hashes)
    assert key_difference(before, after) == "parts.py changed"


def test_a_model_is_not_loaded_with_other_code(project):
    settings = ModelSettings(architecture="networks:small")
    save_model(build_model(settings, 0, colours()[0]), settings, project / "models")
    assert load_model(project / "models").code == architecture_code("networks:small")
    (project / "parts.py").write_text("width = 4  # still\n")
    with pytest.raises(PipelineError, match=r"code that built it has changed since: parts\.py"):
        load_model(project / "models")
    (project / "networks.py").unlink()
    with pytest.raises(PipelineError, match="there is no module networks in the project folder"):
        load_model(project / "models")


@pytest.mark.parametrize(
    ("code", "message"),
    [
        ("def small(spec, options):\n  return 3\n", "returned a int; it must return a torch"),
        ("def small(spec):\n  return 3\n", "failed when it was called with the spec"),
        ("small = 3\n", "has no function small"),
        ("def small(:\n", "cannot be read as Python"),
        ("import nowhere_to_be_found\n", "failed with ModuleNotFoundError"),
        ("import importlib\nimportlib.import_module('parts')\ndef small(*_): ...\n", "returned"),
    ],
)
def test_code_that_builds_no_network_is_refused(project, code, message):
    (project / "networks.py").write_text(code)
    with pytest.raises(UsageError, match=message):
        build_network(ModelSettings(architecture="networks:small"), 0, colours()[0])


def test_a_virtual_environment_and_the_standard_library_are_not_the_project(project):
    for folder in ("env/lib/site-packages", "other"):
        (project / folder).mkdir(parents=True)
        (project / folder / "deep.py").write_text("")
    (project / "other" / "pyvenv.cfg").write_text("")
    (project / "json.py").write_text("")
    (project / "networks.py").write_text("import json, other.deep, mnist_nbdev.base.files\n")
    assert list(project_modules("networks")) == ["networks"]
    with pytest.raises(UsageError, match="there is no module json"):
        project_modules("json")


def test_packages_and_relative_imports_are_followed(project):
    package = project / "nets"
    (package / "deep").mkdir(parents=True)
    for name in ("__init__", "deep/__init__", "deep/a", "deep/b", "c"):
        (package / f"{name}.py").write_text("")
    (package / "deep/a.py").write_text("from .b import *\nfrom .. import c\nfrom ..c import *\n")
    assert list(project_modules("nets.deep.a")) == [
        *("nets", "nets.c", "nets.deep", "nets.deep.a", "nets.deep.b"),
    ]
    with pytest.raises(UsageError, match="has no function build"):
        build_network(ModelSettings(architecture="nets.deep.a:build"), 0, colours()[0])


def test_a_name_that_an_installed_package_has_is_refused(project):
    (project / "numpy.py").write_text("def small(spec, options): ...\n")
    with pytest.raises(UsageError, match=r"numpy.* (has no function|is also that of)"):
        build_network(ModelSettings(architecture="numpy:small"), 0, colours()[0])
    assert np.__file__.endswith("numpy/__init__.py")


# --- What a network must be -----------------------------------------------------------------


class Shared(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv2d(3, 3, 3, padding=1)
        self.second = self.first
        self.output = nn.Conv2d(3, 3, 1)

    def forward(self, images):
        return self.output(self.second(self.first(images))).mean((2, 3))


class TwoInTraining(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.output = nn.Linear(3, 3)

    def forward(self, images):
        logits = self.output(images.mean((2, 3)))
        return (logits, logits) if self.training else logits


@pytest.mark.parametrize(
    ("network", "message"),
    [
        (Shared(), "uses one tensor as first.weight and as second.weight"),
        (TwoInTraining(), "returns a tuple for 3 images, in training mode"),
        (nn.Sequential(nn.AdaptiveAvgPool2d((1, 1)), nn.Flatten()), "no parameters to train"),
        (nn.Flatten(), r"returns a tensor of \(2, 768\)"),
    ],
)
def test_what_is_not_a_classifier_is_refused_before_the_training(network, message):
    with pytest.raises(UsageError, match=message):
        check_network(model_of(network))


def test_a_network_too_large_is_refused(monkeypatch):
    monkeypatch.setattr(architectures, "MAX_PARAMETERS", 100)
    large = nn.Sequential(nn.AdaptiveAvgPool2d(6), nn.Flatten(), nn.Linear(108, 3))
    with pytest.raises(UsageError, match="has 327 parameters, more than the 100 allowed"):
        check_network(model_of(large))


def test_a_network_of_one_batch_size_is_refused():
    with pytest.raises(UsageError, match=r"returns .* for 3 images"):
        check_network(model_of(nn.Sequential(nn.Conv2d(3, 3, 1), Fixed())))


# --- Trained weights ------------------------------------------------------------------------


def test_the_training_starts_from_what_fits(project):
    settings = ModelSettings(architecture="networks:small")
    first = build_model(settings, 1, colours()[0])
    save_file(first.state_dict(), "start.safetensors")  # named as this project saves them
    digest = sha256_file(project / "start.safetensors")
    changes = {"pretrained": "start.safetensors", "pretrained_sha256": digest}
    tuned = settings.model_copy(update=changes)
    model = build_model(tuned, 2, MNIST_SPEC)  # grey, ten classes
    assert torch.equal(
        model.state_dict()["network.1.weight"], first.state_dict()["network.1.weight"]
    )
    assert model.start["random"] == ["network.0.weight", "network.5.weight", "network.5.bias"]
    assert "3 left at random: network.0.weight" in start_text(model)
    save_model(model, tuned, project / "models")
    (project / "start.safetensors").unlink()
    assert torch.equal(  # the saved model does not need the file
        load_model(project / "models").network[5].weight, model.network[5].weight
    )


@pytest.mark.parametrize(
    ("content", "digest", "message"),
    [
        (b"PK\x03\x04", None, "is not a safetensors file"),
        (b"PK\x03\x04", "0" * 64, "It was not opened"),
        (None, "0" * 64, "cannot read .*start.safetensors: No such file"),
    ],
)
def test_a_file_that_is_not_the_one_or_not_weights_is_refused(project, content, digest, message):
    if content is not None:
        (project / "start.safetensors").write_bytes(content)
        digest = digest or hashlib.sha256(content).hexdigest()
    settings = ModelSettings(pretrained="start.safetensors", pretrained_sha256=digest)
    with pytest.raises(UsageError, match=message):
        build_model(settings, 0)


# --- Settings and export --------------------------------------------------------------------


def test_a_preset_shapes_digitnet_alone_and_a_flag_that_cannot_act_is_named():
    flags = ["model.architecture=torchvision:resnet18"]
    resolved = resolve_settings(preset="debug", environment={}, flags=flags)
    assert resolved.settings.model == ModelSettings(architecture="torchvision:resnet18")
    assert resolved.origins["model.conv_channels"] == "default"
    with pytest.raises(UsageError, match=r"model\.conv_channels = \[8\] \(flag --set .*digitnet"):
        resolve_settings(environment={}, flags=[*flags, "model.conv_channels=[8]"])


def test_a_missing_exporter_is_said_before_the_training(project, monkeypatch):
    monkeypatch.setattr(export, "find_spec", lambda name: None)
    require_exporter(build_model(ModelSettings(), 0))
    with pytest.raises(UsageError, match=r"pip install onnxscript"):
        require_exporter(build_model(ModelSettings(architecture="networks:small"), 0))


class Fixed(nn.Module):
    def forward(self, images):
        return images.reshape(2, -1)[:, :3]


def test_a_network_of_one_batch_size_cannot_be_exported(tmp_path):
    model = model_of(nn.Sequential(nn.Conv2d(3, 3, 1), Fixed()))
    with pytest.raises(PipelineError, match="networks:own cannot be exported: ONNX, opset 17"):
        export_onnx(model, tmp_path / "model.onnx")
    assert not list(tmp_path.iterdir())
