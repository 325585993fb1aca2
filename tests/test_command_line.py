"""The command line itself: what every command has in common, and the commands without a run."""

import os
import subprocess
import sys

import pytest
from commands import call, environment

import mnist_nbdev
from mnist_nbdev.registry.journal import append_release, next_release, read_journal

SAMPLE = ("--set", "data.source=sample")


@pytest.mark.unit
def test_version_and_help_are_there_for_every_command(tmp_path):
    assert call("--version", folder=tmp_path).out == f"mnist-nbdev {mnist_nbdev.__version__}\n"
    for words in [
        (),
        ("config",),
        ("data",),
        ("gate",),
        ("runs",),
        ("run",),
        ("predict",),
        ("benchmark",),
    ]:
        ended = call(*words, "--help", folder=tmp_path)
        assert ended.code == 0
        assert "Usage: mnist-nbdev" in ended.out
    assert list(tmp_path.iterdir()) == [], "to ask leaves nothing behind"


@pytest.mark.unit
@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (("walk",), "walk"),
        (("run", "--presett", "fast"), "--preset"),
        (("run", "--mode", "guess"), "guess"),
        (("run", "--preset", "quick"), "quick"),
        (("run", "--config", "missing.yaml"), "missing.yaml"),
        (("run", "--run-id", "../away"), "run id"),
        (("run", "--resume", "latest"), "unfinished"),
        (("run", "--resume", "latest", "--preset", "fast"), "leave out the other options"),
        (("run", "--model", "latest"), "--mode evaluate"),
        (("run", "--mode", "evaluate", "--model", "nothing"), "There is no run nothing"),
        (("runs", "show", "nothing"), "nothing"),
        (("runs", "show"), "There is no"),
        (("runs", "compare", "a", "b"), "There is no"),
        (("runs", "explain", "a"), "There is no"),
        (("runs", "explain", "latest", "--preset", "debug"), "not both"),
        (("runs", "compare", "latest"), "RUN"),
        (("registry", "show"), "There is no release"),
        (("registry", "promote", "nothing"), "nothing"),
        (("benchmark", "--model", "nothing"), "nothing"),
        (("predict", "x.png"), "No model is released yet"),
        (("predict",), "IMAGE"),
        (("gate", "plan", "--classes", "4", "--test", "1200"), "--at"),
        (("gate", "plan", "--classes", "4", "--test", "3", "--at", "0.9"), "3 test images for 4"),
        (("gate", "plan", "--classes", "1", "--test", "3", "--at", "0.9"), "2 to 1,000"),
        (("gate", "plan", "--classes", "4", "--test", "40", "--at", "95"), "give a fraction"),
        (("gate", "plan", "--classes", "4", "--test", "40", "--at", "nan"), "give a fraction"),
        (("gate", "plan", "--classes", "4", "--test", "0", "--at", "0.9"), "0 test images"),
        (("predict", "x.png", "--model", "nothing"), "nothing"),
    ],
)
def test_wrong_usage_is_one_message_and_exit_2(words, expected, tmp_path):
    ended = call(*words, folder=tmp_path)
    assert (ended.code, ended.out) == (2, ""), ended.err
    assert expected in ended.err
    assert "Traceback" not in ended.err
    assert not (tmp_path / "artifacts").exists()


@pytest.mark.unit
@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("runs", "list"), "There are no runs yet"),
        (("registry", "list"), "No model is released yet"),
        (("registry", "history"), "No model is released yet"),
    ],
)
def test_an_empty_list_is_a_message_and_for_programs_an_empty_list(words, message, tmp_path):
    ended = call(*words, folder=tmp_path)
    assert (ended.code, ended.out) == (0, "")
    assert ended.err.startswith(message)
    assert call(*words, "--json", folder=tmp_path)[:2] == (0, "[]\n")


@pytest.mark.unit
def test_there_is_no_rollback_before_two_releases(tmp_path):
    ended = call("registry", "rollback", folder=tmp_path)
    assert (ended.code, ended.out) == (1, "")
    assert "There is no release to go back to" in ended.err


@pytest.mark.unit
def test_releases_whose_runs_are_gone_are_listed_and_not_returned_to(tmp_path):
    for number, name in enumerate(["first", "second"]):
        journal = read_journal(tmp_path / "artifacts")
        digests = str(number) * 64, str(number) * 64
        release = next_release(journal, "promote", name, digests, "mia", "a trial")
        append_release(tmp_path / "artifacts", release)
    ended = call("registry", "history", folder=tmp_path)
    assert ended.code == 0
    assert [line.split()[0] for line in ended.out.splitlines()] == ["1", "2"]
    assert "a trial  (evidence gone)" in ended.out
    assert read_journal(tmp_path / "artifacts")[-1].sha256 in ended.err
    assert call("registry", "list", folder=tmp_path).out.split()[:2] == ["champion", "second"]
    assert call("registry", "show", "previous", "--json", folder=tmp_path).json["run"] == "first"
    assert call("registry", "show", "third", folder=tmp_path).code == 2
    assert call("registry", "rollback", folder=tmp_path).code == 1  # no evidence left to verify


@pytest.mark.integration
def test_data_check_prints_the_report(tmp_path):
    ended = call("data", "check", *SAMPLE, folder=tmp_path)
    assert ended.code == 0, ended.err
    assert all(line.startswith("passed") for line in ended.out.splitlines())
    report = call("data", "check", *SAMPLE, "--json", folder=tmp_path).json
    assert report["source"] == "sample"
    assert len(report["checks"]) == len(ended.out.splitlines())


@pytest.mark.integration
def test_data_fetch_says_which_file_it_could_not_get(tmp_path):
    nowhere = ("--set", "data.mirrors=[http://127.0.0.1:9/]", "--set", "data.download_retries=0")
    ended = call("data", "fetch", *nowhere, folder=tmp_path)
    assert (ended.code, ended.out) == (1, "")
    assert "train-images-idx3-ubyte could not be downloaded" in ended.err
    assert "Traceback" not in ended.err
    left = [path.name for path in (tmp_path / "data").rglob("*") if path.is_file()]
    assert [name for name in left if not name.endswith(".lock")] == []


@pytest.mark.integration
@pytest.mark.skipif("MLOPS_DATA_ROOT" not in os.environ, reason="the full MNIST is not here")
def test_data_fetch_uses_existing_files(tmp_path):
    root = os.path.abspath(os.environ["MLOPS_DATA_ROOT"])
    ended = call("data", "fetch", "--json", folder=tmp_path, MLOPS_DATA_ROOT=root)
    assert ended.code == 0, ended.err
    assert ended.json == {"folder": f"{root}/MNIST/raw"}


@pytest.mark.unit
def test_the_shell_completes_settings_and_presets(tmp_path):
    def completed(line: str) -> str:
        words = len(line.split()) - (not line.endswith(" "))
        return call(
            folder=tmp_path,
            _MNIST_NBDEV_COMPLETE="complete_bash",
            COMP_WORDS=line,
            COMP_CWORD=str(words),
        ).out

    assert "training.epochs=" in completed("mnist-nbdev run --set training.ep")
    assert "debug" in completed("mnist-nbdev run --preset d")


@pytest.mark.unit
def test_a_reader_that_goes_away_is_no_error(tmp_path):
    process = subprocess.Popen(
        [sys.executable, "-m", "mnist_nbdev", "config", "schema"],
        cwd=tmp_path,
        env=environment(),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    process.stdout.close()
    assert process.stderr.read() == b""
    assert process.wait(timeout=60) in (0, 1)


@pytest.mark.unit
def test_a_log_that_cannot_be_written_is_reported(tmp_path):
    (tmp_path / "logs").write_text("a file where a folder has to be")
    ended = call("data", "check", *SAMPLE, folder=tmp_path)
    assert ended.code == 1
    assert "logging.log_file" in ended.err
    assert "Traceback" not in ended.err


@pytest.mark.integration
def test_an_installation_without_what_a_run_needs_says_so(tmp_path):
    gone = (
        'raise ModuleNotFoundError("No module named \'jupyter_client\'", name="jupyter_client")\n'
    )
    (tmp_path / "lacking").mkdir()
    (tmp_path / "lacking" / "jupyter_client.py").write_text(gone)
    lacking = {"PYTHONPATH": str(tmp_path / "lacking")}
    ended = call("run", "--preset", "debug", folder=tmp_path, afresh=True, **lacking)
    assert (ended.code, ended.out) == (1, "")
    assert "needs the module jupyter_client" in ended.err
    assert "Traceback" not in ended.err
