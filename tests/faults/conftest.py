"""What the fault tests share.

`FAULTS=ci` and `FAULTS=long` try more of each; `make test-faults` does the latter, and renews the
rows of the documentation's table that it has tried.
"""

import pytest
from levels import LEVEL
from tally import TALLY, Tally


@pytest.fixture
def tally() -> Tally:
    return TALLY


@pytest.fixture
def many():
    "How many tries: `many(short, long)`, or another number in CI."

    def choose(short: int, long: int, ci: int | None = None) -> int:
        return {"short": short, "ci": ci or short, "long": long}[LEVEL]

    return choose
