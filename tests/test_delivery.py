"""What surrounds the code: workflows, make targets, and the promises of SECURITY.md."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml
from commands import copy_project, environment, git

pytestmark = pytest.mark.security
ROOT = Path(__file__).parent.parent
WORKFLOWS = sorted((ROOT / ".github" / "workflows").glob("*.yml"))


def jobs(path: Path) -> dict[str, Any]:
    found: dict[str, Any] = yaml.safe_load(path.read_text(encoding="utf-8"))["jobs"]
    return found


def steps(path: Path) -> list[dict[str, Any]]:
    return [step for job in jobs(path).values() for step in job.get("steps", [])]


def make_targets() -> set[str]:
    return set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(encoding="utf-8"), re.M))


@pytest.mark.parametrize("path", WORKFLOWS, ids=lambda path: path.stem)
def test_each_step_is_a_line_that_runs_elsewhere_too(path):
    for step in steps(path):
        command = step.get("run", "")
        assert "\n" not in command.strip(), command
        assert "${{" not in command, "an expression would be put into the shell's text"
        if found := re.match(r"make ([a-z-]+)", command):
            assert found[1] in make_targets(), command


@pytest.mark.parametrize("path", WORKFLOWS, ids=lambda path: path.stem)
def test_a_job_has_no_right_that_it_does_not_name_and_does_not_run_for_ever(path):
    workflow = yaml.safe_load(path.read_text(encoding="utf-8"))
    assert workflow["permissions"] == {}
    for name, job in jobs(path).items():
        assert "permissions" in job, name
        assert "uses" in job or job["timeout-minutes"] <= 60, name
    for step in steps(path):
        if step.get("uses", "").startswith("actions/checkout@"):
            assert step["with"]["persist-credentials"] is False


@pytest.mark.parametrize("path", WORKFLOWS, ids=lambda path: path.stem)
def test_an_action_is_named_by_its_commit_and_its_version(path):
    for line in path.read_text(encoding="utf-8").splitlines():
        if (found := re.match(r"[ -]*uses: (\S.*)", line)) and not found[1].startswith("./"):
            assert re.fullmatch(r"[\w./-]+@[0-9a-f]{40} # v\d+\.\d+\.\d+", found[1]), line


def test_what_ci_runs_is_there():
    script = (ROOT / ".ci" / "run").read_text(encoding="utf-8")
    line = r"^(?: *|[A-Z]+=\w+ )make (?:-j2 |-o check )?([a-z -]+?)(?:  #.*)?$"
    called = " ".join(re.findall(line, script, re.M)).split()
    called += re.findall(r"^ *make -C .* ([a-z-]+)$", script, re.M)
    wanted = {"test", "test-quick", "ci-model", "ci-package", "ci-security", "ci-quality"}
    assert wanted <= set(called) <= make_targets()
    for name in re.findall(r"@(\.ci/[a-z-]+)", (ROOT / "Makefile").read_text(encoding="utf-8")):
        assert (ROOT / name).stat().st_mode & 0o100, f"{name} is not executable"


@pytest.mark.integration
@pytest.mark.parametrize("failing", ["", "test", "same-bits", "ci-security"])
def test_ci_ends_as_its_checks_do(failing, tmp_path):
    project, stand_ins = tmp_path / "project", tmp_path / "bin"
    project.mkdir()
    copy_project([".ci", "settings.ini"], project)
    stand_ins.mkdir()
    make = f"""#!/bin/sh
    for word in "$@"; do [ "$word" != "{failing or "-"}" ] || exit 9; done
    """
    for name, script in {"make": make, "chromium": "#!/bin/sh\n"}.items():
        (stand_ins / name).write_text(script)
        (stand_ins / name).chmod(0o755)
    for words in (["init", "-q"], ["add", "-A"], ["commit", "-qm", "a"]):
        git(project, *words)
    env = environment(PATH=f"{stand_ins}:{os.environ['PATH']}", TMPDIR=str(tmp_path))
    ended = subprocess.run([project / ".ci/run"], env=env, capture_output=True, check=False)
    assert (ended.returncode == 0) == (failing == ""), ended.stderr
    assert not list(tmp_path.glob("tmp.*"))  # neither the oldest Python's clone nor its log


def test_the_pythons_of_settings_ini_are_those_that_ci_tries():
    text = (ROOT / "settings.ini").read_text(encoding="utf-8")
    pythons = re.search(r"^pythons = (.*)$", text, re.M)[1].split()
    newest_first = sorted(pythons, key=lambda version: int(version.split(".")[1]), reverse=True)
    assert pythons == newest_first
    assert pythons[-1] == re.search(r"^min_python = (.*)$", text, re.M)[1]
    matrix = jobs(ROOT / ".github/workflows/ci-cd.yml")["test"]["strategy"]["matrix"]["python"]
    assert set(matrix) == set(pythons)
    elsewhere = {
        step["with"]["python-version"]
        for path in WORKFLOWS
        for step in steps(path)
        if step.get("uses", "").startswith("actions/setup-python@")
    }
    assert elsewhere == {"${{ matrix.python }}", pythons[0]}


FORM = {"MODE": "pipeline", "PRESET": "fast", "EPOCHS": "3", "MIN_ACCURACY": "0.99"}


@pytest.mark.parametrize(
    ("changed", "arguments"),
    [
        ({}, "--mode pipeline --preset fast {} --set training.epochs=3"),
        ({"EPOCHS": "0"}, "--mode pipeline --preset fast {}"),
        ({"MODE": "evaluate"}, "--mode evaluate --preset fast {}"),
    ],
)
def test_a_form_s_fields_become_arguments(changed, arguments):
    said = subprocess.run(
        [ROOT / ".ci" / "arguments"],
        env=environment(**{**FORM, **changed}),
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    threshold = "--set release_thresholds.min_accuracy=0.99"
    assert said == f"arguments={arguments.format(threshold)}\n"


@pytest.mark.parametrize("field", FORM)
@pytest.mark.parametrize("text", ["", "$(id)", "fast --fresh", "0.99\nmore=1", "-1", "1.5"])
def test_a_form_s_field_of_another_form_is_refused(field, text):
    ended = subprocess.run(
        [ROOT / ".ci" / "arguments"],
        env=environment(**{**FORM, field: text}),
        capture_output=True,
        text=True,
        check=False,
    )
    assert (ended.returncode, ended.stdout) == (2, "")
    assert text in ended.stderr


def test_each_promise_of_security_md_names_a_test_that_exists():
    text = (ROOT / "SECURITY.md").read_text(encoding="utf-8")
    named = set(re.findall(r"`(test_\w+)`", text))
    sources = [path.read_text(encoding="utf-8") for path in (ROOT / "tests").rglob("test_*.py")]
    known = set(re.findall(r"^def (test_\w+)", "\n".join(sources), re.M))
    assert len(named) > 10
    assert named <= known, named - known


def test_the_summary_of_a_job_shows_the_decision_and_the_trend(quick_project, tmp_path):
    trend = tmp_path / "trend.jsonl"
    past = {"run": "yesterday", "status": "approved", "accuracy": 0.995, "training_s": 30.5}
    evaluated = {"run": "later", "status": "approved", "accuracy": 0.995, "training_s": None}
    trend.write_text(json.dumps(past) + "\n" + json.dumps(evaluated) + "\n")
    run = quick_project / "artifacts" / "runs" / "first"
    words = [sys.executable, ROOT / ".ci" / "summary.py", run, trend]
    said = subprocess.run(words, capture_output=True, text=True, check=True).stdout
    assert said.startswith("# Rejected: first\n")
    assert "| **failed** | data |" in said
    assert "| yesterday | approved | 99.50% | 30.5 |" in said
    assert "| later | approved | 99.50% |  |" in said
    assert re.search(r"line \[99\.500, 99\.500, \d\d\.\d{3}\]", said), "the accuracies"
    assert re.search(r'"s"\n  line \[30\.500, \d+\.\d{3}\]', said), "the times"
    assert [json.loads(line)["run"] for line in trend.read_text().splitlines()] == [
        *("yesterday", "later", "first")
    ]
