"""Print the summary of a run for a GitHub job: decision, checks, model card, trend of past runs.

    .ci/summary.py RUN_FOLDER [TREND.jsonl]

A line for this run is appended to the trend file, and the last thirty lines are shown.
"""

import json
import sys
from pathlib import Path
from typing import Any

from mnist_nbdev.gate.checks import Check
from mnist_nbdev.gate.release import Decision, decision_table
from mnist_nbdev.runs.run import Run


def chart(title: str, values: list[float], unit: str = "%") -> str:
    "Return a line chart in Mermaid, which GitHub draws; fractions are shown in percent."
    scale = 100 if unit == "%" else 1
    line = ", ".join(f"{scale * value:.3f}" for value in values)
    return (
        f'\n```mermaid\nxychart-beta\n  title "{title}"\n'
        f'  x-axis 1 --> {len(values)}\n  y-axis "{unit}"\n  line [{line}]\n```\n'
    )


def show_trend(trend: Path, summary: dict[str, Any]) -> None:
    "Append a run to the trend file and print the last runs."
    line = {
        "run": summary["run_id"],
        "status": summary["status"],
        "accuracy": summary["metrics"]["accuracy"],
        "training_s": summary["seconds"].get("2_train"),
    }
    earlier = trend.read_text(encoding="utf-8") if trend.exists() else ""
    trend.write_text(earlier + json.dumps(line) + "\n", encoding="utf-8")
    lines = trend.read_text(encoding="utf-8").splitlines()[-30:]
    runs = [json.loads(text) for text in lines]
    print("\n## The last runs\n")
    if len(runs) > 1:
        print(chart("Test accuracy, run by run", [run["accuracy"] for run in runs]))
    trained = [run["training_s"] for run in runs if run["training_s"] is not None]
    if len(trained) > 1:
        print(chart("Training, run by run", trained, "s"))
    print("| run | decision | accuracy | training, s |\n| --- | --- | ---: | ---: |")
    for run in runs:
        seconds = "" if run["training_s"] is None else f"{run['training_s']:.1f}"
        print(f"| {run['run']} | {run['status']} | {run['accuracy']:.2%} | {seconds} |")


def main(folder: Path, trend: Path | None) -> None:
    run = Run(folder)
    summary, decision = run.summary, run.read_json("decision.json")
    checks = tuple(Check(**check) for check in decision["checks"])
    print(f"# {summary['status'].capitalize()}: {summary['run_id']}\n")
    print(decision_table(Decision(decision["status"], checks)))
    history = run.history
    if len(history) > 1:
        print(chart("Validation accuracy by epoch", [e["validation_accuracy"] for e in history]))
    if trend:
        show_trend(trend, summary)
    print("\n" + run.path("model_card.md").read_text(encoding="utf-8"))


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]) if len(sys.argv) > 2 else None)
