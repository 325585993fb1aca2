"""One measurement, in a process of its own: a description as JSON comes in, a result goes out.

A process each keeps trials apart: none finds caches warm or memory taken that another left behind,
and what the process needed at its peak is its own. bench.py calls this; by hand:

    python benchmarks/trial.py '{"kind": "train", "preset": "fast", "seed": 0}'
"""

import contextlib
import json
import resource
import statistics
import subprocess  # nosec B404
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

BEGAN = time.perf_counter()


def imported() -> float:
    "Seconds until torch is there, with the half of it that the first optimizer imports."
    import torch
    import torch._dynamo

    import mnist_nbdev.model.training  # noqa: F401
    from mnist_nbdev.base.machine import default_threads

    torch.set_num_threads(default_threads())
    return round(time.perf_counter() - BEGAN, 2)


def load(images: int | None = None) -> tuple[Any, float]:
    "The full set, the same split whatever the seed, so that seeds differ in training alone."
    from mnist_nbdev.base.loading import resolve_settings
    from mnist_nbdev.data.sources import load_dataset

    began = time.perf_counter()
    settings = resolve_settings(flags=["data.source=mnist"]).settings
    dataset = load_dataset(settings.data, seed=0)
    if images:  # the first ones of the shuffled training images
        train = type(dataset.train)(dataset.train.images[:images], dataset.train.labels[:images])
        dataset = type(dataset)(**{**vars(dataset), "train": train})
    return dataset, round(time.perf_counter() - began, 2)


def peak_memory_mb() -> float:
    return round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e6)


def scored(dataset: Any, predict: Callable[[Any], Any]) -> float:
    return float((predict(dataset.test.images) == dataset.test.labels).mean())


def train(trial: dict[str, Any]) -> dict[str, Any]:
    "A preset, perhaps with other settings: from resident data to final weights."
    imports_s = imported()
    import numpy as np
    import torch

    from mnist_nbdev.base.loading import resolve_settings
    from mnist_nbdev.model.network import build_model
    from mnist_nbdev.model.training import train

    dataset, load_s = load(trial.get("images"))
    flags = [*trial.get("flags", []), f"seed={trial['seed']}"]
    settings = resolve_settings(preset=trial["preset"], flags=flags).settings
    with tempfile.TemporaryDirectory() as folder:
        began = time.perf_counter()
        model = build_model(settings.model, trial["seed"])
        result = train(
            *(model, dataset.train, dataset.validation, settings),
            checkpoints=Path(folder) / "checkpoints",
            history_file=Path(folder) / "history.jsonl",
        )
        seconds = time.perf_counter() - began
    memory = peak_memory_mb()

    def predict(images: Any) -> Any:
        with torch.inference_mode():
            pixels = torch.from_numpy(np.ascontiguousarray(images))[:, None]
            return torch.cat([model(batch).argmax(1) for batch in pixels.split(500)]).numpy()

    return {
        "seconds": round(seconds, 3),
        "epoch_seconds": result.epoch_seconds,
        "accuracy": scored(dataset, predict),
        "validation_accuracy": result.history[result.best_epoch - 1]["validation_accuracy"],
        "parameters": sum(weight.numel() for weight in model.parameters()),
        "precision": result.precision,
        "imports_s": imports_s,
        "load_s": load_s,
        "peak_memory_mb": memory,
    }


def peer(trial: dict[str, Any]) -> dict[str, Any]:
    "Something else: from resident data to something that predicts."
    imports_s = imported()
    import peers

    dataset, load_s = load(trial.get("images"))
    name, epochs = trial["peer"], trial.get("epochs", 1)
    began = time.perf_counter()
    if name in ("svm", "knn"):
        predict = peers.fit_classical(dataset.train, name)
    else:
        net = getattr(peers, f"train_{name}")(dataset.train, epochs, trial["seed"])
        predict = peers.net_predictions(net)
    seconds = time.perf_counter() - began
    memory, scoring = peak_memory_mb(), time.perf_counter()
    return {
        "seconds": round(seconds, 3),
        "accuracy": scored(dataset, predict),
        "prediction_s": round(time.perf_counter() - scoring, 2),
        "imports_s": imports_s,
        "load_s": load_s,
        "peak_memory_mb": memory,
    }


def rung(trial: dict[str, Any]) -> dict[str, Any]:
    "One epoch of a step of the ladder."
    imported()
    import ladder
    import peers

    dataset, _ = load()
    began = time.perf_counter()
    net = ladder.train_rung(dataset.train, trial["rung"], trial["seed"])
    seconds = time.perf_counter() - began
    accuracy = scored(dataset, peers.net_predictions(net))
    return {"seconds": round(seconds, 3), "accuracy": accuracy}


def _product_gflops(precision: str) -> float:
    "The processor's peak, as a large matrix product reaches it: the best of three sizes."
    import torch

    kind = {"fp32": torch.float32, "bf16": torch.bfloat16}[precision]
    best = 0.0
    for size in (1024, 2048, 4096):
        left, right = (torch.randn(size, size).to(kind) for _ in range(2))
        for _ in range(6):
            began = time.perf_counter()
            left @ right
            best = max(best, 2 * size**3 / (time.perf_counter() - began) / 1e9)
    return best


def _training_flop(preset: str) -> float:
    "Operations a training image: forward, and twice that backward but for the first layer's input."
    from mnist_nbdev.base.loading import resolve_settings
    from mnist_nbdev.model.network import build_model, layer_summary

    layers = layer_summary(build_model(resolve_settings(preset=preset).settings.model, 0))
    products = [layer.operations for layer in layers if layer.kind in ("Conv2d", "Linear")]
    return 3 * sum(products) - products[0]


def epoch(trial: dict[str, Any]) -> dict[str, Any]:
    "One epoch of a preset's net in one precision, and how near it comes to the peak."
    imported()
    from mnist_nbdev.model.optimization import has_fast_bf16

    if trial["precision"] == "bf16" and not has_fast_bf16():
        return {"skipped": "this processor has no instructions for bf16"}
    precision = f"training.mixed_precision={str(trial['precision'] == 'bf16').lower()}"
    flags = ["training.epochs=2", precision]
    found = train({"preset": trial["preset"], "flags": flags, "seed": trial["seed"]})
    seconds = found["epoch_seconds"][1]  # the first one also builds the kernels
    peak, images = _product_gflops(trial["precision"]), 54_912
    reached = _training_flop(trial["preset"]) * images / seconds / 1e9
    return {
        "seconds": round(seconds * 60_000 / images, 3),  # for 60,000 images
        "first_s": round(found["epoch_seconds"][0] * 60_000 / images, 3),
        "gflops": round(reached),
        "peak_gflops": round(peak),
        "share_of_peak": round(reached / peak, 3),
    }


def _median_ms(call: Callable[[], object], runs: int) -> float:
    for _ in range(max(runs // 10, 3)):
        call()
    seconds = []
    for _ in range(runs):
        began = time.perf_counter()
        call()
        seconds.append(time.perf_counter() - began)
    return statistics.median(seconds) * 1e3


def inference(trial: dict[str, Any]) -> dict[str, Any]:
    "The exported model beside PyTorch's eager one in channels_last, with as many threads."
    imported()
    import numpy as np
    import torch

    from mnist_nbdev.base.loading import resolve_settings
    from mnist_nbdev.model.export import export_onnx
    from mnist_nbdev.model.inference import OnnxClassifier
    from mnist_nbdev.model.network import build_model, layer_summary

    settings = resolve_settings(preset=trial["preset"]).settings
    model = build_model(settings.model, trial["seed"]).eval()
    operations = sum(layer.operations for layer in layer_summary(model))
    found: dict[str, Any] = {}
    with tempfile.TemporaryDirectory() as folder:
        export_onnx(model, Path(folder) / "model.onnx")
        exported = OnnxClassifier(Path(folder) / "model.onnx")
        eager = model.to(memory_format=torch.channels_last)
        for name, count, runs in (("one", 1, 1000), ("batch", 256, 40)):
            images = np.random.default_rng(0).integers(0, 256, (count, 1, 28, 28), np.uint8)
            tensor = torch.from_numpy(images)
            with torch.inference_mode():
                eager_ms = _median_ms(lambda tensor=tensor: eager(tensor), runs)
            exported_ms = _median_ms(lambda images=images: exported.predict(images), runs)
            found |= {
                f"{name}_eager_ms": round(eager_ms, 4),
                f"{name}_exported_ms": round(exported_ms, 4),
                f"{name}_ratio": round(eager_ms / exported_ms, 2),
            }
    per_s = 256 / found["batch_exported_ms"] * 1e3
    peak = _product_gflops("fp32")
    found |= {
        "images_per_s": round(per_s),
        "share_of_peak": round(per_s * operations / peak / 1e9, 3),
    }
    return found


def _processes_mb(parent: Any) -> float:
    "What a process and its descendants hold, shared pages divided among their users."
    import psutil

    total = 0
    for process in [parent, *parent.children(recursive=True)]:
        with contextlib.suppress(psutil.Error):  # it may have ended
            total += process.memory_full_info().pss
    return total / 1e6


def command(trial: dict[str, Any]) -> dict[str, Any]:
    "A command line, from its start to its end, with the memory of all its processes."
    import psutil

    with tempfile.TemporaryDirectory() as folder:
        words = [word.replace("FOLDER", folder) for word in trial["command"]]
        began = time.perf_counter()
        process = subprocess.Popen(  # nosec B603
            [sys.executable, "-m", "mnist_nbdev", *words],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        parent, memory = psutil.Process(process.pid), 0.0
        while process.poll() is None:
            if trial.get("memory"):
                memory = max(memory, _processes_mb(parent))
            time.sleep(0.2 if trial.get("memory") else 0.002)
        seconds = time.perf_counter() - began
    if process.returncode not in (0, 3):
        raise SystemExit(f"{words} ended with {process.returncode}")
    return {"seconds": round(seconds, 3), "peak_memory_mb": round(memory)}


KINDS = {f.__name__: f for f in (train, peer, rung, epoch, inference, command)}

if __name__ == "__main__":
    description = json.loads(sys.argv[1])
    print(json.dumps(KINDS[description["kind"]](description)))
