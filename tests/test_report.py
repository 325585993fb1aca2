"The figures at the top of a run's report are those of its decision."

import numpy as np
import pytest

from mnist_nbdev.gate.checks import check_inference_time
from mnist_nbdev.runs.collector import collect_evidence, example_run
from mnist_nbdev.runs.report import report_figures

pytestmark = pytest.mark.unit


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    return example_run(tmp_path_factory.mktemp("artifacts") / "runs" / "timed")


def latency(run) -> list[str]:
    figures = report_figures(run, collect_evidence(run))
    return [value for value, label, _ in figures if label == "batch latency, p95"]


@pytest.mark.parametrize(
    ("times", "shown"),
    [
        ([42.0] * 94 + [42.13, 42.4, 42.6, 43.0, 50.0, 60.0], "42.1 ms"),  # interpolated: 42.2
        ([2.345] * 7, "2.35 ms"),
        ([1234.5] * 100, "1234 ms"),
        ([100.04] * 100, "100.04 ms"),  # as many digits as show that it is over the limit
        (np.random.default_rng(0).gamma(4, 10, 83).round(4).tolist(), "72.3 ms"),
    ],
)
def test_the_latency_is_the_number_that_the_check_states(run, times, shown):
    run.add_timing(inference={"batch": {"times_ms": times, "p95_ms": np.percentile(times, 95)}})
    check = check_inference_time(collect_evidence(run), run.settings.release_thresholds)
    assert latency(run) == [shown]
    assert f"A batch takes {shown} (" in check.why


@pytest.mark.parametrize("times", [[], [20.0, -1], "none"])
def test_without_usable_times_no_latency_is_shown(run, times):
    run.add_timing(inference={"batch": {"times_ms": times, "p95_ms": 20.0}})
    assert latency(run) == []
