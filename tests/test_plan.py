"""The plan of a test set: the gate's own bounds, for any number of images and classes."""

import json
import re

import pytest
from commands import call
from hypothesis import given, settings
from hypothesis import strategies as st

from mnist_nbdev.base.settings import ReleaseThresholds, Settings
from mnist_nbdev.gate.checks import check_accuracy, check_class_recall
from mnist_nbdev.gate.evidence import Counts, good_evidence
from mnist_nbdev.gate.plan import plan_notes, plan_test_set

pytestmark = pytest.mark.unit

PLAN = ("gate", "plan", "--classes", "4", "--test", "1200", "--at", "0.95")
fractions = st.integers(0, 1000).map(lambda thousandths: thousandths / 1000)


@settings(max_examples=60, deadline=None)
@given(
    n_classes=st.integers(2, 30),
    per_class=st.integers(1, 3000),
    accuracy=fractions,
    required=fractions,
    confidence=st.sampled_from([0.5, 0.95, 0.999]),
)
def test_a_plan_is_what_the_checks_decide(n_classes, per_class, accuracy, required, confidence):
    thresholds = ReleaseThresholds(
        min_accuracy=required, min_class_recall=required, confidence=confidence
    )
    plan = plan_test_set(n_classes, n_classes * per_class, accuracy, thresholds)
    n_overall, n_class = (row.n_correct for row in plan)
    names = [str(number) for number in range(n_classes)]
    whole = {names[0]: Counts(n_correct=n_overall, n_images=plan[0].n_images)}
    whole |= dict.fromkeys(names[1:], Counts(n_correct=0, n_images=0))
    equal = dict.fromkeys(names, Counts(n_correct=n_class, n_images=per_class))
    decided = (
        check_accuracy(good_evidence(classes=whole), thresholds),
        check_class_recall(good_evidence(classes=equal), thresholds),
    )
    for row, check in zip(plan, decided, strict=True):
        assert (row.lower, row.required) == (check.value, check.threshold)
        assert row.shown == (check.outcome == "passed") == (row.n_more == 0)
        if row.n_more is None:
            assert accuracy <= required
    assert all(note.endswith(".") for note in plan_notes(plan, accuracy))


@settings(max_examples=40, deadline=None)
@given(n_images=st.integers(4, 5000), accuracy=st.integers(905, 1000))
def test_so_many_more_images_show_what_is_required(n_images, accuracy):
    thresholds = ReleaseThresholds(min_accuracy=0.9, min_class_recall=0.9)
    for place, row in enumerate(plan_test_set(4, n_images, accuracy / 1000, thresholds)):
        then = plan_test_set(4, n_images + row.n_more, accuracy / 1000, thresholds)
        assert then[place].shown


@pytest.mark.parametrize("n_images", [4, 7])
def test_one_image_a_class_shows_nothing_and_is_called_few(n_images):
    plan = plan_test_set(4, n_images, 0.95, Settings().release_thresholds)
    assert (plan[1].n_images, plan[1].n_correct, plan[1].lower) == (1, 0, 0)
    assert any(note.startswith("Few images a class") for note in plan_notes(plan, 0.95))
    many = plan_test_set(4, 400, 0.95, Settings().release_thresholds)
    assert not any(note.startswith("Few images a class") for note in plan_notes(many, 0.95))


def test_the_table_is_aligned_and_as_json_it_has_the_same_rows(tmp_path):
    ended = call(*PLAN, folder=tmp_path)
    assert (ended.code, ended.err) == (0, "")
    head, overall, each_class = ended.out.splitlines()[:3]
    assert len(head) == len(overall) == len(each_class)
    assert overall.split() == ["overall", "1,200", "1,140", "93.83%", "99.00%", "never"]
    rows = json.loads(call(*PLAN, "--json", folder=tmp_path).out)["requirements"]
    assert [row["n_more"] for row in rows] == [None, None]
    assert [row["n_images"] for row in rows] == [1200, 300]
    assert list(tmp_path.iterdir()) == []


def test_the_thresholds_are_those_of_the_settings(tmp_path):
    (tmp_path / "easy.yaml").write_text("release_thresholds: {min_accuracy: 0.9, confidence: 0.9}")
    flags = ("--config", "easy.yaml", "--set", "release_thresholds.min_class_recall=0.92")
    rows = json.loads(call(*PLAN, *flags, "--json", folder=tmp_path).out)["requirements"]
    assert [row["required"] for row in rows] == [0.9, 0.92]
    assert [row["confidence"] for row in rows] == pytest.approx([0.9, 0.975])
    assert (rows[0]["shown"], rows[0]["n_more"], rows[1]["shown"]) == (True, 0, False)
    assert rows[1]["n_more"] > 0


def test_without_a_threshold_the_bounds_are_shown_and_nothing_is_required(tmp_path):
    own = ("--set", "data.source=npz", "--set", "data.path=a.npz")
    ended = call(*PLAN, *own, folder=tmp_path)
    assert ended.code == 0
    assert re.search(r"overall +1,200 +1,140 +93\.83% +- +-", ended.out)
    assert "nothing is required" in ended.out
