"""The evaluation's figures are the same as when they were last reviewed.

What is drawn is compared as words and numbers, so no font or renderer matters. After a change that
is meant, look at the figures of nbs/gate/01_diagnostics.ipynb, and write the description again:
`python tests/test_pictures.py`.
"""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
import pytest
from matplotlib.ticker import FixedLocator

mpl.use("Agg")

from mnist_nbdev.base.settings import EvaluationSettings
from mnist_nbdev.gate.diagnostics import (
    plot_confusion_matrix,
    plot_per_class,
    plot_reliability,
    plot_roc,
    plot_worst_mistakes,
)
from mnist_nbdev.gate.evaluation import evaluate

pytestmark = pytest.mark.unit

DRAWN = Path(__file__).parent / "pictures.json"

# Sixty predictions of six digits, the last of which never occurs; some correct, some confident.
N, K = 60, 6
labels = np.arange(N) % (K - 1)
weights = 1.0 + (np.arange(N * K).reshape(N, K) * 7919 % 31)
weights[np.arange(N), labels] += 30.0 * (np.arange(N) % 4)
probabilities = weights / weights.sum(axis=1, keepdims=True)
predictions = probabilities.argmax(axis=1)
images = (np.arange(N * 28 * 28).reshape(N, 28, 28) % 251).astype(np.uint8)
NAMES = "012345"

PICTURES: dict[str, Callable[[], Any]] = {
    "confusion matrix": lambda: plot_confusion_matrix(labels, predictions, NAMES),
    "confusion matrix of ten": lambda: plot_confusion_matrix([0, 0, 9], [0, 1, 9]),
    "confusion by share": lambda: plot_confusion_matrix(
        [0, 0, 0, 0, 1, 1], [0, 0, 0, 1, 0, 1], "01"
    ),
    "no confusion": lambda: plot_confusion_matrix([0, 1], [0, 1], "01"),
    "per class": lambda: plot_per_class(evaluate(labels, probabilities)),
    "per class at 99.5%": lambda: plot_per_class(
        evaluate(labels, probabilities, EvaluationSettings(confidence=0.995))
    ),
    "roc": lambda: plot_roc(labels, probabilities),
    "reliability": lambda: plot_reliability(labels, probabilities, 8),
    "reliability at 99.5%": lambda: plot_reliability(labels, probabilities, 8, 0.995),
    "reliability by default": lambda: plot_reliability([0] * 40, [[0.9, 0.1]] * 40),
    "mistakes": lambda: plot_worst_mistakes(images, labels, probabilities, 3),
    "mistakes by default": lambda: plot_worst_mistakes(images, labels, probabilities),
    "many mistakes": lambda: plot_worst_mistakes(images, 5 + 0 * labels, probabilities, 31),
    "no mistake": lambda: plot_worst_mistakes(images, predictions, probabilities),
}


def plain(value: Any) -> Any:  # as JSON, to four digits
    if isinstance(value, np.ndarray | list | tuple):
        return [plain(inner) for inner in value]
    if isinstance(value, float | np.floating):
        return float(f"{value:.4g}")
    return int(value) if isinstance(value, np.integer) else value


def pixels(array: Any) -> Any:  # each cell of a matrix, the mean of a picture
    return plain(array if array.size <= 400 else array.mean(axis=(0, 1)))


def look(artist: Any, *names: str) -> dict[str, Any]:
    return {name: plain(getattr(artist, f"get_{name}")()) for name in names}


def words(text: Any, *more: str) -> dict[str, Any]:
    return look(text, "text", "ha", "va", "fontsize", "color", "rotation", *more)


def ticks(axis: Any) -> list[Any]:
    "Those that were placed: for the others, each version of matplotlib finds its own places."
    placed = isinstance(axis.get_major_locator(), FixedLocator)
    shown = [[label.get_text() for label in axis.get_ticklabels()], plain(axis.get_ticklocs())]
    first = axis.majorTicks[0]
    return [shown if placed else [], first.gridline.get_visible(), first.tick1line.get_markersize()]


def panel(axes: Any) -> dict[str, Any]:
    "All that stands in one pair of axes."
    legend, line = axes.get_legend(), ("color", "alpha", "linewidth", "linestyle")
    return {
        **look(axes, "xlim", "ylim", "xscale", "yscale", "xlabel", "ylabel"),
        "titles": [words(axes.title), words(axes._left_title)],
        "axis": axes.axison,
        "spines": [look(spine, "visible", "edgecolor") for spine in axes.spines.values()],
        "ticks": [ticks(axis) for axis in (axes.xaxis, axes.yaxis) if axis.majorTicks],
        "lines": [
            look(one, "xydata", "label", *line, "marker", "markersize", "drawstyle")
            for one in axes.lines
        ],
        "bars": [look(one, "bbox", "facecolor", "edgecolor", "linewidth") for one in axes.patches],
        "strokes": [look(one, "segments", "color", "linewidth") for one in axes.collections],
        "texts": [words(one, "position") for one in axes.texts],
        "images": [
            [
                *[pixels(one.get_array().astype(float)), plain(one.get_clim())],
                *[one.get_cmap().name, one.get_interpolation()],
            ]
            for one in axes.images
        ],
        "legend": legend
        and {
            "texts": [words(text) for text in legend.get_texts()],
            "frame": legend.get_frame_on(),
            "place": [legend._loc, legend._ncols],
        },
    }


def drawn(name: str) -> Any:
    figure = PICTURES[name]()
    figure.draw_without_rendering()
    found = {
        "size": plain(figure.get_size_inches()),
        "title": figure._suptitle and words(figure._suptitle),
        "panels": [panel(axes) for axes in figure.axes],
    }
    mpl.pyplot.close(figure)
    # Boxes and the like as their numbers.
    return json.loads(json.dumps(found, default=lambda box: plain(box.bounds)))


@pytest.mark.parametrize("name", PICTURES)
def test_a_picture_is_what_it_was(name: str) -> None:
    assert drawn(name) == json.loads(DRAWN.read_text(encoding="utf-8"))[name]


def test_many_classes_are_shown_in_part_and_by_name() -> None:
    n_classes = 60
    truth = np.arange(600) % n_classes
    rows = np.random.default_rng(0).dirichlet(np.ones(n_classes), 600) + np.eye(n_classes)[truth]
    rows[truth == 7] = np.eye(n_classes)[8]  # the worst class
    rows /= rows.sum(axis=1, keepdims=True)
    names = [f"a ${number}$ {{" for number in range(n_classes)]  # no formulas
    metrics = evaluate(truth, rows)
    figures = [
        plot_confusion_matrix(truth, rows.argmax(axis=1), names),
        plot_per_class(metrics, names),
        plot_roc(truth, rows, names),
        plot_worst_mistakes(np.zeros((600, 9, 5, 3), np.uint8), truth, rows, 5, names),
    ]
    for figure in figures:
        figure.draw_without_rendering()
    confusion, per_class, roc, mistakes = (figure.axes[0] for figure in figures)
    assert len(confusion.get_xticklabels()) == len(per_class.get_xticklabels()) == 20
    assert r"a \$7\$ {" in [text.get_text() for text in per_class.get_xticklabels()]
    assert "20 of 60 classes" in confusion.get_title(loc="left")
    assert per_class.get_xlabel() == "class: 20 of 60, the lowest recall"
    assert roc.get_legend().get_texts()[-1].get_text() == "other classes, 17 of 57"
    assert len(roc.lines) == 21
    assert mistakes.get_title().startswith(r"pred. a \$8\$ {")


if __name__ == "__main__":
    text = json.dumps({name: drawn(name) for name in PICTURES})
    DRAWN.write_text(text.replace('"panels"', '\n"panels"') + "\n", encoding="utf-8")
