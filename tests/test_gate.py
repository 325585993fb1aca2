"""Each kind of bad model is stopped by the check meant for it, and by no other one: take that check
out of the gate, and the model gets through. `make gate-error` does the like with trained models.
"""

import numpy as np
import pytest

from mnist_nbdev.base.settings import Settings
from mnist_nbdev.data.corruptions import CORRUPTIONS, slice_names
from mnist_nbdev.data.spec import MNIST_SPEC
from mnist_nbdev.gate import release
from mnist_nbdev.gate.checks import CHECKS
from mnist_nbdev.gate.evidence import (
    Evidence,
    calibration_sample,
    corruption_sample,
    count_classes,
    count_pairs,
)
from mnist_nbdev.gate.release import decide
from mnist_nbdev.gate.robustness import robustness_figures

SETTINGS = Settings()
N_IMAGES = 10_000
LABELS = (np.arange(N_IMAGES) % 10).astype(np.uint8)
DIGITS = MNIST_SPEC.class_names
CHOSEN = np.arange(0, N_IMAGES, 5)
CORRUPTED_LABELS = LABELS[CHOSEN]
DATA = {"source": "mnist", "verified": True, "n_test_images": N_IMAGES, "n_models": 1}


def evidence(
    wrong=40, wrong_of=None, sureness=0.995, champion_wrong=40, corrupted_wrong=0.1, **changed
):
    "The evidence of a model with so many wrong predictions (in all, or of a digit)."
    places = np.arange(N_IMAGES) if wrong_of is None else np.flatnonzero(wrong_of == LABELS)
    missed = np.random.default_rng(0).permutation(places)[:wrong]
    predictions, champion_predictions = LABELS.copy(), LABELS.copy()
    predictions[missed] = (predictions[missed] + 1) % 10
    champion_predictions[missed[: champion_wrong or 0]] = 11  # the champion errs on the same images
    probabilities = np.full((N_IMAGES, 10), (1 - sureness) / 9, np.float32)
    probabilities[np.arange(N_IMAGES), predictions] = sureness
    stored = {
        "slices": np.stack(
            [np.arange(N_IMAGES) % 2 == i % 2 for i in range(len(slice_names(MNIST_SPEC)))]
        ),
        "chosen": CHOSEN,
        "answers": predict_corrupted(corrupted_wrong),
    }
    no_champion = champion_wrong is None
    champion_corrupted = None if no_champion else predict_corrupted(0.1)
    whole = {
        "classes": count_classes(LABELS, predictions, DIGITS),
        "slices": robustness_figures(stored, LABELS, predictions, MNIST_SPEC)["slices"],
        "calibration": calibration_sample(LABELS, probabilities, 15),
        "champion": {
            "run": "the-champion",
            "classes": count_pairs(LABELS, champion_predictions, predictions, DIGITS),
        },
        "corruptions": corruption_sample(
            CORRUPTED_LABELS, predict_corrupted(corrupted_wrong), champion_corrupted
        ),
        "batch_times_ms": (20.0,) * 100,
        "model_size_bytes": 1_700_000,
        "data": DATA,
        "files": {"models/model.onnx": True},
    }
    if no_champion:
        whole["champion"] = "none"
    return Evidence(**{**whole, **changed})


def predict_corrupted(share):
    "Predictions that are wrong on this fraction of the corrupted images, for every corruption."
    wrong = np.arange(len(CHOSEN)) % 1000 < 1000 * share
    row = np.where(wrong, (CORRUPTED_LABELS + 1) % 10, CORRUPTED_LABELS).astype(np.uint8)
    return np.stack([row] * len(CORRUPTIONS))


def pale_is_hard():
    slices = evidence().slices
    n_images = slices["pale"].n_images
    return slices | {"pale": {"n_images": n_images, "n_correct": int(0.95 * n_images)}}


BAD = {
    "under-trained": ("accuracy", lambda: evidence(wrong=110, sureness=0.99, champion_wrong=None)),
    "blind to every twentieth 7": (
        "class_recall",
        lambda: evidence(wrong=50, wrong_of=7, champion_wrong=50, sureness=0.995),
    ),
    "weak on pale images": ("slices", lambda: evidence(slices=pale_is_hard())),
    "trained on wrong labels, and so never sure": ("calibration", lambda: evidence(sureness=0.9)),
    "worse than the champion at one digit": (
        "champion",
        lambda: evidence(wrong=14, wrong_of=9, champion_wrong=0),
    ),
    "worse than the champion on corrupted images": (
        "corruptions",
        lambda: evidence(corrupted_wrong=0.2),
    ),
    "too slow": ("inference_time", lambda: evidence(batch_times_ms=(150.0,) * 100)),
    "slow now and then": (
        "inference_time",
        lambda: evidence(batch_times_ms=(20, 20, 20, 900) * 25),
    ),
    "too large": ("model_size", lambda: evidence(model_size_bytes=40_000_000)),
    "evaluated on the sample": (
        "data",
        lambda: evidence(data=DATA | {"source": "sample"}),
    ),
    "evaluated on files that nobody verified": (
        "data",
        lambda: evidence(data=DATA | {"verified": False}),
    ),
    "weights damaged after their evaluation": (
        "evidence",
        lambda: evidence(files={"models/model.onnx": False}),
    ),
    "evidence incomplete": ("evidence", lambda: evidence(files={})),
}


@pytest.mark.unit
def test_a_good_model_is_approved():
    for champion_wrong in (None, 40, 30):
        decision = decide(evidence(champion_wrong=champion_wrong), SETTINGS.release_thresholds)
        assert [c.why for c in decision.checks if c.outcome != "passed"] == []
        assert decision.status == "approved"


@pytest.mark.unit
@pytest.mark.parametrize("kind", BAD)
def test_a_bad_model_is_stopped_by_the_check_meant_for_it_alone(kind, monkeypatch):
    meant, make = BAD[kind]
    given = make()
    decision = decide(given, SETTINGS.release_thresholds)
    assert decision.status == "rejected"
    assert [c.name for c in decision.checks if c.outcome != "passed"] == [meant]
    others = tuple(check for check in CHECKS if check.__name__ != f"check_{meant}")
    assert len(others) == len(CHECKS) - 1
    monkeypatch.setattr(release, "CHECKS", others)
    assert decide(given, SETTINGS.release_thresholds).status == "approved"


@pytest.mark.unit
def test_each_check_is_meant_for_something():
    assert {f"check_{meant}" for meant, _ in BAD.values()} == {c.__name__ for c in CHECKS}
