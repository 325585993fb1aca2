"""How much is tried: FAULTS is short (in `make test`), ci or long (`make test-faults`)."""

import os

import pytest

LEVEL = os.environ.get("FAULTS", "short")
NOT_SHORT = pytest.mark.skipif(LEVEL == "short", reason="FAULTS=ci or FAULTS=long tries it")
