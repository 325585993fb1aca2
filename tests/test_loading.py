"The edges of `base/loading`: where folders are found, what is refused and in which words."

import sys
from pathlib import Path

import pytest

from mnist_nbdev.base.files import UsageError
from mnist_nbdev.base.loading import (
    MAX_SETTINGS_BYTES,
    Value,
    _first_line,
    environment_variables,
    package_folder,
    parse_value,
    preset_files,
    project_path,
    project_root,
    read_environment,
    read_flags,
    read_settings_file,
    resolve_settings,
    settings_schema,
    settings_yaml,
    validate_settings,
)
from mnist_nbdev.base.settings import Settings, setting_fields

pytestmark = pytest.mark.unit


@pytest.fixture
def example(tmp_path):
    path = tmp_path / "example.yaml"
    path.write_text("seed: 7\ntraining:\n  learning_rate: 1e-3\n  optimizer: sgd\n")
    return path


# Folders


def test_without_a_project_above_the_working_folder_is_the_root(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert project_root() == tmp_path.resolve()


def test_the_root_is_the_nearest_folder_with_this_project_s_settings(tmp_path, monkeypatch):
    (tmp_path / "nbs").mkdir()
    (tmp_path / "nbs" / "settings.ini").write_text("lib_name = another\n")
    (tmp_path / "settings.ini").write_bytes(b"# gr\xfc\xdfe\nlib_name = mnist_nbdev\n")
    monkeypatch.chdir(tmp_path / "nbs")
    assert project_root() == tmp_path.resolve()


def test_a_tilde_in_a_path_is_the_home_folder():
    assert project_path("~/data") == Path.home() / "data"


@pytest.fixture
def checkout(tmp_path, monkeypatch):
    "A folder in which the package stands, with presets but without stage notebooks."
    module = tmp_path / "mnist_nbdev" / "x.py"
    monkeypatch.setattr(sys.modules["mnist_nbdev"], "__file__", str(module))
    (tmp_path / "config").mkdir()
    (tmp_path / "settings.ini").touch()
    return tmp_path


def test_a_folder_of_the_checkout_is_used_where_there_is_one(checkout):
    assert package_folder("config") == checkout / "config"


def test_a_folder_that_the_checkout_lacks_is_the_package_s(checkout):
    assert package_folder("nbs/pipeline") == checkout / "mnist_nbdev" / "notebooks"


def test_an_installed_package_ignores_another_project_s_folder(checkout):
    (checkout / "settings.ini").unlink()
    assert package_folder("config") == checkout / "mnist_nbdev" / "presets"


def test_presets_and_notebooks_are_those_of_this_checkout():
    assert preset_files()["debug"] == package_folder("config") / "debug_config.yaml"
    assert package_folder("nbs/pipeline") == package_folder("config").parent / "nbs" / "pipeline"


def test_the_presets_are_sorted_and_complete():
    assert list(preset_files()) == sorted(preset_files())
    assert {"default", "fast", "best", "debug", "custom"} <= set(preset_files())


# Values and files


@pytest.mark.parametrize(("text", "value"), [("1e-3", 0.001), ("no", "no"), ("08", 8)])
def test_a_value_is_what_it_looks_like(text, value):
    assert parse_value(text) == value


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("[1, 2", r"'\[1, 2' cannot be read as a value: line 1: expected ',' or ']'"),
        ("{a: 1, a: 2}", "line 1: duplicate key 'a'"),
        ("a: 1\nb: &x [*x]", "line 2: anchors and aliases"),
        ("!!python/object:os.system {}", "line 1: could not determine a constructor"),
        ("{[1]: 2}", "line 1: a key must be a plain word"),
        ("a\nb: - c", "line 2: mapping values are not allowed here"),
        ("\x00", r"character #x0000: special characters are not allowed\.$"),
        ("1" * 5000, r"^'1{80}' cannot"),  # shown truncated
        ("[" * 5000, "recursion"),
    ],
    ids=lambda text: text[:20].encode("unicode_escape").decode(),
)
def test_an_invalid_value_is_refused_with_its_line(text, words):
    with pytest.raises(UsageError, match=words):
        parse_value(text)


def test_an_error_without_a_message_is_shown_by_its_type():
    assert _first_line(ValueError()) == "ValueError"


def test_the_origin_of_a_value_is_its_line(example):
    values = read_settings_file(example)
    assert values["seed"] == Value(7, f"{example}:1")
    assert values["training.learning_rate"] == Value(1e-3, f"{example}:3")


def test_the_origin_of_a_value_is_the_name_of_the_file_where_it_has_one(example):
    values = read_settings_file(str(example), "preset example")
    assert values["seed"] == Value(7, "preset example")
    assert values["training.optimizer"] == Value("sgd", "preset example")


def test_json_with_tabs_is_read_like_yaml(tmp_path):
    path = tmp_path / "example.json"
    path.write_text('{\n\t"seed": 7,\n\t"training": {"learning_rate": 1e-3}\n}\n')
    assert read_settings_file(path)["training.learning_rate"] == Value(1e-3, f"{path}:3")


INVALID_FILES = [
    ("double.yaml", b"training:\n  epochs: 3\n  epochs: 4\n", "line 3: duplicate key 'epochs'"),
    ("empty.yaml", b"\n", "is empty"),
    ("latin1.yaml", "experiment_name: f\xfcnf\n".encode("latin1"), "not UTF-8 (byte 18)"),
    ("large.yaml", b"#" * 300_000, "larger than 256 KiB"),
    ("bomb.yaml", b"a: &a [1, 1]\nb: &b [*a, *a]\n", "line 1: anchors and aliases"),
    ("typo.yaml", b"training:\n  epoch: 3\n", "typo.yaml:2: there is no setting training.epoch."),
    ("flat.yaml", b"training: 3\n", "flat.yaml:1: training is a section"),
    ("list.yaml", b"- 3\n", "it holds no settings"),
    ("deep.yaml", b"[" * 20_000, "too deeply nested"),
    ("broken.json", b'{"seed" 1}', "not valid JSON: Expecting ':' delimiter"),
    ("double.json", b'{"seed": 1, "seed": 2}', "line 1: duplicate key 'seed'"),
    ("object.yaml", b"seed: !!python/object:os.system {}\n", "line 1: could not determine"),
]


@pytest.mark.parametrize(
    ("name", "content", "words"), INVALID_FILES, ids=[name for name, *_ in INVALID_FILES]
)
def test_an_invalid_file_is_refused_by_its_name_and_fault(name, content, words, tmp_path):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(UsageError) as refused:
        read_settings_file(tmp_path / name)
    assert name in str(refused.value)
    assert words in str(refused.value)


def test_a_missing_file_is_refused(tmp_path):
    with pytest.raises(UsageError, match="No such file"):
        read_settings_file(tmp_path / "missing.yaml")


def test_the_largest_allowed_file_is_read(tmp_path):
    path = tmp_path / "largest.yaml"
    path.write_bytes(b"seed: 1\n".ljust(MAX_SETTINGS_BYTES, b"#"))
    assert read_settings_file(path)["seed"].value == 1


# Environment variables and flags


def test_no_two_settings_share_a_variable():
    assert len(environment_variables()) == len(setting_fields())


def test_text_stays_text_and_other_variables_are_ignored():
    values = read_environment({"PATH": "", "MLOPS_EXPERIMENT_NAME": "007", "MLOPS_SEED": "1"})
    assert values == {
        "experiment_name": Value("007", "environment MLOPS_EXPERIMENT_NAME"),
        "seed": Value(1, "environment MLOPS_SEED"),
    }


@pytest.mark.parametrize(
    ("name", "text", "words"),
    [
        ("MLOPS_TRAINING_EPOCH", "3", "Did you mean MLOPS_TRAINING_EPOCHS"),
        ("MLOPS_SEED", "[1", r"^environment MLOPS_SEED: '\[1' cannot be read"),
        ("MLOPS_" + "QZ" * 40, "1", r"variable MLOPS_.*`mnist-nbdev config env` lists them all"),
    ],
    ids=["near", "invalid", "unknown"],
)
def test_a_variable_without_effect_is_refused(name, text, words):
    with pytest.raises(UsageError, match=words):
        read_environment({name: text})


@pytest.mark.parametrize(
    ("flag", "words"),
    [
        ("seed", "write it as --set KEY=VALUE"),
        ("model.dropout=0.1", r"^--set model.*Did you mean model\.dropout_rate\?"),
        ("xyzzy=1", r"no setting xyzzy. `mnist-nbdev config show` lists them all"),
        ("seed=[", r"^flag --set seed: '\[' cannot be read"),
    ],
)
def test_an_invalid_flag_is_refused(flag, words):
    with pytest.raises(UsageError, match=words):
        read_flags([flag])


def test_only_the_first_equals_sign_of_a_flag_separates():
    assert read_flags(["experiment_name=a=b"])["experiment_name"].value == "a=b"


# All layers


def test_flags_override_the_environment_the_file_the_preset_and_the_defaults(example):
    resolved = resolve_settings(
        preset="debug",
        config_file=example,
        environment={"MLOPS_TRAINING_OPTIMIZER": "rmsprop"},
        flags=["seed=8"],
    )
    assert resolved.settings.seed == 8
    assert resolved.origins["seed"] == "flag --set seed"
    assert resolved.origins["training.optimizer"] == "environment MLOPS_TRAINING_OPTIMIZER"
    assert resolved.origins["training.learning_rate"] == f"{example}:3"
    assert resolved.origins["training.epochs"] == "preset debug"
    assert resolved.origins["paths.artifacts"] == "default"


def test_single_values_override_settings_that_are_resolved_already():
    base = resolve_settings(environment={}, flags=["training.optimizer=rmsprop"]).settings
    settings = validate_settings({"seed": Value(3, "here")}, base)
    assert (settings.seed, settings.training.optimizer) == (3, "rmsprop")


def test_the_environment_is_that_of_the_process_by_default(monkeypatch):
    monkeypatch.setenv("MLOPS_SEED", "5")
    assert resolve_settings().settings.seed == 5
    assert resolve_settings(environment={}).settings.seed == 0


def test_an_unknown_preset_is_refused_with_the_known_ones():
    with pytest.raises(
        UsageError, match=r"There is no preset 'quick'\. Known: best, custom, debug"
    ):
        resolve_settings(preset="quick")


def refusal(*flags, **environment):
    with pytest.raises(UsageError) as refused:
        resolve_settings(environment=environment, flags=flags)
    return str(refused.value)


def test_all_invalid_values_are_listed_with_their_origins():
    message = refusal(
        "training.epochs=0", MLOPS_MODEL_CONV_CHANNELS="[8, 8, 8, 8, 8]", MLOPS_SEED="true"
    )
    assert "training.epochs = 0 (flag --set training.epochs): input should" in message
    assert "seed = True (environment MLOPS_SEED)" in message
    assert "5 blocks halve" in message


def test_each_error_has_its_line():
    assert refusal("training.warmup_epochs=9", "data.mirrors=[ftp://x]").splitlines() == [
        "data.mirrors = ['ftp://x'] (flag --set data.mirrors): 'ftp://x' is not an http(s) URL.",
        "training.warmup_epochs = 9 (flag --set training.warmup_epochs): "
        "9 epochs of warm-up need more than 5 epochs of training.",
    ]


def test_an_error_that_involves_two_settings_names_the_one_to_change():
    message = refusal("training.scheduler=step", "training.step_epochs=9")
    assert "training.step_epochs = 9 (flag --set training.step_epochs)" in message


def test_a_default_in_an_error_has_no_value_and_origin():
    assert refusal("training.epochs=3", "training.scheduler=plateau") == (
        "training.plateau_patience: 2 epochs of patience need at least 4 epochs."
    )


def test_a_long_value_is_shown_truncated():
    message = refusal(f"experiment_name={'.' * 200}")
    assert message.startswith(f"experiment_name = '{'.' * 79} (flag")


def test_an_invalid_item_of_a_list_is_shown_within_its_list():
    message = refusal("model.conv_channels=[8, x]")
    assert message.startswith("model.conv_channels = [8, 'x'] (flag")


# Written settings


def test_settings_are_written_section_by_section_in_order():
    assert settings_yaml(Settings()).startswith(
        'experiment_name: "mnist"\nseed: 0\ndata:\n  source: "auto"\n'
    )


def test_the_schema_names_its_draft_and_the_project():
    schema = settings_schema()
    assert schema["$schema"] == "https://json-schema.org/draft/2020-12/schema"
    assert schema["title"] == "Settings of mnist-nbdev"
