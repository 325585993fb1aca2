"The benchmark: what it makes of its trials, and that an interrupted one loses nothing."

import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
FOLDER = ROOT / "benchmarks"
NEEDS_DATA = pytest.mark.skipif(
    "MLOPS_DATA_ROOT" not in os.environ, reason="needs the full MNIST: set MLOPS_DATA_ROOT"
)


@pytest.fixture
def bench(monkeypatch):
    "benchmarks/bench.py, as a module of this test's own."
    monkeypatch.chdir(ROOT)
    spec = importlib.util.spec_from_file_location("bench", FOLDER / "bench.py")
    module = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, "bench", module)
    spec.loader.exec_module(module)
    return module


class Stopped(Exception):
    "As if by a power cut."


def measured(row, seed):
    "What a trial of a row might give."
    found = {"seconds": 40.0 + seed, "accuracy": 0.98, "imports_s": 2.0, "load_s": 1.0}
    if row.name == "fast":
        found |= {"seconds": 2.0 + seed / 10, "accuracy": 0.99 + seed / 1000, "parameters": 76_000}
    return found | {"peak_memory_mb": 900, "precision": "bf16"}


def run(bench, monkeypatch, out, *words, stop_after=None):
    "Run the benchmark on made-up trials; the rows and seeds that it measured."
    done = []

    def measure(row, seed):
        if stop_after is not None and len(done) == stop_after:
            raise Stopped
        done.append((row.name, seed))
        return measured(row, seed)

    monkeypatch.setattr(bench, "measure", measure)
    monkeypatch.setattr(sys, "argv", ["bench.py", "--out", str(out), *words])
    bench.main()
    return done


ROWS = ("--full", "--rows", "fast", "PyTorch example, 1 epoch")


@pytest.mark.unit
def test_rows_take_turns_and_are_compared_with_the_example(bench, monkeypatch, tmp_path):
    done = run(bench, monkeypatch, tmp_path, *ROWS)
    assert done[:4] == [
        *((bench.EXAMPLE, 0), ("fast", 0)),
        *((bench.EXAMPLE, 1), ("fast", 1)),
    ]
    result = json.loads((tmp_path / "bench-full.json").read_text())
    fast = result["rows"]["fast"]
    assert fast["runs"] == 10
    assert fast["accuracy"]["mean"] == pytest.approx(0.9945)
    assert fast["accuracy"]["min"] == 0.99
    assert fast["seconds"]["median"] == pytest.approx(2.45)
    assert fast["of_example_epoch"] == pytest.approx(2.45 / 42)
    for key in ("date", "processor", "threads", "packages", "code_sha256", "git"):
        assert result[key]
    text = (tmp_path / "bench-full.md").read_text()
    assert "| fast | 10 | 99.45% ± 0.30% (99.00%) | 2.5 (2.0 to 2.9) | 0.06 |\n" in text
    assert "| fast | 76,000 | 2.0 | 1.0 |  | 900 |\n" in text
    assert (tmp_path / "bench-full.png").read_bytes().startswith(b"\x89PNG")


@pytest.mark.unit
def test_an_interrupted_benchmark_goes_on_where_it_stopped(bench, monkeypatch, tmp_path):
    with pytest.raises(Stopped):
        run(bench, monkeypatch, tmp_path, *ROWS, stop_after=5)
    rest = run(bench, monkeypatch, tmp_path, *ROWS)
    assert len(rest) == 10 + 5 - 5
    assert run(bench, monkeypatch, tmp_path, *ROWS) == []
    # Another row is added to what is there.
    more = run(bench, monkeypatch, tmp_path, "--full", "--rows", "best")
    assert [name for name, _ in more] == ["best"] * 5
    rows = json.loads((tmp_path / "bench-full.json").read_text())["rows"]
    assert set(rows) == {"fast", "best", bench.EXAMPLE}


@pytest.mark.unit
def test_a_trial_of_other_code_or_another_processor_is_not_kept(bench, monkeypatch, tmp_path):
    run(bench, monkeypatch, tmp_path, *ROWS)
    monkeypatch.setattr(bench, "code_hash", lambda: "other")  # of modules that train nothing
    assert run(bench, monkeypatch, tmp_path, *ROWS) == []
    monkeypatch.setitem(bench.DECISIVE, "train", ("model/training",))
    assert {name for name, _ in run(bench, monkeypatch, tmp_path, *ROWS)} == {"fast"}
    monkeypatch.setattr(bench, "processor_name", lambda: "another")
    assert len(run(bench, monkeypatch, tmp_path, *ROWS)) == 15


@pytest.mark.unit
def test_the_readme_shows_the_figures_that_were_measured():
    measured = (FOLDER / "results" / "bench-full.md").read_text().split("\n\n")
    readme = (ROOT / "README.md").read_text()
    assert measured[0] in readme
    assert measured[1] in readme


@pytest.mark.unit
def test_every_row_has_a_name_of_its_own_and_is_in_the_documented_subset(bench):
    names = [row.name for row in bench.ROWS]
    assert len(set(names)) == len(names)
    assert {"fast", "default", bench.EXAMPLE} <= {row.name for row in bench.ROWS if row.subset}


def trial(**description):
    words = [sys.executable, FOLDER / "trial.py", json.dumps(description)]
    kept = {key: value for key, value in os.environ.items() if not key.startswith("COVERAGE_")}
    ended = subprocess.run(words, env=kept, cwd=ROOT, capture_output=True, text=True, check=False)
    assert ended.returncode == 0, ended.stderr
    return json.loads(ended.stdout.splitlines()[-1])


@pytest.mark.integration
@NEEDS_DATA
def test_a_preset_is_trained_and_scored_in_a_process_of_its_own():
    found = trial(kind="train", preset="fast", seed=0, images=6000)
    assert 0.9 < found["accuracy"] < 1
    assert sum(found["epoch_seconds"]) < found["seconds"]
    assert found["parameters"] < 100_000


@pytest.mark.integration
@NEEDS_DATA
@pytest.mark.parametrize(("peer", "least"), [("knn", 0.9), ("example", 0.8), ("common", 0.6)])
def test_the_peers_learn(peer, least):
    found = trial(kind="peer", peer=peer, seed=0, images=5000)
    assert least < found["accuracy"] < 0.99
    assert found["seconds"] > 0


@pytest.mark.integration
def test_the_exported_model_is_timed_beside_the_eager_one():
    found = trial(kind="inference", preset="fast", seed=0)
    ratio = found["one_eager_ms"] / found["one_exported_ms"]
    assert found["one_ratio"] == pytest.approx(ratio, rel=0.01)
    assert found["images_per_s"] > 0
