"""How fast and how good: the presets beside what one would use instead, in one run.

    make bench                              # a subset, under ten minutes
    make bench-full                         # every row with all its seeds, hours; resumable
    make bench ARGS="--rows fast default"   # some rows

Each trial has a process of its own (trial.py), and rows take turns seed by seed, so that a noisy
machine treats them alike. E is the median over the trials of one epoch of the PyTorch MNIST
example. Seconds of training go from resident data to final weights, by a clock outside the
training; imports and loading stand beside them. Test accuracy is computed once for each model,
after its last step. The results are written after every trial: an interrupted run goes on where it
stopped, unless code, packages or processor are others by then.
"""

import argparse
import json
import statistics
import subprocess  # nosec B404
import sys
from dataclasses import dataclass, field
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import mnist_nbdev
from mnist_nbdev.base.files import canonical_json, sha256_bytes, sha256_file, write_json, write_text
from mnist_nbdev.base.loading import project_root, resolve_settings
from mnist_nbdev.base.machine import default_threads
from mnist_nbdev.runs.environment import code_hash, git_state, package_versions, processor_name

HERE = Path(__file__).parent
EXAMPLE = "PyTorch example, 1 epoch"


@dataclass(frozen=True, eq=False)
class Row:
    "Something that is measured."

    name: str
    trial: dict[str, Any]  # for trial.py, which gets the seed too
    runs: int  # seeds 0 to runs - 1
    subset: int = 0  # of them, how many `make bench` does
    group: str = field(default="training")


def _preset(name: str, preset: str, runs: int, subset: int, *flags: str) -> Row:
    return Row(name, {"kind": "train", "preset": preset, "flags": list(flags)}, runs, subset)


def _peer(name: str, peer: str, runs: int, subset: int, epochs: int = 1) -> Row:
    return Row(name, {"kind": "peer", "peer": peer, "epochs": epochs}, runs, subset, "peer")


def _command(name: str, runs: int, subset: int, *words: str, memory: bool = False) -> Row:
    trial = {"kind": "command", "command": list(words), "memory": memory}
    return Row(name, trial, runs, subset, "command")


RUN = ("--fresh", "--exit-zero", "--set", "paths.artifacts=FOLDER")
# What five epochs of the preset fast want: more change in the images, a longer average.
LONGER = ["training.epochs=5", "training.ema_decay=0.99", "augmentation.shift_pixels=2"]
AFFINE = [
    f"augmentation.{name}={value}"
    for name, value in (
        *(("shift_pixels", 2), ("rotation_degrees", 10.0)),
        *(("scale", 0.1), ("shear", 0.15)),
    )
]
ROWS = [
    _peer(EXAMPLE, "example", 5, 2),
    _preset("fast", "fast", 10, 3),
    _preset("fast, 5 epochs", "fast", 10, 2, *LONGER),
    _preset("default", "default", 5, 1),
    _preset("default, 10 epochs", "default", 5, 0, "training.epochs=10"),
    _preset("default in fp32", "default", 2, 0, "training.mixed_precision=false"),
    _preset("best", "best", 5, 0),
    _peer("reference net as commonly written, 5 epochs", "common", 2, 0, epochs=5),
    _peer("PyTorch example, 14 epochs", "example", 1, 0, epochs=14),
    _peer("scikit-learn, RBF SVM", "svm", 1, 0),
    _peer("scikit-learn, 3 nearest neighbours", "knn", 1, 1),
    *(
        Row(f"ladder: {name}", {"kind": "rung", "rung": rung}, 3, 0, "ladder")
        for rung, name in (
            ("common", "the reference net as commonly written"),
            ("resident", "images resident, changed a batch at a time"),
            ("batch_128", "batches of 128"),
            ("channels_last", "channels last in memory"),
            ("pool_first", "pooling before norm and activation"),
            ("bf16", "bf16 products"),
            ("processor", "memory kept, denormals flushed, optimizer fused"),
        )
    ),
    *(
        Row(
            f"ladder: {name}",
            {"kind": "train", "preset": preset, "flags": flags},
            3,
            0,
            "ladder",
        )
        for name, preset, flags in (
            ("one cycle, averaged weights, smoothed labels", "default", ["training.epochs=1"]),
            ("a net a fifth the size", "fast", [*AFFINE, "model.stem=pool"]),
            ("shifts by a pixel for affine changes", "fast", ["model.stem=pool"]),
            ("a first block that strides", "fast", []),
        )
    ),
    *(
        Row(f"an epoch, {p}", {"kind": "epoch", "preset": "default", "precision": p}, 3, 1, "epoch")
        for p in ("fp32", "bf16")
    ),
    *(
        Row(f"exported {p}", {"kind": "inference", "preset": p}, 3, 1, "inference")
        for p in ("default", "fast")
    ),
    _command("mnist-nbdev --help", 10, 3, "--help"),
    _command("mnist-nbdev config show", 10, 3, "config", "show"),
    _command("mnist-nbdev run --preset debug", 3, 1, "run", "--preset", "debug", *RUN),
    _command("mnist-nbdev run", 1, 0, "run", *RUN, memory=True),
    *(
        Row(
            f"fast, {epochs} epochs of {images:,} images",
            {
                **{"kind": "train", "preset": "fast", "images": images},
                "flags": [f"training.epochs={epochs}"],
            },
            2,
            0,
            "scaling",
        )
        for epochs, images in (
            *((1, 55_000), (2, 55_000), (4, 55_000), (8, 55_000)),
            *((4, 15_000), (4, 30_000), (4, 45_000)),
        )
    ),
]


def machine() -> dict[str, Any]:
    return {
        "processor": processor_name(),
        "threads": default_threads(),
        "packages": package_versions(),
        "code_sha256": code_hash(),
    }


TRAINING = (
    *("data/sources", "data/augmentation", "model/network", "model/optimization"),
    *("model/checkpoints", "model/training"),
)
DECISIVE = {  # modules that a kind of trial rests on; a command rests on all of them
    "train": TRAINING,
    "rung": TRAINING,
    "epoch": TRAINING,
    "inference": ("model/export", "model/inference", "model/network"),
    "peer": (),
}


def identity(row: Row, seed: int) -> str:
    "What a trial depends on: it is kept for as long as this stays the same."
    about = machine()
    kind = row.trial["kind"]
    if kind in DECISIVE:
        package = Path(mnist_nbdev.__file__).parent
        about["code_sha256"] = [sha256_file(package / f"{name}.py") for name in DECISIVE[kind]]
    about["benchmark_sha256"] = [
        sha256_file(HERE / name) for name in ("trial.py", "peers.py", "ladder.py")
    ]
    if "preset" in row.trial:
        settings = resolve_settings(preset=row.trial["preset"], environment={}).settings
        sections = {"seed", "data", "augmentation", "model", "training"}
        about["settings"] = settings.model_dump(include=sections)
    return sha256_bytes(canonical_json([row.name, row.trial, seed, about]).encode())


def measure(row: Row, seed: int) -> dict[str, Any]:
    "One trial, in its own process."
    words = [sys.executable, str(HERE / "trial.py"), json.dumps({**row.trial, "seed": seed})]
    ended = subprocess.run(words, stdout=subprocess.PIPE, text=True, check=True)  # nosec B603
    return json.loads(ended.stdout.splitlines()[-1])


def spread(values: list[float]) -> dict[str, float]:
    return {
        "mean": statistics.mean(values),
        "sd": statistics.stdev(values) if len(values) > 1 else 0.0,
        "median": statistics.median(values),
        "min": min(values),
        "max": max(values),
    }


def summaries(trials: list[dict[str, Any]]) -> dict[str, dict[str, Any]]:
    "A row's numbers over its trials, by the row's name."
    found: dict[str, dict[str, Any]] = {}
    for row in ROWS:
        mine = [trial for trial in trials if trial["row"] == row.name and "skipped" not in trial]
        if mine:
            numbers = [key for key, value in mine[0].items() if isinstance(value, int | float)]
            found[row.name] = {key: spread([trial[key] for trial in mine]) for key in numbers}
            found[row.name] |= {"runs": len(mine), "group": row.group}
            found[row.name]["precision"] = mine[0].get("precision", "fp32")
    if EXAMPLE in found:
        epoch = found[EXAMPLE]["seconds"]["median"]
        for summary in found.values():
            if "seconds" in summary:
                summary["of_example_epoch"] = summary["seconds"]["median"] / epoch
    return found


def _training_table(found: dict[str, dict[str, Any]]) -> list[str]:
    lines = [
        "| | runs | test accuracy: mean ± sd (min) | training, s: median (min to max) | in E |",
        "| --- | ---: | --- | --- | ---: |",
    ]
    for name, row in found.items():
        if row["group"] in ("training", "peer"):
            accuracy, seconds = row["accuracy"], row["seconds"]
            deviation = f" ± {accuracy['sd']:.2%}" if row["runs"] > 1 else ""
            of_epoch = f"{row['of_example_epoch']:.2f}" if "of_example_epoch" in row else ""
            lines.append(
                f"| {name} | {row['runs']} "
                f"| {accuracy['mean']:.2%}{deviation} ({accuracy['min']:.2%}) "
                f"| {seconds['median']:.1f} ({seconds['min']:.1f} to {seconds['max']:.1f}) "
                f"| {of_epoch} |"
            )
    return lines


def _needs_table(found: dict[str, dict[str, Any]]) -> list[str]:
    lines = [
        "| | parameters | imports, s | loading, s | answering 10,000 images, s | peak memory, MB |",
        "| --- | ---: | ---: | ---: | ---: | ---: |",
    ]
    for name, row in found.items():
        if row["group"] in ("training", "peer"):
            parameters = f"{row['parameters']['median']:,.0f}" if "parameters" in row else ""
            answering = f"{row['prediction_s']['median']:.1f}" if "prediction_s" in row else ""
            lines.append(
                f"| {name} | {parameters} | {row['imports_s']['median']:.1f} "
                f"| {row['load_s']['median']:.1f} | {answering} "
                f"| {row['peak_memory_mb']['max']:,.0f} |"
            )
    return lines


def _epoch_table(found: dict[str, dict[str, Any]]) -> list[str]:
    lines = [
        "| reference architecture | trials | seconds for 60,000 images | in E | GFLOP/s | peak of "
        "a matrix product, GFLOP/s | share |",
        "| --- | ---: | --- | ---: | ---: | ---: | ---: |",
    ]
    for name, row in found.items():
        if row["group"] == "epoch":
            seconds = row["seconds"]
            lines.append(
                f"| {name} | {row['runs']} | {seconds['median']:.1f} ({seconds['min']:.1f} to "
                f"{seconds['max']:.1f}) | {row.get('of_example_epoch', 0):.2f} "
                f"| {row['gflops']['median']:.0f} | {row['peak_gflops']['median']:.0f} "
                f"| {row['share_of_peak']['median']:.0%} |"
            )
    return lines


def _inference_table(found: dict[str, dict[str, Any]]) -> list[str]:
    lines = [
        "| | trials | one image, p50, ms | PyTorch eager, ms | times | images/s, batches of 256 | "
        "times eager | share of peak |",
        "| --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: |",
    ]
    for name, row in found.items():
        if row["group"] == "inference":
            lines.append(
                f"| {name} | {row['runs']} | {row['one_exported_ms']['median']:.3f} "
                f"| {row['one_eager_ms']['median']:.3f} | {row['one_ratio']['median']:.1f} "
                f"| {row['images_per_s']['median']:,.0f} | {row['batch_ratio']['median']:.2f} "
                f"| {row['share_of_peak']['median']:.0%} |"
            )
    return lines


def _command_table(found: dict[str, dict[str, Any]]) -> list[str]:
    lines = [
        "| | trials | seconds: median (min to max) | memory of all processes, MB |",
        "| --- | ---: | --- | ---: |",
    ]
    for name, row in found.items():
        if row["group"] in ("command", "scaling"):
            seconds, memory = row["seconds"], row["peak_memory_mb"]["max"]
            lines.append(
                f"| {name} | {row['runs']} | {seconds['median']:.2f} ({seconds['min']:.2f} to "
                f"{seconds['max']:.2f}) | {f'{memory:,.0f}' if memory else ''} |"
            )
    return lines


def report(result: dict[str, Any]) -> str:
    "The results as Markdown."
    found = result["rows"]
    trained = [row["precision"] for row in found.values() if row["group"] == "training"]
    lines = [
        f"{result['processor']}, {result['threads']} threads, "
        f"{trained[0] if trained else 'fp32'} where nothing else is said; "
        f"torch {result['packages'].get('torch')}; {result['date'][:10]}.",
    ]
    if EXAMPLE in found:
        epoch = found[EXAMPLE]["seconds"]
        lines[0] += (
            f" E, one epoch of the PyTorch MNIST example, took {epoch['median']:.1f} s "
            f"({epoch['min']:.1f} to {epoch['max']:.1f}, {found[EXAMPLE]['runs']} trials)."
        )
    tables = [_training_table, _needs_table, _epoch_table, _inference_table, _command_table]
    for table in tables:
        rows = table(found)
        lines += ["", *rows] if len(rows) > 2 else []
    return "\n".join(lines) + "\n"


def draw(result: dict[str, Any], path: Path) -> None:
    "Accuracy against seconds: what one gets for one's time."
    import matplotlib

    matplotlib.use("agg")
    import matplotlib.pyplot as plt

    figure, axis = plt.subplots(figsize=(8, 4.4), layout="constrained")
    colours = {"training": "#0072B2", "peer": "#888888"}
    shown = {name: row for name, row in result["rows"].items() if row["group"] in colours}
    shown.pop("default in fp32", None)  # a control, which stands in the table
    for name, row in shown.items():
        seconds, accuracy = row["seconds"], row["accuracy"]
        errors = [100 * (1 - accuracy[key]) for key in ("mean", "min", "max")]
        axis.errorbar(
            seconds["median"],
            errors[0],
            yerr=[[errors[0] - errors[2]], [errors[1] - errors[0]]],
            fmt="o" if row["group"] == "training" else "s",
            color=colours[row["group"]],
            capsize=3,
        )
        axis.annotate(
            name,
            (seconds["median"], errors[0]),
            xytext=(5, 4),
            textcoords="offset points",
            rotation=30,  # so that neighbours stay apart
            rotation_mode="anchor",
            size=8,
        )
    axis.set(xscale="log", yscale="log", xlabel="seconds of training", ylabel="test error, %")
    ticks = [0.25, 0.5, 1, 2, 4, 8]
    axis.set_yticks(ticks, [f"{tick:g}" for tick in ticks])
    axis.set_yticks([], minor=True)
    axis.xaxis.set_major_formatter("{x:g}")
    axis.set_ylim(0.18, 9)
    axis.set_xlim(right=4 * axis.get_xlim()[1])
    axis.grid(alpha=0.3)
    axis.spines[["top", "right"]].set_visible(False)
    figure.savefig(path, dpi=110, metadata={"Software": None})
    plt.close(figure)


def write(name: str, folder: Path, trials: list[dict[str, Any]]) -> dict[str, Any]:
    result = {
        "date": datetime.now(timezone.utc).isoformat(timespec="seconds"),
        **machine(),
        "git": git_state(project_root()),
        "rows": summaries(trials),
        "trials": trials,
    }
    write_json(folder / f"{name}.json", result)
    return result


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--full", action="store_true", help="every row with all its seeds")
    parser.add_argument("--rows", nargs="+", choices=[row.name for row in ROWS], metavar="ROW")
    parser.add_argument("--out", type=Path, default=HERE / "results")
    words = parser.parse_args()
    name = "bench-full" if words.full else "bench"
    path = words.out / f"{name}.json"
    known = json.loads(path.read_text())["trials"] if path.is_file() else []
    by_identity = {trial["identity"]: trial for trial in known}
    runs = {
        row: row.runs if words.full else row.subset or int(bool(words.rows))
        for row in ROWS
        if not words.rows or row.name in words.rows
    }
    plan = [
        (row, seed, identity(row, seed))
        for seed in range(max(row.runs for row in ROWS))
        for row in ROWS
        if seed < row.runs
    ]
    words.out.mkdir(parents=True, exist_ok=True)

    def done() -> list[dict[str, Any]]:
        return [by_identity[key] for _, _, key in plan if key in by_identity]

    for row, seed, key in plan:
        if seed < runs.get(row, 0) and key not in by_identity:
            found = measure(row, seed)
            by_identity[key] = {"row": row.name, "seed": seed, "identity": key, **found}
            print(f"{row.name}, seed {seed}: {found}", flush=True)
            write(name, words.out, done())
    result = write(name, words.out, done())
    write_text(words.out / f"{name}.md", report(result))
    draw(result, words.out / f"{name}.png")
    print(report(result))


if __name__ == "__main__":
    main()
