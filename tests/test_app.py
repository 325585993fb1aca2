"From an exception to a message and an exit code, and the memory that a run needs."

import sys

import pytest

from mnist_nbdev.base.files import PipelineError, UsageError
from mnist_nbdev.cli import app as cli
from mnist_nbdev.cli.app import main, terminate
from mnist_nbdev.cli.runs import MIN_MEMORY_MB, require_memory

pytestmark = pytest.mark.unit


@pytest.mark.parametrize(
    ("error", "code", "message"),
    [
        (PipelineError("data/x is damaged."), 1, "mnist-nbdev: data/x is damaged.\n"),
        (UsageError("There is no run x."), 2, "mnist-nbdev: There is no run x.\n"),
        (KeyboardInterrupt(), 130, "Interrupted.\n"),
        (
            ModuleNotFoundError("No module named 'torch'", name="torch"),
            1,
            "mnist-nbdev: this command needs the module torch, which is not installed. ",
        ),
        (
            OSError(28, "No space left on device"),
            1,
            "mnist-nbdev: operating system error: [Errno 28] No space left on device. Finished",
        ),
        (
            ZeroDivisionError("division by zero"),
            1,
            "mnist-nbdev: unexpected ZeroDivisionError: division by zero\nThis is a bug",
        ),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, BaseException) else "",
)
def test_an_error_is_one_message_and_an_exit_code(
    error, code, message, tmp_path, monkeypatch, capsys
):
    def fail(*_: object, **__: object) -> None:
        raise error

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(cli, "app", fail)
    monkeypatch.setattr(cli, "start_logging", lambda settings: None)
    assert main([]) == code
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith(message)
    assert "Traceback" not in err


def test_a_command_that_is_terminated_ends_with_143(monkeypatch, capsys):
    monkeypatch.setattr(cli, "app", lambda *_, **__: terminate(15, None))
    assert main([]) == 143
    assert capsys.readouterr().err == "Terminated.\n"


@pytest.mark.parametrize(("result", "code"), [(None, 0), (3, 3), ({"a": 1}, 0)])
def test_a_command_that_returns_a_number_ends_with_it(result, code, monkeypatch):
    monkeypatch.setattr(cli, "app", lambda *_, **__: result)
    assert main([]) == code


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no such limit")
@pytest.mark.parametrize("limit", [MIN_MEMORY_MB * 10**6, -1])  # -1: unlimited
def test_enough_memory_is_no_error(limit, monkeypatch):
    import resource

    monkeypatch.setattr(resource, "RLIM_INFINITY", -1)
    monkeypatch.setattr(resource, "getrlimit", lambda _: (limit, limit))
    require_memory()


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no such limit")
def test_too_little_memory_is_named_with_what_a_run_needs(monkeypatch):
    import resource

    limit = MIN_MEMORY_MB * 10**6 - 10**6
    monkeypatch.setattr(resource, "getrlimit", lambda _: (limit, limit))
    with pytest.raises(PipelineError, match=r"is 1,499 MB, but a run needs at least 1,500 MB"):
        require_memory()
