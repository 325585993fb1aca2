"The edges of `base/logs`: each form of a record, rotation, and where the lines go."

import json
import logging
import logging.handlers
import re
import sys
from pathlib import Path

import pytest

from mnist_nbdev.base.files import PipelineError
from mnist_nbdev.base.logs import (
    RUN_KERNEL_VARIABLE,
    RecordFormatter,
    console_stream,
    get_logger,
    rotate_log,
    start_logging,
)
from mnist_nbdev.base.settings import LoggingSettings

pytestmark = pytest.mark.unit
LOG = logging.getLogger("mnist_nbdev")
MESSAGE = "epoch 1 of 4 (loss 0.1235, accuracy 0.9871)"


def a_record(level=logging.INFO, fields=None, error=None):
    "Make a record of the first of January 1970, 1.25 seconds after midnight."
    extra = None if fields is None else {"fields": fields}
    record = get_logger("training").makeRecord(
        "mnist_nbdev.training", level, "", 0, "epoch 1 of 4", (), error, extra=extra
    )
    record.created, record.msecs = 1.25, 250.0
    return record


@pytest.fixture
def measured():
    return a_record(fields={"loss": 0.123456, "accuracy": 0.9871})


@pytest.fixture
def failed():
    "A record with a traceback."
    try:
        raise ValueError("the cause")
    except ValueError:
        return a_record(logging.WARNING, error=sys.exc_info())


@pytest.fixture(autouse=True)
def logging_restored():
    before = LOG.handlers[:], LOG.level, LOG.propagate
    LOG.handlers.clear()
    yield
    for handler in LOG.handlers:
        handler.close()
    LOG.handlers[:], LOG.level, LOG.propagate = before


# The form of a record


@pytest.mark.parametrize(
    ("form", "line"),
    [
        (
            ("text", "run-7", "2_train"),
            f"1970-01-01T00:00:01.250Z INFO run-7 2_train training: {MESSAGE}",
        ),
        (("text",), f"1970-01-01T00:00:01.250Z INFO training: {MESSAGE}"),
        (("console", "", "2_train"), f"2_train    {MESSAGE}"),
        (("console",), MESSAGE),
    ],
    ids=["text", "text outside of a run", "console", "console outside of a run"],
)
def test_a_record_is_one_line_with_the_parts_that_it_has(form, line, measured):
    assert RecordFormatter(*form).format(measured) == line


def test_a_time_is_in_utc_with_milliseconds(measured):
    assert json.loads(RecordFormatter("json").format(measured))["time"] == (
        "1970-01-01T00:00:01.250Z"
    )
    record = get_logger("training").makeRecord("a", logging.INFO, "", 0, "now", (), None)
    now = json.loads(RecordFormatter("json").format(record))["time"]
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z", now)


@pytest.mark.parametrize(
    ("stage", "line"),
    [
        ("2_train", "2_train    WARNING: epoch 1 of 4 (file ü)"),
        ("", "WARNING: epoch 1 of 4 (file ü)"),
    ],
)
def test_the_console_shows_the_level_of_a_warning(stage, line):
    record = a_record(logging.WARNING, {"file": Path("ü")})
    assert RecordFormatter("console", "", stage).format(record) == line


def test_a_field_of_any_type_is_shown_as_text_in_json():
    record = a_record(fields={"file": Path("ü")})
    assert '"fields": {"file": "ü"}' in RecordFormatter("json").format(record)


def test_a_record_without_fields_is_its_message():
    record = a_record(logging.WARNING)
    assert RecordFormatter("console").format(record) == "WARNING: epoch 1 of 4"


def test_text_ends_with_the_traceback(failed):
    lines = RecordFormatter("text", "run-7", "2_train").format(failed).splitlines()
    assert lines[0].endswith("training: epoch 1 of 4")
    assert (lines[1], lines[-1]) == ("Traceback (most recent call last):", "ValueError: the cause")


def test_json_has_the_traceback_as_a_field(failed):
    entry = json.loads(RecordFormatter("json", "run-7").format(failed))
    assert entry["traceback"].endswith("ValueError: the cause")
    assert (entry["level"], entry["message"], entry["fields"]) == ("WARNING", "epoch 1 of 4", {})


def test_the_console_shows_no_traceback(failed):
    assert "Traceback" not in RecordFormatter("console", "", "2_train").format(failed)


# Rotation


def test_a_log_that_has_grown_too_large_becomes_the_newest_of_the_old_ones(tmp_path):
    log = tmp_path / "pipeline.log"
    for text in ["first", "second", "third", "fourth"]:
        log.write_text(text)
        rotate_log(log, max_bytes=3, backup_count=2)
    assert (tmp_path / "pipeline.log.1").read_text() == "fourth"
    assert (tmp_path / "pipeline.log.2").read_text() == "third"
    assert not (tmp_path / "pipeline.log.3").exists()
    assert (tmp_path / "pipeline.log.lock").exists()


def test_a_missing_log_is_not_rotated(tmp_path):
    rotate_log(tmp_path / "missing.log", max_bytes=3, backup_count=2)
    assert not list(tmp_path.iterdir())


def test_a_log_of_exactly_the_largest_size_is_not_rotated(tmp_path):
    (tmp_path / "pipeline.log").write_text("few")
    rotate_log(tmp_path / "pipeline.log", max_bytes=3, backup_count=2)
    assert (tmp_path / "pipeline.log").read_text() == "few"


def test_a_log_that_cannot_be_rotated_is_named_and_kept(tmp_path):
    (tmp_path / "pipeline.log").write_text("fifth")
    (tmp_path / "pipeline.log.1").write_text("fourth")
    (tmp_path / "pipeline.log.2" / "in the way").mkdir(parents=True)
    with pytest.raises(PipelineError, match=r"^Cannot rotate the log .*pipeline.log: "):
        rotate_log(tmp_path / "pipeline.log", max_bytes=3, backup_count=2)
    assert (tmp_path / "pipeline.log").read_text() == "fifth"


# Where the lines go


@pytest.mark.parametrize(
    ("in_a_run", "terminal", "stream"),
    [("", "stdout", "stderr"), ("1", "stdout", "stdout"), ("1", None, "stderr")],
    ids=["outside of a run", "in a run", "in a run without a terminal"],
)
def test_only_a_run_s_kernel_writes_past_the_notebook(in_a_run, terminal, stream, monkeypatch):
    monkeypatch.setenv(RUN_KERNEL_VARIABLE, in_a_run)
    monkeypatch.setattr(sys, "__stderr__", terminal and getattr(sys, terminal))  # a stand-in
    assert console_stream() is getattr(sys, stream)


def test_outside_of_a_run_the_console_is_standard_error(monkeypatch):
    monkeypatch.delenv(RUN_KERNEL_VARIABLE, raising=False)
    assert console_stream() is sys.stderr


@pytest.fixture
def settings(tmp_path):
    return LoggingSettings(log_file=str(tmp_path / "all.log"), format="json", log_level="WARNING")


def test_each_record_goes_to_every_file_once(settings, tmp_path):
    start_logging(settings)
    start_logging(settings, more_files=[tmp_path / "run" / "logs" / "run.log"])
    get_logger("training").info("epoch 1 of 4", extra={"fields": {"loss": 0.5}})
    for path in [tmp_path / "all.log", tmp_path / "run" / "logs" / "run.log"]:
        (line,) = path.read_text().splitlines()
        assert json.loads(line)["fields"] == {"loss": 0.5}


def test_the_level_is_that_of_the_console_and_files_get_more(settings):
    start_logging(settings)
    console = LOG.handlers[-1]
    assert (console.level, LOG.level, LOG.propagate) == (logging.WARNING, logging.INFO, False)
    assert console.format(a_record(logging.WARNING)) == "WARNING: epoch 1 of 4"
    assert console.stream is console_stream() is sys.stderr


def test_at_the_level_debug_files_and_console_get_everything(settings, tmp_path):
    debug = settings.model_copy(update={"log_level": "DEBUG", "format": "text"})
    start_logging(debug, "run-8", "3_export")
    get_logger("model").debug("größer")
    line = (tmp_path / "all.log").read_bytes().decode()
    assert line.endswith(" DEBUG run-8 3_export model: größer\n")
    assert LOG.level == LOG.handlers[-1].level == logging.DEBUG
    warning = a_record(logging.WARNING)
    assert LOG.handlers[-1].format(warning) == "3_export   WARNING: epoch 1 of 4"


def test_earlier_handlers_are_replaced(settings):
    start_logging(settings)
    start_logging(settings)
    assert [type(handler) for handler in LOG.handlers] == [
        logging.handlers.WatchedFileHandler,
        logging.StreamHandler,
    ]


def test_a_log_that_cannot_be_written_is_named(tmp_path):
    (tmp_path / "a file").touch()
    with pytest.raises(PipelineError, match="Cannot write the log"):
        start_logging(LoggingSettings(log_file=str(tmp_path / "a file" / "x.log")))
