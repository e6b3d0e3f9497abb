"""LBFGS, which asks for the loss several times in each step: trained as in a loop of one's own, and predicted."""

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from vramfit.errors import UsageError
from vramfit.jobs.job import Job
from vramfit.jobs.step import Step
from vramfit.prediction.tracing.trace import trace_step

WEIGHTS = 8 * 16 + 16 + 16 * 4 + 4


def network():
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(8, 16), nn.Tanh(), nn.Linear(16, 4)).double()


def batch(count):
    generator = torch.Generator().manual_seed(1)
    return torch.randn(count, 8, generator=generator).double(), torch.arange(count) % 4


def job(optimizer=torch.optim.LBFGS, **changes):
    made = {"model": network, "batch": batch, "loss": F.cross_entropy, "optimizer": optimizer, "amp": None}
    return Job(**{**made, **changes})


def trained_by_hand(steps):
    model = network()
    optimizer = torch.optim.LBFGS(model.parameters())
    inputs, targets = batch(6)

    def closure():
        optimizer.zero_grad()
        loss = F.cross_entropy(model(inputs), targets)
        loss.backward()
        return loss

    for _ in range(steps):
        optimizer.step(closure)
    return model


@pytest.mark.parametrize("micro_batch", [6, 2])
def test_it_trains_as_in_a_loop_of_one_s_own(micro_batch):
    step, expected = Step(job(), "cpu"), trained_by_hand(3)
    for _ in range(3):
        step.train(batch(6), micro_batch)
    for mine, theirs in zip(step.model.parameters(), expected.parameters(), strict=True):
        torch.testing.assert_close(mine, theirs, rtol=1e-7, atol=1e-9)


def test_every_evaluation_is_clipped():
    norms = []
    step = Step(job(clip_norm=1e-3), "cpu")
    plain = step.closure

    class Noting:
        def __call__(self):
            loss = plain()
            norms.append(float(torch.cat([one.grad.flatten() for one in step.model.parameters()]).norm()))
            return loss

    step.backward(batch(6), 6)
    step.clip(step.optimizer, step.model.parameters())
    step.optimizer.step(Noting())
    assert len(norms) > 1
    assert max(norms) < 1.001e-3


@pytest.mark.parametrize("search", [None, "strong_wolfe"])
def test_a_prediction_has_the_whole_history(search):
    def optimizer(parameters):
        return torch.optim.LBFGS(parameters, history_size=7, line_search_fn=search)

    trace = trace_step(job(optimizer), 4, validation=False)
    kept = [one for one in trace.storages if one.kind == "optimizer state" and one.size_bytes == 8 * WEIGHTS]
    assert len(kept) >= 2 * 7 + 2
    assert trace.peak_bytes > 8 * WEIGHTS * (2 * 7 + 2 + 1)
    assert any("LBFGS keeps 7 past iterations" in line for line in trace.assumptions)


def test_it_is_alone_and_without_a_scaler():
    with pytest.raises(UsageError, match="has to be the only optimizer"):
        Step(job({"0": torch.optim.LBFGS, "2": torch.optim.SGD}), "cpu")
    with pytest.raises(UsageError, match="fp16's scaler gives it once"):
        trace_step(job(amp="fp16"), 4)
    with pytest.raises(UsageError, match="a step of its own"):
        Step(job(step=lambda run, batch: None), "cpu")
