"The edges of `base/files`: permissions, large and missing files, odd names, links to nothing."

import os
import shutil

import pytest

from mnist_nbdev.base.files import (
    MAX_JSON_BYTES,
    TEMP_PREFIX,
    PipelineError,
    UsageError,
    canonical_json,
    copy_file,
    one_line,
    read_json,
    read_sealed_json,
    remove_temp_files,
    replace_link,
    safe_name,
    sha256_bytes,
    sha256_file,
    write_bytes,
    write_json,
    write_sealed_json,
    write_text,
)

pytestmark = pytest.mark.unit


def test_a_written_file_is_as_public_as_the_umask_allows_and_the_umask_stays(tmp_path):
    mask = os.umask(0o027)
    try:
        write_text(tmp_path / "shared.txt", "ready")
    finally:
        after = os.umask(mask)
    assert after == 0o027
    assert (tmp_path / "shared.txt").stat().st_mode & 0o777 == 0o640


def test_text_is_written_as_utf_8(tmp_path):
    write_text(tmp_path / "a.txt", "größer")
    assert (tmp_path / "a.txt").read_bytes() == "größer".encode()


def test_writing_copying_and_linking_leave_no_temporary_file(tmp_path):
    write_text(tmp_path / "a.txt", "ready")
    copy_file(tmp_path / "a.txt", tmp_path / "b.txt")
    replace_link(tmp_path / "latest", tmp_path / "b.txt")
    with pytest.raises(PipelineError):
        write_text(tmp_path / "a.txt" / "inside", "")
    assert not [name for name in os.listdir(tmp_path) if name.startswith(TEMP_PREFIX)]
    assert not remove_temp_files(tmp_path)


def test_a_file_of_several_chunks_has_the_hash_of_its_bytes(tmp_path):
    write_bytes(tmp_path / "large", bytes(3_000_000))
    assert sha256_file(tmp_path / "large") == sha256_bytes(bytes(3_000_000))


@pytest.mark.parametrize("read", [sha256_file, read_json])
def test_a_missing_file_is_named(read, tmp_path):
    with pytest.raises(PipelineError, match=r"Cannot read .*missing: No such file"):
        read(tmp_path / "missing")


@pytest.mark.parametrize(
    ("value", "indent", "text"),
    [
        ({"b": [1, "ü"], "a": None}, None, '{"a":null,"b":[1,"ü"]}\n'),
        ({"a": {"b": 1}}, 2, '{\n  "a": {\n    "b": 1\n  }\n}\n'),
    ],
)
def test_canonical_json_has_sorted_keys_and_fixed_separators(value, indent, text):
    assert canonical_json(value, indent=indent) == text


def test_canonical_json_is_indented_by_two_spaces_by_default():
    assert canonical_json({"a": {"b": 1}}) == canonical_json({"a": {"b": 1}}, indent=2)


def test_a_json_file_is_canonical(tmp_path):
    write_json(tmp_path / "metrics.json", {"accuracy": 0.9951})
    assert (tmp_path / "metrics.json").read_text() == canonical_json({"accuracy": 0.9951})


def test_a_json_file_that_is_too_large_is_refused_before_it_is_read(tmp_path):
    path = tmp_path / "damaged.json"
    path.touch()
    os.truncate(path, MAX_JSON_BYTES)
    with pytest.raises(PipelineError, match="is not valid JSON"):
        read_json(str(path))
    os.truncate(path, MAX_JSON_BYTES + 1)
    with pytest.raises(PipelineError, match=r"damaged.json has over 67108864 bytes"):
        read_json(path)


def test_a_seal_is_the_hash_of_the_content_on_one_line(tmp_path):
    content = {"pixel_mean": 0.1307, "classes": 10}
    seal = write_sealed_json(tmp_path / "model.json", content)
    assert seal == sha256_bytes(b'{"classes":10,"pixel_mean":0.1307}\n')
    assert read_json(tmp_path / "model.json") == {**content, "sha256": seal}


@pytest.mark.parametrize("content", [{"classes": 10}, ["0" * 64], None])
def test_content_without_a_seal_is_refused(content, tmp_path):
    write_json(tmp_path / "model.json", content)
    with pytest.raises(PipelineError, match=r"model.json does not match its own SHA-256"):
        read_sealed_json(str(tmp_path / "model.json"))


@pytest.mark.parametrize(
    "name", ["", "..", "../up", "a/b", "-x", ".hidden", "Ä", "a" * 65, "a\n", None]
)
def test_an_unsafe_name_is_refused_for_what_it_names(name):
    with pytest.raises(UsageError, match="cannot be used as a run id"):
        safe_name(name, "run id")


def test_an_unsafe_name_is_quoted_and_called_a_name_by_default():
    with pytest.raises(UsageError, match=r"^'A' cannot be used as a name\."):
        safe_name("A")


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("zero.png\t7\n\x1b[2J", "zero.png 7  [2J"),
        ("Übung „eins“ 数字.png", "Übung „eins“ 数字.png"),
        ("a" * 300, "a" * 300),
        ("a" * 301, "a" * 299 + "…"),
    ],
    ids=["control characters", "other scripts", "longest", "too long"],
)
def test_a_text_is_one_printable_line_of_limited_length(text, shown):
    assert one_line(text) == shown


def test_a_link_to_nothing_is_replaced(tmp_path):
    (tmp_path / "run-1").mkdir()
    (tmp_path / "run-2").mkdir()
    replace_link(tmp_path / "latest", tmp_path / "run-2")
    shutil.rmtree(tmp_path / "run-2")
    replace_link(str(tmp_path / "latest"), str(tmp_path / "run-1"))
    assert (tmp_path / "latest").resolve() == (tmp_path / "run-1").resolve()


def test_a_link_is_relative_and_its_folder_is_created_once(tmp_path):
    replace_link(tmp_path / "new" / "deep" / "latest", tmp_path / "runs" / "run-1")
    assert os.readlink(tmp_path / "new" / "deep" / "latest") == "../../runs/run-1"
    replace_link(tmp_path / "new" / "deep" / "other", tmp_path / "runs")  # the folder may be there


def test_a_link_that_cannot_be_created_is_named(tmp_path):
    (tmp_path / "note.txt").touch()
    with pytest.raises(PipelineError, match=r"Cannot create the link .*note.txt/latest: "):
        replace_link(tmp_path / "note.txt" / "latest", tmp_path)
