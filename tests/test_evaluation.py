"""The metrics at their edges: counted by hand, at other settings, and from damaged files.
nbs/gate/00_evaluation.ipynb explains them with an example model.
"""

import io
import json
import os
import zipfile
from unittest import TestCase

import numpy as np
import pytest

from mnist_nbdev.base.arrays import MAX_ARRAYS_BYTES, read_arrays, write_arrays
from mnist_nbdev.base.files import PipelineError, canonical_json
from mnist_nbdev.base.logs import get_logger
from mnist_nbdev.base.settings import EvaluationSettings
from mnist_nbdev.base.statistics import wilson_interval
from mnist_nbdev.gate.evaluation import (
    calibration_bounds,
    check_classes,
    check_predictions,
    class_metrics,
    evaluate,
    expected_calibration_error,
    fit_temperature,
    load_predictions,
    log_evaluation,
    metrics_table,
    probability_metrics,
    reliability_bins,
    save_predictions,
    top_probabilities,
)

pytestmark = pytest.mark.unit

exact = pytest.approx

# Six images of three classes, the last of which never occurs.
FEW_LABELS = [0, 0, 0, 1, 1, 1]
FEW = np.array(
    [
        [0.8, 0.2, 0.0],
        [0.6, 0.3, 0.1],
        [0.1, 0.7, 0.2],
        [0.3, 0.6, 0.1],
        [0.7, 0.3, 0.0],
        [0.2, 0.4, 0.4],
    ]
)
TWO = [0, 1], np.array([[0.8, 0.2], [0.6, 0.4]])  # one classified correctly, one incorrectly
MANY_LABELS = np.arange(200) % 10
MANY = np.random.default_rng(0).dirichlet(np.ones(10), 200)
MANY[:150, :] = 0.01
MANY[np.arange(150), MANY_LABELS[:150]] = 0.91


# Which predictions can be evaluated?

FAIR = [[0.9, 0.1], [0.2, 0.8]]


@pytest.mark.parametrize(
    ("labels", "probabilities", "words"),
    [
        ([0, 1], [[0.9, 0.1], [np.nan, 0.8]], "1 of 2 rows are not finite (the first is row 1)"),
        ([0, 1], [[0.9, 0.1], [-2.5, 3.5]], "Are these logits?"),
        ([0, 1], [[0.9, 0.2], [0.2, 0.8]], "do not sum to 1"),
        ([0, 2], FAIR, "labels hold 2 (row 1)"),
        ([0, -1], FAIR, "labels hold -1"),
        ([0.0, 1.0], FAIR, "labels have shape (2,) and type float64"),
        ([0, 1, 1], FAIR, "3 labels, but 2 rows"),
        ([[0], [1]], FAIR, "labels have shape (2, 1)"),
        ([], np.empty((0, 2)), "labels have shape (0,)"),
        ([0, 1], [0.9, 0.8], "probabilities have shape (2,)"),
        ([0, 1], [["a", "b"]], "type <U1"),
        (
            [0, 1],
            [[0.9, 0.1], [1.0]],
            "rows of different lengths. Give one row of numbers per image.",
        ),
        (
            [0],
            [[1.0]],
            "probabilities have shape (1, 1) and type float64. Give floating-point numbers",
        ),
        ([0, 1], [[1, 0], [0, 1]], "probabilities have shape (2, 2) and type int64"),
        (
            [True, False],
            FAIR,
            "labels have shape (2,) and type bool. Give a non-empty list of integers",
        ),
        (
            [0, 1],
            [[0.9, 0.1], [0.2, 0.8011]],
            "1 of 2 rows do not sum to 1 (the first is row 1). Give the softmax of the logits.",
        ),
        (
            [0, 1],
            [[0.9, 0.1], [-0.00001, 1.0]],
            "1 of 2 rows hold a value outside 0 to 1 (the first is row 1). Are these logits?",
        ),
        (
            [0, 1],
            [[0.9, 0.1], [0.0, 1.00001]],
            "1 of 2 rows hold a value outside 0 to 1 (the first is row 1)",
        ),
        (
            [0, 1, 7, 8],
            np.full((4, 2), np.inf),
            "labels hold 7 (row 2), outside 0 to 1. Use only classes that the model knows.",
        ),
        (
            [0, 1, 0],
            [[0.9, 0.2], [0.2, 0.8], [0.5, 0.6]],
            "2 of 3 rows do not sum to 1 (the first is row 0)",
        ),
    ],
)
def test_unusable_predictions_are_refused_with_the_place_of_the_problem(
    labels, probabilities, words
):
    with pytest.raises(PipelineError, match=r"^These predictions cannot be evaluated: ") as refused:
        check_predictions(labels, probabilities)
    assert words in str(refused.value)


def test_rounding_is_divided_out():
    thirds = np.array([[1 / 3, 1 / 3, 1 / 3]], np.float32)
    assert check_predictions([2], thirds)[1].sum() == exact(1, abs=1e-15)
    assert check_predictions([0], [[0.4995, 0.4997]])[1][0] == exact([0.4999, 0.5001])
    truth, rows = check_predictions(np.array([1], np.uint8), [[-0.0000005, 1.0000005]])
    assert (truth.dtype, rows.dtype) == (np.int64, np.float64)
    assert (truth.tolist(), rows.tolist()) == ([1], [[0.0, 1.0]])


def test_classes_are_returned_in_64_bits_or_refused_by_name():
    checked = check_classes("predictions", np.array([7, 0], np.uint8), 8)
    assert (checked.tolist(), checked.dtype) == ([7, 0], np.int64)
    with pytest.raises(PipelineError, match=r"predictions hold 7 \(row 0\), outside 0 to 6"):
        check_classes("predictions", checked, 7)


# Class by class


def test_a_class_without_images_has_counts_of_0_and_no_ratios():
    absent = class_metrics(FEW_LABELS, FEW)[2]
    assert absent["recall"] is absent["precision"] is absent["f1"] is absent["roc_auc"] is None
    assert absent["recall_low"] is absent["recall_high"] is None
    assert [absent[name] for name in ("n_images", "n_correct", "n_predicted")] == [0, 0, 0]


def test_a_single_class_cannot_be_ranked():
    alone = class_metrics([0, 0], [[0.9, 0.1], [0.8, 0.2]])
    assert [row["roc_auc"] for row in alone] == [None, None]


def test_precision_and_recall_have_denominators_of_their_own():
    rows = class_metrics([0, 0, 0, 0, 1], np.array([[0.9, 0.1]] * 2 + [[0.3, 0.7]] * 3), 0.8)
    assert [row["label"] for row in rows] == [0, 1]
    assert (rows[0]["precision"], rows[0]["recall"]) == (1, 0.5)
    assert rows[1]["precision"] == exact(1 / 3)
    assert (rows[1]["recall"], rows[1]["f1"], rows[1]["n_predicted"]) == (1, 0.5, 3)
    assert (rows[0]["recall_low"], rows[0]["recall_high"]) == wilson_interval(2, 4, 0.8)
    assert rows[1]["roc_auc"] == 0.75  # its one image: above two of the others, as high as two


# Calibration


def bins_of(labels, rows, n_bins=15):
    return reliability_bins(*top_probabilities(labels, rows), n_bins)


def test_a_bin_includes_its_upper_edge():
    bins = bins_of([0], [[0.8, 0.2]], n_bins=10)
    assert [row["n_images"] for row in bins] == [0, 0, 0, 0, 0, 0, 0, 1, 0, 0]
    assert bins[7] == {
        "low": 0.7,
        "high": 0.8,
        "n_images": 1,
        "n_correct": 1,
        "mean_probability": 0.8,
        "accuracy": 1.0,
    }
    assert bins_of([1], [[0.8, 0.2]], n_bins=10)[7]["n_correct"] == 0
    assert bins_of([0], [[1.0, 0.0]])[14]["n_images"] == 1


def test_an_empty_bin_has_no_means():
    empty = bins_of([0], [[0.8, 0.2]], n_bins=10)[0]
    assert empty["accuracy"] is empty["mean_probability"] is None


def test_the_lowest_probabilities_are_in_the_first_bin():
    flat = bins_of([0, 0, 1], np.full((3, 40), 1 / 40), n_bins=2)
    assert [row["n_images"] for row in flat] == [3, 0]
    assert (flat[0]["n_correct"], flat[0]["accuracy"]) == (2, 2 / 3)


def test_scoring_rules_count_classes_without_images():
    unseen = probability_metrics([0, 1], [[0.5, 0.25, 0.25], [0.25, 0.5, 0.25]])
    assert unseen["log_loss"] == exact(np.log(2))
    assert unseen["brier_score"] == exact(0.5**2 + 2 * 0.25**2)


def test_a_certain_mistake_costs_much_but_not_infinitely_much():
    wrong = probability_metrics([0, 1], [[1.0, 0.0], [1.0, 0.0]])
    assert 15 < wrong["log_loss"] < 20  # a probability of 0 counts as 2e-16


def test_calibration_bounds_are_quantiles_of_resampled_test_sets():
    draws = np.random.default_rng(1)
    stated = draws.uniform(0.5, 1, 50)
    outcomes = draws.random(50) < stated
    seeded = np.random.default_rng(0)
    errors = [
        expected_calibration_error(stated[drawn], outcomes[drawn], n_bins=4)
        for drawn in (seeded.integers(0, 50, 50) for _ in range(30))
    ]
    bounds = calibration_bounds(stated, outcomes, 0.8, n_bins=4, n_draws=30)
    assert bounds == exact(tuple(np.quantile(errors, [0.2, 0.8])))
    by_default = calibration_bounds(stated, outcomes)
    assert by_default == calibration_bounds(stated, outcomes, 0.95, 15, 1000)


def test_calibration_bounds_keep_bins_apart():
    always, half_sure = np.array([True, True]), np.array([0.5, 1.0])
    assert calibration_bounds(half_sure, always, n_bins=2, n_draws=50)[1] == 0.5
    unsure = np.array([1 / 6, 0.45] * 25)  # correct and incorrect, in separate bins
    assert calibration_bounds(unsure, np.array([True, False] * 25), n_bins=4, n_draws=30)[0] > 0.5


@pytest.mark.parametrize(
    ("labels", "logits", "words"),
    [
        ([0, 1], [[0.0, np.nan], [0.0, 1.0]], "logits are not finite"),
        ([0, 1, 1], [[0.0, 1.0], [0.0, 1.0]], "cannot be evaluated"),
        ([0, 2], [[0.0, 1.0], [0.0, 1.0]], "cannot be evaluated"),
        ([0.5, 1.0], [[0.0, 1.0], [0.0, 1.0]], "cannot be evaluated"),
    ],
)
def test_a_temperature_needs_finite_logits_and_a_label_for_each(labels, logits, words):
    with pytest.raises(PipelineError, match=words):
        fit_temperature(labels, logits)


def test_the_temperature_stays_within_its_limits():
    always_correct, never_correct = [[0.1, 0.0], [0.0, 0.1]], [[0.0, 9.0], [9.0, 0.0]]
    assert fit_temperature([0, 1], always_correct) == exact(0.05, rel=0.01)
    assert fit_temperature([0, 1], never_correct) == exact(20, rel=0.01)


# All metrics at once


def test_the_accuracy_has_its_counts_and_its_interval():
    low, high = wilson_interval(4, 6)
    assert evaluate(FEW_LABELS, FEW)["accuracy"] == {
        "value": 4 / 6,
        "low": low,
        "high": high,
        "confidence": 0.95,
        "n_correct": 4,
        "n_images": 6,
    }


def test_a_macro_average_is_over_the_classes_that_have_images():
    small = evaluate(FEW_LABELS, FEW)
    for name, value in small["macro"].items():
        assert value == exact(sum(row[name] for row in small["per_class"][:2]) / 2)
    assert evaluate([0, 0], [[0.9, 0.1], [0.8, 0.2]])["macro"]["roc_auc"] is None


def test_the_evaluation_follows_its_settings():
    loose = evaluate(FEW_LABELS, FEW, EvaluationSettings(confidence=0.8, calibration_bins=2))
    row = loose["per_class"][0]
    assert (row["recall_low"], row["recall_high"]) == wilson_interval(2, 3, 0.8)
    scores = probability_metrics(FEW_LABELS, FEW, 2)
    assert {name: loose[name] for name in scores} == exact(scores)
    accuracy = evaluate(MANY_LABELS, MANY)["accuracy"]
    wide = evaluate(MANY_LABELS, MANY, EvaluationSettings(confidence=0.99))["accuracy"]
    assert wide["confidence"] == 0.99
    assert (wide["low"], wide["high"]) == wilson_interval(wide["n_correct"], wide["n_images"], 0.99)
    assert wide["low"] < accuracy["low"] < accuracy["high"] < wide["high"]


def test_probabilities_of_32_bits_give_the_same_accuracy():
    single = evaluate(MANY_LABELS, MANY.astype(np.float32))
    assert single["accuracy"] == evaluate(MANY_LABELS, MANY)["accuracy"]


def test_the_metrics_as_a_table():
    assert (
        metrics_table(evaluate(FEW_LABELS, FEW))
        == """| all images | | |
| --- | ---: | --- |
| accuracy | 66.67% | 4 of 6 images; 95% interval 30.00% to 90.32% |
| precision | 0.6667 | mean over the classes |
| recall | 0.6667 | mean over the classes |
| F1 | 0.6667 | mean over the classes |
| ROC-AUC | 0.5833 | mean over the classes |
| log loss | 0.9446 | nats; 0 is best |
| Brier score | 0.5800 | 0 is best, 2 is worst |
| calibration error | 0.5000 | 0 is best |

| class | images | recall | its interval | precision | F1 | ROC-AUC |
| --- | ---: | ---: | :---: | ---: | ---: | ---: |
| 0 | 3 | 66.67% | 20.8% to 93.9% | 66.67% | 0.6667 | 0.5556 |
| 1 | 3 | 66.67% | 20.8% to 93.9% | 66.67% | 0.6667 | 0.6111 |
| 2 | 0 | — | — to — | — | — | — |
"""
    )


def test_classes_have_their_names_in_the_table():
    lines = metrics_table(evaluate(FEW_LABELS, FEW), ["cat", "a|b\n", "dog"]).splitlines()
    assert [line.split(" | ")[0] for line in lines[-3:]] == ["| cat", r"| a\|b", "| dog"]
    with pytest.raises(PipelineError, match="2 names for 3 classes"):
        metrics_table(evaluate(FEW_LABELS, FEW), ["cat", "dog"])


@pytest.mark.parametrize(("n_classes", "stored"), [(256, np.uint8), (257, np.uint16)])
def test_as_many_classes_as_a_label_holds_are_stored(tmp_path, n_classes, stored):
    labels = np.arange(n_classes)
    probabilities = np.eye(n_classes, dtype=np.float32)
    save_predictions(tmp_path / "predictions.npz", labels, probabilities)
    read_labels, _ = load_predictions(tmp_path / "predictions.npz")
    assert read_labels.dtype == stored
    assert (read_labels == labels).all()
    metrics = evaluate(read_labels, probabilities)
    assert metrics["accuracy"]["value"] == metrics["macro"]["f1"] == 1


def test_stored_metrics_give_the_same_table():
    metrics = evaluate(MANY_LABELS, MANY)
    assert metrics_table(json.loads(canonical_json(metrics))) == metrics_table(metrics)


def test_a_confidence_is_not_rounded_to_whole_percent():
    metrics = evaluate(FEW_LABELS, FEW, EvaluationSettings(confidence=0.995))
    assert "99.5% interval" in metrics_table(metrics)


def test_the_log_has_one_record_of_the_evaluation():
    metrics = evaluate(MANY_LABELS, MANY)
    with TestCase().assertLogs(get_logger("evaluation"), "INFO") as logged:
        log_evaluation(metrics)
    (record,) = logged.records
    worst = min(metrics["per_class"], key=lambda row: row["recall"])
    assert record.getMessage() == "Model evaluated"
    assert record.fields == {
        "images": 200,
        "accuracy": metrics["accuracy"]["value"],
        "accuracy_low": metrics["accuracy"]["low"],
        "accuracy_high": metrics["accuracy"]["high"],
        "macro_f1": metrics["macro"]["f1"],
        "worst_class": worst["label"],
        "worst_class_recall": worst["recall"],
        "log_loss": metrics["log_loss"],
        "expected_calibration_error": metrics["expected_calibration_error"],
    }


# Stored predictions


def test_the_archive_depends_on_the_arrays_alone(tmp_path):
    path, again = tmp_path / "predictions.npz", tmp_path / "again.npz"
    save_predictions(path, MANY_LABELS, MANY)
    save_predictions(again, MANY_LABELS.tolist(), np.asfortranarray(MANY.astype(np.float32)))
    assert again.read_bytes() == path.read_bytes()
    with zipfile.ZipFile(path) as archive:
        for member in archive.infolist():
            assert member.filename in ("labels.npy", "probabilities.npy")
            assert (member.date_time, member.create_system) == ((1980, 1, 1, 0, 0, 0), 3)
            assert (member.external_attr >> 16, member.compress_type) == (
                0o644,
                zipfile.ZIP_STORED,
            )
            assert archive.read(member).startswith(b"\x93NUMPY\x01\x00")  # the first version


def test_unusable_arrays_leave_no_file(tmp_path):
    with pytest.raises(PipelineError, match="labels hold -1"):
        save_predictions(tmp_path / "bad.npz", [-1], [[0.5, 0.5]])
    with pytest.raises(ValueError, match="Object arrays"):
        write_arrays(tmp_path / "bad.npz", {"objects": np.array([None])})
    assert os.listdir(tmp_path) == []


def test_only_the_arrays_that_are_requested_are_read(tmp_path):
    save_predictions(tmp_path / "predictions.npz", *TWO)
    arrays = read_arrays(tmp_path / "predictions.npz", {"probabilities": "float32"})
    assert list(arrays) == ["probabilities"]


def refusal(path, content):
    path.write_bytes(content)
    with pytest.raises(PipelineError, match=path.name) as refused:
        load_predictions(path)
    return str(refused.value)


def archive_of(**arrays):
    buffer = io.BytesIO()
    np.savez_compressed(buffer, **arrays)
    return buffer.getvalue()


def test_a_truncated_file_is_refused(tmp_path):
    save_predictions(tmp_path / "whole.npz", *TWO)
    whole = (tmp_path / "whole.npz").read_bytes()
    for size in range(0, len(whole), 7):
        assert "does not hold labels" in refusal(tmp_path / "bad.npz", whole[:size])


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(PipelineError, match=r"Cannot read .*missing\.npz: No such file"):
        load_predictions(tmp_path / "missing.npz")


@pytest.mark.security
def test_an_archive_of_anything_else_is_refused(tmp_path):
    labels, probabilities = np.zeros(2, np.uint8), TWO[1].astype(np.float32)
    huge = np.zeros(MAX_ARRAYS_BYTES, np.uint8)
    for words, content in [
        (
            "types int64 and float32",
            archive_of(labels=np.zeros(2, int), probabilities=probabilities),
        ),
        (
            "allow_pickle=False",
            archive_of(labels=np.array([None]), probabilities=probabilities),
        ),
        ("probabilities is not a file", archive_of(labels=labels)),
        (
            "2 of 2 rows are not finite",
            archive_of(labels=labels, probabilities=probabilities * np.nan),
        ),
        ("unpacked more than 268,435,456 bytes", archive_of(bomb=huge)),
        ("more than 268,435,456 bytes", huge.tobytes() + b"1"),
    ]:
        assert words in refusal(tmp_path / "bad.npz", content)
