"""Settings as users give them: file, variable, flag; and bad input, one message each."""

import json
from pathlib import Path

import pytest
import yaml
from commands import call

from mnist_nbdev.base.loading import preset_files, resolve_settings
from mnist_nbdev.base.settings import flatten_settings, setting_fields

ROOT = Path(__file__).parent.parent
# The settings that are promised to work as written, with a value each.
PROMISED = {
    "MLOPS_TRAINING_EPOCHS": ("20", 20),
    "MLOPS_TRAINING_LEARNING_RATE": ("1e-3", 0.001),
    "MLOPS_TRAINING_DEVICE": ("cpu", "cpu"),
    "MLOPS_TRAINING_MIXED_PRECISION": ("false", False),
    "MLOPS_EVALUATION_DEVICE": ("cpu", "cpu"),
    "MLOPS_DATA_BATCH_SIZE": ("64", 64),
    "MLOPS_RELEASE_THRESHOLDS_MIN_ACCURACY": ("0.98", 0.98),
    "MLOPS_RELEASE_THRESHOLDS_MAX_INFERENCE_TIME_MS": ("50", 50),
    "MLOPS_LOGGING_LOG_LEVEL": ("debug", "DEBUG"),
    "MLOPS_LOGGING_LOG_FILE": ("logs/mine.log", "logs/mine.log"),
}


def key_of(variable: str) -> str:
    return next(k for k in setting_fields() if "MLOPS_" + k.replace(".", "_").upper() == variable)


@pytest.mark.unit
@pytest.mark.parametrize("variable", PROMISED)
def test_a_promised_setting_works_from_a_file_a_variable_and_a_flag(variable, tmp_path):
    text, value = PROMISED[variable]
    key = key_of(variable)
    section, field = key.split(".")
    (tmp_path / "mine.yaml").write_text(f"{section}:\n  {field}: {text}\n")
    for given in (
        {"config_file": tmp_path / "mine.yaml", "environment": {}},
        {"environment": {variable: text}},
        {"environment": {}, "flags": [f"{key}={text}"]},
    ):
        resolved = resolve_settings(**given)
        assert flatten_settings(resolved.settings)[key] == value
        assert resolved.origins[key] != "default"


@pytest.mark.unit
def test_later_layers_win_over_earlier_ones(tmp_path):
    (tmp_path / "mine.yaml").write_text("training: {epochs: 7, learning_rate: 0.5}\n")
    resolved = resolve_settings(
        preset="fast",
        config_file=tmp_path / "mine.yaml",
        environment={"MLOPS_TRAINING_EPOCHS": "8"},
        flags=["training.epochs=9"],
    )
    assert resolved.settings.training.epochs == 9
    assert resolved.settings.training.learning_rate == 0.5
    assert resolved.origins["data.batch_size"] == "preset fast"


@pytest.mark.unit
@pytest.mark.parametrize("name", sorted(preset_files()))
def test_each_preset_is_valid_and_says_what_it_is_for(name):
    resolve_settings(preset=name, environment={})
    assert preset_files()[name].read_text().startswith("#")


@pytest.mark.unit
def test_the_example_is_the_one_that_is_promised():
    settings = resolve_settings(config_file=ROOT / "config/custom_config.yaml", environment={})
    values = flatten_settings(settings.settings)
    assert values["experiment_name"] == "custom_mnist_experiment"
    assert values["model.conv_channels"] == [64, 128, 256]
    assert values["model.fc_hidden_dims"] == [512, 256]
    assert values["training.scheduler"] == "cosine"
    assert values["evaluation.batch_size"] == 32
    assert values["release_thresholds.max_inference_time_ms"] == 50


@pytest.mark.integration
def test_the_example_trains(tmp_path):
    ended = call(
        *("run", "--config", str(ROOT / "config/custom_config.yaml"), "--mode", "train", "--json"),
        *("--set", "data.source=sample", "--set", "training.epochs=1"),
        folder=tmp_path,
    )
    assert ended.code == 0, ended.err
    assert ended.json["metrics"]["validation_accuracy"] > 0.5


@pytest.mark.unit
def test_show_names_the_line_of_a_file(tmp_path):
    (tmp_path / "mine.yaml").write_text("seed: 3\ntraining:\n  epochs: 7\n")
    words = ("config", "show", "--config", "mine.yaml", "--set", "training.learning_rate=0.5")
    shown = call(*words, "--json", folder=tmp_path).json
    assert shown["training.epochs"] == {"value": 7, "origin": "mine.yaml:3"}
    origin = "flag --set training.learning_rate"
    assert shown["training.learning_rate"] == {"value": 0.5, "origin": origin}
    assert shown["seed"]["origin"] == "mine.yaml:1"


BAD_FILES = {
    "empty.yaml": (b"", "empty"),
    "blank.yaml": (b" \n\n", "empty"),
    "latin1.yaml": ("experiment_name: fünf".encode("latin1"), "not UTF-8"),
    "large.yaml": (b"# " + b"x" * 300_000, "larger than"),
    "bomb.yaml": (b"a: &a [x]\nb: [*a, *a]\n", "anchors and aliases"),
    "double.yaml": (b"seed: 1\nseed: 2\n", "duplicate key"),
    "double.json": (b'{"seed": 1, "seed": 2}', "duplicate key"),
    "broken.json": (b'{"seed": 1', "not valid JSON"),
    "broken.yaml": (b"training: [1, 2\n", "line"),
    "list.yaml": (b"- 1\n", "holds no settings"),
    "text.yaml": (b"hello\n", "holds no settings"),
    "section.yaml": (b"training: 3\n", "is a section"),
    "typo.yaml": (b"training: {epoch: 3}\n", "Did you mean training.epochs?"),
    "object.yaml": (b"seed: !!python/object/apply:os.system [ls]\n", "object.yaml"),
    "deep.yaml": (b"[" * 10_000, "deeply nested"),
    "binary.yaml": (bytes(range(256)), "binary.yaml"),
    "tabs.yaml": (b"training:\n\tepochs: 3\n", "tabs.yaml"),
}


@pytest.mark.unit
@pytest.mark.parametrize("name", BAD_FILES)
def test_a_bad_file_is_named_in_one_message(name, tmp_path):
    content, expected = BAD_FILES[name]
    (tmp_path / name).write_bytes(content)
    ended = call("config", "show", "--config", name, folder=tmp_path)
    assert (ended.code, ended.out) == (2, "")
    assert name in ended.err
    assert expected in ended.err
    assert "Traceback" not in ended.err


BAD_FLAGS = [
    ("training.epochs=0", "greater than or equal to 1"),
    ("training.epochs=3.5", "training.epochs"),
    ("training.epochs=true", "training.epochs"),
    ("training.epochs=three", "training.epochs"),
    ("training.epochs=", "training.epochs"),
    ("training.learning_rate=nan", "training.learning_rate"),
    ("training.learning_rate=.inf", "training.learning_rate"),
    ("training.learning_rate=-1", "training.learning_rate"),
    ("training.optimizer=lion", "'sgd', 'adam', 'adamw'"),
    ("training.device=tpu", "'auto', 'cpu', 'cuda'"),
    ("training.mixed_precision=maybe", "training.mixed_precision"),
    ("model.conv_channels=[8, 8, 8, 8, 8]", "at most 4 blocks"),
    ("model.conv_channels=[]", "model.conv_channels"),
    ("model.conv_channels=[0]", "outside 1 to 4096"),
    ("model.kernel_size=4", "even"),
    ("model.dropout_rate=1", "model.dropout_rate"),
    ("training.warmup_epochs=1", "has its own warm-up"),
    ("release_thresholds.min_accuracy=99", "less than or equal to 1"),
    ("data.source=cifar", "'auto', 'mnist'"),
    ("experiment_name=../x", "experiment_name"),
    ("seed=-1", "seed"),
    ("training.epoch=3", "Did you mean training.epochs?"),
    ("nonsense", "KEY=VALUE"),
]


@pytest.mark.unit
@pytest.mark.parametrize(("flag", "expected"), BAD_FLAGS)
def test_a_bad_flag_is_refused_before_anything_happens(flag, expected, tmp_path):
    ended = call("run", "--set", flag, folder=tmp_path)
    assert (ended.code, ended.out) == (2, "")
    assert expected in ended.err
    assert "Traceback" not in ended.err
    assert list(tmp_path.iterdir()) == []


@pytest.mark.unit
@pytest.mark.parametrize(
    ("variable", "value", "expected"),
    [
        ("MLOPS_TRAINING_EPOCHS", "many", "environment MLOPS_TRAINING_EPOCHS"),
        ("MLOPS_TRAINING_EPOCH", "3", "Did you mean MLOPS_TRAINING_EPOCHS?"),
        ("MLOPS_SEED", "", "environment MLOPS_SEED"),
        ("MLOPS_DATA_MIRRORS", "[file:///etc/passwd]", "not an http"),
    ],
)
def test_a_bad_variable_is_named(variable, value, expected, tmp_path):
    ended = call("config", "show", folder=tmp_path, **{variable: value})
    assert (ended.code, ended.out) == (2, "")
    assert expected in ended.err
    assert "Traceback" not in ended.err


@pytest.mark.unit
def test_the_schema_fits_the_files_that_are_there(tmp_path):
    jsonschema = pytest.importorskip("jsonschema")
    schema = json.loads(call("config", "schema", folder=tmp_path).out)
    jsonschema.Draft202012Validator.check_schema(schema)
    validator = jsonschema.Draft202012Validator(schema)
    for path in preset_files().values():
        assert list(validator.iter_errors(yaml.safe_load(path.read_text()))) == [], path
    assert list(validator.iter_errors({"training": {"epoch": 3}}))
    assert list(validator.iter_errors({"training": {"epochs": 0}}))


@pytest.mark.integration
@pytest.mark.parametrize("device", ["cuda", "mps"])
def test_a_missing_device_is_reported_at_the_start(device, tmp_path):
    torch = pytest.importorskip("torch")
    there = torch.cuda.is_available() if device == "cuda" else torch.backends.mps.is_available()
    if there:
        pytest.skip(f"this machine has {device}")
    ended = call("run", "--preset", "debug", "--set", f"training.device={device}", folder=tmp_path)
    assert ended.code in (1, 2)
    assert f"training.device: {device}" in ended.err or "training.device" in ended.err
    assert "Traceback" not in ended.err
