"""A number that only a card has decides: what takes most memory is traced, and a size without a bound is refused."""

from collections.abc import Callable
from functools import partial

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from vramfit.choices import ValuePolicy
from vramfit.errors import NotTraceable
from vramfit.jobs.job import Job
from vramfit.prediction.trace_records import Trace
from vramfit.prediction.tracing.trace import trace_step

WIDTH, LAYERS = 64, 6


class Deciding(nn.Module):
    """Runs what `body` does with its layers and its input."""

    def __init__(self, body: Callable[[nn.ModuleList, Tensor], Tensor]) -> None:
        super().__init__()
        self.layers = nn.ModuleList(nn.Linear(WIDTH, WIDTH) for _ in range(LAYERS))
        self.body = body

    def forward(self, values: Tensor) -> Tensor:
        return self.body(self.layers, values)


def traced(body: Callable[[nn.ModuleList, Tensor], Tensor], policy: ValuePolicy | None = None) -> Trace:
    def batch(samples: int) -> tuple[Tensor, Tensor]:
        return torch.randn(samples, WIDTH), torch.randint(10, (samples,))

    job = Job(model=partial(Deciding, body), batch=batch, loss=F.cross_entropy, optimizer=torch.optim.SGD, amp=None)
    return trace_step(job, 32, policy=policy or ValuePolicy())


def all_layers(layers: nn.ModuleList, values: Tensor) -> Tensor:
    for layer in layers:
        values = layer(values)
    return values


def until(stops: Callable[[Tensor], bool], layers: nn.ModuleList, values: Tensor) -> Tensor:
    for layer in layers:
        values = layer(values)
        if stops(values):
            break
    return values


def stretched(length: Callable[[Tensor], int], layers: nn.ModuleList, values: Tensor) -> Tensor:
    """To a length that a network finds, as sequences are padded to their longest."""
    longest = max(1, length(layers[0](values).detach()))
    return layers[1](values[:, None].expand(-1, longest, -1)).relu().mean(1)


@pytest.mark.parametrize(
    "stops",
    [
        lambda x: x.softmax(-1).max().item() > 0.5,
        lambda x: x.abs().mean().item() < 0.9,
        lambda x: float(x.detach().mean()) == 0,
        lambda x: bool(x.norm() < 1e-3),
    ],
)
def test_a_step_that_may_end_early_is_traced_to_its_end(stops) -> None:
    assert traced(partial(until, stops)).peak_bytes >= traced(all_layers).peak_bytes


def test_what_the_number_was_taken_to_be_is_said_with_the_line_that_reads_it() -> None:
    (said,) = traced(partial(until, lambda x: x.softmax(-1).max().item() > 0.5)).assumptions
    assert said.startswith("test_unknown_numbers.py:")
    assert said.endswith(": a number read from the card is 0")


def test_a_size_without_a_bound_is_refused_with_its_line() -> None:
    body = partial(stretched, lambda x: int(x.abs().sum(1).max()))
    with pytest.raises(NotTraceable, match=r"read at test_unknown_numbers\.py:\d+, is 64 and not 1; bound it"):
        traced(body)
    assert traced(body, ValuePolicy(real=True)).peak_bytes > traced(all_layers).peak_bytes


def test_a_size_with_a_bound_is_predicted_at_it() -> None:
    bounded = traced(partial(stretched, lambda x: int(x.abs().sum(1).long().clamp(1, 50).max())))
    known = traced(partial(stretched, lambda _: 50))
    assert bounded.peak_bytes == pytest.approx(known.peak_bytes, rel=0.001)


def test_a_number_that_only_weighs_a_loss_changes_nothing() -> None:
    def weighed(layers: nn.ModuleList, values: Tensor) -> Tensor:
        values = all_layers(layers, values)
        return values * max(1.0, values.detach().sum().item())

    trace = traced(weighed)
    assert trace.peak_bytes == pytest.approx(traced(all_layers).peak_bytes, rel=0.1)
    assert trace.assumptions[0].endswith("a number read from the card is 1")
