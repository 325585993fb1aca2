"Corruptions, slices and what is stored of them, for images of any size and colour."

import numpy as np
import pytest

from mnist_nbdev.base.arrays import read_arrays, write_arrays
from mnist_nbdev.data.corruptions import (
    CORRUPTIONS,
    corrupt,
    plot_corruptions,
    slice_masks,
    slice_names,
)
from mnist_nbdev.data.spec import MNIST_SPEC, Split, measure_spec
from mnist_nbdev.gate.robustness import (
    ROBUSTNESS_TYPES,
    evaluate_robustness,
    require_same_images,
    robustness_figures,
)

pytestmark = pytest.mark.unit

SHAPES = [(1, 1), (2, 7), (28, 28), (20, 12), (1, 40, 3), (28, 28, 3), (64, 48, 3)]


def some(shape, n_images=6):
    return np.random.default_rng(0).integers(60, 200, (n_images, *shape)).astype(np.uint8)


@pytest.mark.parametrize("name", CORRUPTIONS)
@pytest.mark.parametrize("shape", SHAPES)
def test_any_shape_is_kept(name, shape):
    images = some(shape)
    corrupted = corrupt(images, name)
    assert (corrupted.shape, corrupted.dtype) == (images.shape, np.uint8)
    assert (corrupted == corrupt(images, name)).all()
    assert (images == some(shape)).all()  # not changed in place
    assert corrupt(images[:0], name).shape == (0, *shape)


@pytest.mark.parametrize("name", [name for name in CORRUPTIONS if not name.endswith("noise")])
def test_grey_in_colour_is_corrupted_like_grey(name):
    grey = some((28, 28))
    in_colour = corrupt(np.repeat(grey[..., None], 3, axis=3), name)
    assert (in_colour == corrupt(grey, name)[..., None]).all()


@pytest.mark.parametrize("name", ["stripe", "dotted line", "scale"])
def test_a_larger_image_is_affected_in_proportion(name):
    "As many of its pixels are changed, give or take a tenth."
    shares = [(corrupt(some((side, side)), name) != some((side, side))).mean() for side in (28, 84)]
    assert shares[1] == pytest.approx(shares[0], rel=0.1)


@pytest.mark.parametrize("shape", [(9, 5), (9, 5, 3)])
def test_a_figure_shows_fewer_images_than_eight_and_colour(shape):
    axes = plot_corruptions(some(shape, 3), {"blur": 0.5}).axes
    assert axes[0].images[0].get_array().shape == (shape[0], 3 * shape[1], *shape[2:])
    assert axes[3].get_ylabel() == "blur\n50.0% correct"


def test_slices_follow_the_reading():
    images, labels = some((9, 5, 3), 50), np.arange(50) % 2
    spec = measure_spec("npz", Split(images, labels), ("a", "b"))
    assert tuple(slice_masks(images, spec)) == slice_names(spec)
    assert all(mask.shape == (0,) for mask in slice_masks(images[:0], spec).values())
    assert len(slice_names(MNIST_SPEC)) == 10
    assert len(slice_names(spec)) == 4


def test_the_answers_of_many_classes_are_kept(tmp_path):
    images, labels = some((9, 5), 300), np.arange(300).astype(np.uint16)
    spec = measure_spec("npz", Split(images, labels), tuple(map(str, labels)))
    arrays = evaluate_robustness(images, lambda batch: np.arange(300), spec)
    write_arrays(tmp_path / "robustness.npz", arrays)
    stored = read_arrays(tmp_path / "robustness.npz", ROBUSTNESS_TYPES)
    assert stored["answers"].dtype == np.uint16
    require_same_images(stored, 300, spec)
    figures = robustness_figures(stored, labels, labels, spec)
    assert figures["corruptions"]["accuracy"] == 1
    assert list(figures["slices"]) == ["dark", "bright", "low contrast", "high contrast"]
