"""What a step decides by a single number that it draws is decided for the most memory, whoever draws it."""

import random
from collections.abc import Callable
from functools import partial

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from vramfit.jobs.job import Job
from vramfit.prediction.trace_records import Trace
from vramfit.prediction.tracing.trace import trace_step

WIDTH, LAYERS, LONGEST = 64, 8, 40


class Dropping(nn.Module):
    """Leaves out a layer where `drops` says so, as stochastic depth does."""

    def __init__(self, drops: Callable[[Tensor], object]) -> None:
        super().__init__()
        self.layers = nn.ModuleList(nn.Sequential(nn.Linear(WIDTH, WIDTH), nn.GELU()) for _ in range(LAYERS))
        self.drops = drops

    def forward(self, values: Tensor) -> Tensor:
        for layer in self.layers:
            if not self.drops(values):
                values = values + layer(values)
        return values


class Cut(nn.Module):
    """Runs on a part of its input, as long as `length` says."""

    def __init__(self, length: Callable[[], int]) -> None:
        super().__init__()
        self.layer = nn.Linear(WIDTH, WIDTH)
        self.length = length

    def forward(self, values: Tensor) -> Tensor:
        return self.layer(values[:, None].expand(-1, LONGEST, -1)[:, : self.length()]).relu().mean(1)


def traced(network: Callable[[], nn.Module]) -> Trace:
    def batch(samples: int) -> tuple[Tensor, Tensor]:
        return torch.randn(samples, WIDTH), torch.randint(10, (samples,))

    job = Job(model=network, batch=batch, loss=F.cross_entropy, optimizer=torch.optim.SGD, amp=None)
    return trace_step(job, 16, validation=False)


@pytest.mark.parametrize(
    "drops",
    [
        lambda _: random.random() < 0.5,
        lambda _: random.uniform(0, 1) > 0.5,
        lambda _: random.choice([True, False]),
        lambda _: np.random.rand() < 0.5,
        lambda _: np.random.uniform(size=None) < 0.5,
        lambda _: torch.rand(1) > 0.5,
        lambda _: torch.rand([]).item() < 0.5,
        lambda x: torch.rand(1, device=x.device) < 0.5,
        lambda x: torch.rand_like(x[0, 0]).item() < 0.5,
        lambda _: torch.empty(1).uniform_(0, 1) < 0.5,
        lambda x: not torch.bernoulli(torch.full((1,), 0.5, device=x.device)),
        lambda x: x.new_empty(1).bernoulli_(0.5).item() == 1,
        lambda _: torch.randint(2, (1,)).item() == 0,
        lambda _: torch.randint(high=2, size=(1,)).item() == 1,
    ],
)
def test_no_layer_is_dropped_whoever_draws_and_it_is_said(drops) -> None:
    trace = traced(partial(Dropping, drops))
    assert trace.peak_bytes == pytest.approx(traced(partial(Dropping, lambda _: False)).peak_bytes, rel=0.01)
    assert any("at random" in said and said.startswith("test_drawn_numbers.py:") for said in trace.assumptions)


@pytest.mark.parametrize(
    "length",
    [
        lambda: random.randint(4, LONGEST),
        lambda: random.randrange(4, LONGEST + 1),
        lambda: random.choice([8, LONGEST, 16]),
        lambda: int(np.random.randint(4, LONGEST + 1)),
        lambda: int(torch.randint(4, LONGEST + 1, (1,))),
        lambda: LONGEST - random.randint(0, 20),
    ],
)
def test_a_size_that_is_drawn_is_the_largest(length) -> None:
    assert traced(partial(Cut, length)).peak_bytes == traced(partial(Cut, lambda: LONGEST)).peak_bytes


def test_many_numbers_are_drawn_as_they_fall_and_a_loop_that_waits_for_one_ends() -> None:
    seen = []

    def draw(_: Tensor) -> bool:
        seen.append(set(torch.rand(3).tolist()) | set(np.random.rand(3)))
        while random.random() > 0.5:
            pass
        while random.random() < 0.5:
            pass
        return False

    traced(partial(Dropping, draw))
    assert min(map(len, seen)) == 6


def test_generators_draw_again_after_a_trace_as_before_it() -> None:
    random.seed(3)
    np.random.seed(3)
    torch.manual_seed(3)
    expected = random.Random(3).random(), np.random.RandomState(3).rand(), torch.Generator().manual_seed(3)
    traced(partial(Dropping, lambda _: random.random() < np.random.rand()))
    assert (random.random(), np.random.rand()) == expected[:2]
    assert torch.equal(torch.rand(1), torch.rand(1, generator=expected[2]))
