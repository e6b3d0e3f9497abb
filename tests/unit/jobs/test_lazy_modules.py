"""Networks that learn their shapes from the first batch: predicted, trained and averaged as any other."""

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
