"""What `make test-mutation` adds to mutmut: a plugin for pytest, and the table of what came out.

`python tests/mutation.py [FILE]` prints the table and every mutant that survived, and writes the
table into FILE. It ends with 1 where fewer than 85 % of the mutants of a module died.
"""

import gc
import json
import sys
from collections import Counter
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

MODULES = (
    *("base/files", "base/settings", "base/loading", "base/logs", "gate/evaluation"),
    *("gate/diagnostics", "gate/wording", "gate/checks", "gate/release"),
    *("runs/environment", "runs/run", "runs/ledger"),
)
REQUIRED = 0.85
LATE = ("test_evaluation_properties", "test_release_properties", "00_evaluation")

# mutmut's exit codes: pytest's own, its "no test reaches it", mypy's refusal, and out of time.
OUTCOMES = {0: "survived", 33: "survived", 37: "types", 1: "tests", 3: "tests"}


def pytest_configure(config: Any) -> None:
    "The same examples each time; one that fails is enough, it need not be the smallest."
    from hypothesis import Phase, settings

    settings.register_profile(
        "mutation", phases=[Phase.explicit, Phase.generate], derandomize=True, database=None
    )
    settings.load_profile("mutation")
    gc.freeze()  # each trial is a fork: nobody needs to look through what it inherits


def pytest_collection_modifyitems(items: list[Any]) -> None:
    "Slow tests last: the first that fails ends the trial."
    items.sort(key=lambda item: [name in item.nodeid for name in reversed(LATE)])


def outcomes(module: str) -> dict[str, str]:  # mutant -> survived, types, tests or time
    meta = json.loads(Path(f"mutants/mnist_nbdev/{module}.py.meta").read_text(encoding="utf-8"))
    codes = meta["exit_code_by_key"]
    untried = [name for name, code in codes.items() if code is None]
    if untried:
        sys.exit(f"{len(untried)} mutants of {module} were not tried: go on with `mutmut run`.")
    return {name: OUTCOMES.get(code, "time") for name, code in codes.items()}


def row(name: str, found: Counter[str]) -> str:
    n = found.total()
    died = n - found["survived"]
    shown = [n, found["tests"] + found["time"], found["types"], found["survived"]]
    return f"| {name} | {' | '.join(f'{count:,}' for count in shown)} | {died / n:.1%} |"


def main() -> int:
    found = {module: outcomes(module) for module in MODULES}
    counts = {module: Counter(of.values()) for module, of in found.items()}
    today = datetime.now(timezone.utc).date().isoformat()
    lines = [
        "| module | mutants | killed by tests | refused by mypy | survived | died |",
        "| --- | ---: | ---: | ---: | ---: | ---: |",
        *(row(f"`{module}`", count) for module, count in counts.items()),
        row("all", sum(counts.values(), Counter())),
        "",
        f"Measured on {today}.",
    ]
    for of in found.values():
        for name in (name for name, outcome in of.items() if outcome == "survived"):
            print(name)
    print("\n".join(lines))
    for target in sys.argv[1:]:
        Path(target).write_text("\n".join(lines) + "\n", encoding="utf-8")
    shares = [1 - count["survived"] / count.total() for count in counts.values()]
    return int(min(shares) < REQUIRED)


if __name__ == "__main__":
    sys.exit(main())
