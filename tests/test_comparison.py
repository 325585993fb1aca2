"The comparisons with another commit: of times, of bits; and that nothing of it stays behind."

import importlib.util
import subprocess
import sys
from pathlib import Path

import pytest

from mnist_nbdev.base.files import write_json, write_text

ROOT = Path(__file__).parent.parent
BENCHMARKS = ROOT / "benchmarks"
NOISE = [1.0, 1.3, 0.9, 1.1, 2.0, 1.05]  # what happens to the machine while both take their turns
JITTER = [1.0, 1.01, 0.99, 1.02, 0.98, 1.0]


@pytest.fixture
def compare(monkeypatch):
    return script("compare", monkeypatch)


@pytest.fixture
def same_bits(compare, monkeypatch):
    return script("same_bits", monkeypatch)


def script(name, monkeypatch):
    "A file of benchmarks/, as a module of one test's own."
    spec = importlib.util.spec_from_file_location(name, BENCHMARKS / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, name, module)
    spec.loader.exec_module(module)
    return module


@pytest.mark.unit
def test_what_is_a_tenth_slower_is_found_in_noise_that_is_larger(compare):
    head = [1.1 * noise * jitter for noise, jitter in zip(NOISE, JITTER, strict=True)]
    row = compare.Row("`predict`", NOISE, head)
    mean, lower, upper = row.ratio
    assert mean == pytest.approx(1.1, rel=0.01)
    assert lower < 1.1 < upper
    assert row.slower
    assert "**Slower: `predict`.**" in compare.table([row], "main")


@pytest.mark.unit
@pytest.mark.parametrize("factor", [0.8, 1.0, 1.02])
def test_what_is_as_fast_or_faster_passes(compare, factor):
    head = [factor * noise * jitter for noise, jitter in zip(NOISE, JITTER, strict=True)]
    row = compare.Row("`predict`", NOISE, head)
    assert not row.slower
    assert "Nothing is slower" in compare.table([row], "main")


@pytest.mark.unit
def test_times_too_scattered_to_tell_do_not_fail(compare):
    row = compare.Row("`predict`", [1.0, 1.0, 1.0, 1.0], [0.7, 2.0, 0.8, 1.6])
    assert row.ratio[0] > 1.05
    assert not row.slower


@pytest.mark.integration
def test_a_commit_that_is_not_there_is_named_and_nothing_is_left(compare):
    trees = ["git", "-C", str(ROOT), "worktree", "list"]
    if subprocess.run(trees, capture_output=True, check=False).returncode:
        pytest.skip("this is no clone of the repository")
    before = subprocess.run(trees, capture_output=True, check=True).stdout
    unknown = compare.checkout("no-such-commit")
    with pytest.raises(SystemExit, match="There is no commit no-such-commit"), unknown:
        pass
    with compare.checkout("HEAD") as folder:
        assert (folder / "mnist_nbdev" / "__main__.py").is_file()
        assert subprocess.run(trees, capture_output=True, check=True).stdout != before
    assert not folder.exists()
    assert subprocess.run(trees, capture_output=True, check=True).stdout == before


@pytest.mark.integration
def test_a_command_that_fails_ends_the_comparison_with_its_words(compare, tmp_path):
    with pytest.raises(SystemExit, match=r"predict nothing.png of .* ended with"):
        compare.seconds(("predict", "nothing.png"), ROOT, tmp_path)


@pytest.mark.unit
def test_a_changed_byte_and_a_changed_metric_are_other_bits(same_bits, tmp_path):
    base, head = tmp_path / "base", tmp_path / "head"
    for run in (base, head):
        for name in same_bits.SAME_BYTES:
            write_text(run / name, name)
        write_json(run / same_bits.METRICS, {"accuracy": 0.5, "per_class": [{"recall": 0.25}]})
    assert same_bits.differences(base, head) == []
    close = {"accuracy": 0.5 + 1e-13, "per_class": [{"recall": 0.25}]}
    write_json(head / same_bits.METRICS, close)
    assert same_bits.differences(base, head) == []
    write_json(head / same_bits.METRICS, {"accuracy": 0.5, "per_class": [{"recall": 0.25 + 1e-11}]})
    write_text(head / "models/model.onnx", "other")
    assert same_bits.differences(base, head) == [
        "models/model.onnx",
        "evaluation/metrics.json: per_class.0.recall: 0.25 → 0.25000000001",
    ]
    write_json(head / same_bits.METRICS, {"accuracy": 0.5})
    assert same_bits.differences(base, head)[1:] == [
        "evaluation/metrics.json: per_class.0.recall: 0.25 → None",
    ]
