"""Networks that learn their shapes from the first batch: predicted, trained and averaged as any other."""

import pytest
import small_runs as small
import torch
from torch import nn

from vramfit.jobs.job import empty_model
from vramfit.jobs.step import Step
from vramfit.prediction.tracing.trace import trace_step


def lazy():
    return nn.Sequential(nn.LazyLinear(8), nn.LazyBatchNorm1d(), nn.Tanh(), nn.LazyLinear(1)).double()


def known():
    return nn.Sequential(nn.Linear(small.FEATURES, 8), nn.BatchNorm1d(8), nn.Tanh(), nn.Linear(8, 1)).double()


def test_a_lazy_network_is_traced_as_the_one_it_becomes():
    mine, theirs = (trace_step(small.job(model=model), 4).peak_bytes for model in (lazy, known))
    assert mine == theirs > 0


def test_a_lazy_network_trains_with_an_average_and_its_statistics_are_untouched():
    step = Step(small.job(model=lazy, ema_decay=0.9), "cpu")
    assert torch.equal(step.model[1].running_mean, torch.zeros(8, dtype=torch.float64))
    before = step.model[0].weight.detach().clone()
    step.train(small.batch(4), 4)
    assert not torch.equal(step.model[0].weight, before)
    assert step.model.training


def test_a_lazy_network_without_memory_knows_its_shapes():
    shapes = [tuple(value.shape) for value in empty_model(small.job(model=lazy)).parameters()]
    assert shapes == [tuple(value.shape) for value in known().parameters()]


class Mixed(nn.Module):
    """A first layer that may learn its shape, and a layer whose kernels on a card are others than on a CPU."""

    def __init__(self, first, then):
        super().__init__()
        self.first, self.then, self.last = first(), then(), nn.Linear(8, 1)

    def forward(self, values):
        found = self.then(self.first(values)[:, None])
        return self.last((found[0] if isinstance(found, tuple) else found)[:, 0])


@pytest.mark.parametrize(
    "then",
    [
        lambda: nn.LSTM(8, 8, batch_first=True),
        lambda: nn.GRU(8, 8, batch_first=True),
        lambda: nn.TransformerEncoderLayer(8, 2, 16, batch_first=True),
        lambda: nn.RMSNorm(8),
        lambda: nn.Sequential(nn.Linear(8, 1024), nn.LSTM(1024, 8, batch_first=True)),
    ],
)
def test_what_learns_its_shape_may_stand_before_layers_of_a_cards_own_kernels(then):
    def peak(first):
        model = lambda: Mixed(first, then).double()  # noqa: E731  # a job's factory
        return trace_step(small.job(model=model), 4).peak_bytes

    assert peak(lambda: nn.LazyLinear(8)) == peak(lambda: nn.Linear(small.FEATURES, 8)) > 0
