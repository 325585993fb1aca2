"""A run as a job's summary on GitHub: decision, checks, model card; and the trend of past runs.

    .ci/summary.py RUN_FOLDER [TREND.jsonl]

The trend file gets a line for this run, and its last thirty are shown.
"""

import json
import sys
from pathlib import Path

from mnist_nbdev.files import read_json
from mnist_nbdev.release import Check, Decision, decision_table
from mnist_nbdev.runs import run_summary


def main(folder: Path, trend: Path | None) -> None:
    summary, decision = run_summary(folder), read_json(folder / "decision.json")
    checks = tuple(Check(**check) for check in decision["checks"])
    print(f"# {summary['status'].capitalize()}: {summary['run_id']}\n")
    print(decision_table(Decision(decision["status"], checks)))
    if trend:
        line = {
            "run": summary["run_id"],
            "status": summary["status"],
            "accuracy": summary["metrics"]["accuracy"],
            "training_s": summary["seconds"].get("2_train"),
        }
        known = trend.read_text(encoding="utf-8") if trend.exists() else ""
        trend.write_text(known + json.dumps(line) + "\n", encoding="utf-8")
        print("\n## The last runs\n\n| run | decision | accuracy | training, s |")
        print("| --- | --- | ---: | ---: |")
        for text in trend.read_text(encoding="utf-8").splitlines()[-30:]:
            past = json.loads(text)
            seconds = "" if past["training_s"] is None else f"{past['training_s']:.1f}"
            print(f"| {past['run']} | {past['status']} | {past['accuracy']:.2%} | {seconds} |")
    print("\n" + (folder / "model_card.md").read_text(encoding="utf-8"))


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]) if len(sys.argv) > 2 else None)
