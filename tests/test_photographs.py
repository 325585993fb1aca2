"The augmentations for photographs, flip, crop and colour jitter: in a training, and switched off."

from pathlib import Path

import numpy as np
import pytest
import torch

from mnist_nbdev.base.files import UsageError
from mnist_nbdev.base.loading import resolve_settings
from mnist_nbdev.base.training_settings import AugmentationSettings
from mnist_nbdev.data.augmentation import augment, color_jitter, flip, random_crop
from mnist_nbdev.data.spec import Split, measure_spec
from mnist_nbdev.model import training
from mnist_nbdev.model.network import build_model

pytestmark = pytest.mark.unit

PHOTOGRAPHIC = {"flip_probability": 0.5, "crop_padding": 3, "color_jitter": 0.4}
OFF = dict.fromkeys(AugmentationSettings.model_fields, 0) | {"elastic_sigma": 4.0}


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def photographs(*shape: int) -> Split:
    "Noise, brighter in the upper or the lower half: two classes that no augmentation mixes up."
    images = np.random.default_rng(0).integers(0, 100, (120, *shape), np.uint8)
    labels = np.arange(120) % 2
    half = shape[0] // 2
    images[labels == 0, :half] += 100
    images[labels == 1, half:] += 100
    return Split(images, labels)


def train(
    folder: Path, split: Split, **changes: float
) -> tuple[training.TrainingResult, dict[str, torch.Tensor]]:
    flags = [f"augmentation.{name}={value}" for name, value in (PHOTOGRAPHIC | changes).items()]
    flags += ["model.conv_channels=[4, 8]", "training.epochs=3", "data.batch_size=20"]
    flags += ["training.threads=1", "training.checkpoint_interval_s=1e-9", "training.device=cpu"]
    settings = resolve_settings(preset="debug", environment={}, flags=flags).settings
    spec = measure_spec("photographs", split, ("upper", "lower"))
    model = build_model(settings.model, settings.seed, spec)
    result = training.train(
        model,
        split,
        split,
        settings,
        checkpoints=folder / "checkpoints",
        history_file=folder / "history.jsonl",
    )
    return result, {name: tensor.clone() for name, tensor in model.state_dict().items()}


class Killed(Exception):
    "Stands in for a power cut."


@pytest.mark.parametrize("shape", [(20, 12), (20, 12, 3)], ids=["grey", "colour"])
def test_a_training_with_all_three_learns_and_resumes_to_the_same_weights(
    shape, tmp_path, monkeypatch
):
    split = photographs(*shape)
    whole, expected = train(tmp_path / "whole", split)
    assert whole.history[-1]["validation_accuracy"] > 0.9
    other, _ = train(tmp_path / "without", split, **dict.fromkeys(PHOTOGRAPHIC, 0))
    assert other.history != whole.history

    saved: list[Path] = []
    save = training.save_checkpoint

    def save_and_die(*arguments):
        saved.append(save(*arguments))
        if len(saved) == 9:  # six steps an epoch, and a checkpoint at its end
            raise Killed
        return saved[-1]

    with monkeypatch.context() as patch:
        patch.setattr(training, "save_checkpoint", save_and_die)
        with pytest.raises(Killed):
            train(tmp_path / "killed", split)
    resumed, weights = train(tmp_path / "killed", split)
    assert resumed.resumed_from == (2, 2)
    assert resumed.history == whole.history
    assert all(torch.equal(weights[name], expected[name]) for name in expected)


def test_a_training_names_the_padding_that_is_too_wide(tmp_path):
    with pytest.raises(UsageError, match=r"augmentation\.crop_padding: 12 pixels .*; at most 11"):
        train(tmp_path, photographs(20, 12), crop_padding=12)


@pytest.mark.parametrize("name", PHOTOGRAPHIC)
def test_zero_draws_no_random_number_and_changes_nothing(name):
    images = torch.rand(6, 3, 20, 12, generator=seeded()) * 255
    others = OFF | {"shift_pixels": 2, "noise_std": 0.1}
    on = AugmentationSettings(**others | PHOTOGRAPHIC)
    off = AugmentationSettings(**others | PHOTOGRAPHIC | {name: 0})
    assert not torch.equal(augment(images, on, seeded()), augment(images, off, seeded()))
    draws = seeded(7)
    assert augment(images, AugmentationSettings(**OFF), draws) is images
    assert torch.equal(draws.get_state(), seeded(7).get_state())


def test_the_default_draws_as_it_did_before_there_were_photographs(monkeypatch):
    def never(*_: object) -> None:
        raise AssertionError("an operation for photographs ran")

    images = torch.rand(6, 1, 28, 28, generator=seeded()) * 255
    default = augment(images, AugmentationSettings(), seeded())
    for function in ("flip", "random_crop", "color_jitter"):
        monkeypatch.setitem(augment.__globals__, function, never)
    assert torch.equal(augment(images, AugmentationSettings(), seeded()), default)


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
def test_the_layout_in_memory_and_the_rest_of_a_batch_do_not_matter(channels, layout):
    images = torch.rand(5, channels, 9, 14, generator=seeded()) * 255
    original = images.clone()
    for change, strength in ((flip, 0.5), (random_crop, 8), (color_jitter, 1.0)):
        expected = change(images, strength, seeded(3))
        laid_out = images.to(memory_format=layout)
        assert torch.allclose(change(laid_out, strength, seeded(3)), expected, atol=1e-3)
        alone = change(images[:1], strength, seeded(3))  # its draws are the first
        assert torch.allclose(alone, expected[:1], atol=1e-3)
        assert torch.equal(images, original), "its input was changed"


def test_the_last_batch_may_be_empty_and_an_image_a_single_pixel():
    for change, strength in ((flip, 0.5), (color_jitter, 0.4)):
        assert change(torch.zeros(0, 3, 4, 4), strength, seeded()).shape == (0, 3, 4, 4)
        assert change(torch.zeros(2, 3, 1, 1), strength, seeded()).shape == (2, 3, 1, 1)
    with pytest.raises(UsageError, match="at most 0"):
        random_crop(torch.zeros(2, 3, 1, 1), 1, seeded())


def test_colour_jitter_is_as_exact_in_mixed_precision():
    images = torch.rand(5, 3, 9, 14, generator=seeded()) * 255
    expected = color_jitter(images, 0.5, seeded(3))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        half = color_jitter(images, 0.5, seeded(3))
    assert half.dtype == torch.float32
    assert torch.equal(half, expected)
