"""The registry under stress: many writers, killed ones, a journal in wrong hands, a moved folder.

Killing "at any moment" is done without waiting for one: a profile hook counts the calls that a
promotion makes and returns from, down to those into the operating system, and kills the process at
a chosen one. What lies within one call, a line half written, is tried byte by byte.
"""

import json
import logging
import os
import random
import subprocess
import sys
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import pytest
from commands import call, environment

from mnist_nbdev.base.files import PipelineError, sha256_file, write_bytes, write_json, write_text
from mnist_nbdev.base.loading import resolve_settings, settings_yaml
from mnist_nbdev.registry.journal import (
    HEAD,
    JOURNAL,
    champion,
    check_chain,
    next_release,
    previous,
    read_journal,
    standing_releases,
)
from mnist_nbdev.registry.mlflow import (
    MODEL_NAME,
    mlflow_client,
    sync_aliases,
    sync_registry,
    track_run,
)
from mnist_nbdev.registry.promotion import champion_model, promote, rollback
from mnist_nbdev.runs.run import Run, write_manifest

RUNS = ("first", "second", "third")


def holds(run: Run) -> None:
    "Evidence that verifies."


def finished_run(artifacts: Path, name: str) -> Path:
    "An approved run, as small as can be."
    run = artifacts / "runs" / name
    settings = resolve_settings(preset="debug", environment={}).settings
    write_text(run / "config.yaml", settings_yaml(settings))
    write_bytes(run / "models" / "model.onnx", f"the weights of {name}".encode())
    write_json(run / "decision.json", {"status": "approved"})
    write_json(run / "summary.json", {"status": "approved", "metrics": {"accuracy": 0.991}})
    write_manifest(Run(run))
    return run


@pytest.fixture
def artifacts(tmp_path, monkeypatch):
    "A folder with three approved runs and no release."
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    for name in RUNS:
        finished_run(tmp_path / "artifacts", name)
    return tmp_path / "artifacts"


def journal_of(artifacts: Path) -> Path:
    return artifacts / "registry" / JOURNAL


def release_some(artifacts: Path, count: int = 5) -> list[bytes]:
    "Promote in turn, and return the journal's lines."
    for number in range(count):
        promote(artifacts, Run(artifacts / "runs" / RUNS[number % 3]), holds, "mia")
    return journal_of(artifacts).read_bytes().splitlines(keepends=True)


def python(script: str, *words: str | Path) -> subprocess.Popen[str]:
    "Start a Python of its own."
    return subprocess.Popen(
        [sys.executable, "-c", script, *map(str, words)],
        env=environment(),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


# --- many writers ---

WRITER = """
import sys
from pathlib import Path
from mnist_nbdev.registry.promotion import promote
from mnist_nbdev.runs.run import Run

artifacts, who = Path(sys.argv[1]), sys.argv[2]
runs = [Run(artifacts / "runs" / name) for name in ("first", "second", "third")]
done = attempts = 0
while done < 50:  # what another writer has just made the champion is not written: try the next
    run = runs[attempts % 3]
    attempts += 1
    release = promote(artifacts, run, lambda folder: None, who, str(done))
    done += (release.who, release.why) == (who, str(done))
"""


@pytest.mark.integration
def test_eight_writers_at_once_leave_one_champion_and_a_whole_history(artifacts):
    writers = [python(WRITER, artifacts, f"writer-{number}") for number in range(8)]
    for writer in writers:
        _, err = writer.communicate(timeout=300)
        assert writer.returncode == 0, err
    releases = read_journal(artifacts)  # checks numbers, chain and head
    assert len(releases) == 8 * 50
    for number in range(8):  # nobody's line is lost, and each one's are in the order of writing
        mine = [release.why for release in releases if release.who == f"writer-{number}"]
        assert mine == [str(done) for done in range(50)]
    models = [release.model_sha256 for release in releases]
    assert all(a != b for a, b in pairwise(models))
    assert champion(artifacts) == releases[-1]
    assert previous(artifacts) == releases[-2]
    assert champion_model(artifacts).parent.parent.name == releases[-1].run


# --- killed writers ---

KILLED = """
import os, random, signal, sys
from pathlib import Path
from mnist_nbdev.registry.journal import champion, read_journal
from mnist_nbdev.registry.promotion import promote, rollback
from mnist_nbdev.runs.run import Run

artifacts, trials = Path(sys.argv[1]), int(sys.argv[2])
files = [artifacts / "registry" / name for name in ("journal.jsonl", "head.json")]
first, second = (Run(artifacts / "runs" / name) for name in ("first", "second"))


def fine(run):
    pass


def work(action):
    if action == "rollback":
        rollback(artifacts, fine, "child")
    else:
        promote(artifacts, second, fine, "child")


def in_child(action, moment):
    # Do it in a process that dies at its event number `moment`; return its number of events.
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        count = 0

        def hook(frame, event, argument):
            nonlocal count
            count += 1
            if count == moment:
                os.kill(os.getpid(), signal.SIGKILL)

        try:
            sys.setprofile(hook)
            work(action)
            sys.setprofile(None)
            os.write(writer, str(count).encode())
        finally:
            os.kill(os.getpid(), signal.SIGKILL)
    os.close(writer)
    said = os.read(reader, 20)
    os.close(reader)
    os.waitpid(child, 0)
    return int(said or 0)


for run in (first, second, first):
    promote(artifacts, run, fine, "parent")
start = [file.read_bytes() for file in files]
chance = random.Random(0)
happened, events = 0, {}
for trial in range(trials):
    action = ("promote", "rollback")[trial % 2]
    if trial < 2:  # how many events there are when nobody kills it
        events[action] = in_child(action, 0)
        assert events[action] > 100, events
    else:
        in_child(action, chance.randint(1, events[action]))
    releases = read_journal(artifacts)
    assert len(releases) in (3, 4), len(releases)
    happened += len(releases) == 4
    if len(releases) == 4:
        assert (releases[-1].action, champion(artifacts).run) == (action, "second")
    else:
        assert champion(artifacts).run == "first"
    promote(artifacts, first if len(releases) == 4 else second, fine, "next")
    after = read_journal(artifacts)
    assert after[:-1] == releases and after[-1].who == "next"
    for file, content in zip(files, start):
        file.write_bytes(content)
promote(artifacts, second, fine, "last")
print(trials, happened)
"""


@pytest.mark.integration
@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_a_writer_killed_at_any_moment_leaves_a_whole_history(artifacts):
    process = python(KILLED, artifacts, "120")
    out, err = process.communicate(timeout=300)
    assert process.returncode == 0, err
    trials, happened = map(int, out.split())
    assert 2 < happened < trials  # some died before their line was written, some after
    assert champion(artifacts).who == "last"
    assert not list((artifacts / "registry").glob(".tmp-*"))  # the last writer swept


@pytest.mark.unit
def test_a_line_half_written_does_not_count_and_is_removed(artifacts):
    lines = release_some(artifacts, 2)
    releases = read_journal(artifacts)
    coming = next_release(releases, "promote", "third", ("a" * 64, "b" * 64), "mia")
    for length in range(len(coming.line)):
        journal_of(artifacts).write_bytes(b"".join(lines) + coming.line[:length])
        assert read_journal(artifacts) == releases
    release = promote(artifacts, Run(artifacts / "runs" / "third"), holds, "mia")
    assert journal_of(artifacts).read_bytes() == b"".join(lines) + release.line


@pytest.mark.unit
def test_a_writer_killed_before_the_head_was_written_has_released(artifacts):
    release_some(artifacts, 2)
    head = (artifacts / "registry" / HEAD).read_bytes()
    third = promote(artifacts, Run(artifacts / "runs" / "third"), holds, "mia")
    write_bytes(artifacts / "registry" / HEAD, head)  # as it was before
    assert champion(artifacts) == third
    assert promote(artifacts, Run(artifacts / "runs" / "first"), holds, "mia").sequence == 4
    assert len(read_journal(artifacts)) == 4


# --- a journal in wrong hands ---


@pytest.mark.security
def test_every_change_of_the_journal_is_noticed_and_named(artifacts):
    lines = release_some(artifacts)
    path = journal_of(artifacts)

    def complaint(*tampered: bytes) -> int:
        "Which line the error names."
        path.write_bytes(b"".join(tampered))
        with pytest.raises(PipelineError, match=r"^Line \d+ of registry/journal") as caught:
            champion(artifacts)
        return int(str(caught.value).split()[1])

    for number in range(len(lines)):
        before, line, after = lines[:number], lines[number], lines[number + 1 :]
        near = (number + 1, number + 2)  # the line itself, or the next one, which no longer fits
        assert complaint(*before, line.replace(b"mia", b"max"), *after) in near
        assert complaint(*before, line.replace(b'"who"', b' "who"'), *after) == number + 1
        assert complaint(*before, b"\n", *after) == number + 1
        assert complaint(*before, *after) == number + 1  # removed
        assert complaint(*before, line, line, *after) == number + 2  # doubled
        assert complaint(*before, b"noise\r", line, *after) == number + 1
        assert complaint(*before) == number + 1  # this line and all later ones removed
        assert complaint(*before, line[: len(line) // 2]) == number + 1
        if after:
            assert complaint(*before, after[0], line, *after[1:]) == number + 1  # swapped
    assert complaint(*lines, b"not a line\n") == len(lines) + 1


@pytest.mark.security
def test_every_single_flipped_bit_of_the_journal_is_noticed(artifacts):
    whole = b"".join(release_some(artifacts, 3))
    chance = random.Random(0)
    for position in chance.sample(range(len(whole)), 200):
        damaged = bytearray(whole)
        damaged[position] ^= 1 << chance.randrange(8)
        journal_of(artifacts).write_bytes(damaged)
        with pytest.raises(PipelineError, match=r"^Line \d+"):
            read_journal(artifacts)


@pytest.mark.security
def test_a_whole_new_past_is_betrayed_by_the_head(artifacts):
    release_some(artifacts)
    invented = []
    for release in read_journal(artifacts):
        forged = replace(release, who="max", before=invented[-1].sha256 if invented else "")
        invented.append(forged)
    check_chain(invented)  # the chain itself is perfect
    journal_of(artifacts).write_bytes(b"".join(release.line for release in invented))
    with pytest.raises(PipelineError, match=r"Line 5 .* does not match the hash in head\.json"):
        read_journal(artifacts)


@pytest.mark.security
@pytest.mark.parametrize(
    ("damage", "said"),
    [
        (lambda head: head.unlink(), "Line 5 .* cannot be checked"),
        (lambda head: head.write_text("{}"), "does not match its own SHA-256"),
        (lambda head: head.write_text(head.read_text().replace("5", "4", 1)), "does not match"),
        (lambda head: head.write_bytes(b"\xff"), "is not valid JSON"),
    ],
)
def test_a_damaged_head_is_noticed(artifacts, damage, said):
    release_some(artifacts)
    damage(artifacts / "registry" / HEAD)
    with pytest.raises(PipelineError, match=said):
        champion(artifacts)


@pytest.mark.security
def test_nothing_is_written_to_a_broken_journal(artifacts):
    lines = release_some(artifacts)
    broken = b"".join(lines[:2] + lines[3:])
    journal_of(artifacts).write_bytes(broken)
    for attempt in (
        lambda: promote(artifacts, Run(artifacts / "runs" / "first"), holds),
        lambda: rollback(artifacts, holds),
        lambda: champion_model(artifacts),
    ):
        with pytest.raises(PipelineError, match="Line 3 "):
            attempt()
    assert journal_of(artifacts).read_bytes() == broken


@pytest.mark.security
def test_a_changed_or_missing_model_of_the_champion_is_refused(artifacts):
    release_some(artifacts, 1)
    model = artifacts / "runs" / "first" / "models" / "model.onnx"
    assert champion_model(artifacts) == model
    good = model.read_bytes()
    for damaged in (good[:-1], good + b"\0", bytes([good[0] ^ 1]) + good[1:], b""):
        model.write_bytes(damaged)
        with pytest.raises(PipelineError, match="is not the model that was released"):
            champion_model(artifacts)
    # A manifest that fits the damage helps nothing.
    write_manifest(Run(artifacts / "runs" / "first"))
    with pytest.raises(PipelineError, match="is not the model that was released"):
        champion_model(artifacts)
    model.unlink()
    with pytest.raises(PipelineError, match="is missing"):
        champion_model(artifacts)


# --- the way back ---


@pytest.mark.unit
def test_rollbacks_walk_back_through_what_stood_before(artifacts):
    release_some(artifacts, 4)  # first, second, third, first
    went = [rollback(artifacts, holds).run for _ in range(3)]
    assert went == ["third", "second", "first"]
    with pytest.raises(PipelineError, match="no release to go back to"):
        rollback(artifacts, holds)
    promote(artifacts, Run(artifacts / "runs" / "third"), holds)
    assert (champion(artifacts).run, previous(artifacts).run) == ("third", "first")
    assert len(read_journal(artifacts)) == 4 + 3 + 1


@pytest.mark.unit
def test_a_random_history_agrees_with_a_pile_of_names(artifacts):
    chance = random.Random(0)
    pile: list[str] = []
    for _ in range(40):
        if chance.random() < 0.4 and len(pile) > 1:
            pile.pop()
            assert rollback(artifacts, holds, "mia").run == pile[-1]
        else:
            name = chance.choice(RUNS)
            promote(artifacts, Run(artifacts / "runs" / name), holds, "mia")
            pile += [name] if not pile or pile[-1] != name else []
        assert [release.run for release in standing_releases(read_journal(artifacts))] == pile


# --- a moved folder, and MLflow ---


@pytest.mark.unit
def test_the_journal_names_no_place_on_a_disk(artifacts, tmp_path):
    release_some(artifacts, 2)
    assert str(tmp_path) not in journal_of(artifacts).read_text()
    moved = tmp_path / "elsewhere" / "artifacts"
    moved.parent.mkdir()
    artifacts.rename(moved)
    assert champion_model(moved) == moved / "runs" / "second" / "models" / "model.onnx"
    assert rollback(moved, holds).run == "first"
    assert champion_model(moved) == moved / "runs" / "first" / "models" / "model.onnx"


def aliased(artifacts: Path) -> dict[str, str]:
    "Which run each alias leads to in MLflow."
    with mlflow_client(artifacts) as client:
        aliases = client.get_registered_model(MODEL_NAME).aliases
        return {
            alias: client.get_model_version(MODEL_NAME, str(version)).tags["mnist_nbdev.run"]
            for alias, version in aliases.items()
        }


@pytest.mark.integration
def test_aliases_are_repaired_from_the_journal_also_in_a_moved_folder(artifacts, tmp_path):
    release_some(artifacts, 3)
    found = sync_aliases(artifacts)
    assert aliased(artifacts) == {"champion": "third", "previous": "second"}
    with mlflow_client(artifacts) as client:  # somebody moves one and removes the other
        client.set_registered_model_alias(MODEL_NAME, "champion", found["previous"])
        client.delete_registered_model_alias(MODEL_NAME, "previous")
    assert sync_aliases(artifacts) == found
    assert aliased(artifacts) == {"champion": "third", "previous": "second"}
    rollback(artifacts, holds)
    rollback(artifacts, holds)
    moved = tmp_path / "elsewhere"
    artifacts.rename(moved)
    assert sync_aliases(moved).keys() == {"champion"}
    assert aliased(moved) == {"champion": "first"}


@pytest.mark.integration
def test_a_run_is_tracked_once_and_its_version_names_its_evidence(artifacts):
    run = artifacts / "runs" / "first"
    key = track_run(Run(run))
    assert [track_run(Run(run)) for _ in range(2)] == [key, key]
    with mlflow_client(artifacts) as client:
        experiment = client.get_experiment_by_name(MODEL_NAME).experiment_id
        assert [row.info.run_id for row in client.search_runs([experiment])] == [key]
        (version,) = client.search_model_versions(f"name = '{MODEL_NAME}'")
    assert version.tags["mnist_nbdev.manifest_sha256"] == sha256_file(run / "manifest.json")
    assert version.tags["mnist_nbdev.folder"] == "runs/first"
    assert version.source == f"runs:/{key}/models"


@pytest.mark.integration
def test_a_run_that_was_logged_half_is_completed(artifacts):
    run = artifacts / "runs" / "first"
    key = track_run(Run(run))
    with mlflow_client(artifacts) as client:
        client.update_run(key, status="RUNNING")
    assert track_run(Run(run)) == key
    with mlflow_client(artifacts) as client:
        assert client.get_run(key).info.status == "FINISHED"
        assert len(client.get_metric_history(key, "accuracy")) == 1


@pytest.mark.integration
def test_a_server_that_does_not_answer_costs_a_warning_not_the_release(
    artifacts, monkeypatch, caplog
):
    release_some(artifacts, 2)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:9")  # nobody listens there
    monkeypatch.setattr(logging.getLogger("mnist_nbdev"), "propagate", True)
    assert sync_registry(artifacts, [Run(artifacts / "runs" / "second")]) == {}
    assert "MLflow could not be updated" in caplog.text
    assert "registry list --sync" in caplog.text
    assert champion(artifacts).run == "second"
    monkeypatch.delenv("MLFLOW_TRACKING_URI")
    assert sync_registry(artifacts).keys() == {"champion", "previous"}


@pytest.mark.integration
def test_the_commands_tell_the_story(artifacts, tmp_path):
    release_some(artifacts, 3)
    ended = call("registry", "history", "--json", folder=tmp_path)
    assert ended.code == 0, ended.err
    assert [row["run"] for row in ended.json] == list(RUNS)
    assert {row["evidence"] for row in ended.json} == {"unchanged"}
    last = read_journal(artifacts)[-1].sha256
    assert last in call("registry", "history", folder=tmp_path).err
    ended = call("registry", "list", "--json", folder=tmp_path)
    assert [row["run"] for row in ended.json] == ["third", "second", "first"]
    lines = journal_of(artifacts).read_bytes().splitlines(keepends=True)
    journal_of(artifacts).write_bytes(b"".join(lines[:-1]))
    ended = call("registry", "history", folder=tmp_path)
    assert (ended.code, ended.out) == (1, "")
    assert "Line 3 of registry/journal.jsonl is missing: the journal had 3 lines" in ended.err
    assert "Traceback" not in ended.err


@pytest.mark.integration
def test_the_registry_is_read_without_mlflow_or_torch(artifacts):
    release_some(artifacts, 1)
    script = (
        "import json, sys; from mnist_nbdev.registry.promotion import champion_model; "
        "champion_model(sys.argv[1]); print(json.dumps(list(sys.modules)))"
    )
    out, err = python(script, artifacts).communicate(timeout=60)
    loaded = set(json.loads(out or "[]"))
    assert "mnist_nbdev.registry.promotion" in loaded, err
    assert not loaded & {"mlflow", "torch", "sqlalchemy"}
