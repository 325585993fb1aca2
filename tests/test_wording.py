"Figures in sentences: rounding claims no more than was shown, and names cannot break a table."

import pytest

from mnist_nbdev.gate.wording import (
    escape_markdown,
    format_difference,
    format_interval,
    format_percent,
    format_value,
    quote_name,
)

pytestmark = pytest.mark.unit


@pytest.mark.parametrize(
    ("fraction", "required", "lower", "upper"),
    [
        (0.98996, 0.99, "98.99%", "99.00%"),
        (0.98996, 0.99005, "98.996%", "98.996%"),
        (0.99, 0.99, "99.00%", "99.00%"),
        (0.29, 0.5, "29.00%", "29.00%"),  # 28.999999999999996 in floating point
        (0.0, 0.99, "0.00%", "0.00%"),
        (1.0, 0.99, "100.00%", "100.00%"),
        (0.00001, 0.99, "0.00%", "0.01%"),
        (0.999999, 0.9999999, "99.99990%", "99.99990%"),
    ],
)
def test_a_percentage_is_rounded_outwards_to_the_decimals_of_its_threshold(
    fraction, required, lower, upper
):
    assert format_percent(fraction, required) == lower
    assert format_percent(fraction, required, up=True) == upper


def test_an_interval_of_one_figure_is_shown_once():
    assert format_interval("0.1", "0.2") == "0.1 to 0.2"
    assert format_interval("0.1", "0.1") == "0.1"


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        (0.000012, "1.2e-05"),
        (12345.6, "12346"),
        (1e7, "10000000.0"),
        (99.9999, "100"),
        (100.41234, "100.4"),
    ],
)
def test_a_value_is_rounded_to_three_digits_on_its_side_of_the_limit(value, shown):
    assert format_value(value, 100.0) == shown


@pytest.mark.parametrize(
    ("lower", "upper", "words"),
    [
        (0.0, 1e-17, "the same"),
        (-0.16, 0.07, "between 0.16 points higher and 0.07 points lower"),
        (0.0, 0.5, "0.00 to 0.50 points lower"),
        (0.14, 0.45, "0.14 to 0.45 points lower"),
        (5.0, 5.0, "5.00 points lower"),
        (-0.3, -0.1, "0.10 to 0.30 points higher"),
        (-0.3, 0.0, "0.00 to 0.30 points higher"),
        (0.0004, 0.4004, "0.0004 to 0.4004 points lower"),  # neither is 0.00 or within the margin
        (-0.000002, 0.3, "between 0.000002 points higher and 0.30 points lower"),
    ],
)
def test_a_difference_is_rounded_on_its_side_of_zero_and_of_the_margin(lower, upper, words):
    assert format_difference(lower, upper, 0.4) == words


def test_a_quoted_name_is_short_and_on_one_line():
    assert quote_name("pale") == "'pale'"
    assert quote_name("x" * 50) == f"'{'x' * 40}'"
    assert quote_name("a\n\u2028é") == r"'a\n\u2028\xe9'"


def test_what_means_something_in_markdown_is_escaped():
    plain = "At 95% (0.1 to 0.2), it's fine: a=b+c/d; 'x' \"y\" …-"
    assert escape_markdown(plain) == plain
    assert escape_markdown("a|b\n<i>`_*") == "a&#124;b&#10;&#60;i&#62;&#96;&#95;&#42;"
