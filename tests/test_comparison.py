"The comparison with another commit: what it makes of its times, and that it leaves nothing behind."

import importlib.util
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PATH = ROOT / "benchmarks" / "compare.py"
NOISE = [1.0, 1.3, 0.9, 1.1, 2.0, 1.05]  # what happens to the machine while both take their turns
JITTER = [1.0, 1.01, 0.99, 1.02, 0.98, 1.0]


@pytest.fixture
def compare(monkeypatch):
    "benchmarks/compare.py, as a module of this test's own."
    spec = importlib.util.spec_from_file_location("compare", PATH)
    module = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, "compare", module)
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
        assert (folder / "mnist_nbdev" / "cli.py").is_file()
        assert subprocess.run(trees, capture_output=True, check=True).stdout != before
    assert not folder.exists()
    assert subprocess.run(trees, capture_output=True, check=True).stdout == before


@pytest.mark.integration
def test_a_command_that_fails_ends_the_comparison_with_its_words(compare, tmp_path):
    with pytest.raises(SystemExit, match=r"predict nothing.png of .* ended with"):
        compare.seconds(("predict", "nothing.png"), ROOT, tmp_path)
