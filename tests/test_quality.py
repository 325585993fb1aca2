"The quality report of any data set, and its figures."

from dataclasses import replace

import matplotlib as mpl
import numpy as np
import pytest

mpl.use("Agg")

from mnist_nbdev.base.files import PipelineError
from mnist_nbdev.base.training_settings import DataSettings
from mnist_nbdev.data.quality import quality_report, quality_table, require_quality
from mnist_nbdev.data.quality_figures import plot_classes, plot_quality, plot_suspects
from mnist_nbdev.data.sources import load_dataset
from mnist_nbdev.data.spec import (
    Dataset,
    ImageFiles,
    Originals,
    Split,
    label_type,
    measure_spec,
)
from mnist_nbdev.data.suspects import plain_path

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


# Images of one's own


def own(counts, shape, levels=(30, 220), seed=0, n_held_out=2):
    "A data set with as many training images of each class as counts says."

    def split(numbers):
        labels = np.repeat(np.arange(len(numbers)), numbers).astype(label_type(len(numbers)))
        images = draws.integers(*levels, (len(labels), *shape), endpoint=True).astype(np.uint8)
        return Split(images, labels)

    draws, held_out = np.random.default_rng(seed), [n_held_out] * len(counts)
    train, validation, test = split(counts), split(held_out), split(held_out)
    names = tuple(f"class {label}" for label in range(len(counts)))
    indices = np.arange(1)
    return Dataset(
        spec=measure_spec("npz", train, names),
        source="npz",
        folder="folder",
        verified=True,
        sha256={"own.npz": "0" * 64},
        train=train,
        validation=validation,
        test=test,
        train_indices=indices,
        validation_indices=indices,
    )


def failed(dataset, **splits):
    report = quality_report(replace(dataset, **splits))
    quality_table(report)  # can be shown, whatever failed
    plot_quality(dataset, report)
    return [check.name for check in report if check.outcome == "failed"]


@pytest.mark.parametrize(
    ("counts", "shape", "levels"),
    [
        ([20, 20], (9, 5), (30, 220)),
        ([20, 3, 100], (5, 9, 3), (0, 255)),
        ([12] * 25, (6, 6), (30, 220)),
        ([2] * 300, (6, 6, 3), (30, 220)),
        ([40, 40], (12, 12), (0, 1)),  # all but black: deviates less than a spec can say
    ],
)
def test_good_images_of_any_shape_and_number_of_classes_pass(counts, shape, levels):
    dataset = own(counts, shape, levels)
    assert failed(dataset) == []
    sheet = plot_classes(dataset.train, dataset.spec, 3).axes[0].images[0].get_array()
    assert sheet.shape == (min(len(counts), 20) * shape[0], 3 * shape[1], *shape[2:])


def test_each_fault_fails_its_check():
    dataset = own([300, 300, 300, 6], (6, 5, 3), n_held_out=100)
    train, test = dataset.train, dataset.test
    white, brighter = train.images.copy(), test.images // 2 + 128
    white[4] = [9, 99, 199]  # a single shade
    known = test.labels < 3
    assert failed(dataset) == []
    assert failed(dataset, test=Split(test.images[known], test.labels[known])) == []
    assert failed(dataset, train=Split(white, train.labels)) == ["constant"]
    assert failed(dataset, test=Split(brighter, test.labels)) == ["mean", "deviation"]
    assert failed(dataset, test=Split(test.images, test.labels + np.uint8(1))) == ["labels"]
    assert failed(dataset, test=Split(test.images[..., 0], test.labels)) == ["shape"]
    assert failed(dataset, test=Split(test.images, test.labels.astype(np.int64))) == ["type"]
    assert failed(dataset, validation=Split(test.images[:0], test.labels[:0])) == ["count"]
    assert failed(dataset, test=Split(train.images[:1], train.labels[:1])) == ["leakage"]
    few = [*range(900), 900, 901]
    assert failed(dataset, train=Split(train.images[few], train.labels[few])) == ["class shares"]
    few = [*range(900)]
    assert failed(dataset, train=Split(train.images[few], train.labels[few])) == [
        *["classes", "class shares"]
    ]


def test_a_fault_names_the_file_and_what_to_do():
    dataset = own([20, 20], (6, 6))
    report = quality_report(replace(dataset, test=dataset.train))
    with pytest.raises(PipelineError, match="or correct your own") as caught:
        require_quality(report)
    assert "from own.npz in folder: No image is in two splits." in str(caught.value)


def test_channels_are_judged_one_by_one():
    images = np.zeros((200, 4, 4, 3), np.uint8)
    images[..., 0] = np.random.default_rng(0).integers(100, 120, (200, 4, 4))
    images[..., 2] = np.random.default_rng(1).integers(0, 20, (200, 4, 4))
    dataset = own([100, 100], (4, 4, 3))
    training = Split(images, dataset.train.labels)
    spec = measure_spec("npz", training, dataset.spec.class_names)
    fine = Split(255 - (255 - images[::9]) // 1, training.labels[::9])
    fine.images[0, 0, 0] += 1  # no image is in two splits
    swapped = Split(images[::7, ..., ::-1].copy(), training.labels[::7])
    dataset = replace(dataset, spec=spec, train=training, validation=swapped, test=fine)
    report = {check.name: check for check in quality_report(dataset)}
    assert report["mean"].outcome == "failed"
    assert "Violated in validation" in report["mean"].why
    assert "test, from" not in report["mean"].why
    assert set(report["mean"].value["train"]) == {"red", "green", "blue"}


def test_many_classes_are_shown_in_part():
    dataset = own([12] * 25, (6, 6))
    middle = plot_quality(dataset, quality_report(dataset)).axes[1]
    assert middle.get_xlabel() == "label, 20 of 25"
    assert len(middle.patches) == 60  # no band: nobody expects anything of these shares
    axes = plot_classes(dataset.train, dataset.spec).axes[0]
    assert axes.get_xlabel() == "first 8 images of each class,\n20 of 25 classes"
    assert [label.get_text() for label in axes.get_yticklabels()][-1] == "class 19"


# Image files


def files(counts=(40, 40), shape=(8, 8), skipped=()):
    "The same data set, as if its images had been files of twenty by twenty pixels."
    dataset = own(list(counts), shape)
    splits = {
        name: replace(
            split,
            originals=Originals(
                np.array([f"{name}/{n}.png" for n in range(len(split))], object),
                np.full((len(split), 2), 20),
                {},
            ),
        )
        for name, split in dataset.splits.items()
    }
    image_files = ImageFiles({}, dict.fromkeys(skipped, "damaged"), "0" * 64)
    return replace(dataset, **splits, image_files=image_files)


def report_on(dataset):
    return {check.name: check for check in quality_report(dataset)}


def test_good_files_pass_and_nothing_is_suspicious():
    report = report_on(files())
    assert {check.outcome for check in report.values()} == {"passed"}
    assert report.keys() > {"tiny", "few images", "unreadable"}
    assert plot_suspects(files()) is None


def test_arrays_have_no_checks_of_files(dataset):
    for data in (dataset, own([40, 40], (8, 8))):
        assert not report_on(data).keys() & {"tiny", "few images", "unreadable"}
        assert plot_suspects(data) is None


def test_each_fault_of_files_is_a_warning_that_names_them(caplog):
    dataset = files((40, 40, 9), skipped=["a.png", "<b>|.png"])
    train, test = dataset.train, dataset.test
    train.originals.sizes[[3, 4]] = [3, 20], [20, 3]
    train.originals.sizes[5] = [4, 4]  # just half
    train.images[7] = train.images[6]
    train.images[9] = test.images[1]
    report = report_on(dataset)
    failed = [name for name, check in report.items() if check.outcome == "failed"]
    assert failed == ["duplicates", "leakage", "tiny", "few images", "unreadable"]
    assert report["tiny"].value == {"train": 2, "validation": 0, "test": 0}
    assert report["tiny"].why.endswith("Such are train/3.png; train/4.png.")
    assert report["duplicates"].why.endswith("Equal pixels have train/6.png and train/7.png.")
    assert report["leakage"].why.endswith("Equal pixels have train/9.png and test/1.png.")
    assert report["few images"].why.endswith("Such are class 2 (9).")
    assert report["unreadable"].why.endswith("Left out are a.png; ?b??.png.")
    require_quality(list(report.values()), dataset.spec)
    assert "class 2 (9)" in caplog.text
    assert "<b>" not in quality_table(list(report.values()))


def test_many_files_are_named_in_part():
    dataset = files(skipped=[f"{n}.png" for n in range(50)])
    assert report_on(dataset)["unreadable"].why.endswith("0.png; 1.png; 2.png; and 47 more.")


@pytest.mark.parametrize("shape", [(8, 8), (20, 6, 3)])
def test_a_figure_shows_at_most_twelve_suspicious_files(shape):
    dataset = files(shape=shape)
    dataset.train.originals.sizes[:30] = 2
    dataset.train.images[40:60] = 7
    titles = [axis.get_title() for axis in plot_suspects(dataset).axes]
    assert len(titles) == 12
    kinds = [title.split(": ")[1].split(",")[0] for title in titles]
    assert kinds == ["tiny"] * 4 + ["a single shade"] * 4 + ["equal"] * 4


@pytest.mark.security
def test_the_name_of_a_file_cannot_change_a_report_or_a_terminal():
    hostile = "a/<img src=x>|\x1b[31m`$x$`*\u202e_\n.png"
    shown = plain_path(hostile)
    assert not set(shown) & set("<>|`$*[]\x1b\u202e\n\\")
    dataset = files()
    dataset.train.originals.paths[:] = hostile
    dataset.train.originals.sizes[0] = 1
    plot_suspects(dataset).canvas.draw()
    assert "<img" not in quality_table(quality_report(dataset))
