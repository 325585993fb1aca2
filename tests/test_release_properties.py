"Whatever the evidence is, the decision is made, and only good evidence releases a model."

import json
import math
from copy import deepcopy
from fractions import Fraction

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from scipy.stats import binom

from mnist_nbdev.config import ReleaseThresholds
from mnist_nbdev.release import (
    CHECKS,
    clopper_pearson_bounds,
    decide,
    decision_json,
    decision_table,
    images_needed,
)

pytestmark = pytest.mark.unit

THRESHOLDS = ReleaseThresholds()
DIGITS = [str(digit) for digit in range(10)]

scalars = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.sampled_from([10**9 + 1, 9951, 10_000])
    | st.integers(4000, 6000).map(lambda digits: 10**digits)  # more digits than Python prints
    | st.floats(allow_nan=True, allow_infinity=True)
    | st.text(max_size=20)
    | st.sampled_from(["mnist", "sample", "nan", "0.99", "\ud800", "a|b\n<b>", b"mnist", 1j])
    | st.fractions()
)
anything = st.recursive(
    scalars,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner),
    max_leaves=8,
)


def evidence_of(counts, **changed):
    "Evidence that agrees with itself, from the counts of each digit."
    return {
        "accuracy": {
            "n_correct": sum(right for right, _ in counts),
            "n_images": sum(images for _, images in counts),
        },
        "class_recall": {
            digit: {"n_correct": right, "n_images": images}
            for digit, (right, images) in zip(DIGITS, counts, strict=True)
        },
        "inference_time_ms": 20.0,
        "model_size_mb": 1.7,
        "data": {"source": "mnist", "verified": True, "n_test_images": 10_000},
        "files": {"models/model.onnx": True, "evaluation/predictions.npz": True},
    } | changed


@st.composite
def good_evidence(draw):
    "Around the thresholds, so that every outcome comes up."
    counts = [(1000 - draw(st.integers(0, 35)), 1000) for _ in DIGITS]
    return evidence_of(
        counts,
        inference_time_ms=draw(st.floats(1, 120)),
        model_size_mb=draw(st.floats(0.1, 12)),
    )


def paths(value, path=()):
    "Where each part of nested dictionaries is."
    if path:
        yield path
    if isinstance(value, dict):
        for name, inner in value.items():
            yield from paths(inner, (*path, name))


@st.composite
def spoilt_evidence(draw):
    "Good evidence with a part or two replaced or removed."
    evidence = draw(good_evidence())
    for _ in range(draw(st.integers(1, 2))):
        *parents, last = draw(st.sampled_from(list(paths(evidence)) or [("accuracy",)]))
        part = evidence
        for name in parents:
            part = part[name]
        if draw(st.booleans()):
            part.pop(last, None)
        else:
            part[last] = draw(anything)
    return evidence


def is_count(value):
    return type(value) is int and 0 <= value <= 10**9


def is_measured(value, limit):
    if isinstance(value, bool) or not isinstance(value, int | float | Fraction):
        return False
    return 0 < value <= limit and (not isinstance(value, float) or math.isfinite(value))


def may_be_released(evidence, thresholds=THRESHOLDS):
    "The rules once more, written without a look at how the library keeps them."
    try:
        total, data = evidence["accuracy"], evidence["data"]
        right, images = total["n_correct"], total["n_images"]
        classes = [evidence["class_recall"][digit] for digit in DIGITS]
        pairs = [(row["n_correct"], row["n_images"]) for row in classes]
        return (
            all(is_count(number) for pair in [*pairs, (right, images)] for number in pair)
            and all(n > 0 and k <= n for k, n in pairs)
            and (right, images) == tuple(map(sum, zip(*pairs, strict=True)))
            # the bound reaches the threshold exactly when so many right would be this improbable
            and binom.sf(right - 1, images, thresholds.min_accuracy) <= 1 - thresholds.confidence
            and all(k / n >= thresholds.min_class_recall for k, n in pairs)
            and is_measured(evidence["inference_time_ms"], thresholds.max_inference_time_ms)
            and is_measured(evidence["model_size_mb"], thresholds.max_model_size_mb)
            and data["source"] == "mnist"
            and data["verified"] is True
            and data["n_test_images"] == images == 10_000
            and len(evidence["files"]) > 0
            and all(present is True for present in evidence["files"].values())
        )
    except (KeyError, TypeError, AttributeError, IndexError):
        return False


def well_formed(decision):
    outcomes = [check.outcome for check in decision.checks]
    assert len(outcomes) == len(CHECKS)
    assert (decision.status == "approved") == all(outcome == "passed" for outcome in outcomes)
    assert set(outcomes) <= {"passed", "failed", "insufficient"}
    for check in decision.checks:
        assert check.why.endswith(".")
        assert check.value is not None or check.outcome != "passed"
    text = json.dumps(decision_json(decision), allow_nan=False, ensure_ascii=False)
    assert json.loads(text.encode()) == decision_json(decision)
    table = decision_table(decision).splitlines()
    assert len(table) == 2 + len(CHECKS)
    assert all(line.count("|") == 4 and "<" not in line for line in table)


@given(good_evidence() | spoilt_evidence())
@settings(max_examples=400, deadline=None)
def test_approved_exactly_when_all_is_right(evidence):
    before = deepcopy(evidence)
    decision = decide(evidence, THRESHOLDS)
    well_formed(decision)
    assert (decision.status == "approved") == may_be_released(evidence)
    assert evidence == before  # looked at, not changed


@given(anything)
@example({})
@example({"files": {1: True, None: False, ("a",): "x"}})
@settings(max_examples=300, deadline=None)
def test_never_raises_and_never_approves_anything_else(evidence):
    decision = decide(evidence, THRESHOLDS)
    well_formed(decision)
    assert decision.status == "rejected"


@pytest.mark.parametrize(
    "huge", [10**5000, -(10**5000), Fraction(10**5000)], ids=["long", "negative", "fraction"]
)
def test_numbers_that_python_cannot_print_are_unusable(huge):
    good = evidence_of([(996, 1000)] * 10)
    for part in [{"inference_time_ms": huge}, {"model_size_mb": huge}]:
        decision = decide(good | part, THRESHOLDS)
        well_formed(decision)
        assert [check.outcome for check in decision.checks].count("insufficient") == 1
    decision = decide(good | {"accuracy": {"n_correct": huge, "n_images": huge}}, THRESHOLDS)
    assert decision.checks[0].outcome == "insufficient"


@given(
    st.lists(st.tuples(st.integers(0, 40), st.integers(0, 40)), min_size=10, max_size=10),
    st.sampled_from([0.97, 0.985, 0.99, 0.995]),
    st.sampled_from([0.5, 0.9, 0.95, 0.999]),
)
@settings(max_examples=200, deadline=None)
def test_more_right_answers_never_lose_an_approval(mistakes, min_accuracy, confidence):
    thresholds = ReleaseThresholds(min_accuracy=min_accuracy, confidence=confidence)
    worse = evidence_of([(1000 - max(pair), 1000) for pair in mistakes])
    better = evidence_of([(1000 - min(pair), 1000) for pair in mistakes])
    order = ["failed", "insufficient", "passed"]
    first, second = decide(worse, thresholds), decide(better, thresholds)
    for before, after in zip(first.checks, second.checks, strict=True):
        assert order.index(before.outcome) <= order.index(after.outcome)
    assert (first.status, second.status) != ("approved", "rejected")


@given(st.dictionaries(st.text(), anything, max_size=3))
@settings(max_examples=50, deadline=None)
def test_what_no_check_reads_is_ignored(more):
    evidence = evidence_of([(996, 1000)] * 10)
    unknown = {f"x{name}": value for name, value in more.items()}
    assert decide(evidence | unknown, THRESHOLDS) == decide(evidence, THRESHOLDS)
    assert decide(evidence, THRESHOLDS).status == "approved"


@given(
    st.floats(0, 1),
    st.sampled_from([0.0, 0.5, 0.9, 0.97, 0.99, 0.999, 1.0]),
    st.sampled_from([0.5, 0.9, 0.95, 0.999]),
)
@settings(max_examples=200, deadline=None)
def test_images_needed_is_a_number_or_none(share, threshold, confidence):
    needed = images_needed(share, threshold, confidence)
    assert needed is None or 1 <= needed <= 10**9


@given(
    st.integers(1, 10**9).flatmap(lambda n: st.tuples(st.integers(0, n), st.just(n))),
    st.floats(0.5, 1, exclude_max=True),
)
@example((1, 10**9), 0.95)
@example((10**9 - 1, 10**9), 1 - 1e-16)
@settings(max_examples=300, deadline=None)
def test_the_bounds_enclose_the_estimate(counts, confidence):
    n_correct, n_images = counts
    lower, upper = clopper_pearson_bounds(n_correct, n_images, confidence)
    assert 0 <= lower <= n_correct / n_images <= upper <= 1
    assert (lower == 0) <= (n_correct == 0 or confidence > 1 - 1e-12)
    assert (upper == 1) <= (n_correct == n_images or n_images > 10**5 or confidence > 1 - 1e-12)
