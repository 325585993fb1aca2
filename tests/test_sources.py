"The table of sources and the setting that chooses among them."

from typing import get_args

import pytest

from mnist_nbdev.base.settings import DataSettings
from mnist_nbdev.data.sources import AUTO, SOURCES

pytestmark = pytest.mark.unit


def test_data_source_offers_auto_and_each_source_of_the_table():
    choices = get_args(DataSettings.model_fields["source"].annotation)
    assert choices == ("auto", *SOURCES)


def test_auto_tries_sources_of_the_table():
    assert set(AUTO) <= set(SOURCES)


def test_each_choice_of_data_source_is_described_by_its_name():
    field = DataSettings.model_fields["source"]
    assert all(f"{choice}: " in field.description for choice in get_args(field.annotation))
