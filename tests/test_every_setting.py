"""No dead settings: each one changes something that can be seen, and none is forgotten here."""

import hashlib
import io
import json
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import pytest
from commands import close_logs

from mnist_nbdev.base.files import PipelineError, UsageError
from mnist_nbdev.base.loading import resolve_settings
from mnist_nbdev.base.logs import get_logger, start_logging
from mnist_nbdev.base.settings import Settings, setting_fields
from mnist_nbdev.base.training_settings import DataSettings
from mnist_nbdev.data import mnist, sources
from mnist_nbdev.execution import pipeline
from mnist_nbdev.gate.diagnostics import plot_worst_mistakes
from mnist_nbdev.gate.evaluation import evaluate
from mnist_nbdev.gate.evidence import good_evidence
from mnist_nbdev.gate.release import decide
from mnist_nbdev.model.export import export_onnx
from mnist_nbdev.model.inference import OnnxClassifier, check_parity, measure_latency
from mnist_nbdev.model.network import build_model
from mnist_nbdev.model.reading import read_digit
from mnist_nbdev.runs.run import Run

pytestmark = pytest.mark.integration


def settings_of(*flags: str) -> Settings:
    return resolve_settings(preset="debug", environment={}, flags=list(flags)).settings


@cache
def sample() -> sources.Dataset:
    return sources.load_dataset(DataSettings(source="sample"), seed=0)


def some(split: sources.Split, n: int) -> sources.Split:
    return sources.Split(split.images[:n], split.labels[:n])


# --- What a training comes to ---------------------------------------------------------------

SMALL = (
    *("model.conv_channels=[4, 4]", "model.fc_hidden_dims=[8]", "model.dropout_rate=0.2"),
    *("training.epochs=3", "training.threads=1", "training.mixed_precision=false"),
    *("training.device=cpu", "training.ema_decay=0"),
)
# Setting -> another value, and what has to be set besides for it to matter.
TRAINED: dict[str, tuple[str, tuple[str, ...]]] = {
    "seed": ("1", ()),
    "data.batch_size": ("50", ()),
    "augmentation.shift_pixels": ("2", ()),
    "augmentation.rotation_degrees": ("10", ()),
    "augmentation.scale": ("0.1", ()),
    "augmentation.shear": ("0.1", ()),
    "augmentation.elastic_pixels": ("1", ()),
    "augmentation.elastic_sigma": ("8", ("augmentation.elastic_pixels=1",)),
    "augmentation.erasing_probability": ("0.5", ()),
    "augmentation.noise_std": ("0.1", ()),
    "augmentation.flip_probability": ("0.5", ()),
    "augmentation.crop_padding": ("2", ()),
    "augmentation.color_jitter": ("0.4", ()),
    "model.conv_channels": ("[4, 8]", ()),
    "model.fc_hidden_dims": ("[]", ()),
    "model.dropout_rate": ("0.5", ()),
    "model.batch_norm": ("false", ()),
    "model.activation": ("gelu", ()),
    "model.kernel_size": ("5", ()),
    "model.block_depth": ("2", ("model.conv_channels=[4, 8]",)),
    "model.stem": ("stride", ()),
    "model.pixel_mean": ("0.5", ()),
    "model.pixel_std": ("1", ()),
    "training.epochs": ("2", ()),
    "training.learning_rate": ("0.02", ()),
    "training.optimizer": ("sgd", ()),
    "training.momentum": ("0.5", ("training.optimizer=sgd",)),
    "training.weight_decay": ("0.5", ()),
    "training.scheduler": ("constant", ()),
    "training.warmup_epochs": ("1", ("training.scheduler=cosine",)),
    "training.step_epochs": ("1", ("training.scheduler=step",)),
    "training.step_factor": ("0.5", ("training.scheduler=step",)),
    "training.plateau_patience": (
        "1",
        ("training.scheduler=plateau", "training.plateau_patience=0", "training.learning_rate=2"),
    ),
    "training.loss": ("squared_error", ()),
    "training.label_smoothing": ("0.2", ()),
    "training.gradient_clip_norm": ("0.01", ()),
    "training.ema_decay": ("0.9", ()),
    "training.early_stopping_patience": (
        "1",
        ("training.learning_rate=1e-9", "model.batch_norm=false"),
    ),
    "training.mixed_precision": ("true", ()),
    "training.device": ("mps", ()),
    "training.threads": ("2", ()),
    "training.checkpoint_interval_s": ("1e-6", ()),
}


@cache
def trained(*flags: str) -> object:
    "All that a small training leaves behind, but for what a clock measured."
    from mnist_nbdev.model.training import train

    settings = settings_of(*SMALL, *flags)
    splits = some(sample().train, 320), some(sample().validation, 200)
    with TemporaryDirectory() as folder:
        try:
            model = build_model(settings.model, settings.seed)
            files = {"checkpoints": Path(folder, "c"), "history_file": Path(folder, "history")}
            result = train(model, *splits, settings, **files)
        except UsageError as error:  # a device or precision that is not here is said, not ignored
            return str(error)
        digest = hashlib.sha256()
        for name, tensor in model.state_dict().items():
            digest.update(name.encode() + tensor.numpy(force=True).tobytes())
        kept = sorted(path.name for path in Path(folder, "c").iterdir())
    machine = result.device, result.precision, result.threads
    return digest.hexdigest(), result.history, machine, kept


@pytest.mark.parametrize("key", TRAINED)
def test_a_setting_of_the_training_changes_it(key):
    value, needed = TRAINED[key]
    before = trained(*needed)
    assert before == trained.__wrapped__(*needed), "not repeatable: a difference would say nothing"
    assert trained(*needed, f"{key}={value}") != before


# --- Everything else: what is seen with one value and with another -----------------------------


class Downloads(list):
    "Stands in for the network: notes what was asked for, and gives nothing."

    def __call__(self, url: str, file: object, folder: Path, timeout_s: float) -> None:
        self.append((url, timeout_s))
        raise TimeoutError("no answer")


def loaded(tmp: Path, *flags: str) -> object:
    here = (f"data.root={tmp}", "data.source=mnist", "data.mirrors=[http://a.test/]")
    settings = settings_of(*here, *flags).data
    with pytest.MonkeyPatch.context() as patch:
        downloads = Downloads()
        patch.setattr(mnist, "_download", downloads)
        try:
            dataset = sources.load_dataset(settings, seed=0)
        except PipelineError as error:
            return list(downloads), str(error)
    return dataset.source


def divided(tmp: Path, *flags: str) -> object:
    labels = np.arange(3000, dtype=np.uint8) % 10
    split = sources.Split(np.zeros((3000, 28, 28), np.uint8), labels)
    raw = sources.RawImages("data", {}, split, split, tuple("0123456789"))
    kind, size = sources.SOURCES["mnist"], settings_of(*flags).data
    return len(sources._divide(raw, kind, size.validation_size, 0)["validation"])


def own(tmp: Path, *flags: str) -> object:
    images, labels = np.zeros((60, 6, 5), np.uint8), np.arange(60) % 3
    for name, step in (("a.npz", 1), ("b.npz", 2)):
        part = images[::step], labels[::step]
        few = zip(("x_train", "y_train", "x_test", "y_test"), (*part, *part), strict=True)
        np.savez(tmp / name, **dict(few))
    flags = tuple(flag.replace("HERE", str(tmp)) for flag in flags)
    settings = settings_of("data.source=npz", f"data.path={tmp}/a.npz", *flags)
    dataset = sources.load_dataset(settings.data, seed=0)
    return len(dataset.train), dataset.spec


def built(tmp: Path, *flags: str) -> object:
    "The names of a network's weights, and their sizes; or why it cannot be built."
    code = "from torch import nn\n\ndef own(spec, options):\n"
    code += (
        "    return nn.Sequential(nn.Flatten(), nn.Linear(784, 10, options.get('bias', True)))\n"
    )
    (tmp / "networks.py").write_text(code)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(tmp)
        try:
            model = build_model(settings_of(*flags).model, seed=0)
        except UsageError as error:
            return str(error)
    return [(name, tuple(tensor.shape)) for name, tensor in model.state_dict().items()]


def run_made(tmp: Path, *flags: str) -> object:
    "Where a run goes and what it is worked on with, without working on it."
    made: list[object] = []
    settings = resolve_settings(
        preset="debug",
        environment={},
        flags=[f"paths.artifacts={tmp}/artifacts", f"logging.log_file={tmp}/all.log", *flags],
    )

    def note(run: Run, *_: object) -> dict[str, object]:
        made.append(run.artifacts.name)
        made.append(run.name.split("-", 2)[-1].rsplit("-", 1)[0])  # without time and digits
        return {}

    class Kernels(pipeline.Kernels):
        def __init__(self, ahead: int, timeout_s: float) -> None:
            super().__init__(ahead, timeout_s)
            made.extend([ahead, timeout_s])

    (tmp / "all.log").write_text("x" * 1000)
    for number in (1, 2):
        (tmp / f"all.log.{number}").write_text("old")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(pipeline, "run_stages", lambda *_: None)
        patch.setattr(pipeline, "finish_run", note)
        patch.setattr(pipeline, "Kernels", Kernels)
        pipeline.start_run(settings)
    close_logs()
    return made, sorted(path.name for path in tmp.glob("all.log*"))


def logged(tmp: Path, *flags: str) -> object:
    settings = settings_of(f"logging.log_file={tmp}/a.log", *flags).logging
    said = io.StringIO()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("mnist_nbdev.base.logs.console_stream", lambda: said)
        start_logging(settings)
        get_logger("test").info("here")
        close_logs()
    files = {path.name: path.read_text()[:1] for path in tmp.glob("*.log")}
    return files, "here" in said.getvalue()


@cache
def exported(folder: Path) -> Path:
    export_onnx(build_model(settings_of(*SMALL).model, seed=0), folder / "model.onnx")
    return folder / "model.onnx"


def timed(tmp: Path, *flags: str) -> object:
    settings = settings_of("inference.threads=1", "evaluation.device=cpu", *flags)
    evaluation, inference = settings.evaluation, settings.inference
    try:
        classifier = OnnxClassifier(exported(tmp), inference.threads, evaluation.device)
    except PipelineError as error:
        return str(error)
    calls = []
    predict = classifier.predict
    classifier.predict = lambda *words: (calls.append(1), predict(*words))[1]
    found = measure_latency(classifier, evaluation.batch_size, inference)
    batch = found["batch"]["batch_size"], found["batch"]["runs"]
    return len(calls), batch, found["threads"], found["device"]


def compared(tmp: Path, *flags: str) -> object:
    settings = settings_of("inference.parity_tolerance=1", *flags).inference
    classifier = OnnxClassifier(exported(tmp), 1)
    images = sample().test.images[:10]
    logits, _ = classifier.predict(images)
    try:
        return check_parity(logits + 1e-3, classifier, images, settings.parity_tolerance)
    except PipelineError as error:
        return str(error)


def read(tmp: Path, *flags: str) -> object:
    from PIL import Image

    file = io.BytesIO()
    Image.fromarray(sample().test.images[0]).resize((100, 100)).save(file, "PNG")
    try:
        return read_digit(file.getvalue(), settings_of(*flags).inference).tobytes()
    except PipelineError as error:
        return str(error)


def evaluated(tmp: Path, *flags: str) -> object:
    settings = settings_of(*flags).evaluation
    draws = np.random.default_rng(0)
    probabilities = draws.dirichlet(np.ones(10), 200).astype(np.float32)
    labels = draws.integers(0, 10, 200).astype(np.uint8)
    figure = plot_worst_mistakes(
        np.zeros((200, 28, 28), np.uint8), labels, probabilities, settings.worst_mistakes
    )
    shown = sum(bool(axes.images) for axes in figure.axes)
    return json.dumps(evaluate(labels, probabilities, settings)), shown


def decided(tmp: Path, *flags: str) -> object:
    pairs = good_evidence().champion.classes
    lost = {"only_champion": 12, "only_candidate": 0, "n_images": 1000}
    evidence = good_evidence(
        classes={label: {"n_correct": 985, "n_images": 1000} for label in pairs},
        slices={"thin": {"n_correct": 1970, "n_images": 2000}},
        calibration={"top": (0.995,) * 60, "correct": (True,) * 60, "n_bins": 15},
        champion={"run": "a-run", "classes": pairs | {"9": lost}},
        corruptions={
            **{"candidate": (8,) * 50 + (9,) * 950, "champion": (9,) * 1000},
            "by_kind": {f"kind {number}": 900 - 50 * (number == 0) for number in range(10)},
        },
    )
    thresholds = settings_of("release_thresholds.min_accuracy=0.982", *flags).release_thresholds
    decision = decide(evidence, thresholds)
    return decision.status, [(check.name, check.outcome) for check in decision.checks]


def registered(tmp: Path, *flags: str) -> object:
    settings, calls = settings_of(*flags), []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(pipeline, "promote", lambda *words, **more: calls.append("promoted"))
        patch.setattr(pipeline, "sync_registry", lambda *words: calls.append("tracked"))
        run = Run(tmp / "runs" / "a-run", settings)
        run.save_json("summary.json", {"status": "approved"})
        pipeline.register_run(run)
    return calls


def pictures(tmp: Path, *flags: str) -> object:
    from PIL import Image

    for number in range(60):
        path = tmp / "pictures" / "ab"[number % 2] / f"{number}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        pixels = np.random.default_rng(number).integers(0, 256, (8, 12, 3), np.uint8)
        Image.fromarray(pixels).save(path)
    if any("unreadable" in flag for flag in flags):
        (tmp / "pictures/a/0.png").write_bytes(b"")
    place = (f"data.path={tmp / 'pictures'}", f"data.root={tmp}", "data.source=folder")
    try:
        dataset = sources.load_dataset(settings_of(*place, *flags).data, seed=0)
    except PipelineError as error:
        return str(error)
    return dataset.spec.image_shape, hashlib.sha256(dataset.train.images.tobytes()).hexdigest()


SEEN = {
    "experiment_name": (run_made, "other", ()),
    "data.source": (loaded, "sample", ()),
    "data.root": (loaded, "elsewhere", ()),
    "data.path": (own, "HERE/b.npz", ()),
    "data.class_names": (own, "[a, b, c]", ()),
    "data.image_size": (pictures, "[4, 4]", ()),
    "data.channels": (pictures, "1", ()),
    "data.fit": (pictures, "crop", ("data.image_size=[4, 4]",)),
    "data.unreadable": (pictures, "skip", ("data.unreadable=refuse",)),
    "data.validation_size": (divided, "500", ("data.validation_size=300",)),
    "data.mirrors": (loaded, "[http://b.test/]", ()),
    "data.download_timeout_s": (loaded, "7", ()),
    "data.download_retries": (loaded, "5", ()),
    "model.architecture": (built, "networks:own", ()),
    "model.options": (built, "{bias: false}", ("model.architecture=networks:own",)),
    "model.pretrained": (built, "a.safetensors", (f"model.pretrained_sha256={'a' * 64}",)),
    "model.pretrained_sha256": (built, "a" * 64, ("model.pretrained=a.safetensors",)),
    "inference.threads": (timed, "2", ()),
    "inference.warmup_runs": (timed, "3", ()),
    "inference.timed_runs": (timed, "30", ()),
    "inference.parity_tolerance": (compared, "1e-6", ()),
    "inference.polarity": (read, "dark_on_light", ()),
    "inference.max_image_megapixels": (read, "0.001", ()),
    "evaluation.batch_size": (timed, "7", ()),
    "evaluation.device": (timed, "mps", ()),
    "evaluation.confidence": (evaluated, "0.9", ()),
    "evaluation.calibration_bins": (evaluated, "5", ()),
    "evaluation.worst_mistakes": (evaluated, "3", ()),
    "release_thresholds.min_accuracy": (decided, "0.99", ()),
    "release_thresholds.min_class_recall": (decided, "0.99", ()),
    "release_thresholds.min_slice_accuracy": (decided, "0.99", ()),
    "release_thresholds.max_calibration_error": (decided, "0.003", ()),
    "release_thresholds.max_regression": (decided, "0.1", ()),
    "release_thresholds.max_class_regression": (decided, "0", ()),
    "release_thresholds.max_corruption_regression": (decided, "0.5", ()),
    "release_thresholds.min_corruption_accuracy": (decided, "0.91", ()),
    "release_thresholds.min_worst_corruption": (decided, "0.88", ()),
    "registry.promote": (registered, "false", ()),
    "registry.track": (registered, "true", ()),
    "release_thresholds.max_inference_time_ms": (decided, "10", ()),
    "release_thresholds.max_model_size_mb": (decided, "1", ()),
    "release_thresholds.confidence": (decided, "0.999", ()),
    "pipeline.stage_timeout_s": (run_made, "77", ()),
    "pipeline.kernels_ahead": (run_made, "3", ()),
    "logging.log_level": (logged, "ERROR", ()),
    "logging.log_file": (logged, "b.log", ()),
    "logging.format": (logged, "json", ()),
    "logging.max_file_mb": (run_made, "0.0001", ()),
    "logging.backup_count": (run_made, "2", ("logging.max_file_mb=0.0001",)),
    "paths.artifacts": (run_made, "elsewhere", ()),
}


@pytest.mark.parametrize("key", SEEN)
def test_a_setting_changes_what_is_seen(key, tmp_path):
    see, value, needed = SEEN[key]
    if key in ("data.root", "logging.log_file", "paths.artifacts"):
        value = str(tmp_path / "other" / value)
    folders = [tmp_path / name for name in ("before", "again", "after")]
    for folder in folders:
        folder.mkdir()
    before, again, after = folders
    found = see(before, *needed)
    assert _anywhere(see(again, *needed), again) == _anywhere(found, before)
    assert _anywhere(see(after, *needed, f"{key}={value}"), after) != _anywhere(found, before)


def _anywhere(seen: object, folder: Path) -> str:
    return str(seen).replace(str(folder), "here")


def test_every_setting_is_tried_here():
    assert {*TRAINED, *SEEN} == set(setting_fields())
    assert not TRAINED.keys() & SEEN.keys()
