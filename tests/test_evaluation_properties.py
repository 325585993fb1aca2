"Metrics hold for any predictions, not only for those of a good model."

import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from mnist_nbdev.base.files import PipelineError
from mnist_nbdev.base.statistics import wilson_interval
from mnist_nbdev.gate.evaluation import (
    check_predictions,
    evaluate,
    load_predictions,
    metrics_table,
    save_predictions,
)

pytestmark = pytest.mark.unit


@st.composite
def predictions(draw):
    "Labels and probabilities of 2 to 10 classes: sharp ones, flat ones, ties, missing classes."
    n_images, n_classes = draw(st.integers(1, 40)), draw(st.integers(2, 10))
    labels = draw(hnp.arrays(np.uint8, n_images, elements=st.integers(0, n_classes - 1)))
    logits = draw(
        hnp.arrays(np.float64, (n_images, n_classes), elements=st.integers(-30, 30).map(float))
    )
    powers = np.exp(logits - logits.max(axis=1, keepdims=True))
    return labels, (powers / powers.sum(axis=1, keepdims=True)).astype(np.float32)


def numbers(value):
    "Every number in nested lists and dictionaries."
    if isinstance(value, dict | list):
        for inner in value.values() if isinstance(value, dict) else value:
            yield from numbers(inner)
    elif value is not None:
        yield value


@given(predictions())
@settings(max_examples=150, deadline=None)
def test_metrics_are_json_and_agree_with_each_other(given_predictions):
    labels, probabilities = given_predictions
    metrics = evaluate(labels, probabilities)
    assert json.loads(json.dumps(metrics, allow_nan=False)) == metrics
    assert all(type(number) in (int, float) and number >= 0 for number in numbers(metrics))
    metrics_table(metrics)

    right = int((probabilities.argmax(axis=1) == labels).sum())
    accuracy, matrix = metrics["accuracy"], np.array(metrics["confusion_matrix"])
    assert accuracy["n_correct"] == right == matrix.trace()
    assert accuracy["low"] <= accuracy["value"] <= accuracy["high"]
    assert matrix.sum(axis=1).tolist() == [row["n_images"] for row in metrics["per_class"]]
    assert matrix.sum(axis=0).tolist() == [row["n_predicted"] for row in metrics["per_class"]]
    assert metrics["expected_calibration_error"] <= 1
    assert metrics["brier_score"] <= 2 + 1e-9
    for row in metrics["per_class"]:
        assert (row["recall"] is None) == (row["n_images"] == 0)
        assert (row["precision"] is None) == (row["n_predicted"] == 0)


@given(predictions(), st.randoms(use_true_random=False))
@settings(max_examples=75, deadline=None)
def test_the_order_of_the_images_does_not_matter(given_predictions, random):
    labels, probabilities = given_predictions
    order = list(range(len(labels)))
    random.shuffle(order)
    metrics = list(numbers(evaluate(labels, probabilities)))
    shuffled = list(numbers(evaluate(labels[order], probabilities[order])))
    assert shuffled == pytest.approx(metrics, rel=1e-9, abs=1e-12)


@given(predictions())
@settings(max_examples=50, deadline=None)
def test_what_is_stored_is_what_is_read(tmp_path_factory, given_predictions):
    labels, probabilities = given_predictions
    folder = tmp_path_factory.mktemp("predictions")
    save_predictions(folder / "first.npz", labels, probabilities)
    save_predictions(folder / "second.npz", labels, probabilities)
    read_labels, read_probabilities = load_predictions(folder / "first.npz")
    assert (folder / "first.npz").read_bytes() == (folder / "second.npz").read_bytes()
    assert (read_labels == labels).all()
    assert (read_probabilities == probabilities).all()


@pytest.mark.security
@given(st.binary(max_size=400))
@settings(max_examples=100, deadline=None)
def test_any_bytes_are_refused_with_a_message(tmp_path_factory, content):
    path = tmp_path_factory.mktemp("bytes") / "predictions.npz"
    path.write_bytes(content)
    with pytest.raises(PipelineError, match=r"predictions\.npz does not hold labels"):
        load_predictions(path)


@given(
    hnp.arrays(
        st.sampled_from([np.int64, np.uint8, np.float32, np.bool_]), hnp.array_shapes(max_dims=2)
    ),
    hnp.arrays(
        st.sampled_from([np.int64, np.float16, np.float32, np.float64, np.complex64]),
        hnp.array_shapes(max_dims=3),
    ),
)
@settings(max_examples=200, deadline=None)
def test_any_arrays_are_used_or_refused_with_a_message(labels, probabilities):
    try:
        truth, rows = check_predictions(labels, probabilities)
    except PipelineError:
        return  # any other error is a failure of this test
    assert np.allclose(rows.sum(axis=1), 1)
    assert len(truth) == len(rows)


@given(st.integers(0, 10**6), st.integers(1, 10**6), st.floats(0.5, 0.9999))
@settings(max_examples=200, deadline=None)
def test_wilson_contains_the_proportion_and_narrows_with_images(n_correct, n_images, confidence):
    n_correct = min(n_correct, n_images)
    low, high = wilson_interval(n_correct, n_images, confidence)
    assert 0 <= low <= n_correct / n_images <= high <= 1
    lower, higher = wilson_interval(4 * n_correct, 4 * n_images, confidence)
    assert higher - lower < high - low
