"The executor without kernels: how a failure is explained, an output is cut, a signal is counted."

import json
import signal
from pathlib import Path
from types import SimpleNamespace

import pytest

from mnist_nbdev.base.files import PipelineError, UsageError, read_json
from mnist_nbdev.execution.executor import (
    MAX_CELL_OUTPUT,
    Kernels,
    PipelineInterrupted,
    StageFailed,
    _explain_failure,
    _finish_notebook,
    declared_parameters,
)
from mnist_nbdev.runs.stages import Stage

pytestmark = pytest.mark.unit
SMALL = Stage("small", (), (), (), ())


class InKernel(Exception):
    "An error as papermill passes it on: a name and a text."

    def __init__(self, ename: str, evalue: str) -> None:
        super().__init__(evalue)
        self.ename, self.evalue = ename, evalue


class DeadKernelError(RuntimeError):
    "Named as nbclient's own."


def write_notebook(path: Path, **cell: object) -> Path:
    first = {"cell_type": "code", "metadata": {}, "source": "1 / 0", "outputs": [], **cell}
    notebook = {"cells": [first], "metadata": {}, "nbformat": 4, "nbformat_minor": 5}
    path.write_text(json.dumps(notebook), encoding="utf-8")
    return path


def explained(error: Exception, target: Path, timed_out: bool = False) -> PipelineError:
    return _explain_failure(SMALL, target, error, SimpleNamespace(timed_out=timed_out, timeout_s=2))


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("UsageError", UsageError),
        ("PipelineError", StageFailed),
        ("StageFailed", StageFailed),
        ("CheckpointError", StageFailed),
        ("TrainingInterrupted", StageFailed),
    ],
)
def test_an_error_of_the_project_keeps_its_message(name, kind, tmp_path):
    error = explained(InKernel(name, "data/x is damaged."), tmp_path / "none.ipynb")
    assert (type(error), str(error)) == (kind, "data/x is damaged.")


@pytest.mark.parametrize(
    ("error", "message"),
    [
        (InKernel("KeyError", "'x'"), "Stage small failed: KeyError: 'x'. The notebook shows"),
        (InKernel("ValueError", "it is so."), "Stage small failed: ValueError: it is so. The n"),
        (InKernel("CellExecutionError", " "), "The kernel of stage small died"),
        (DeadKernelError("gone"), "The kernel of stage small died"),
        (RuntimeError("Kernel died before replying"), "The kernel of stage small died"),
        (OSError("disk full"), "Stage small could not be executed: OSError: disk full. The note"),
    ],
)
def test_any_other_error_names_the_notebook_and_is_written_into_it(error, message, tmp_path):
    notebook = write_notebook(tmp_path / "small.ipynb")
    failure = explained(error, notebook)
    assert type(failure) is StageFailed
    assert str(failure).startswith(message)
    assert str(failure).endswith(f"The notebook shows where: {notebook}.")
    first, second = read_json(notebook)["cells"]
    assert first["source"].startswith("**")
    assert second["source"] == "1 / 0"


def test_a_stage_that_hangs_is_explained_by_its_limit_whatever_the_error(tmp_path):
    failure = explained(InKernel("UsageError", "no."), tmp_path / "none.ipynb", timed_out=True)
    assert "Stage small was killed after 2 s (pipeline.stage_timeout_s)" in str(failure)


def test_an_error_before_the_kernel_is_passed_on_as_it_is(tmp_path):
    error = UsageError("small.ipynb declares no parameter m.")
    assert explained(error, tmp_path / "none.ipynb") is error


def test_the_text_of_an_error_is_escaped_in_the_notebook(tmp_path):
    notebook = write_notebook(tmp_path / "small.ipynb")
    explained(InKernel("ValueError", "<script>"), notebook)
    assert "&lt;script&gt;" in read_json(notebook)["cells"][0]["source"]


@pytest.mark.parametrize(
    ("length", "left_out"),
    [(MAX_CELL_OUTPUT, ""), (MAX_CELL_OUTPUT + 1234, "… 1,234 characters …")],
)
def test_a_long_output_keeps_its_beginning_and_its_end(length, left_out, tmp_path):
    text = ["a" * (length // 2), "b" * (length - length // 2)]
    outputs = [{"output_type": "stream", "name": "stdout", "text": text}]
    partial_copy = write_notebook(tmp_path / "partial.ipynb", outputs=outputs)
    _finish_notebook(partial_copy, tmp_path / "notebooks" / "small.ipynb", "small.ipynb")
    assert not partial_copy.exists()
    notebook = read_json(tmp_path / "notebooks" / "small.ipynb")
    assert notebook["metadata"]["papermill"] == {
        "input_path": "small.ipynb",
        "output_path": "notebooks/small.ipynb",
    }
    kept = "".join(notebook["cells"][0]["outputs"][0]["text"])
    assert (kept[0], kept[-1], left_out in kept) == ("a", "b", True)
    assert len(kept) <= MAX_CELL_OUTPUT + 30


def test_a_notebook_without_a_parameters_cell_declares_none(tmp_path):
    assert declared_parameters(write_notebook(tmp_path / "small.ipynb")) == set()


@pytest.mark.parametrize(
    ("code", "names"), [("a = 1\nb: int = 2\nprint(a)\nc, d = 1, 2", {"a"}), ("", set())]
)
def test_only_plain_assignments_declare_parameters(code, names, tmp_path):
    metadata = {"tags": ["parameters"]}
    notebook = write_notebook(tmp_path / "small.ipynb", source=code, metadata=metadata)
    assert declared_parameters(notebook) == names


def test_the_third_signal_ends_the_run_at_once():
    with Kernels(0, 60.0) as kernels:
        kernels.raise_if_interrupted()
        kernels.interrupt(signal.SIGTERM)  # the stage is interrupted
        kernels.interrupt(signal.SIGTERM)  # the stage is killed
        with pytest.raises(PipelineInterrupted):  # something else hangs: wait no longer
            kernels.interrupt(signal.SIGTERM)
        with pytest.raises(PipelineInterrupted, match="Interrupted by SIGTERM"):
            kernels.raise_if_interrupted()
