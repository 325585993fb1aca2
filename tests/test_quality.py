"The figure of the quality report shows the checks that it gets, however many."

from dataclasses import replace

import matplotlib as mpl
import pytest

mpl.use("Agg")

from mnist_nbdev.base.settings import DataSettings
from mnist_nbdev.data.quality import plot_quality, quality_report
from mnist_nbdev.data.sources import load_dataset

pytestmark = pytest.mark.unit


@pytest.fixture(scope="module")
def dataset():
    return load_dataset(DataSettings(source="sample"), seed=0)


@pytest.mark.parametrize("repeated", [1, 2])
def test_all_checks_are_within_the_figure_at_equal_distances(repeated, dataset):
    checks = quality_report(dataset) * repeated
    heights = [text.get_position()[1] for text in plot_quality(dataset, checks).axes[0].texts]
    assert heights == pytest.approx(
        [1 - (row + 0.5) / len(checks) for row in range(len(checks))], abs=1e-9
    )


def test_a_report_that_ends_early_is_drawn(dataset):
    checks = quality_report(
        replace(dataset, test=replace(dataset.test, labels=dataset.test.labels[1:]))
    )
    assert [check.name for check in checks] == ["count", "shape", "type"]
    shown = [text.get_text() for text in plot_quality(dataset, checks).axes[0].texts]
    assert shown == ["✗ count", "✗ shape", "✓ type"]


def test_no_check_is_drawn_without_a_report(dataset):
    assert not plot_quality(dataset, []).axes[0].texts
