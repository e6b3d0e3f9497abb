"""Flags of the card, numbers drawn at random and loops without a bound: what holds more is predicted, or said."""

import itertools
import random
from collections.abc import Callable
from functools import partial

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from vramfit.errors import VramfitError
from vramfit.jobs.job import Job
from vramfit.prediction.trace_records import Trace
from vramfit.prediction.tracing import rounds
from vramfit.prediction.tracing.trace import trace_step

WIDTH = 16


class Repeated(nn.Module):
    """A layer and what is done with it: `way(layer, values)` returns values of the same shape."""

    def __init__(self, way: Callable[[nn.Module, Tensor], Tensor]) -> None:
        super().__init__()
        self.layer = nn.Linear(WIDTH, WIDTH)
        self.way = way

    def forward(self, values: Tensor) -> Tensor:
        return self.way(self.layer, values)


def traced(way: Callable[[nn.Module, Tensor], Tensor], samples: int = 64) -> Trace:
    def batch(samples: int) -> tuple[Tensor, Tensor]:
        return torch.zeros(samples, WIDTH), torch.zeros(samples, dtype=torch.long)

    job = Job(model=partial(Repeated, way), batch=batch, loss=F.cross_entropy, optimizer=torch.optim.SGD, amp=None)
    return trace_step(job, samples)


def times(count: int) -> Callable[[nn.Module, Tensor], Tensor]:
    """The layer, so often."""

    def way(layer: nn.Module, values: Tensor) -> Tensor:
        for _ in range(count):
            values = layer(values).tanh()
        return values

    return way


def said(trace: Trace) -> list[str]:
    return [line.partition(": ")[2] for line in trace.assumptions]


def halting(layer: nn.Module, values: Tensor) -> Tensor:
    for _ in range(6):
        values = layer(values).tanh()
        if (values > 0.5).all():
            break
    return values


def halting_when_equal(layer: nn.Module, values: Tensor) -> Tensor:
    for _ in range(6):
        before, values = values, layer(values).tanh()
        if torch.allclose(before, values):
            break
    return values


@pytest.mark.parametrize("way", [halting, halting_when_equal])
def test_a_loop_that_may_end_early_is_predicted_to_its_end(way: Callable[[nn.Module, Tensor], Tensor]) -> None:
    trace = traced(way)
    assert trace.peak_bytes >= traced(times(6)).peak_bytes
    assert "a flag read from the card is what lets the step go on, or hold more" in said(trace)


def test_a_flag_keeps_its_usual_answer_where_that_holds_more_or_the_other_fails() -> None:
    def more_where_some(layer: nn.Module, values: Tensor) -> Tensor:
        return times(6)(layer, values) if (layer(values) > 0).any() else values + layer(values)

    def asserting(layer: nn.Module, values: Tensor) -> Tensor:
        values = times(6)(layer, values)
        assert (values > -2).all()
        return values

    for way in (more_where_some, asserting):
        trace = traced(way)
        assert trace.peak_bytes >= traced(times(6)).peak_bytes
        assert said(trace) == ["a mask keeps everything"]


@pytest.mark.parametrize(
    "draw",
    [
        lambda: 1 + 5 * (random.random() < 0.5),
        lambda: 1 + 5 * (random.random() > 0.5),
        lambda: random.randint(1, 6),
        lambda: random.randrange(1, 7),
        lambda: random.choice([2, 6, 4]),
        lambda: int(random.uniform(6, 1)),
        lambda: 1 + int(5 * random.betavariate(1, 1) + 0.1),
        lambda: 1 + 5 * (np.random.rand() < 0.5),
        lambda: int(np.random.uniform(1, 6.99)),
        lambda: int(np.random.randint(1, 7)),
        lambda: int(np.random.choice([6, 3])),
        lambda: 1 + int(5 * np.random.beta(1, 1) + 0.1),
        lambda: int(torch.randint(1, 7, (1,))),
        lambda: 1 + int(torch.randint(6, (1,))),
        lambda: 1 + 5 * (torch.rand(1).item() < 0.5),
    ],
)
def test_what_a_number_drawn_on_the_host_decides_is_predicted_at_its_largest(draw: Callable[[], int]) -> None:
    def way(layer: nn.Module, values: Tensor) -> Tensor:
        return times(draw())(layer, values)

    trace = traced(way)
    assert trace.peak_bytes == traced(times(6)).peak_bytes
    assert len(trace.assumptions) == 1


@pytest.mark.parametrize(
    "draw",
    [
        lambda _: int(np.random.choice([6, 3]).item()),
        lambda _: np.random.randint(6, 7, dtype=np.int64).item(),
        lambda _: random.randrange(6 - 2**40, 7),
        lambda _: random.choice(range(6 - 2**40, 7)),
        lambda _: min(6, int(np.random.choice(2**40))),
        lambda values: len(random.choice([values[:6], values[:6] + 1])),
        lambda values: len(random.choice([(values[:6], 0), (values[:6] + 1, 1)])[0]),
        lambda _: len(random.choice([np.zeros(6), np.ones(6)])),
        lambda _: random.choice(seq=[6, (2, 3)]) if random.betavariate(alpha=1, beta=1) < 2 else 0,
    ],
)
def test_what_is_drawn_may_be_anything_that_python_and_numpy_draw_from(draw: Callable[[Tensor], int]) -> None:
    def way(layer: nn.Module, values: Tensor) -> Tensor:
        count = draw(values)
        return times(count if count == 6 else 1)(layer, values)

    assert traced(way).peak_bytes >= traced(times(6)).peak_bytes


def test_a_number_drawn_on_the_card_decides_in_the_same_way() -> None:
    trace = traced(lambda layer, values: times(6 if torch.rand(1, device=values.device) < 0.5 else 1)(layer, values))
    assert trace.peak_bytes >= traced(times(6)).peak_bytes


def test_numbers_drawn_that_make_no_difference_to_memory_are_not_told() -> None:
    trace = traced(lambda layer, values: layer(values.roll(random.randint(0, 5), 0) * np.random.uniform(0.5, 2)))
    assert trace.assumptions == []


def test_a_step_that_draws_until_it_likes_what_it_got_ends() -> None:
    def choosy(layer: nn.Module, values: Tensor) -> Tensor:
        while not 0.2 < random.random() < 0.8:
            pass
        return layer(values)

    assert traced(choosy).peak_bytes == traced(lambda layer, values: layer(values)).peak_bytes


def iterated(layer: nn.Module, values: Tensor) -> Tensor:
    state = torch.zeros_like(values)
    with torch.no_grad():
        while True:
            before, state = state, (layer(state) + values).tanh()
            if (state - before).norm() < 1e-3:
                break
    return layer(state)


def iterated_while(layer: nn.Module, values: Tensor) -> Tensor:
    state, apart = torch.zeros_like(values), 1.0
    with torch.no_grad():
        while apart > 1e-3:
            before, state = state, (layer(state) + values).tanh()
            apart = (state - before).abs().max().item()
    return layer(state)


def iterated_for(layer: nn.Module, values: Tensor) -> Tensor:
    state = torch.zeros_like(values)
    with torch.no_grad():
        for _ in itertools.count():
            before, state = state, (layer(state) + values).tanh()
            if torch.dist(state, before) < 1e-3:
                break
    return layer(state)


@pytest.mark.parametrize("way", [iterated, iterated_while, iterated_for])
def test_an_iteration_that_keeps_nothing_ends_and_is_predicted(way: Callable[[nn.Module, Tensor], Tensor]) -> None:
    trace = traced(way, samples=8)
    assert "a loop that a value of the card ends holds no more in later rounds" in said(trace)


def test_an_iteration_that_keeps_each_round_is_refused_with_its_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rounds, "_MOST_ROUNDS", 80)

    def endless(layer: nn.Module, values: Tensor) -> Tensor:
        values = layer(values)
        while values.norm() > 1e-3:
            values = layer(values).tanh()
        return values

    with pytest.raises(VramfitError, match=r"test_undecided\.py:\d+ ends by a value .* bound its rounds"):
        traced(endless, samples=2)


def test_a_loop_that_keeps_little_of_much_in_each_round_is_refused_too(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rounds, "_MOST_ROUNDS", 80)

    def keeping(layer: nn.Module, values: Tensor) -> Tensor:
        values, kept = layer(values), [torch.zeros(1 << 20, device=values.device)]
        state = values.detach()
        while state.norm() > 1e-3:
            kept.append(state.new_zeros(256))
            state = state * 0.5
        return values

    with pytest.raises(VramfitError, match="holds more in each round"):
        traced(keeping, samples=2)


def test_a_way_whose_memory_no_number_bounds_is_named_where_it_is_left_out() -> None:
    def sized(layer: nn.Module, values: Tensor) -> Tensor:
        values = layer(values)
        if (values > 0).all():
            return values
        return values + torch.zeros(1000 * int(values.sum()), device=values.device).sum()

    assert any("the other way, which is not predicted" in line for line in traced(sized, samples=2).assumptions)


def test_rounds_of_a_loop_are_counted_anew_in_each_call() -> None:
    def bounded(layer: nn.Module, values: Tensor) -> Tensor:
        values, rounds = layer(values), 0
        while rounds < 50 and values.norm() > 1e-3:
            values, rounds = values * 0.5, rounds + 1
        assert rounds == 50
        return values

    class Four(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.parts = nn.ModuleList(Repeated(bounded) for _ in range(4))

        def forward(self, values: Tensor) -> Tensor:
            for part in self.parts:
                values = part(values)
            return values

    def batch(samples: int) -> tuple[Tensor, Tensor]:
        return torch.zeros(samples, WIDTH), torch.zeros(samples, dtype=torch.long)

    job = Job(model=Four, batch=batch, loss=F.cross_entropy, optimizer=torch.optim.SGD, amp=None)
    assert not any("holds no more in later rounds" in line for line in trace_step(job, 2).assumptions)


def test_a_loop_that_calls_for_a_prediction_is_none_of_the_step() -> None:
    def deep(layer: nn.Module, values: Tensor) -> Tensor:
        blocks = nn.Sequential(*[Repeated(lambda _, rows: flagged(layer, rows))] * 70)
        with torch.no_grad():
            values = blocks(values)
        return layer(values)

    def flagged(layer: nn.Module, values: Tensor) -> Tensor:
        values = layer(values)
        return values * 2 if (values > 0).all() else values

    waiting = True
    while waiting:
        assert said(traced(deep, samples=2)) == ["a mask keeps everything"]
        waiting = False


def test_nested_tensors_are_traced_as_their_parts() -> None:
    def nested(layer: nn.Module, values: Tensor) -> Tensor:
        offsets = torch.tensor([0, 3, 8], device=values.device)
        found = layer(torch.nested.nested_tensor_from_jagged(values[:8], offsets)).tanh()
        return found.values()

    def plain(layer: nn.Module, values: Tensor) -> Tensor:
        return layer(values[:8]).tanh()

    def batch(samples: int) -> tuple[Tensor, Tensor]:
        return torch.zeros(samples, WIDTH), torch.zeros(samples, dtype=torch.long)

    peaks = [
        trace_step(
            Job(model=partial(Repeated, way), batch=batch, loss=F.cross_entropy, optimizer=torch.optim.SGD, amp=None), 8
        ).peak_bytes
        for way in (nested, plain)
    ]
    assert peaks[1] <= peaks[0] <= peaks[1] + 1024


def test_a_flag_that_would_make_a_step_fail_is_the_other_way_round() -> None:
    def checking(layer: nn.Module, values: Tensor) -> Tensor:
        values = layer(values)
        if (values < -9).any():
            raise ValueError("negative")
        assert (values > -9).all()
        if torch.any(values > 9):
            raise ValueError("positive")
        return values

    trace = traced(checking)
    assert said(trace).count("a flag read from the card is what lets the step go on, or hold more") == 2


def test_losses_that_check_what_they_are_given_are_traced() -> None:
    def loss(outputs: Tensor, targets: Tensor) -> Tensor:
        return F.gaussian_nll_loss(outputs[:, 0], targets.float(), F.softplus(outputs[:, 1]))

    def batch(samples: int) -> tuple[Tensor, Tensor]:
        return torch.zeros(samples, WIDTH), torch.zeros(samples, dtype=torch.long)

    job = Job(model=lambda: nn.Linear(WIDTH, 2), batch=batch, loss=loss, optimizer=torch.optim.SGD, amp=None)
    assert trace_step(job, 4).peak_bytes


def test_what_fails_either_way_is_refused_as_before() -> None:
    def failing(layer: nn.Module, values: Tensor) -> Tensor:
        values = layer(values)
        if (values > 0).any():
            raise ValueError("first")
        raise ValueError("second")

    with pytest.raises(VramfitError, match="first"):
        traced(failing)
