"What verification reports as a difference between a stored value and the recomputed one."

import pytest

from mnist_nbdev.registry.verification import json_differences

pytestmark = pytest.mark.unit


@pytest.mark.parametrize(
    ("stored", "recomputed"),
    [
        ({"a": [1, 2.0]}, {"a": [1, 2.0 + 1e-12]}),  # the last digits of a sum
        (1, 1.0),
        (0.0, 1e-10),
        (1e12, 1e12 + 1),
        ([], []),
        (None, None),
    ],
)
def test_numbers_within_a_billionth_are_equal(stored, recomputed):
    assert list(json_differences(stored, recomputed)) == []


@pytest.mark.parametrize(
    ("stored", "recomputed", "difference"),
    [
        (0.5, 0.5001, " is 0.5, but the evidence gives 0.5001."),
        (True, 1, " is True, but the evidence gives 1."),
        (None, 0, " is None, but the evidence gives 0."),
        ("1", 1, " is '1', but the evidence gives 1."),
        ([1], [1, 2], " is [1], but the evidence gives [1, 2]."),
        ([1, [2]], [1, [3]], "[1][0] is 2, but the evidence gives 3."),
        ({"a": {"b": 1}}, {"a": {}}, "a.b is 1, but the evidence gives None."),
        ({"a": 1}, {"a": 1, "b": "x"}, "b is None, but the evidence gives 'x'."),
        ({"a": 1}, [1], " is {'a': 1}, but the evidence gives [1]."),
    ],
)
def test_any_other_difference_is_named_with_its_place(stored, recomputed, difference):
    assert list(json_differences(stored, recomputed)) == [difference]


def test_places_start_where_the_caller_says():
    assert list(json_differences(1, 2, "seed")) == ["seed is 1, but the evidence gives 2."]
