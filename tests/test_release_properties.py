"Whatever the evidence is, the decision is made, and only good evidence releases a model."

import json
import math
from copy import deepcopy
from fractions import Fraction

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from scipy.stats import binom

from mnist_nbdev.base.settings import ReleaseThresholds
from mnist_nbdev.base.statistics import clopper_pearson_bounds, images_needed
from mnist_nbdev.gate.release import CHECKS, decide, decision_json, decision_table

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


def bounds(lower, value, upper):
    return {"lower": lower, "value": value, "upper": upper, "confidence": THRESHOLDS.confidence}


def compared(pairs):
    "A champion against which a digit's answers differ so often, each way."
    return {
        "run": "a-run",
        "n_images": 10_000,
        "classes": {
            digit: {"only_champion": lost, "only_candidate": won, "n_images": 1000}
            for digit, (lost, won) in zip(DIGITS, pairs, strict=True)
        },
    }


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
        "slices": {"thin": {"n_correct": 1990, "n_images": 2000}},
        "calibration": bounds(0.001, 0.002, 0.004),
        "champion": compared([(3, 3)] * 10),
        "corruptions": {
            "accuracy": 0.9,
            "n_images": 2000,
            "regression": bounds(-0.005, 0.0, 0.005),
        },
        "batch_times_ms": [20.0] * 100,
        "model_size_mb": 1.7,
        "data": {"source": "mnist", "verified": True, "n_test_images": 10_000, "looks": 1},
        "files": {"models/model.onnx": True, "evaluation/predictions.npz": True},
    } | changed


@st.composite
def good_evidence(draw):
    "Around the thresholds, so that every outcome comes up."
    counts = [(1000 - draw(st.integers(0, 18)), 1000) for _ in DIGITS]
    n_times, n_slow = draw(st.sampled_from([58, 59, 100])), draw(st.integers(0, 2))
    kinds = {"thin": 100, "thick": 2000}
    return evidence_of(
        counts,
        slices={
            name: {"n_correct": n - draw(st.integers(0, n // 50)), "n_images": n}
            for name, n in kinds.items()
        },
        calibration=bounds(0.001, 0.004, draw(st.floats(0.001, 0.0101))),
        champion=draw(
            st.just("none")
            | st.lists(
                st.tuples(st.integers(0, 9), st.integers(0, 9)), min_size=10, max_size=10
            ).map(compared)
        ),
        corruptions={
            "accuracy": 0.9,
            "n_images": 2000,
            "regression": draw(
                st.just("none") | st.floats(-0.02, 0.011).map(lambda up: bounds(-0.02, -0.02, up))
            ),
        },
        batch_times_ms=[draw(st.floats(1, 99))] * (n_times - n_slow) + [120.0] * n_slow,
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


def is_measured(value, limit=math.inf):
    if isinstance(value, bool) or not isinstance(value, int | float | Fraction):
        return False
    return 0 < value <= limit and (not isinstance(value, float) or math.isfinite(value))


def is_bounded(part, limit, confidence):
    "Three numbers whose upper bound is within a limit."
    values = [part["lower"], part["value"], part["upper"]]
    numbers = all(isinstance(v, int | float | Fraction) and not isinstance(v, bool) for v in values)
    return (
        numbers
        and all(-1 <= value <= 1 for value in values)
        and part["confidence"] == confidence
        and part["lower"] <= part["upper"] <= limit
    )


def is_shown(pairs, required, risk):
    "So many right answers, or more, would be this improbable if each were right less often."
    return all(binom.sf(k - 1, n, required) <= risk / len(pairs) for k, n in pairs)


def is_no_worse(champion, thresholds):
    if champion == "none":
        return True
    rows = [champion["classes"][digit] for digit in DIGITS]
    pairs = [(row["only_champion"], row["only_candidate"]) for row in rows]
    n_images, risk = champion["n_images"], 1 - thresholds.confidence
    sizes = [row["n_images"] for row in rows]
    if not all(is_count(n) for n in [n_images, *sizes, *(n for pair in pairs for n in pair)]):
        return False
    lost, won = map(sum, zip(*pairs, strict=True))
    differing = lost + won
    if not n_images > 0 or sum(sizes) != n_images:
        return False
    if any(sum(pair) > size for pair, size in zip(pairs, sizes, strict=True)):
        return False
    coin = (thresholds.max_regression / 100 * n_images / max(differing, 1) + 1) / 2
    within = not differing or coin >= 1 or binom.cdf(lost, differing, coin) <= risk
    most = thresholds.max_class_regression / 100
    rows = zip(pairs, sizes, strict=True)
    return within and not any(is_worse(*pair, most * size, risk / 10) for pair, size in rows)


def is_worse(lost, won, most, risk):
    "Whether so many images lost would be too great a coincidence if `most` of them were."
    coin = (most / max(lost + won, 1) + 1) / 2
    return lost > 0 and coin < 1 and binom.sf(lost - 1, lost + won, coin) < risk


def is_quick(times, thresholds):
    if not isinstance(times, list) or not all(is_measured(time) for time in times):
        return False
    below = sum(time <= thresholds.max_inference_time_ms for time in times)
    return binom.cdf(below - 1, len(times), 0.95) >= thresholds.confidence


def may_be_released(evidence, thresholds=THRESHOLDS):
    "The rules once more, written without a look at how the library keeps them."
    risk = 1 - thresholds.confidence
    try:
        total, data, spoiled = evidence["accuracy"], evidence["data"], evidence["corruptions"]
        right, images = total["n_correct"], total["n_images"]
        classes = [evidence["class_recall"][digit] for digit in DIGITS]
        pairs = [(row["n_correct"], row["n_images"]) for row in classes]
        kinds = [(row["n_correct"], row["n_images"]) for row in evidence["slices"].values()]
        nobody = evidence["champion"] == spoiled["regression"] == "none"
        return (
            all(is_count(n) for pair in [*pairs, *kinds, (right, images)] for n in pair)
            and all(n > 0 and k <= n for k, n in pairs)
            and (right, images) == tuple(map(sum, zip(*pairs, strict=True)))
            and is_shown([(right, images)], thresholds.min_accuracy, risk)
            and is_shown(pairs, thresholds.min_class_recall, risk)
            and len(kinds) > 0
            and all(n >= 100 and k <= n for k, n in kinds)
            and is_shown(kinds, thresholds.min_slice_accuracy, risk)
            and is_bounded(
                evidence["calibration"], thresholds.max_calibration_error, thresholds.confidence
            )
            and is_no_worse(evidence["champion"], thresholds)
            and isinstance(spoiled["accuracy"], int | float | Fraction)
            and not isinstance(spoiled["accuracy"], bool)
            and 0 <= spoiled["accuracy"] <= 1
            and is_count(spoiled["n_images"])
            and spoiled["n_images"] > 0
            and (
                nobody
                or is_bounded(
                    spoiled["regression"],
                    thresholds.max_corruption_regression / 100,
                    thresholds.confidence,
                )
            )
            and is_quick(evidence["batch_times_ms"], thresholds)
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
    for part in [{"batch_times_ms": [huge] * 100}, {"model_size_mb": huge}]:
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
