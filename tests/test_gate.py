"""Each kind of bad model is stopped by the check meant for it, and by no other one: take that check
out of the gate, and the model gets through. `make gate-error` does the like with trained models.
"""

import numpy as np
import pytest

from mnist_nbdev.base.settings import Settings
from mnist_nbdev.data.corruptions import CORRUPTIONS, SLICE_NAMES
from mnist_nbdev.gate import release
from mnist_nbdev.gate.evidence import (
    Evidence,
    calibration_sample,
    corruption_sample,
    count_classes,
    count_pairs,
)
from mnist_nbdev.gate.release import CHECKS, decide
from mnist_nbdev.gate.robustness import robustness_figures

SETTINGS = Settings()
N_IMAGES = 10_000
LABELS = (np.arange(N_IMAGES) % 10).astype(np.uint8)
CHOSEN = np.arange(0, N_IMAGES, 5)
SPOILED_LABELS = LABELS[CHOSEN]
DATA = {"source": "mnist", "verified": True, "n_test_images": N_IMAGES, "n_models": 1}


def evidence(wrong=40, wrong_of=None, sureness=0.995, champion_wrong=40, spoiled=0.1, **changed):
    "A model that is wrong on so many images (of all, or of a digit), put together by hand."
    places = np.arange(N_IMAGES) if wrong_of is None else np.flatnonzero(wrong_of == LABELS)
    missed = np.random.default_rng(0).permutation(places)[:wrong]
    said, theirs = LABELS.copy(), LABELS.copy()
    said[missed] = (said[missed] + 1) % 10
    theirs[missed[: champion_wrong or 0]] = 11  # the champion errs on the same images
    probabilities = np.full((N_IMAGES, 10), (1 - sureness) / 9, np.float32)
    probabilities[np.arange(N_IMAGES), said] = sureness
    found = {
        "slices": np.stack([np.arange(N_IMAGES) % 2 == i % 2 for i in range(2 * len(SLICE_NAMES))]),
        "chosen": CHOSEN,
        "answers": predict_corrupted(spoiled),
    }
    no_champion = champion_wrong is None
    corrupted = [predict_corrupted(spoiled), None if no_champion else predict_corrupted(0.1)]
    whole = {
        "classes": count_classes(LABELS, said),
        "slices": robustness_figures(found, LABELS, said)["slices"],
        "calibration": calibration_sample(LABELS, probabilities, 15),
        "champion": {"run": "the-champion", "classes": count_pairs(LABELS, theirs, said)},
        "corruptions": corruption_sample(SPOILED_LABELS, *corrupted),
        "batch_times_ms": (20.0,) * 100,
        "model_size_bytes": 1_700_000,
        "data": DATA,
        "files": {"models/model.onnx": True},
    }
    if no_champion:
        whole["champion"] = "none"
    return Evidence(**{**whole, **changed})


def predict_corrupted(share):
    "Wrong on this share of the spoiled images, whatever was done to them."
    wrong = np.arange(len(CHOSEN)) % 1000 < 1000 * share
    row = np.where(wrong, (SPOILED_LABELS + 1) % 10, SPOILED_LABELS).astype(np.uint8)
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
    "worse than the champion on spoiled images": ("corruptions", lambda: evidence(spoiled=0.2)),
    "too slow": ("inference_time", lambda: evidence(batch_times_ms=(150.0,) * 100)),
    "slow now and then": (
        "inference_time",
        lambda: evidence(batch_times_ms=(20, 20, 20, 900) * 25),
    ),
    "too large": ("model_size", lambda: evidence(model_size_bytes=40_000_000)),
    "judged on the sample": (
        "data",
        lambda: evidence(data=DATA | {"source": "sample"}),
    ),
    "judged on files that nobody verified": (
        "data",
        lambda: evidence(data=DATA | {"verified": False}),
    ),
    "weights damaged after they were judged": (
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
