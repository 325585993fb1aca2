"""Everything that the library writes, killed at each single operation on the disk, and refused by
the system at each: what stood there is whole, what is new is whole, and the second try works.
"""

import errno
import json
import os
import signal
import traceback
from typing import NamedTuple

import numpy as np
import pytest
from injection import Plan, install

from mnist_nbdev.base.files import (
    PipelineError,
    UsageError,
    copy_file,
    exclusive_lock,
    read_sealed_json,
    remove_temp_files,
    replace_link,
    write_json,
    write_sealed_json,
    write_text,
)
from mnist_nbdev.base.loading import resolve_settings
from mnist_nbdev.base.logs import rotate_log
from mnist_nbdev.gate.evaluation import load_predictions, save_predictions
from mnist_nbdev.model.network import build_model, load_model, save_model
from mnist_nbdev.registry.journal import champion
from mnist_nbdev.registry.promotion import promote
from mnist_nbdev.registry.verification import changed_files
from mnist_nbdev.runs.ledger import record_evaluation
from mnist_nbdev.runs.reuse import read_stage_record, write_stage_record
from mnist_nbdev.runs.run import Run, create_run, list_runs, write_manifest
from mnist_nbdev.runs.stages import STAGES

pytestmark = [
    pytest.mark.integration,
    pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork"),
]
REFUSALS = ("ENOSPC", "EIO", "EACCES", "EROFS", "EDQUOT")


class Text:
    "A file that is rewritten."

    def before(self, folder):
        write_text(folder / "a.txt", "before")

    def act(self, folder):
        write_text(folder / "a.txt", "after")

    def state(self, folder):
        return (folder / "a.txt").read_text()


class Sealed(Text):
    "A sealed record."

    def before(self, folder):
        write_sealed_json(folder / "a.json", {"value": "before"})

    def act(self, folder):
        write_sealed_json(folder / "a.json", {"value": "after"})

    def state(self, folder):
        return read_sealed_json(folder / "a.json")["value"]


class Copy(Text):
    "A file that is reused from another run."

    def act(self, folder):
        write_text(folder / "b.txt", "after")
        copy_file(folder / "b.txt", folder / "a.txt")


class Link:
    "The link to the newest run."

    def before(self, folder):
        for name in ("before", "after"):
            (folder / name).mkdir()
        replace_link(folder / "latest", folder / "before")

    def act(self, folder):
        replace_link(folder / "latest", folder / "after")

    def state(self, folder):
        return (folder / "latest").resolve().name


class Locked(Text):
    "A file that is written under a lock."

    def act(self, folder):
        with exclusive_lock(folder / "a.lock", "The file a.txt"):
            super().act(folder)


class Predictions:
    "The predictions for all test images."

    labels = (np.arange(20) % 10).astype(np.uint8)

    def save(self, folder, sureness):
        probabilities = np.full((20, 10), (1 - sureness) / 9, np.float32)
        probabilities[np.arange(20), self.labels] = sureness
        save_predictions(folder / "p.npz", self.labels, probabilities)

    def before(self, folder):
        self.save(folder, 0.5)

    def act(self, folder):
        self.save(folder, 0.75)

    def state(self, folder):
        return {0.5: "before", 0.75: "after"}[float(load_predictions(folder / "p.npz")[1].max())]


class Model:
    "Weights and their description: two files, of which a mixture is refused."

    settings = resolve_settings(preset="debug", environment={}).settings.model

    def save(self, folder, seed):
        save_model(build_model(self.settings, seed), self.settings, folder / "models", seed=seed)

    def before(self, folder):
        self.save(folder, 1)

    def act(self, folder):
        self.save(folder, 2)

    def state(self, folder):
        try:
            load_model(folder / "models")
        except PipelineError as error:
            named = "is not the file that model.json describes" in str(error)
            return "refused" if named else str(error)
        return {1: "before", 2: "after"}[
            read_sealed_json(folder / "models/model.json")["facts"]["seed"]
        ]


class Ledger:
    "The ledger of test-set evaluations."

    def before(self, folder):
        record_evaluation(folder, "images", "first", "a-run")

    def act(self, folder):
        record_evaluation(folder, "images", "second", "a-run")

    def state(self, folder):
        return ("before", "after")[len((folder / "looks.jsonl").read_text().splitlines()) - 1]


class Manifest:
    "The manifest that closes a run."

    def before(self, folder):
        write_text(folder / "run/a.txt", "a")
        write_text(folder / "run/b.txt", "b")

    def act(self, folder):
        remove_temp_files(folder / "run")
        write_manifest(Run(folder / "run"))

    def state(self, folder):
        if not Run(folder / "run").is_finished:
            return "before"
        stray = [line for line in changed_files(Run(folder / "run")) if ".tmp-" not in line]
        return "after" if not stray else str(stray)


class StageRecord:
    "What a stage depended on and left."

    def before(self, folder):
        create_run(
            folder / "run", resolve_settings(preset="debug", environment={}), {"mode": "train"}
        )
        write_text(folder / "run/notebooks/1_data.ipynb", "{}\n")
        write_sealed_json(folder / "run/data/dataset.json", {"a": 1})

    def act(self, folder):
        write_stage_record(Run(folder / "run"), STAGES["1_data"], {"a": 1}, {}, "no earlier run")

    def state(self, folder):
        record = read_stage_record(Run(folder / "run"), "1_data")
        return "before" if record is None else "after"


class NewRun:
    "The folder of a run that begins."

    def before(self, folder):
        (folder / "runs").mkdir()

    def act(self, folder):
        resolved = resolve_settings(preset="debug", environment={})
        try:
            create_run(folder / "runs/a", resolved, {"mode": "pipeline"})
        except UsageError:
            assert self.state(folder) == "after"  # it had begun

    def state(self, folder):
        begun = list_runs(folder / "runs")
        return "after" if begun and begun[0].settings.seed == 0 else "before"


class Release:
    "A promotion in the registry."

    def before(self, folder):
        for name in ("first", "second"):
            write_text(folder / "runs" / name / "models/model.onnx", name)
            write_json(folder / "runs" / name / "decision.json", {"status": "approved"})
            write_manifest(Run(folder / "runs" / name))
        promote(folder, Run(folder / "runs/first"), lambda run: None)

    def act(self, folder):
        promote(folder, Run(folder / "runs/second"), lambda run: None)

    def state(self, folder):
        return {"first": "before", "second": "after"}[champion(folder).run]


class Log:
    "A log that is moved aside."

    def before(self, folder):
        write_text(folder / "a.log", "a line\n" * 100)

    def act(self, folder):
        rotate_log(folder / "a.log", 10, 3)

    def state(self, folder):
        found = [path for path in folder.glob("a.log*") if path.suffix != ".lock"]
        lines = [path.read_text() for path in found if "holder" not in path.name]
        assert lines == ["a line\n" * 100]
        return "after" if (folder / "a.log.1").exists() else "before"


STORIES = (Text, Sealed, Copy, Link, Locked, Predictions, Model, Ledger, Manifest, StageRecord)
STORIES += (NewRun, Release, Log)


class Ended(NamedTuple):
    signalled: bool
    said: str  # the class and the message of what was raised, or "done"


def in_child(story, folder, plan) -> Ended:
    "Do it in a process of its own, where the fault happens."
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        said = "done"
        try:
            os.close(reader)
            install(plan)
            story.act(folder)
        except PipelineError as error:
            said = f"PipelineError: {error}"
        except BaseException:
            said = traceback.format_exc()
        os.write(writer, json.dumps(said).encode()[:60_000])
        os._exit(0)
    os.close(writer)
    with open(reader, "rb") as pipe:
        said = pipe.read()
    _, status = os.waitpid(child, 0)
    killed = os.WIFSIGNALED(status) and os.WTERMSIG(status) == signal.SIGKILL
    return Ended(killed, json.loads(said) if said else "")


def operations(story, tmp_path) -> int:
    folder = tmp_path / "counted"
    folder.mkdir()
    story.before(folder)
    plan = Plan("count", 0, str(folder), str(tmp_path / "operations"))
    ended = in_child(story, folder, plan)
    assert ended == (False, "done")
    assert story.state(folder) == "after"
    assert plan.count > 2
    return plan.count


def try_again(story, folder) -> str:
    "What goes wrong when the same is done once more, by whoever comes next."
    try:
        story.act(folder)
    except PipelineError as error:
        return f"the second try failed: {error}"
    remove_temp_files(folder)
    if story.state(folder) != "after":
        return f"after the second try: {story.state(folder)}"
    left = [path.name for path in folder.rglob(".tmp-*") if path.is_file()]
    return f"left behind: {left}" if left else ""


@pytest.mark.parametrize("kind", STORIES, ids=lambda kind: kind.__name__)
def test_killed_at_each_operation_nothing_is_half_written(kind, tmp_path, tally):
    story = kind()
    for moment in range(1, operations(story, tmp_path) + 1):
        folder = tmp_path / f"killed-{moment}"
        folder.mkdir()
        story.before(folder)
        plan = Plan("kill", moment, str(folder), str(tmp_path / f"counter-{moment}"))
        ended = in_child(story, folder, plan)
        assert ended.signalled, ended
        state = story.state(folder)
        lost = "" if state in ("before", "after", "refused") else f"at {moment}: {state}"
        tally.add("killed at each write", lost or try_again(story, folder))


@pytest.mark.parametrize("kind", STORIES, ids=lambda kind: kind.__name__)
def test_refused_at_each_operation_the_old_file_stays_and_the_error_says_why(
    kind, tmp_path, tally, many
):
    story = kind()
    for moment in range(1, operations(story, tmp_path) + 1):
        for refusal in REFUSALS[: many(1, 5, ci=2)]:
            folder = tmp_path / f"{refusal}-{moment}"
            folder.mkdir()
            story.before(folder)
            plan = Plan(refusal, moment, str(folder), str(tmp_path / f"{refusal}-{moment}.count"))
            ended = in_child(story, folder, plan)
            assert not ended.signalled
            lost = ""
            if ended.said.startswith("PipelineError: Nothing was released") and (
                story.state(folder) != "before"
            ):
                lost = f"{refusal} at {moment}: released, although it says that nothing was"
            elif ended.said != "done" and not ended.said.startswith("PipelineError"):
                lost = f"{refusal} at {moment}: {ended.said}"
            elif ended.said != "done" and not names_cause(ended.said, refusal):
                lost = f"{refusal} at {moment} is not named: {ended.said}"
            elif ended.said == "done" and story.state(folder) != "after":
                lost = f"{refusal} at {moment}: {story.state(folder)}, and no error was raised"
            elif story.state(folder) not in ("before", "after", "refused"):
                lost = f"{refusal} at {moment}: {story.state(folder)}"
            tally.add("a system error at each write", lost or try_again(story, folder))


def names_cause(said: str, refusal: str) -> bool:
    taken = refusal == "EACCES" and "is in use by" in said  # so POSIX refuses a lock that is held
    return taken or os.strerror(getattr(errno, refusal)) in said
