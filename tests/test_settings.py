"The edges of `base/settings`: how many processor cores a process may use."

import os

import pytest

from mnist_nbdev.base.settings import usable_cores

pytestmark = pytest.mark.unit


def test_only_cores_that_the_process_may_use_are_counted(monkeypatch):
    allowed = {0: {2, 5, 7}}
    monkeypatch.setattr(os, "sched_getaffinity", lambda process: allowed[process], raising=False)
    assert usable_cores() == 3


@pytest.mark.parametrize(("reported", "cores"), [(7, 7), (None, 1)])
def test_where_the_system_cannot_tell_all_cores_are_counted(reported, cores, monkeypatch):
    monkeypatch.delattr(os, "sched_getaffinity", raising=False)  # not Linux
    monkeypatch.setattr(os, "cpu_count", lambda: reported)
    assert usable_cores() == cores
