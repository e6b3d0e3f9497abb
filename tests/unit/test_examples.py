"""The examples in docstrings: each runs, and gives what it says."""

import doctest
import inspect
from importlib import import_module

import pytest

import vramfit

PUBLIC = [name for name in vramfit.__all__ if callable(getattr(vramfit, name)) and getattr(vramfit, name).__doc__]
WITH_EXAMPLE = ("Job", "Task", "find_batch_size", "fit", "fits", "predict", "recovering", "train")
RECORDS = [("vramfit.units", "MemoryLimits"), ("vramfit.probe.request", "ProbeRequest")]


def run(thing, **names):
    """How many examples a docstring and those of its methods have; fails where one gives something else."""
    finder, runner = doctest.DocTestFinder(exclude_empty=True), doctest.DocTestRunner()
    for test in finder.find(thing, globs={"vramfit": vramfit, **names}):
        runner.run(test)
    assert runner.summarize().failed == 0
    return runner.tries


@pytest.mark.parametrize("name", PUBLIC)
def test_an_example_of_the_public_face_runs(name):
    assert run(getattr(vramfit, name)) or name not in WITH_EXAMPLE


@pytest.mark.parametrize("name", WITH_EXAMPLE)
def test_what_has_an_example_says_its_known_limitations(name):
    assert "Known limitations:" in inspect.getdoc(getattr(vramfit, name))


@pytest.mark.parametrize(("module", "name"), RECORDS)
def test_an_example_of_a_record_runs(module, name):
    found = import_module(module)
    assert run(getattr(found, name), **vars(found))
