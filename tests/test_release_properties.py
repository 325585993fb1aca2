"Whatever the evidence is, the decision is made, and only good evidence releases a model."

import json

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from pydantic import ValidationError
from scipy.stats import binom

from mnist_nbdev.base.settings import ReleaseThresholds, Settings
from mnist_nbdev.base.statistics import clopper_pearson_bounds, images_needed
from mnist_nbdev.data.spec import MNIST_SPEC
from mnist_nbdev.gate.checks import CHECKS
from mnist_nbdev.gate.evidence import Evidence, good_evidence
from mnist_nbdev.gate.release import decide, decision_json, decision_table

pytestmark = pytest.mark.unit

THRESHOLDS = Settings().release_thresholds
PARTS = list(Evidence.model_fields)

scalars = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.sampled_from([10**9 + 1, 9951, 10_000])
    | st.integers(4000, 6000).map(lambda digits: 10**digits)  # more digits than Python prints
    | st.floats(allow_nan=True, allow_infinity=True)
    | st.text(max_size=20)
    | st.sampled_from(["mnist", "sample", "none", "0.99", "\ud800", "a|b\n<b>", b"mnist", 1j])
    | st.fractions()
)
anything = st.recursive(
    scalars,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner),
    max_leaves=8,
)


def compared(pairs):
    "A champion against which a digit's predictions differ so often, each way."
    return {
        "run": "a-run",
        "classes": {
            digit: {"only_champion": lost, "only_candidate": won, "n_images": 1000}
            for digit, (lost, won) in zip(MNIST_SPEC.class_names, pairs, strict=True)
        },
    }


def counted(counts):
    return {
        digit: {"n_correct": right, "n_images": images}
        for digit, (right, images) in zip(MNIST_SPEC.class_names, counts, strict=True)
    }


@st.composite
def evidence_around(draw):
    "Around the thresholds, so that every outcome comes up; now and then a part is missing."
    n_times, n_slow = draw(st.sampled_from([58, 59, 100])), draw(st.integers(0, 2))
    champion = draw(
        st.just("none")
        | st.lists(st.tuples(st.integers(0, 9), st.integers(0, 9)), min_size=10, max_size=10).map(
            compared
        )
    )
    # Each sample is of one value, whose bounds are the value itself.
    lost = draw(st.sampled_from([-5, 0, 3, 5, 9]))  # of a hundred corruptions; 4 are allowed
    corruptions = {
        **{"candidate": (80,) * 50, "champion": (80 + lost,) * 50},
        "by_kind": {f"kind {number}": 40 for number in range(100)},
    }
    off_by = draw(st.sampled_from([0.0, 0.004, 0.0099, 0.0101, 0.05]))
    parts = {
        "classes": counted(
            [(1000 - draw(st.integers(0, 18)), 1000) for _ in MNIST_SPEC.class_names]
        ),
        "slices": {
            name: {"n_correct": n - draw(st.integers(0, n // 50)), "n_images": n}
            for name, n in {"thin": draw(st.sampled_from([99, 100])), "thick": 2000}.items()
        },
        "calibration": {"top": (1 - off_by,) * 50, "correct": (True,) * 50, "n_bins": 15},
        "champion": champion,
        "corruptions": corruptions,
        "batch_times_ms": (draw(st.floats(1, 99)),) * (n_times - n_slow) + (120.0,) * n_slow,
        "model_size_bytes": draw(st.integers(1, 12_000_000)),
        "data": {
            "source": draw(st.sampled_from(["mnist"] * 5 + ["sample"])),
            "verified": draw(st.sampled_from([True] * 5 + [False])),
            "n_test_images": draw(st.sampled_from([10_000] * 5 + [9999])),
        },
        "files": {"models/model.onnx": draw(st.sampled_from([True] * 5 + [False]))},
    }
    for part in draw(st.sampled_from([()] * 5 + [(part,) for part in PARTS])):
        parts[part] = None
    return Evidence(**parts)


def is_shown(pairs, required, risk):
    "Whether so many correct predictions, or more, would be improbable at a lower accuracy."
    return all(binom.sf(k - 1, n, required) <= risk / len(pairs) for k, n in pairs)


def is_no_worse(champion, thresholds):
    if champion == "none":
        return True
    rows = [champion.classes[digit] for digit in MNIST_SPEC.class_names]
    pairs = [(row.only_champion, row.only_candidate) for row in rows]
    n_images, risk = sum(row.n_images for row in rows), 1 - thresholds.confidence
    lost, won = map(sum, zip(*pairs, strict=True))
    differing = lost + won
    coin = (thresholds.max_regression / 100 * n_images / max(differing, 1) + 1) / 2
    within = not differing or coin >= 1 or binom.cdf(lost, differing, coin) <= risk
    most = thresholds.max_class_regression / 100
    return within and not any(
        is_worse(*pair, most * row.n_images, risk / 10)
        for pair, row in zip(pairs, rows, strict=True)
    )


def is_worse(lost, won, most, risk):
    "Whether so many images lost would be too great a coincidence if `most` of them were."
    coin = (most / max(lost + won, 1) + 1) / 2
    return lost > 0 and coin < 1 and binom.sf(lost - 1, lost + won, coin) < risk


def is_quick(times, thresholds):
    below = sum(time <= thresholds.max_inference_time_ms for time in times)
    return binom.cdf(below - 1, len(times), 0.95) >= thresholds.confidence


def may_be_released(evidence, thresholds=THRESHOLDS):
    "The rules again, written independently of the library's implementation."
    if any(part is None for _, part in evidence):
        return False
    risk, data, corruptions = 1 - thresholds.confidence, evidence.data, evidence.corruptions
    pairs = [(row.n_correct, row.n_images) for row in evidence.classes.values()]
    slices = [(row.n_correct, row.n_images) for row in evidence.slices.values()]
    total = tuple(map(sum, zip(*pairs, strict=True)))
    lost = (corruptions.champion[0] - corruptions.candidate[0]) / corruptions.n_corruptions
    return (
        is_shown([total], thresholds.min_accuracy, risk)
        and is_shown(pairs, thresholds.min_class_recall, risk)
        and all(n >= 100 for _, n in slices)
        and is_shown(slices, thresholds.min_slice_accuracy, risk)
        and 1 - evidence.calibration.top[0] <= thresholds.max_calibration_error
        and is_no_worse(evidence.champion, thresholds)
        and (evidence.champion == "none" or 100 * lost <= thresholds.max_corruption_regression)
        and is_quick(evidence.batch_times_ms, thresholds)
        and evidence.model_size_bytes <= 1e6 * thresholds.max_model_size_mb
        and data.source == "mnist"
        and data.verified
        and data.n_test_images == total[1] == 10_000
        and all(evidence.files.values())
    )


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


@given(evidence_around())
@settings(max_examples=400, deadline=None)
def test_approved_exactly_when_every_check_passes(evidence):
    decision = decide(evidence, THRESHOLDS)
    well_formed(decision)
    assert (decision.status == "approved") == may_be_released(evidence)


@given(st.dictionaries(st.sampled_from(PARTS), anything, max_size=3))
@example({"files": {1: True, None: False, ("a",): "x"}})
@example({"batch_times_ms": (10**5000,) * 100})
@settings(max_examples=400, deadline=None)
def test_anything_is_either_no_evidence_or_decided_on_without_an_error(parts):
    try:
        alone, among_good = Evidence(**parts), good_evidence(**parts)
    except ValidationError:
        return
    well_formed(decide(among_good, THRESHOLDS))
    decision = decide(alone, THRESHOLDS)
    well_formed(decision)
    assert decision.status == "rejected"


@given(
    st.lists(st.tuples(st.integers(0, 40), st.integers(0, 40)), min_size=10, max_size=10),
    st.sampled_from([0.97, 0.985, 0.99, 0.995]),
    st.sampled_from([0.5, 0.9, 0.95, 0.999]),
)
@settings(max_examples=200, deadline=None)
def test_more_correct_predictions_never_lose_an_approval(mistakes, min_accuracy, confidence):
    thresholds = ReleaseThresholds(min_accuracy=min_accuracy, confidence=confidence)
    worse = good_evidence(classes=counted([(1000 - max(pair), 1000) for pair in mistakes]))
    better = good_evidence(classes=counted([(1000 - min(pair), 1000) for pair in mistakes]))
    order = ["failed", "insufficient", "passed"]
    first, second = decide(worse, thresholds), decide(better, thresholds)
    for before, after in zip(first.checks, second.checks, strict=True):
        assert order.index(before.outcome) <= order.index(after.outcome)
    assert (first.status, second.status) != ("approved", "rejected")


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
