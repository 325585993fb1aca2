"""How fast the presets train and how good they are, beside the PyTorch MNIST example.

    make bench                      # the presets fast and default, three seeds each
    make bench ARGS="--seeds 10 --presets fast"

Rows and the reference are measured in turn in one process, so that a noisy machine treats them
alike. Seconds are from resident data to final weights, by a clock outside the training; test
accuracy is computed once for each model, after its last step. Results go to benchmarks/results/.
"""

import argparse
import json
import statistics
import tempfile
import time
from datetime import datetime, timezone
from pathlib import Path

import numpy as np
import torch
from torch import nn
from torch.nn import functional as F

from mnist_nbdev.config import project_root, resolve_settings
from mnist_nbdev.data import Dataset, Split, load_dataset
from mnist_nbdev.evidence import git_state, package_versions, processor_name, usable_cores
from mnist_nbdev.model import build_model
from mnist_nbdev.training import train


class ExampleNet(nn.Module):
    "The net of the PyTorch basic MNIST example: two convolutions, 1.2 M parameters."

    def __init__(self) -> None:
        super().__init__()
        self.conv1, self.conv2 = nn.Conv2d(1, 32, 3), nn.Conv2d(32, 64, 3)
        self.dropout1, self.dropout2 = nn.Dropout(0.25), nn.Dropout(0.5)
        self.fc1, self.fc2 = nn.Linear(9216, 128), nn.Linear(128, 10)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = F.max_pool2d(F.relu(self.conv2(F.relu(self.conv1(x)))), 2)
        x = self.dropout1(x).flatten(1)
        return F.log_softmax(self.fc2(self.dropout2(F.relu(self.fc1(x)))), dim=1)


def example_epoch(split: Split, seed: int) -> float:
    "Seconds of one epoch of the example: Adadelta, batch 64, its DataLoader with its transforms."
    from PIL import Image
    from torchvision import transforms

    steps = transforms.Compose([transforms.ToTensor(), transforms.Normalize((0.1307,), (0.3081,))])

    class Images(torch.utils.data.Dataset):
        def __len__(self) -> int:
            return len(split)

        def __getitem__(self, index: int) -> tuple[torch.Tensor, int]:
            return steps(Image.fromarray(split.images[index])), int(split.labels[index])

    torch.manual_seed(seed)
    net = ExampleNet()
    optimizer = torch.optim.Adadelta(net.parameters(), lr=1.0)
    loader = torch.utils.data.DataLoader(Images(), batch_size=64, shuffle=True)
    began = time.perf_counter()
    for images, labels in loader:
        optimizer.zero_grad()
        F.nll_loss(net(images), labels).backward()
        optimizer.step()
    return time.perf_counter() - began


def accuracy(model: nn.Module, split: Split) -> float:
    with torch.inference_mode():
        images = torch.from_numpy(np.ascontiguousarray(split.images))[:, None]
        found = torch.cat([model(batch).argmax(1) for batch in images.split(500)])
    return float((found.numpy() == split.labels).mean())


def preset_run(preset: str, dataset: Dataset, seed: int) -> dict[str, object]:
    settings = resolve_settings(preset=preset, flags=[f"seed={seed}"]).settings
    model = build_model(settings.model, seed)
    with tempfile.TemporaryDirectory() as folder:
        began = time.perf_counter()
        result = train(
            model,
            dataset.train,
            dataset.validation,
            settings,
            checkpoints=Path(folder) / "checkpoints",
            history_file=Path(folder) / "history.jsonl",
        )
        seconds = time.perf_counter() - began
    return {
        "seed": seed,
        "seconds": round(seconds, 2),
        "validation_accuracy": max(epoch["validation_accuracy"] for epoch in result.history),
        "test_accuracy": accuracy(model.eval().cpu(), dataset.test),
        "precision": result.precision,
        "threads": result.threads,
    }


def summary(preset: str, rows: list[dict], example_s: float) -> dict[str, object]:
    accuracies = [row["test_accuracy"] for row in rows]
    seconds = statistics.median(row["seconds"] for row in rows)
    return {
        "preset": preset,
        "runs": len(rows),
        "accuracy_mean": round(statistics.mean(accuracies), 5),
        "accuracy_std": round(statistics.stdev(accuracies), 5) if len(rows) > 1 else None,
        "accuracy_min": min(accuracies),
        "seconds_median": seconds,
        "seconds_min": min(row["seconds"] for row in rows),
        "seconds_max": max(row["seconds"] for row in rows),
        "of_example_epoch": round(seconds / example_s, 3),
        "precision": rows[0]["precision"],
    }


def table(result: dict) -> str:
    lines = [
        "| preset | runs | test accuracy, mean ± sd (min) | training, s: median (min to max) | in "
        "epochs of the PyTorch example |",
        "| --- | ---: | --- | --- | ---: |",
    ]
    for row in result["presets"]:
        spread = f" ± {row['accuracy_std']:.2%}" if row["accuracy_std"] is not None else ""
        lines.append(
            f"| {row['preset']} | {row['runs']} | {row['accuracy_mean']:.2%}{spread} "
            f"({row['accuracy_min']:.2%}) | {row['seconds_median']:.1f} "
            f"({row['seconds_min']:.1f} to {row['seconds_max']:.1f}) | "
            f"{row['of_example_epoch']:.2f} |"
        )
    times = result["example_epoch_s"]
    lines += [
        "",
        f"{result['processor']}, {result['threads']} threads, {result['presets'][0]['precision']}; "
        f"torch {result['packages'].get('torch')}; {result['date'][:10]}. One epoch of the PyTorch "
        f"MNIST example took {statistics.median(times):.1f} s ({min(times):.1f} to "
        f"{max(times):.1f}, {len(times)} trials).",
    ]
    return "\n".join(lines) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--presets", nargs="+", default=["fast", "default"])
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "results")
    words = parser.parse_args()
    base = resolve_settings(flags=["data.source=mnist"]).settings
    dataset = load_dataset(base.data, seed=0)  # one split, so that seeds differ in training alone
    rows: dict[str, list[dict]] = {preset: [] for preset in words.presets}
    example: list[float] = []
    for seed in range(words.seeds):
        if seed < 3:  # the reference takes longest and varies least
            torch.set_num_threads(usable_cores())
            example.append(round(example_epoch(dataset.train, seed), 2))
            print(f"PyTorch example, one epoch: {example[-1]} s", flush=True)
        for preset in words.presets:
            rows[preset].append(preset_run(preset, dataset, seed))
            print(preset, rows[preset][-1], flush=True)
    example_s = statistics.median(example)
    result = {
        "date": datetime.now(timezone.utc).isoformat(timespec="seconds"),
        "processor": processor_name(),
        "threads": usable_cores(),
        "git": git_state(project_root()),
        "packages": package_versions(),
        "example_epoch_s": example,
        "presets": [summary(preset, rows[preset], example_s) for preset in words.presets],
        "rows": rows,
    }
    words.out.mkdir(parents=True, exist_ok=True)
    (words.out / "bench.json").write_text(json.dumps(result, indent=2) + "\n")
    (words.out / "bench.md").write_text(table(result))
    print(table(result))


if __name__ == "__main__":
    main()
