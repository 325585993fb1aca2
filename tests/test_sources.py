"The table of sources, the setting that chooses among them, and the digest of a split."

from typing import get_args

import numpy as np
import pytest

from mnist_nbdev.base.arrays import write_arrays
from mnist_nbdev.base.files import sha256_file, write_sealed_json
from mnist_nbdev.base.training_settings import DataSettings, SourceName
from mnist_nbdev.data.sources import AUTO, SOURCES, split_digests

pytestmark = pytest.mark.unit


def test_data_source_offers_auto_and_each_source_of_the_table():
    assert get_args(SourceName) == ("auto", *SOURCES)


def test_auto_tries_sources_of_the_table():
    assert set(AUTO) <= set(SOURCES)


def test_each_choice_of_data_source_is_described_by_its_name():
    field = DataSettings.model_fields["source"]
    choices = (*get_args(SourceName), "torchvision:CLASS")
    assert all(f"{choice}: " in field.description for choice in choices)


# --- The same split on every Python


@pytest.mark.parametrize(
    "digest",
    [
        # As np.savez of version 0.1.0 wrote it on Python 3.10, on later ones, and as it is now.
        "a44ebb9003deaa2a0e69cd8b439fca5bc2c65d98c32db9a7a0bc92aa6a1df454",
        "34492148f8604c12a02aed5e92d791af0a144fc653fbee0a537890eff8c45abf",
        "fa977ba855666e9d3a987feb9b2ef8f24b8a0a4dd9b0b8488d05cb27cbedc282",
    ],
)
def test_a_model_knows_its_split_on_every_python(tmp_path, digest):
    write_arrays(tmp_path / "split.npz", {"train": np.arange(3), "validation": np.array([7])})
    now = sha256_file(tmp_path / "split.npz")
    write_sealed_json(tmp_path / "dataset.json", {"source": "mnist", "split_sha256": now})
    assert digest in split_digests(tmp_path)
    write_arrays(tmp_path / "split.npz", {"train": np.arange(3), "validation": np.array([8])})
    assert digest not in split_digests(tmp_path) - {now}  # other images are held out
