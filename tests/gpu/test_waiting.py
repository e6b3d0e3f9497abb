"""The share of time that a real card waited for data."""

import time

import pytest
import torch

from vramfit.training.monitors import Clock

pytestmark = pytest.mark.gpu

LOADING_S = 0.05


def waited_s(cycles):
    """Seconds that a card waited, which is given so many cycles of work after each of four slow batches."""

    def batches():
        for number in range(4):
            time.sleep(LOADING_S)
            yield number

    torch.cuda._sleep(1)
    torch.cuda.synchronize()
    clock = Clock(torch.device("cuda"))
    for _ in clock.batches(batches()):
        torch.cuda._sleep(cycles)
    return clock.waited_s


def test_an_idle_card_waits_for_every_batch():
    assert waited_s(1) == pytest.approx(4 * LOADING_S, rel=0.2)


def test_a_busy_card_waits_for_the_first_batch_alone():
    """Half a second of work a batch at 2 GHz, while the next one loads."""
    assert waited_s(10**9) == pytest.approx(LOADING_S, rel=0.3)
