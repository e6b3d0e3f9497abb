"""What is read from a script's steps, without a script."""

import sqlite3

import pytest
import torch

from vramfit.script.samples import samples_in
from vramfit.script.script_process import is_denied, own_search

IMAGES = torch.zeros(8, 3, 16, 16)
WORDS = torch.zeros(35, 20, dtype=torch.int64)  # the sequence first


@pytest.mark.parametrize(
    ("inputs", "drawn", "samples"),
    [
        ((IMAGES,), 0, 8),
        ((IMAGES,), 8, 8),
        ((IMAGES,), 5, 8),  # views of five images each, brought together
        (([IMAGES, IMAGES],), 0, 8),  # two views of a batch
        (([torch.zeros(8, 10), torch.zeros(8, 10)],), 8, 8),
        (([torch.zeros(3, 20, 30), torch.zeros(3, 25, 30)],), 0, 2),  # images of a detector
        (([torch.zeros(3, 20, 30)] * 4, [{"boxes": torch.zeros(7, 4)}] * 4), 4, 4),
        ((WORDS,), 20, 20),
        ((WORDS,), 0, 35),
        (({"ids": WORDS, "scale": torch.tensor(1.0)},), 35, 35),
        ((), 4, 0),
        ((torch.tensor(1.0),), 1, 0),
    ],
)
def test_samples_of_what_a_network_is_given(inputs, drawn, samples):
    assert samples_in(inputs, drawn) == samples


@pytest.mark.parametrize(
    ("samples", "told"), [((8, 8, 16), True), ((8, 16, 32), True), ((8, 8, 8), False), ((8, 8, 4), False), ((), False)]
)
def test_a_batch_that_doubles_is_told_of(samples, told):
    said = own_search(samples)
    assert bool(said) is told
    assert not told or f"up to {samples[-1]}" in said


def test_a_batch_of_another_length_is_no_search():
    assert not own_search((16, 32, 40))


@pytest.mark.parametrize(
    ("error", "denied"),
    [
        (PermissionError(13, "Permission denied", "cache.h5"), True),
        (RuntimeError("unable to open file <a> in read-write mode: Permission denied (13)"), True),
        (sqlite3.OperationalError("unable to open database file"), True),
        (FileNotFoundError(2, "No such file or directory", "data"), False),
        (RuntimeError("CUDA error"), False),
    ],
)
def test_a_write_that_the_system_refused_is_known(error, denied):
    assert is_denied(error) is denied
