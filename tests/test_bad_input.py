"""Any input is accepted, or refused with a message that names the fault."""

import hashlib
import io
import json
import pickle
import shutil
import tempfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from commands import call
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from mnist_nbdev.base.files import PipelineError, UsageError, path_inside, safe_name
from mnist_nbdev.base.loading import environment_variables, read_settings_file, resolve_settings
from mnist_nbdev.base.settings import InferenceSettings, setting_fields
from mnist_nbdev.data.mnist import IdxFile, check_idx
from mnist_nbdev.model.checkpoints import read_checkpoint
from mnist_nbdev.model.inference import OnnxClassifier
from mnist_nbdev.model.network import load_model
from mnist_nbdev.model.reading import read_digit

pytestmark = pytest.mark.security
# Where generated files go: hypothesis wants one folder for all examples.
FOLDER = tempfile.TemporaryDirectory()
FIELDS = sorted(setting_fields())
VARIABLES = {key: variable for variable, key in environment_variables().items()}
# What YAML can say, odd numbers among it.
VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text(max_size=20)
    | st.sampled_from(
        ["nan", ".inf", "-.inf", "1e400", "2001-01-01", "0x1F", "~", "!!python/name:os"]
    ),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3)
    ),
    max_leaves=5,
)


def refusal(attempt: Callable[[], object]) -> str:
    "How an attempt is refused; empty where it is not. Any other exception fails the test."
    try:
        attempt()
    except UsageError as error:
        return str(error)
    return ""


def taken_or_refused(name: str, attempt: Callable[[], object]) -> None:
    "A refusal names the setting, its section or its variable."
    words = refusal(attempt)
    section, _, field = name.rpartition(".")
    known = [field, VARIABLES[name], *([section] if section else [])]
    assert not words or any(word in words for word in known), words


@settings(max_examples=300, deadline=None)
@given(st.sampled_from(FIELDS), VALUES)
def test_any_value_in_any_field_of_a_file(name, value):
    section, _, field = name.rpartition(".")
    content = {section: {field: value}} if section else {field: value}
    with Path(FOLDER.name, "any.json").open("w", encoding="utf-8") as file:
        json.dump(content, file)  # NaN and infinities included
    taken_or_refused(name, lambda: resolve_settings(config_file=file.name, environment={}))


@settings(max_examples=300, deadline=None)
@given(st.sampled_from(FIELDS), st.one_of(st.text(max_size=40), VALUES.map(repr)))
def test_any_text_in_any_variable_and_any_flag(name, text):
    given_text = text.replace("\0", "")  # which no environment can hold
    variables = {VARIABLES[name]: given_text}
    taken_or_refused(name, lambda: resolve_settings(environment=variables))
    taken_or_refused(name, lambda: resolve_settings(environment={}, flags=[f"{name}={text}"]))


@settings(max_examples=200, deadline=None)
@given(st.binary(max_size=300))
def test_any_bytes_as_a_settings_file(content):
    path = Path(FOLDER.name, "any.yaml")
    path.write_bytes(content)
    words = refusal(lambda: read_settings_file(path))
    assert not words or "any.yaml" in words


@settings(max_examples=300, deadline=None)
@given(
    st.text(max_size=80)
    | st.sampled_from(["..", ".", "a/b", "/etc", "a\\b", "con\n", "A", "a" * 65])
)
def test_a_name_from_outside_is_plain_or_refused(name):
    try:
        found = safe_name(name, "run id")
    except UsageError:
        return
    assert found == name
    assert Path("/runs", found).resolve().parent == Path("/runs")


@settings(max_examples=200, deadline=None)
@given(st.lists(st.sampled_from(["..", ".", "a", "b.json", "", "~", "x" * 300]), max_size=6))
def test_a_path_from_outside_stays_inside_or_is_refused(parts):
    try:
        found = path_inside(Path(FOLDER.name), "/".join(parts))
    except PipelineError:
        return
    assert found.resolve().is_relative_to(Path(FOLDER.name).resolve())


def test_a_link_that_leads_out_is_refused(tmp_path):
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "models").symlink_to("/etc")
    with pytest.raises(PipelineError):
        path_inside(tmp_path / "run", "models/passwd")


# Data

LABELS = bytes(range(10)) * 3
IDX = IdxFile("few-labels-idx1-ubyte", (30,), "", "")
IDX = replace(IDX, sha256=hashlib.sha256(IDX.header + LABELS).hexdigest())


@settings(max_examples=200, deadline=None)
@given(st.one_of(st.binary(max_size=60), st.binary(max_size=12).map(lambda head: head + LABELS)))
def test_any_bytes_as_a_file_of_the_data(content):
    path = Path(FOLDER.name, IDX.name)
    path.write_bytes(content)
    if content == IDX.header + LABELS:
        check_idx(path, IDX)
        return
    with pytest.raises(PipelineError, match=IDX.name):
        check_idx(path, IDX)


def test_the_expected_file_is_accepted(tmp_path):
    (tmp_path / IDX.name).write_bytes(IDX.header + LABELS)
    check_idx(tmp_path / IDX.name, IDX)


# Images

WRITABLE = {
    "PNG": ["1", "L", "LA", "P", "RGB", "RGBA", "I;16"],
    "JPEG": ["L", "RGB", "CMYK"],
    "TIFF": ["1", "L", "LA", "P", "RGB", "RGBA", "CMYK", "LAB", "I;16", "F"],
    "GIF": ["L", "P", "RGB"],
    "BMP": ["1", "L", "P", "RGB"],
    "WEBP": ["RGB", "RGBA"],
    "PPM": ["1", "L", "RGB"],
    "TGA": ["L", "RGB", "RGBA"],
}


def drawn(mode: str, size: tuple[int, int]) -> Image.Image:
    "A bar on paper, in any of Pillow's modes."
    width, height = size
    pixels = np.full((height, width), 230, np.uint8)
    pixels[height // 5 : -height // 5 or None, 2 * width // 5 : 3 * width // 5 + 1] = 10
    picture = Image.fromarray(pixels)
    if mode == "I;16":
        return Image.fromarray(pixels.astype(np.uint16) * 257)
    if mode == "LAB":
        return Image.merge("LAB", [picture] * 3)
    return picture.convert(mode)


def is_digit_or_refused(file: bytes, name: str) -> None:
    "No other end than these two; a refusal names the file."
    words = ""
    try:
        digit = read_digit(file, InferenceSettings(), name=name)
        assert digit.shape == (28, 28)
        assert digit.dtype == np.uint8
    except PipelineError as error:
        words = str(error)
    assert not words or name in words


@pytest.mark.parametrize("kind", WRITABLE)
@pytest.mark.parametrize("size", [(1, 1), (2, 700), (28, 28), (64, 64), (900, 3)])
def test_each_format_and_mode_is_read_or_refused_by_name(kind, size):
    for mode in WRITABLE[kind]:
        file = io.BytesIO()
        drawn(mode, size).save(file, kind)
        is_digit_or_refused(file.getvalue(), f"{mode}.{kind}")


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.sampled_from(sorted(WRITABLE)), st.data())
def test_a_broken_image_is_refused_by_its_name(kind, data):
    file = io.BytesIO()
    drawn(WRITABLE[kind][0], (60, 60)).save(file, kind)
    content = bytearray(file.getvalue())
    for _ in range(data.draw(st.integers(1, 5))):
        content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    cut = data.draw(st.integers(0, len(content)))
    is_digit_or_refused(bytes(content[:cut]), "it")


def test_a_file_s_name_cannot_forge_a_line_of_the_output(quick_project, tmp_path):
    name = "a.png\t7\t1.0000\nb\x1b[2J.png"
    drawn("L", (40, 40)).save(tmp_path / name, "PNG")
    ended = call("predict", str(tmp_path / name), "--model", "first", folder=quick_project)
    assert ended.code == 0, ended.err
    (line,) = ended.out.splitlines()
    assert len(line.split("\t")) == 3
    assert "\x1b" not in line


def test_a_long_path_is_printed_whole(quick_project, tmp_path):
    folder = tmp_path / ("a" * 200) / ("b" * 200)
    folder.mkdir(parents=True)
    drawn("L", (40, 40)).save(folder / "c.png", "PNG")
    ended = call("predict", str(folder / "c.png"), "--model", "first", folder=quick_project)
    assert ended.out.split("\t")[0] == str(folder / "c.png")


def test_a_bomb_is_refused_before_it_is_unpacked():
    import tracemalloc

    file = io.BytesIO()
    Image.new("1", (20_000, 20_000)).save(file, "PNG")
    tracemalloc.start()
    with pytest.raises(PipelineError, match=r"bomb\.png"):
        read_digit(file.getvalue(), InferenceSettings(), name="bomb.png")
    _, most = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert most < 20_000_000


@pytest.mark.parametrize("orientation", range(1, 9))
def test_a_photograph_that_was_turned_is_turned_back(orientation):
    upright = drawn("L", (60, 60))
    upright.paste(10, (10, 10, 30, 16))  # so that no two of the eight are the same
    turned = {
        2: Image.Transpose.FLIP_LEFT_RIGHT,
        3: Image.Transpose.ROTATE_180,
        4: Image.Transpose.FLIP_TOP_BOTTOM,
        5: Image.Transpose.TRANSPOSE,
        6: Image.Transpose.ROTATE_90,
        7: Image.Transpose.TRANSVERSE,
        8: Image.Transpose.ROTATE_270,
    }
    stored = upright.transpose(turned[orientation]) if orientation > 1 else upright
    exif = Image.Exif()
    exif[0x0112] = orientation
    file = io.BytesIO()
    stored.save(file, "PNG", exif=exif)
    expected = io.BytesIO()
    upright.save(expected, "PNG")
    found = read_digit(file.getvalue(), InferenceSettings())
    assert np.array_equal(found, read_digit(expected.getvalue(), InferenceSettings()))


def test_an_animation_is_read_by_its_first_picture():
    file = io.BytesIO()
    first, second = drawn("L", (40, 40)), Image.new("L", (40, 40), 230)
    first.save(file, "GIF", save_all=True, append_images=[second])
    one = read_digit(file.getvalue(), InferenceSettings())
    file = io.BytesIO()
    first.save(file, "GIF")
    assert np.array_equal(one, read_digit(file.getvalue(), InferenceSettings()))


# Pickles


class Bomb:
    "What somebody would plant: unpickled, it writes a file."

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self):
        return (Path.touch, (self.mark,))


@pytest.mark.parametrize(
    "name",
    [
        "models/model.safetensors",
        "models/model.onnx",
        "models/model.json",
        "models/checkpoints/last.safetensors",
        "data/split.npz",
        "evaluation/predictions.npz",
        "evaluation/robustness.npz",
        "decision.json",
    ],
)
def test_a_planted_pickle_is_never_opened(quick_project, tmp_path, name):
    folder, mark = tmp_path / "run", tmp_path / "mark"
    shutil.copytree(quick_project / "artifacts/runs/first", folder)
    path = folder / name
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(pickle.dumps(Bomb(mark)))
    for attempt in (
        lambda: load_model(folder / "models"),
        lambda: OnnxClassifier(folder / "models" / "model.onnx"),
        lambda: read_checkpoint(path),
    ):
        try:
            attempt()
        except (PipelineError, ValueError, TypeError):
            continue
    ended = call("runs", "verify", str(folder), folder=tmp_path)
    assert ended.code == 1
    assert "Traceback" not in ended.err
    assert not mark.exists()
