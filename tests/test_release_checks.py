"""Each check of the release decision at its edges: the outcome, the value that is compared with the
threshold, and the figures in the sentence. nbs/gate/ explains the checks and shows typical cases.
"""

import json
import re

import numpy as np
import pytest
from pydantic import ValidationError

from mnist_nbdev.base.settings import ReleaseThresholds, Settings
from mnist_nbdev.base.statistics import clopper_pearson_bounds, mean_bounds, shared_confidence
from mnist_nbdev.data.corruptions import CORRUPTIONS
from mnist_nbdev.data.spec import MNIST_SPEC
from mnist_nbdev.gate.checks import (
    CHECKS,
    MIN_SLICE_IMAGES,
    check_accuracy,
    check_calibration,
    check_champion,
    check_class_recall,
    check_corruptions,
    check_data,
    check_evidence,
    check_inference_time,
    check_model_size,
    check_slices,
)
from mnist_nbdev.gate.evaluation import calibration_bounds
from mnist_nbdev.gate.evidence import Champion, Evidence, good_evidence
from mnist_nbdev.gate.release import decide, decision_json, decision_table

pytestmark = pytest.mark.unit

THRESHOLDS = Settings().release_thresholds


def test_an_impossible_size_of_a_model_is_no_evidence():
    with pytest.raises(ValidationError, match="model_size_bytes"):
        Evidence(model_size_bytes=10**400)


@pytest.mark.parametrize("check", [check_accuracy, check_class_recall, check_slices])
def test_what_nobody_asked_for_is_not_shown(check):
    unasked = check(good_evidence(), ReleaseThresholds())
    assert (unasked.outcome, unasked.threshold) == ("insufficient", "none")
    assert "was asked for: set release_thresholds.min_" in unasked.why


def test_a_champion_of_other_data_is_not_compared_and_the_words_say_so():
    check = check_champion(good_evidence(champion=Champion(run="a", other_data=True)), THRESHOLDS)
    assert check.outcome == "insufficient"
    assert "other classes" in check.why


def figures(check):
    "The numbers in a check's sentence, in order."
    return " ".join(re.findall(r"[-+]?[0-9][0-9.,]*[0-9]%?|[0-9]%?", check.why))


# Accuracy


def accuracy(n_correct, n_images, **thresholds):
    others = {label: {"n_correct": 0, "n_images": 0} for label in MNIST_SPEC.class_names[1:]}
    classes = {"0": {"n_correct": n_correct, "n_images": n_images}, **others}
    required = ReleaseThresholds(**{"min_accuracy": 0.99} | thresholds)
    return check_accuracy(good_evidence(classes=classes), required)


@pytest.mark.parametrize(
    ("n_correct", "n_images", "thresholds", "outcome"),
    [
        (9917, 10_000, {}, "passed"),
        (9916, 10_000, {}, "insufficient"),
        (9883, 10_000, {}, "insufficient"),
        (9882, 10_000, {}, "failed"),
        (9917, 10_000, {"confidence": 0.99}, "insufficient"),
        (10, 10, {"min_accuracy": 1.0}, "insufficient"),
        (0, 10, {"min_accuracy": 0.0}, "passed"),
        (10**9, 10**9, {}, "passed"),
        (0, 0, {}, "insufficient"),
    ],
)
def test_accuracy_passes_or_fails_only_beyond_its_bounds(n_correct, n_images, thresholds, outcome):
    assert accuracy(n_correct, n_images, **thresholds).outcome == outcome


@pytest.mark.parametrize(
    ("n_correct", "n_images", "shown"),
    [  # counts, accuracy, confidence, bounds, the required accuracy, and the accuracy that passes
        (9951, 10_000, "9,951 10,000 99.51% 95% 99.37% 99.00% 99.28%"),
        (9905, 10_000, "9,905 10,000 99.05% 95% 98.87% 99.21% 99.00% 110,000 99.28%"),
        (9880, 10_000, "9,880 10,000 98.80% 95% 98.98% 99.00% 99.28%"),
        (98, 100, "98 100 98.00% 95% 93.83% 99.65% 99.00% 410 100"),
        (99, 100, "99 100 99.00% 95% 95.34% 99.95% 99.00% 100"),
        (2, 2, "2 2 100.00% 95% 22.36% 100.00% 99.00% 300 2"),
    ],
)
def test_the_sentence_on_accuracy_has_counts_bounds_and_the_power_of_the_test(
    n_correct, n_images, shown
):
    assert figures(accuracy(n_correct, n_images)) == shown


@pytest.mark.parametrize(
    ("n_correct", "n_images", "words"),
    [
        (9907, 10_000, "about 56,000 images would show that it passes"),
        (98, 100, "410 images would show that it fails"),
        (99, 100, "at this accuracy no number of images would be enough"),
        (9951, 10_000, "a true accuracy of 99.28% passes nine times in ten"),
        (100, 100, "100 images are too few for any model"),
        (0, 0, "no test image was scored."),
    ],
)
def test_the_sentence_on_accuracy_says_how_many_images_are_needed(n_correct, n_images, words):
    assert words in accuracy(n_correct, n_images).why


def test_the_accuracy_check_follows_its_thresholds():
    check = accuracy(9951, 10_000, min_accuracy=0.98, confidence=0.9)
    assert (check.name, check.threshold) == ("accuracy", 0.98)
    assert check.value == clopper_pearson_bounds(9951, 10_000, 0.9)[0]
    assert figures(check) == "9,951 10,000 99.51% 90% 99.40% 98.00% 98.35%"
    assert "99.005%" in accuracy(9917, 10_000, min_accuracy=0.99005).why
    assert check_accuracy(Evidence(), THRESHOLDS).outcome == "insufficient"


# Class recall and slices


def recall(thresholds=THRESHOLDS, **changed):
    "The check of digits with a recall of 995 in 1,000, except for those named: `_7=(984, 1000)`."
    counts = {label: {"n_correct": 995, "n_images": 1000} for label in MNIST_SPEC.class_names}
    for label, (n_correct, n_images) in changed.items():
        counts[label[1:]] = {"n_correct": n_correct, "n_images": n_images}
    return check_class_recall(good_evidence(classes=counts), thresholds)


def slices(**changed):
    "The check of three slices, given as `pale=(n_correct, n_images)`."
    counts = {"thin": (1990, 2000), "thick": (2090, 2100), "pale": (1880, 1900), **changed}
    return check_slices(
        good_evidence(
            slices={name: {"n_correct": k, "n_images": n} for name, (k, n) in counts.items()}
        ),
        THRESHOLDS,
    )


@pytest.mark.parametrize(
    ("n_correct", "outcome"),
    [(1000, "passed"), (984, "passed"), (965, "insufficient"), (940, "failed")],
)
def test_one_weak_digit_or_slice_decides(n_correct, outcome):
    assert recall(_7=(n_correct, 1000)).outcome == outcome
    assert slices(pale=(n_correct, 1000)).outcome == outcome


@pytest.mark.parametrize(
    ("check", "counts", "shown"),
    [
        (recall, {"_7": (984, 1000)}, "10 7 984 1,000 95% 97.07% 99.25% 96.00%"),
        (  # the lowest bound is that of a digit with few images; the one that fails is named
            recall,
            {"_7": (94_000, 100_000), "_3": (5, 8)},
            "10 7 94,000 100,000 95% 93.80% 94.20% 96.00%",
        ),
        (slices, {"pale": (1800, 1900)}, "3 1,800 1,900 95% 93.53% 95.78% 97.00%"),
        (slices, {"pale": (99, 99)}, "99"),
    ],
)
def test_the_sentence_names_the_worst_group_with_its_bounds(check, counts, shown):
    assert figures(check(**counts)) == shown


def test_groups_have_a_threshold_of_their_own():
    for check, name, threshold in [
        (recall(), "class_recall", 0.96),
        (recall(_7=(0, 0)), "class_recall", 0.96),
        (slices(), "slices", 0.97),
        (slices(pale=(99, 99)), "slices", 0.97),
        (check_slices(Evidence(), THRESHOLDS), "slices", 0.97),
    ]:
        assert (check.name, check.threshold) == (name, threshold)


def test_the_bound_of_a_digit_is_at_the_confidence_shared_by_all():
    sevens = recall(_7=(984, 1000))
    assert sevens.value == clopper_pearson_bounds(984, 1000, shared_confidence(0.95, 10))[0]
    reached = ReleaseThresholds(min_class_recall=sevens.value)
    assert recall(reached, _7=(984, 1000)).outcome == "passed"


def test_a_group_without_enough_images_is_insufficient():
    empty = recall(_7=(0, 0))
    assert (empty.outcome, empty.value) == ("insufficient", None)
    assert "it has 0 test images" in empty.why
    single = recall(_7=(1, 1))
    assert single.outcome == "insufficient"
    assert single.value is not None  # one image is few, but enough for a figure
    assert slices(pale=(99, MIN_SLICE_IMAGES - 1)).outcome == "insufficient"
    smallest = slices(pale=(MIN_SLICE_IMAGES, MIN_SLICE_IMAGES))
    assert smallest.outcome == "insufficient"
    assert "100 of its 100" in smallest.why
    for missing in ({}, None):
        check = check_slices(good_evidence(slices=missing), THRESHOLDS)
        assert (check.outcome, figures(check)) == ("insufficient", "")


def test_the_name_of_a_slice_is_quoted_and_stays_short():
    assert "the 3 slices is 'pale'" in slices(pale=(1700, 1900)).why
    assert f"slice '{'x' * 40}'" in slices(**{"x" * 50: (50, 50)}).why


# Inference time and model size


def inference_time(*times):
    return check_inference_time(good_evidence(batch_times_ms=times), THRESHOLDS)


@pytest.mark.parametrize(
    ("times", "outcome"),
    [
        ([20.0] * 59, "passed"),
        ([20.0] * 58, "insufficient"),
        ([20.0] * 96 + [300.0] * 4, "insufficient"),
        ([20.0] * 50 + [300.0] * 50, "failed"),
        ([100.0] * 100, "passed"),
        ([100.1] * 100, "failed"),
        ([], "insufficient"),
    ],
)
def test_the_95th_percentile_is_compared_by_its_bounds(times, outcome):
    assert inference_time(*times).outcome == outcome


@pytest.mark.parametrize(
    ("times", "value", "shown"),
    [
        ([21.34] * 90 + [30.0] * 10, 30.0, "30 95 100 95% 30 100"),
        ([21.34] * 58, None, "21.3 95 58 100"),
        ([21.34] * 96 + [300.0] * 4, 300.0, "21.3 95 100 95% 300 100"),
        ([1.0] * 10 + [300.0] * 90, 300.0, "300 95 100 95% 300 100"),
        ([150.0, 30.0, 150.0, 150.0], None, "150 95 4 100"),
    ],
)
def test_the_sentence_on_times_has_the_percentile_and_its_upper_bound(times, value, shown):
    check = inference_time(*times)
    assert (check.name, check.value, check.threshold) == ("inference_time", value, 100.0)
    assert figures(check) == shown


def test_times_that_are_too_long_are_shown_with_their_lower_bound():
    assert figures(inference_time(*range(1, 1001))) == "950 95 1,000 95% 938 100"


@pytest.mark.parametrize(
    ("time", "shown"), [(14.6078, "14.6"), (100.04, "100.04"), (100.0000001, "100.0000001")]
)
def test_a_time_is_shown_on_its_side_of_the_limit(time, shown):
    assert f"takes {shown} ms" in inference_time(*[time] * 100).why


@pytest.mark.parametrize(
    ("size", "outcome", "shown"),
    [
        (25.6, "failed", "25.6 10"),
        (10.0, "passed", "10 10"),
        (1.7, "passed", "1.7 10"),
        (1.6, "passed", "1.6 10"),
    ],
)
def test_the_model_size_is_compared_with_its_limit(size, outcome, shown):
    check = check_model_size(good_evidence(model_size_bytes=round(size * 1e6)), THRESHOLDS)
    assert (check.name, check.outcome, check.value) == ("model_size", outcome, size)
    assert (check.threshold, figures(check)) == (10.0, shown)


def test_a_missing_model_size_is_insufficient():
    check = check_model_size(Evidence(), THRESHOLDS)
    assert (check.outcome, check.threshold) == ("insufficient", 10.0)


# Calibration


def off_by(gap, n_images=2000):
    "Evidence of an accuracy of 90% and a probability that is higher by the gap, on each image."
    correct = tuple(bool(number % 10) for number in range(n_images))
    sample = {"top": (0.9 + gap,) * n_images, "correct": correct, "n_bins": 15}
    return good_evidence(calibration=sample)


@pytest.mark.parametrize(
    ("evidence", "outcome"),
    [
        (good_evidence(), "passed"),
        (off_by(0.004), "insufficient"),
        (off_by(0.05), "failed"),
        (Evidence(), "insufficient"),
    ],
)
def test_the_calibration_error_is_compared_by_its_bounds(evidence, outcome):
    check = check_calibration(evidence, THRESHOLDS)
    assert (check.name, check.threshold, check.outcome) == ("calibration", 0.01, outcome)
    assert (check.value is None) == (evidence == Evidence())


def test_the_sentence_on_calibration_has_the_error_and_its_bounds():
    check = check_calibration(off_by(0.004), ReleaseThresholds(confidence=0.9))
    top, correct = np.full(2000, 0.904), np.arange(2000) % 10 > 0
    lower, upper = calibration_bounds(top, correct, 0.9, 15)
    assert check.value == upper
    assert figures(check) == f"0.0040 90% {lower:.4f} {upper:.4f} 0.01"


# Against the champion


def against_champion(lost, won, digit=None):
    by_digit = {
        label: (lost // 10 + (place < lost % 10), won // 10 + (place < won % 10))
        for place, label in enumerate(MNIST_SPEC.class_names)
    }
    if digit is not None:  # all of them on one digit
        by_digit = {
            label: (lost, won) if label == digit else (0, 0) for label in MNIST_SPEC.class_names
        }
    classes = {
        label: {"only_champion": pair[0], "only_candidate": pair[1], "n_images": 1000}
        for label, pair in by_digit.items()
    }
    return good_evidence(champion={"run": "20260101-mnist", "classes": classes})


@pytest.mark.parametrize(
    ("evidence", "outcome"),
    [
        (good_evidence(champion="none"), "passed"),
        (against_champion(0, 0), "passed"),
        (against_champion(20, 25), "passed"),
        (against_champion(12, 8, "9"), "passed"),
        (against_champion(0, 1000, "3"), "passed"),
        (against_champion(60, 30), "insufficient"),
        (against_champion(90, 20), "failed"),
        (against_champion(28, 5, "9"), "failed"),
        (good_evidence(champion=None), "insufficient"),
        (good_evidence(champion=Champion(run="a")), "insufficient"),  # of other images
    ],
)
def test_the_loss_against_the_champion_is_compared_by_its_bounds(evidence, outcome):
    assert check_champion(evidence, THRESHOLDS).outcome == outcome


@pytest.mark.parametrize(
    ("evidence", "value", "shown"),
    [
        (against_champion(20, 25), 0.0695, "10,000 20 20260101 25 95% 0.16 0.07 0.4"),
        (against_champion(60, 30), 0.4479, "10,000 60 20260101 30 95% 0.14 0.45 0.4"),
        (against_champion(90, 20), 0.8275, "10,000 90 20260101 20 95% 0.54 0.83 0.4"),
        (
            against_champion(28, 5, "9"),
            0.2893,
            "10,000 28 20260101 5 95% 0.14 0.29 0.4 9 28 5 1,000 0.4",
        ),
        (against_champion(0, 0), 0.0, "10,000 0 20260101 0 95% 0.4"),
        (good_evidence(champion="none"), 0.0, ""),
    ],
)
def test_the_sentence_on_the_champion_has_both_counts_and_the_bounds(evidence, value, shown):
    check = check_champion(evidence, THRESHOLDS)
    assert (check.name, check.threshold, figures(check)) == ("champion", 0.4, shown)
    assert check.value == pytest.approx(value, abs=1e-4)


def test_a_missing_comparison_has_no_value():
    check = check_champion(Evidence(), THRESHOLDS)
    assert (check.name, check.value, check.threshold) == ("champion", None, 0.4)


def test_the_sentence_on_the_champion_names_each_digit_that_lost():
    pairs = against_champion(28, 5, "9").champion.classes
    both = good_evidence(champion={"run": "a", "classes": pairs | {"3": pairs["9"]}})
    for evidence, words in [
        (
            against_champion(28, 5, "9"),
            "on digit 9 (28 to 5 of 1,000) the loss significantly exceeds 0.4",
        ),
        (both, "on digit 3 (28 to 5 of 1,000), 9 (28 to 5 of 1,000)"),
        (against_champion(60, 30), "too close to tell"),
    ]:
        assert words in check_champion(evidence, THRESHOLDS).why


@pytest.mark.parametrize(
    ("without_images", "outcome"),
    [(MNIST_SPEC.class_names[:1], "passed"), (MNIST_SPEC.class_names, "insufficient")],
)
def test_a_digit_without_images_is_not_compared(without_images, outcome):
    nothing = {"only_champion": 0, "only_candidate": 0, "n_images": 0}
    pairs = against_champion(20, 25).champion.classes | dict.fromkeys(without_images, nothing)
    evidence = good_evidence(champion={"run": "a", "classes": pairs})
    assert check_champion(evidence, THRESHOLDS).outcome == outcome


# Corrupted images


def corrupted(candidate, champion):
    "Evidence of two models with these accuracies on 2,000 images, corrupted in ten ways."

    def counts(accuracy):
        return tuple(np.diff(np.floor(10 * accuracy * np.arange(2001) + 1e-6)).astype(int).tolist())

    sample = {"candidate": counts(candidate), "champion": counts(champion)}
    by_kind = dict.fromkeys(CORRUPTIONS, sum(counts(candidate)) // 10)
    return good_evidence(corruptions={**sample, "by_kind": by_kind})


WITHOUT_CHAMPION = {"candidate": (9,) * 2000, "by_kind": dict.fromkeys(CORRUPTIONS, 1800)}


@pytest.mark.parametrize(
    ("evidence", "outcome"),
    [
        (corrupted(0.87, 0.869), "passed"),
        (corrupted(0.83, 0.87), "insufficient"),
        (corrupted(0.78, 0.87), "failed"),
        (Evidence(), "insufficient"),
        (good_evidence(champion="none", corruptions=WITHOUT_CHAMPION), "passed"),
        (good_evidence(champion=Champion(run="a"), corruptions=WITHOUT_CHAMPION), "insufficient"),
    ],
)
def test_the_loss_on_corrupted_images_is_compared_by_its_bounds(evidence, outcome):
    check = check_corruptions(evidence, THRESHOLDS)
    assert (check.name, check.threshold, check.outcome) == ("corruptions", 4.0, outcome)
    assert (check.value is None) == (evidence == Evidence() or "is missing" in check.why)


def test_the_sentence_on_corruptions_has_the_loss_and_its_bounds():
    evidence = corrupted(0.83, 0.87)
    sample = evidence.corruptions
    lost = np.array(sample.champion) / 10 - np.array(sample.candidate) / 10
    lower, upper = (100 * bound for bound in mean_bounds(lost, 0.9))
    check = check_corruptions(evidence, ReleaseThresholds(confidence=0.9))
    assert check.value == pytest.approx(upper)
    assert figures(check) == f"2,000 83.0% 83.0% 4.00 90% {lower:.2f} {upper:.2f} 4"


def test_an_equal_accuracy_on_corrupted_images_is_called_the_same():
    check = check_corruptions(corrupted(0.9, 0.9), THRESHOLDS)
    assert "; the mean is the same as the champion's, and at most 4 points" in check.why


def test_the_accuracy_on_corrupted_images_is_per_corruption():
    by_kind = {"blur": 2, "shear": 1, "scale": 2, "stripe": 0}
    sample = {"candidate": (3, 2), "by_kind": by_kind}
    check = check_corruptions(good_evidence(champion="none", corruptions=sample), THRESHOLDS)
    assert figures(check) == "2 62.5% 0.0%"
    assert "0.0% on the worst corruption, 'stripe'; no model" in check.why


def spoiled(n_worst, champion=None, n_images=2000):
    "Evidence of a model that fails on low contrast except for so many images, and else on none."
    candidate = tuple(9 + (number < n_worst) for number in range(n_images))
    by_kind = dict.fromkeys(CORRUPTIONS, n_images) | {"low contrast": n_worst}
    sample = {"candidate": candidate, "champion": champion, "by_kind": by_kind}
    known = {} if champion else {"champion": "none"}
    return good_evidence(corruptions=sample, **known)


@pytest.mark.parametrize(
    ("n_worst", "minima", "outcome", "threshold"),
    [
        (204, {}, "passed", 4.0),
        (204, {"min_corruption_accuracy": 0.9}, "passed", 4.0),
        (204, {"min_corruption_accuracy": 0.9102}, "insufficient", 0.9102),
        (204, {"min_corruption_accuracy": 0.92}, "failed", 0.92),
        (204, {"min_worst_corruption": 0.08}, "passed", 4.0),
        (204, {"min_worst_corruption": 0.1}, "insufficient", 0.1),
        (204, {"min_worst_corruption": 0.5}, "failed", 0.5),
        (1000, {"min_corruption_accuracy": 0.96, "min_worst_corruption": 0.5}, "failed", 0.96),
        (1000, {"min_corruption_accuracy": 0.95, "min_worst_corruption": 0.6}, "failed", 0.6),
    ],
)
def test_a_first_model_is_held_to_the_minima_that_are_set(n_worst, minima, outcome, threshold):
    thresholds = ReleaseThresholds(**minima)
    check = check_corruptions(spoiled(n_worst), thresholds)
    assert (check.outcome, check.threshold) == (outcome, threshold)
    assert (check.value == 0) == (outcome == "passed")  # else a bound of the mean or of the worst
    assert f"{n_worst / 2000:.1%} on the worst corruption, 'low contrast'" in check.why
    assert ("mean over the corruptions" in check.why) == ("min_corruption_accuracy" in minima)
    assert ("10 corruptions is 'low contrast'" in check.why) == ("min_worst_corruption" in minima)


def test_the_worst_corruption_is_bounded_with_the_risk_split_across_all_of_them():
    lower = clopper_pearson_bounds(204, 2000, shared_confidence(0.95, 10))[0]
    for required, outcome in [(lower, "passed"), (lower + 1e-9, "insufficient")]:
        thresholds = ReleaseThresholds(min_worst_corruption=required)
        assert check_corruptions(spoiled(204), thresholds).outcome == outcome


def test_the_mean_is_bounded_by_images_and_never_by_their_corruptions():
    evidence = spoiled(1000)
    lower = mean_bounds(evidence.corruptions.candidate, 0.95)[0] / 10
    for required, outcome in [(lower, "passed"), (lower + 1e-9, "insufficient")]:
        thresholds = ReleaseThresholds(min_corruption_accuracy=required)
        assert check_corruptions(evidence, thresholds).outcome == outcome


@pytest.mark.parametrize(("n_images", "outcome"), [(99, "insufficient"), (100, "passed")])
def test_a_hundred_images_are_the_fewest_for_the_mean(n_images, outcome):
    evidence = spoiled(n_images, n_images=n_images)
    check = check_corruptions(evidence, ReleaseThresholds(min_corruption_accuracy=0.9))
    assert check.outcome == outcome
    assert (check.value is None) == ("it has 99 test images" in check.why) == (n_images == 99)


def test_the_loss_against_the_champion_and_the_minima_are_judged_together():
    minima = ReleaseThresholds(min_corruption_accuracy=0.95, min_worst_corruption=0.5)
    lost = check_corruptions(spoiled(1900, champion=(10,) * 2000), minima)
    assert (lost.outcome, lost.threshold) == ("passed", 4.0)
    lost = check_corruptions(spoiled(0, champion=(10,) * 2000), minima)
    assert (lost.outcome, lost.threshold) == ("failed", 4.0)  # the first of three that fail
    missing = good_evidence(champion=Champion(run="a"), corruptions=WITHOUT_CHAMPION)
    check = check_corruptions(missing, ReleaseThresholds(min_worst_corruption=0.95))
    assert (check.outcome, check.threshold) == ("failed", 0.95)
    assert "the champion's accuracy on them is missing. The worst of the 10" in check.why


# Data


FULL = good_evidence().data.model_dump()
REQUIRED = "mnist, verified, 10,000 test images"


@pytest.mark.parametrize(
    ("data", "outcome", "value", "shown"),
    [
        (FULL, "passed", REQUIRED, "10,000"),
        (FULL | {"n_models": 1234}, "passed", REQUIRED, "10,000 1,234"),
        (
            FULL | {"n_test_images": 5000},
            "failed",
            "mnist, verified, 5,000 test images",
            "5,000 10,000",
        ),
        (FULL | {"source": "sample"}, "failed", "sample", "5,000"),
        (FULL | {"verified": False}, "failed", None, "-256"),  # of SHA-256
        (FULL | {"source": "7"}, "insufficient", None, "7"),
        (FULL | {"source": "elsewhere"}, "insufficient", None, ""),
        (None, "insufficient", None, ""),
    ],
)
def test_only_the_full_verified_test_set_passes(data, outcome, value, shown):
    check = check_data(good_evidence(data=data), THRESHOLDS)
    assert (check.name, check.value, check.threshold) == ("data", value, REQUIRED)
    assert (check.outcome, figures(check)) == (outcome, shown)


@pytest.mark.parametrize(
    ("n_models", "words"), [(3, "3 different models"), (1, "first model"), (None, "not on record")]
)
def test_the_sentence_on_data_says_how_many_models_were_evaluated(n_models, words):
    evidence = good_evidence(data=FULL | {"n_models": n_models})
    assert words in check_data(evidence, THRESHOLDS).why


# Evidence


@pytest.mark.parametrize(
    ("files", "outcome", "value", "shown"),
    [
        (good_evidence().files, "passed", "2 of 2 files", "2"),
        (dict.fromkeys("12345", False), "failed", "0 of 5 files", "5 1 2 3 2"),
        (dict.fromkeys("1234", False), "failed", "0 of 4 files", "4 1 2 3 1"),
        (dict.fromkeys("123", False), "failed", "0 of 3 files", "3 1 2 3"),
        ({"onnx": False, "json": True}, "failed", "1 of 2 files", "2"),
        ({}, "insufficient", None, ""),
        (None, "insufficient", None, ""),
    ],
)
def test_a_file_that_changed_is_named(files, outcome, value, shown):
    check = check_evidence(good_evidence(files=files), THRESHOLDS)
    assert (check.name, check.outcome, check.value) == ("evidence", outcome, value)
    assert (check.threshold, figures(check)) == ("all files as recorded", shown)


def test_at_most_three_files_are_named():
    check = check_evidence(good_evidence(files=dict.fromkeys("abcdef", False)), THRESHOLDS)
    assert check.why.endswith("'a', 'b', 'c' and 3 more.")


def test_counts_that_contradict_each_other_fail():
    pairs = good_evidence().champion.classes | {
        "4": {"only_champion": 0, "only_candidate": 0, "n_images": 999}
    }
    for changes, words in [
        ({"data": FULL | {"n_test_images": 9999}}, "add up to 10,000 images, the data to 9,999"),
        (
            {"champion": {"run": "a", "classes": pairs}},
            "digit 4 has 1,000 images, but 999 for",
        ),
    ]:
        check = check_evidence(good_evidence(**changes), THRESHOLDS)
        assert (check.value, check.outcome) == ("2 of 2 files", "failed")
        assert words in check.why


@pytest.mark.parametrize("part", ["classes", "champion", "data"])
def test_a_missing_part_is_reported_by_the_check_that_needs_it(part):
    check = check_evidence(good_evidence(**{part: None}), THRESHOLDS)
    assert (check.value, check.outcome) == ("2 of 2 files", "passed")


# The decision, as stored and as a table


@pytest.mark.parametrize(
    ("part", "names"),
    [
        ("classes", ["accuracy", "class_recall"]),
        ("slices", ["slices"]),
        ("calibration", ["calibration"]),
        ("champion", ["champion"]),
        ("corruptions", ["corruptions"]),
        ("batch_times_ms", ["inference_time"]),
        ("model_size_bytes", ["model_size"]),
        ("data", ["data"]),
        ("files", ["evidence"]),
    ],
)
def test_without_a_part_the_checks_that_need_it_reject_and_no_others(part, names):
    decision = decide(good_evidence(**{part: None}), THRESHOLDS)
    stopped = [check.name for check in decision.checks if check.outcome != "passed"]
    assert (decision.status, stopped) == ("rejected", names)


def test_a_decision_is_stored_as_finite_numbers_and_strings():
    decision = decide(good_evidence(), THRESHOLDS)
    stored = decision_json(decision)
    assert json.loads(json.dumps(stored, allow_nan=False)) == stored
    assert stored["status"] == "approved"
    assert stored["checks"][7] == {
        "name": "model_size",
        "value": 1.69,
        "threshold": 10.0,
        "outcome": "passed",
        "why": "The exported model is 1.69 MB, and at most 10 MB is allowed.",
    }


def test_the_table_has_a_row_for_each_check():
    decision = decide(good_evidence(), THRESHOLDS)
    lines = decision_table(decision).splitlines()
    assert lines[:2] == ["| | check | why |", "| --- | --- | --- |"]
    assert lines[9] == f"| **passed** | model size | {decision.checks[7].why} |"
    assert len(lines) == 2 + len(CHECKS)


def test_no_evidence_at_all_is_insufficient_for_every_check():
    decision = decide(Evidence(), THRESHOLDS)
    assert decision.status == "rejected"
    assert [check.outcome for check in decision.checks] == ["insufficient"] * len(CHECKS)


def test_a_name_in_the_evidence_cannot_break_out_of_the_table():
    name = "<script>alert(1)</script> | `x` *y* [z](javascript:1)"
    table = decision_table(decide(good_evidence(files={name: False}), THRESHOLDS))
    assert not set("<>`[]") & set(table)
    assert all(line.count("|") == 4 for line in table.splitlines())
