"How many processor cores a process may use."

import os

import pytest

from mnist_nbdev.base import machine
from mnist_nbdev.base.machine import default_threads, usable_cores

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


@pytest.mark.parametrize(
    ("value", "threads"), [("3", 3), ("2,4", 2), ("", 5), ("0", 5), ("many", 5)]
)
def test_omp_num_threads_is_the_default_number_of_threads(value, threads, monkeypatch):
    monkeypatch.setattr(machine, "usable_cores", lambda: 5)
    monkeypatch.setenv("OMP_NUM_THREADS", value)
    assert default_threads() == threads
