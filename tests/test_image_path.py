"""The path from an image file to the model, measured on digits from outside MNIST's arrays."""

import io
import os
from pathlib import Path

import numpy as np
import pytest

from mnist_nbdev.base.loading import resolve_settings
from mnist_nbdev.base.settings import InferenceSettings
from mnist_nbdev.base.training_settings import DataSettings
from mnist_nbdev.data.sources import load_dataset, source_hashes
from mnist_nbdev.model.export import export_onnx
from mnist_nbdev.model.inference import OnnxClassifier
from mnist_nbdev.model.reading import read_digit

pytestmark = pytest.mark.integration
FULL = DataSettings(source="mnist", root=os.environ.get("MLOPS_DATA_ROOT", "data"))
if source_hashes(FULL) is None:
    pytest.skip("the full MNIST is not here (MLOPS_DATA_ROOT)", allow_module_level=True)


def png(image: np.ndarray) -> bytes:
    from PIL import Image

    file = io.BytesIO()
    Image.fromarray(image).save(file, "PNG")
    return file.getvalue()


@pytest.fixture(scope="module")
def dataset():
    return load_dataset(FULL, seed=0)


@pytest.fixture(scope="module")
def classifier(dataset, tmp_path_factory):
    "The small network of the preset `fast`, trained with the default's augmentation."
    from mnist_nbdev.model.network import build_model
    from mnist_nbdev.model.training import train

    folder: Path = tmp_path_factory.mktemp("model")
    augmentation = ["shift_pixels=2", "rotation_degrees=10", "scale=0.1", "shear=0.15"]
    flags = ["training.epochs=3", *(f"augmentation.{flag}" for flag in augmentation)]
    settings = resolve_settings(preset="fast", environment={}, flags=flags).settings
    model = build_model(settings.model, seed=0)
    files = {"checkpoints": folder / "checkpoints", "history_file": folder / "history.jsonl"}
    train(model, dataset.train, dataset.validation, settings, **files)
    export_onnx(model, folder / "model.onnx")
    return OnnxClassifier(folder / "model.onnx")


def accuracy(classifier: OnnxClassifier, images: np.ndarray, labels: np.ndarray) -> float:
    return float((classifier.predict(images)[1].argmax(1) == labels).mean())


def test_digits_as_png_files_lose_at_most_a_tenth_of_a_point(classifier, dataset):
    test = dataset.test
    read = np.stack([read_digit(png(image), InferenceSettings()) for image in test.images])
    lost = accuracy(classifier, test.images, test.labels) - accuracy(classifier, read, test.labels)
    assert lost <= 0.001


def test_digits_of_other_writers_are_classified(classifier):
    from sklearn.datasets import load_digits

    digits = load_digits()  # 1,797 digits of 8 by 8 pixels, values 0 to 16
    files = [png(np.rint(image * 255 / 16).astype(np.uint8)) for image in digits.images]
    read = np.stack([read_digit(file, InferenceSettings()) for file in files])
    assert accuracy(classifier, read, digits.target) >= 0.95
