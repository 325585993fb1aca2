"""How often the gate is wrong, measured on models that may ship and on models that must not.

Each model is really trained and exported, and evaluated by the checks of a run. Then test sets are
resampled from the real one, with replacement, a thousand in all for the good models, and the checks
are repeated on each.

    make gate-error                      all of it, half an hour on two cores; resumes
    make gate-error ARGS="--draws 100"   fewer resampled test sets

Figures go to results/gate-error.json and .md; predictions are cached in artifacts/gate-error, under
the hash of what they depend on.
"""

import argparse
import json
import time
from collections import Counter
from datetime import datetime, timezone
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, NamedTuple

import numpy as np

import mnist_nbdev
from mnist_nbdev.base.arrays import read_arrays, write_arrays
from mnist_nbdev.base.files import canonical_json, sha256_bytes, sha256_file, write_json, write_text
from mnist_nbdev.base.loading import project_path, resolve_settings
from mnist_nbdev.base.machine import default_threads
from mnist_nbdev.base.settings import Settings
from mnist_nbdev.base.statistics import clopper_pearson_bounds
from mnist_nbdev.data.sources import SOURCES, Dataset, Split, load_dataset
from mnist_nbdev.data.spec import MNIST_SPEC
from mnist_nbdev.gate.evaluation import fit_temperature
from mnist_nbdev.gate.evidence import (
    Evidence,
    calibration_sample,
    corruption_sample,
    count_classes,
    count_pairs,
)
from mnist_nbdev.gate.release import decide
from mnist_nbdev.gate.robustness import evaluate_robustness, robustness_figures
from mnist_nbdev.model.export import export_onnx
from mnist_nbdev.model.inference import OnnxClassifier, measure_latency, score_images
from mnist_nbdev.runs.environment import code_hash, package_versions, processor_name

RESULTS = Path(__file__).parent / "results"
N_TEST = SOURCES["mnist"].n_test
DATA = {"source": "mnist", "verified": True, "n_test_images": N_TEST, "n_models": 1}
SAMPLE = DATA | {"source": "sample", "n_test_images": 500}
FILES = {"models/model.onnx": True, "evaluation/predictions.npz": True}
SAMPLED = {"accuracy", "class_recall", "slices", "calibration", "champion", "corruptions"}


class Case(NamedTuple):
    "A model, and its defect."

    name: str
    meant_for: str  # the check meant to stop it; "": it may ship
    flags: tuple[str, ...] = ()  # settings that differ from the default preset
    wrong_labels: tuple[float, int, int] | None = None  # fraction, from, to class; -1: any
    without: int | None = None  # a class missing from the training images
    damage: float = 0.0  # fraction of weights whose sign is flipped after training
    pixel_mean: float | None = None  # of the exported model; None: that of the trained one
    times_of: tuple[int, ...] = ()  # channels of another network, used for the batch times


HASTY = ("training.epochs=1", "training.learning_rate=0.0003")
# The margins were chosen on models of the seeds 0 to 9 and 100, by how much they differ from each
# other; the rates are measured on models that played no part in it.
FIRST_SEED = 200
GOOD = [Case("default preset", "")]
BAD = [
    Case("one epoch at a tenth of the learning rate", "accuracy", HASTY),
    *(
        Case(f"{fraction:.0%} of all labels wrong", "calibration", (), (fraction, -1, -1))
        for fraction in (0.02, 0.05, 0.1, 0.2, 0.4)
    ),
    Case("trained without 7s", "class_recall", (), None, 7),
    Case("half of the 9s labelled 4", "champion", (), (0.5, 9, 4)),
    Case("exported with a wrong pixel mean", "accuracy", pixel_mean=0.9),
    Case("3% of the weights with the wrong sign", "champion", damage=0.03),
    Case("times of a network 25 times as large", "inference_time", times_of=(160, 320, 640)),
]
OTHERS = [  # a good model with bad evidence
    ("evaluated on the sample", "data", {"data": SAMPLE}),
    ("files not verified", "data", {"data": DATA | {"verified": False}}),
    ("model.onnx changed afterwards", "evidence", {"files": FILES | {"models/model.onnx": False}}),
    ("no times", "inference_time", {"batch_times_ms": None}),
    ("no predictions for corrupted images", "corruptions", {"corruptions": None}),
]


def with_defect(split: Split, case: Case, draws: np.random.Generator) -> Split:
    images, labels = split.images, split.labels.copy()
    if case.wrong_labels:
        fraction, before, after = case.wrong_labels
        changed = (draws.random(len(labels)) < fraction) & ((labels == before) | (before < 0))
        random_labels = (labels + draws.integers(1, 10, len(labels))) % 10
        labels[changed] = random_labels[changed] if after < 0 else after
    if case.without is not None:
        images, labels = images[labels != case.without], labels[labels != case.without]
    return Split(images, labels.astype(np.uint8))


def compute_predictions(case: Case, seed: int, dataset: Dataset) -> dict[str, np.ndarray]:
    "Train, fit the temperature, export and predict, as stages 2 to 4 do."
    import torch

    from mnist_nbdev.model.network import build_model
    from mnist_nbdev.model.training import train

    settings = resolve_settings(environment={}, flags=[f"seed={seed}", *case.flags]).settings
    draws = np.random.default_rng(seed)
    training, validation = (
        with_defect(part, case, draws) for part in (dataset.train, dataset.validation)
    )
    model = build_model(settings.model, seed)
    with TemporaryDirectory() as folder:
        files = {"checkpoints": Path(folder) / "c", "history_file": Path(folder) / "h.jsonl"}
        train(model, training, validation, settings, **files)
        temperature = fit_temperature(validation.labels, score_images(model, validation.images))
        with torch.no_grad():
            for weights in model.parameters():
                if case.damage and weights.ndim > 1:
                    weights[torch.rand(weights.shape) < case.damage] *= -1
        if case.pixel_mean is not None:
            changed = settings.model.model_copy(update={"pixel_mean": case.pixel_mean})
            weights, model = model.state_dict(), build_model(changed, seed)
            model.load_state_dict(weights)
        export_onnx(model, Path(folder) / "model.onnx", temperature)
        classifier = OnnxClassifier(Path(folder) / "model.onnx", settings.inference.threads)
        timed = classifier
        if case.times_of:
            large = settings.model.model_copy(update={"conv_channels": list(case.times_of)})
            export_onnx(build_model(large, seed), Path(folder) / "large.onnx")
            timed = OnnxClassifier(Path(folder) / "large.onnx", settings.inference.threads)

        latency = measure_latency(timed, settings.evaluation.batch_size, settings.inference)
        return {
            "labels": dataset.test.labels,
            "probabilities": classifier.predict(dataset.test.images)[1],
            "times_ms": np.array(latency["batch"]["times_ms"], np.float32),
            "size_mb": np.array([(Path(folder) / "model.onnx").stat().st_size / 1e6], np.float32),
            **evaluate_robustness(dataset.test.images, classifier.labels, MNIST_SPEC),
        }


DECISIVE = (  # the modules that a model's predictions depend on
    *("data/sources", "data/corruptions", "data/augmentation", "model/network"),
    *("model/optimization", "model/checkpoints", "model/training", "model/export"),
    *("model/inference", "gate/evaluation", "gate/robustness"),
)
TYPES = {
    **{"labels": "uint8", "probabilities": "float32", "times_ms": "float32", "size_mb": "float32"},
    **{"slices": "bool", "chosen": "uint32", "answers": "uint8"},
}


def predictions_of(case: Case, seed: int, dataset: Dataset) -> dict[str, np.ndarray]:
    "Compute predictions, or read those of an earlier call with the same code and settings."
    package = Path(mnist_nbdev.__file__).parent
    code = [sha256_file(package / f"{name}.py") for name in DECISIVE]
    settings = resolve_settings(environment={}).settings
    sections = {"augmentation", "model", "training", "inference", "evaluation"}
    decisive = settings.model_dump(mode="json", include=sections)
    inputs = [case, seed, code, decisive, package_versions(), processor_name()]
    digest = sha256_bytes(canonical_json(json.loads(json.dumps(inputs))).encode())
    path = project_path("artifacts/gate-error") / f"{digest[:24]}.npz"
    if not path.is_file():
        began = time.perf_counter()
        write_arrays(path, compute_predictions(case, seed, dataset))
        print(f"{case.name}, seed {seed}: {time.perf_counter() - began:.0f} s", flush=True)
    return read_arrays(path, TYPES)


def resampled(model: dict[str, np.ndarray], champion: dict[str, np.ndarray], draws: Any) -> Any:
    "Draw one test set from the real one, with replacement, for both models."
    n_images = len(model["labels"])
    picked = draws.integers(0, n_images, n_images)
    column = np.full(n_images, -1)
    column[model["chosen"]] = np.arange(len(model["chosen"]))
    places = np.flatnonzero(column[picked] >= 0)  # drawn images that were also corrupted
    return tuple(
        arrays
        | {
            "labels": arrays["labels"][picked],
            "probabilities": arrays["probabilities"][picked],
            "slices": arrays["slices"][:, picked],
            "chosen": places.astype(np.uint32),
            "answers": arrays["answers"][:, column[picked][places]],
            "times_ms": draws.choice(arrays["times_ms"], len(arrays["times_ms"])),
        }
        for arrays in (model, champion)
    )


def stopped_by(model: Any, champion: Any, settings: Settings, **changed: Any) -> list[str]:
    "List the checks that do not pass."
    labels, probabilities = model["labels"], model["probabilities"]
    predictions = probabilities.argmax(1)
    champion_predictions = champion["probabilities"].argmax(1)
    corrupted = labels[model["chosen"]], model["answers"], champion["answers"]
    evidence = {
        "classes": count_classes(labels, predictions, MNIST_SPEC.class_names),
        "slices": robustness_figures(model, labels, predictions, MNIST_SPEC)["slices"],
        "calibration": calibration_sample(
            labels, probabilities, settings.evaluation.calibration_bins
        ),
        "champion": {
            "run": "the champion",
            "classes": count_pairs(
                labels, champion_predictions, predictions, MNIST_SPEC.class_names
            ),
        },
        "corruptions": corruption_sample(*corrupted),
        "batch_times_ms": tuple(model["times_ms"].tolist()),
        "model_size_bytes": round(1e6 * float(model["size_mb"][0])),
        "data": DATA,
        "files": FILES,
    }
    decision = decide(Evidence(**{**evidence, **changed}), settings.release_thresholds)
    return [check.name for check in decision.checks if check.outcome != "passed"]


def half(model: Any, picked: Any) -> Any:
    "Select a model's predictions for some of the images."
    column = np.full(len(model["labels"]), -1)
    column[model["chosen"]] = np.arange(len(model["chosen"]))
    places = np.flatnonzero(column[picked] >= 0)
    return model | {
        "labels": model["labels"][picked],
        "probabilities": model["probabilities"][picked],
        "slices": model["slices"][:, picked],
        "chosen": places.astype(np.uint32),
        "answers": model["answers"][:, column[picked][places]],
    }


def rate(count: int, trials: int) -> dict[str, Any]:
    lower, upper = clopper_pearson_bounds(count, trials, 0.95)
    return {"count": count, "of": trials, "lower": lower, "upper": upper}


def measured(
    name: str, model: Any, champion: Any, settings: Settings, n_draws: int
) -> dict[str, Any]:
    draws = np.random.default_rng(0)
    stopped = [stopped_by(*resampled(model, champion, draws), settings) for _ in range(n_draws)]
    by_check = Counter(check for checks in stopped for check in checks)
    return {
        "model": name,
        "accuracy": float((model["probabilities"].argmax(1) == model["labels"]).mean()),
        "stopped_by": stopped_by(model, champion, settings),
        "rejected": rate(sum(bool(checks) for checks in stopped), n_draws),
        "by_check": dict(by_check.most_common()),
    }


def flips(model: Any, champion: Any, settings: Settings, n_halves: int) -> dict[str, Any]:
    "Count how often two halves of the test set lead to different decisions."
    draws, differing = np.random.default_rng(1), 0
    for _ in range(n_halves):
        order = draws.permutation(len(model["labels"]))
        verdicts = set()
        for picked in (order[: len(order) // 2], order[len(order) // 2 :]):
            stopped = stopped_by(half(model, picked), half(champion, picked), settings)
            verdicts.add(bool(SAMPLED & set(stopped)))  # the other checks need the whole test set
        differing += len(verdicts) > 1
    return rate(differing, n_halves)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument(
        "--draws", type=int, default=1000, help="resampled test sets of all good models together"
    )
    parser.add_argument("--seeds", type=int, default=20, help="good models besides the champion")
    arguments = parser.parse_args()
    settings = resolve_settings(flags=["data.source=mnist"]).settings
    dataset = load_dataset(settings.data, seed=0)
    champion = predictions_of(GOOD[0], FIRST_SEED, dataset)
    good = []
    for seed in range(FIRST_SEED + 1, FIRST_SEED + 1 + arguments.seeds):
        model = predictions_of(GOOD[0], seed, dataset)
        name = f"default preset, seed {seed}"
        good.append(measured(name, model, champion, settings, arguments.draws // arguments.seeds))
    bad = []
    for case in BAD:
        model = predictions_of(case, 0, dataset)
        row = measured(case.name, model, champion, settings, arguments.draws // 10)
        bad.append(row | {"meant_for": case.meant_for})
    example = predictions_of(GOOD[0], FIRST_SEED + 1, dataset)
    others = [
        {
            "model": name,
            "meant_for": check,
            "stopped_by": stopped_by(example, champion, settings, **part),
        }
        for name, check, part in OTHERS
    ]
    rejected = sum(row["rejected"]["count"] for row in good)
    result = {
        "date": datetime.now(timezone.utc).isoformat(timespec="seconds"),
        "machine": {"processor": processor_name(), "threads": default_threads()},
        "packages": package_versions(),
        "code_sha256": code_hash(),
        "thresholds": settings.release_thresholds.model_dump(),
        "good": good,
        "good_models_rejected": rate(sum(bool(row["stopped_by"]) for row in good), len(good)),
        "good_draws_rejected": rate(rejected, sum(row["rejected"]["of"] for row in good)),
        "flips": flips(example, champion, settings, max(arguments.draws // 10, 10)),
        "bad": bad,
        "others": others,
    }
    write_json(RESULTS / "gate-error.json", result)
    write_text(RESULTS / "gate-error.md", table(result))
    print(table(result))


def percent(part: dict[str, Any]) -> str:
    fraction = part["count"] / part["of"]
    return f"{fraction:.1%} ({part['lower']:.1%} to {part['upper']:.1%}; {part['of']:,})"


def table(result: dict[str, Any]) -> str:
    lines = [
        "| models that may ship | rejected |",
        "| --- | --- |",
        f"| {len(result['good'])} trained models, on the test set "
        f"| {percent(result['good_models_rejected'])} |",
        f"| the same, on resampled test sets | {percent(result['good_draws_rejected'])} |",
        f"| one of them, two halves of the test set disagree | {percent(result['flips'])} |",
        "",
        "| models that must not ship | accuracy | meant to stop it | stopped by | rejected on "
        "resampled test sets |",
        "| --- | ---: | --- | --- | --- |",
    ]
    for row in result["bad"]:
        lines.append(
            f"| {row['model']} | {row['accuracy']:.2%} | {words(row['meant_for'])} "
            f"| {', '.join(map(words, row['stopped_by']))} | {percent(row['rejected'])} |"
        )
    for row in result["others"]:
        lines.append(
            f"| {row['model']} | | {words(row['meant_for'])} "
            f"| {', '.join(map(words, row['stopped_by']))} | |"
        )
    return "\n".join(lines) + "\n"


def words(name: str) -> str:
    return name.replace("_", " ")


if __name__ == "__main__":
    main()
